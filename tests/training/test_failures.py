"""A training that fails says in one line what happened and which flag helps."""

import errno
import os
import signal
import time

import pytest
import torch
from conftest import CLASSIFICATION_FLAGS

import xray.training.loaders as loaders
import xray.training.loading as datasets
from xray.commands.runner import run_command
from xray.commands.train import main
from xray.training.config import ClassificationConfig, DetectionConfig
from xray.training.failures import explain
from xray.training.recipes import read_training_flags
from xray.training.tasks.classification import ClassificationTask

SMALL = (
    *CLASSIFICATION_FLAGS, "--network", "test_resnet", "--batch-size", "2", "--n-epochs", "1", "--n-pictures", "0",
)  # fmt: skip


@pytest.fixture
def fails(capsys, side_store, tmp_path):
    """(flags) → the one line on stderr of a training that ends with status 1."""

    def train(*flags):
        args = [*SMALL, "--data-path", str(side_store), "--save-path", str(tmp_path / "run"), *map(str, flags)]
        assert run_command(lambda: main(*read_training_flags(args))) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert "unexpected" not in line
        return line

    return train


def chained(outer, inner):
    outer.__context__ = inner
    return outer


DETECTION = DetectionConfig(
    batch_size=8, precision="32", save_path="runs/one", n_workers=4, roi_samples=512, proposals=2000
)


@pytest.mark.parametrize(
    ("error", "config", "validating", "expected"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            DETECTION,
            False,
            "the GPU ran out of memory in a training step: lower --batch-size from 8 to 4 (with --accumulate 2 it "
            "learns the same), or use --precision bf16, or lower --roi-samples from 512 or --proposals from 2000, or "
            "convert with a smaller --image-size",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            DETECTION,
            True,
            "the GPU ran out of memory in the validation: lower --batch-size from 8 to 4, or use --precision bf16, or "
            "lower --proposals from 2000, or convert with a smaller --image-size",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            ClassificationConfig(batch_size=1, precision="bf16"),
            False,
            "the GPU ran out of memory in a training step: use a smaller --network, or convert with a smaller "
            "--image-size",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
            DETECTION,
            False,
            "this machine ran out of memory: lower --batch-size from 8 to 4",
        ),
        (MemoryError(), DETECTION, False, "this machine ran out of memory: "),
        (
            RuntimeError("DataLoader worker (pid 4321) is killed by signal: Killed. "),
            DETECTION,
            False,
            "loader process 4321 has been ended by the signal Killed, most often by the system when memory runs out: "
            "lower --n-workers from 4, or free memory; continue with --resume",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 12, 34) exited unexpectedly"),
            DETECTION,
            False,
            "loader processes 12, 34 have ended, most often by the system",
        ),
        (
            RuntimeError(
                "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's workers "
                "are out of shared memory. Please try to raise your shared memory limit."
            ),
            DETECTION,
            False,
            "loader process 77 has found no more shared memory: enlarge /dev/shm (docker: --shm-size), or lower "
            "--n-workers from 4",
        ),
        (
            RuntimeError("DataLoader timed out after 600 seconds"),
            DETECTION,
            False,
            "no batch came from the 4 loader processes for 600 s: see whether the drive with --data-path still answers",
        ),
        (
            RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set"),
            DETECTION,
            False,
            "cumsum_cuda_kernel has no deterministic form on this device: train without --deterministic",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), DETECTION, False, "the disk of runs/one is full: free some"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DETECTION, False, "the disk of runs/one is full"),
        (
            Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
            DETECTION,
            False,
            "the disk of runs/one is full",
        ),
        # What fails while it is tidied up hides what happened.
        (
            chained(ValueError("closed"), OSError(errno.ENOSPC, "No space left on device")),
            DETECTION,
            False,
            "the disk of runs/one is full",
        ),
    ],
)
def test_known_failures_in_words(error, config, validating, expected):
    told = explain(error, config, validating)
    assert told.startswith(expected)
    assert "\n" not in told


def test_what_is_not_known_is_left_to_others():
    assert explain(ValueError("something else"), DETECTION, False) is None
    circle = ValueError("one")
    circle.__context__ = circle
    assert explain(circle, DETECTION, False) is None


@pytest.mark.parametrize(
    ("hook", "where"), [("training_step", "a training step"), ("validation_step", "the validation")]
)
def test_out_of_memory_says_which_flag_to_lower(fails, monkeypatch, hook, where):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ClassificationTask, hook, fail)
    line = fails()
    assert line.startswith(f"error: the GPU ran out of memory in {where}: lower --batch-size from 2 to 1")
    assert "--image-size" in line


def broken(monkeypatch, act, at=4):
    """Lets a loader's process do something where it should load its `at`th radiograph."""
    load, main_process, loaded = datasets.LabelDataset.__getitem__, os.getpid(), []

    def getitem(self, key):
        loaded.append(key)
        if os.getpid() != main_process and len(loaded) == at:
            act()
        return load(self, key)

    monkeypatch.setattr(datasets.LabelDataset, "__getitem__", getitem)


def test_a_killed_loader_is_named(fails, monkeypatch):
    broken(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    line = fails("--n-workers", 1)
    assert line.startswith("error: loader process ")
    assert "has been ended by the signal Killed" in line or "has ended" in line
    assert "lower --n-workers from 1" in line


def test_a_loader_that_fails_is_named_with_what_it_met(fails, monkeypatch):
    def fail():
        raise ValueError("row 7 has no pixels")

    broken(monkeypatch, fail)
    assert fails("--n-workers", 1) == "error: a loader process failed with ValueError: row 7 has no pixels"


@pytest.mark.slow
def test_a_loader_that_hangs_is_named(fails, monkeypatch):
    broken(monkeypatch, lambda: time.sleep(30))
    monkeypatch.setattr(loaders, "LOADER_TIMEOUT", 2.0)
    line = fails("--n-workers", 1)
    assert line.startswith("error: no batch came from the 1 loader processes for 2 s: see whether the drive")


def test_no_loader_no_timeout(side_store):
    assert loaders.make_loader([1, 2], 1, 0, None).timeout == 0
    assert loaders.make_loader([1, 2], 1, 1, None).timeout == loaders.LOADER_TIMEOUT
