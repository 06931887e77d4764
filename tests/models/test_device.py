"""Which device and precision a command runs with, and what is said where they are not there."""

import subprocess
import sys

import pytest
import torch

from xray.errors import InputError
from xray.models.device import (
    bfloat16_gain,
    has_amx,
    has_bfloat16,
    inference_precision,
    largest_batch,
    lightning_precision,
    resolve_device,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_without_a_gpu(no_gpu):
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(InputError, match="PyTorch sees no CUDA GPU here: use --device cpu"):
        resolve_device("cuda")


def test_with_two_gpus(two_gpus):
    assert resolve_device("auto") == resolve_device("cuda") == GPU
    assert resolve_device("cuda:1").index == 1
    assert resolve_device("cpu") == CPU
    with pytest.raises(InputError, match="--device cuda:2, but there are 2 GPUs"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "unknown: use auto, cpu or cuda; did you mean cuda[?]"), ("mps", "not supported"), ("", "unknown")],
)
def test_other_devices_are_refused(device, message):
    with pytest.raises(InputError, match=message):
        resolve_device(device)


@pytest.mark.parametrize(
    ("precision", "device", "has_bf16", "expected"),
    [
        ("auto", CPU, True, "32-true"),
        ("auto", GPU, True, "bf16-mixed"),
        ("auto", GPU, False, "32-true"),
        ("bf16", CPU, False, "bf16-mixed"),
        ("16", GPU, True, "16-mixed"),
        ("32", GPU, True, "32-true"),
    ],
)
def test_precision(monkeypatch, precision, device, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    assert lightning_precision(precision, device) == expected


def test_half_precision_needs_a_gpu():
    for choose in (lightning_precision, inference_precision):
        with pytest.raises(InputError, match="--precision 16 needs a GPU"):
            choose("16", CPU)


@pytest.mark.parametrize(
    ("precision", "device", "has_bf16", "expected"),
    [
        ("auto", CPU, True, None),
        ("auto", CPU, False, torch.float32),
        ("auto", GPU, True, torch.bfloat16),
        ("auto", GPU, False, torch.float32),
        ("bf16", CPU, False, torch.bfloat16),
        ("16", GPU, True, torch.float16),
        ("32", GPU, True, torch.float32),
    ],
)
def test_precision_of_inference(monkeypatch, precision, device, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    monkeypatch.setattr("xray.models.device.has_bfloat16", lambda: has_bf16)
    assert inference_precision(precision, device) == expected


@pytest.mark.parametrize(
    ("limit", "bfloat16", "amx"),
    [
        ("", True, True),
        ("DEFAULT", True, True),
        ("AVX512_CORE_AMX", True, True),
        ("AVX10_1_512_AMX_FP16", True, True),
        ("AVX512_CORE_BF16", True, False),
        ("AVX2_VNNI_2", True, False),
        ("AVX512_CORE_VNNI", False, False),
        ("avx2", False, False),
        ("of a later version", True, True),
    ],
)
def test_a_limit_of_instructions_counts(monkeypatch, limit, bfloat16, amx):
    """PyTorch tells what the processor has; oneDNN, which computes, keeps to the limit."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert (has_bfloat16(), has_amx()) == (bfloat16, amx)
    # The older name counts where the newer one says nothing.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)
    assert (has_bfloat16(), has_amx()) == (bfloat16, amx)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    assert (has_bfloat16(), has_amx()) == (True, True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert (has_bfloat16(), has_amx()) == (bfloat16, False)


def test_the_gain_of_bfloat16_is_a_ratio_of_times():
    assert 0.05 < bfloat16_gain(2) < 20


@pytest.mark.parametrize(("room", "expected"), [(0, 1), (1, 1), (2, 2), (3, 2), (16, 16), (50, 32), (1000, 64)])
def test_the_largest_batch_that_fits(room, expected):
    tried = []

    def attempt(size):
        tried.append(size)
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_batch(attempt) == expected
    assert sum(size > room for size in tried) <= 1
    with pytest.raises(ZeroDivisionError):
        largest_batch(lambda size: 1 / 0)


FAULTS = """
import resource, torch
from xray.models.device import keep_freed_memory
assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(64):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of GNU's C library")
def test_freed_memory_is_kept():
    # In a process of its own: where the memory of one that did much lies free is chance.
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    # 64 MiB are 16,384 pages of 4 KiB. The first few are new (how many is chance: 4 to 8 were seen), not all 64.
    assert int(done.stdout) < 32 * 16_384
