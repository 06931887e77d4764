"""Canvases and masks on the device, gathered there, and training that takes them from it: the same as from the file."""

import copy

import numpy as np
import pytest
import safetensors.torch
import torch

from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.training import device_store
from xray.training.config import DetectionConfig
from xray.training.device_store import DeviceStore, where_to_store

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("at_a_time", [1, 3 * 64 * 64, 2**26])
def test_canvases_come_by_row(side_store, monkeypatch, at_a_time):
    monkeypatch.setattr(device_store, "AT_A_TIME", at_a_time)
    store = open_store(side_store)
    kept = np.array([9, 2, 3, 11, 2, 0, 13, 5])
    found = DeviceStore(store, kept, CPU)
    assert found.nbytes == 7 * 64 * 64
    rows = np.array([13, 0, 2, 2, 9])
    images = found.images(torch.from_numpy(rows))
    assert images.shape == (5, 1, 64, 64)
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images[:, 0].numpy(), store.images[rows])
    with pytest.raises(IndexError):
        found.images(torch.tensor([1]))
    assert copy.deepcopy(found) is found


@pytest.mark.parametrize("size", [64, 70])
def test_masks_come_by_row(mask_source, tmp_path, size, monkeypatch):
    monkeypatch.setattr(device_store, "AT_A_TIME", 1500)
    convert("siim", mask_source, tmp_path / "data", image_size=size, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "data")
    rows = np.arange(len(store))
    found = DeviceStore(store, rows, CPU, masks=True)
    # Half of the radiographs have a mask; an empty one serves all others.
    assert found.nbytes == 16 * size * size + 9 * size * -(-size // 8)
    masks = found.masks(torch.from_numpy(rows[::-1].copy()))
    assert masks.dtype == torch.uint8
    expected = np.stack([mask_canvas(store, row) for row in rows[::-1].tolist()])
    np.testing.assert_array_equal(masks.numpy(), expected)
    assert expected.any(axis=(1, 2, 3)).sum() == 8
    part = DeviceStore(store, rows[5:9], CPU, masks=True)
    np.testing.assert_array_equal(part.masks(torch.tensor([7, 6])).numpy(), expected[[8, 9]])


def test_where_canvases_are_put():
    assert where_to_store("cpu", CPU) is where_to_store("cpu", GPU) is None
    assert where_to_store("cuda", GPU) == GPU
    with pytest.raises(InputError, match="--store-device cuda, but training runs on the cpu: use --store-device cpu"):
        where_to_store("cuda", CPU)


def test_canvases_that_do_not_fit_are_refused_with_the_numbers(side_store, monkeypatch):
    store = open_store(side_store)
    needed, gib = 14 * 64 * 64, 2**30
    for free, total, fits in (
        (24 * gib, 24 * gib, True),
        (12 * gib + needed, 24 * gib, True),
        (12 * gib + needed - 1, 24 * gib, False),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, memory=(free, total): memory)
        if fits:
            device_store.check_memory(store, np.arange(14), GPU, masks=False)
            continue
        message = (
            "^--store-device cuda: 14 canvases of 64 pixels take 0.0 GiB; of the GPU's 24.0 GiB 12.0 are free and 12.0 "
            "are kept for the model: use --store-device cpu, or convert with a smaller --image-size$"
        )
        with pytest.raises(InputError, match=message):
            device_store.check_memory(store, np.arange(14), GPU, masks=False)
        # Nothing was put anywhere before that was known.
        with pytest.raises(InputError, match=message):
            DeviceStore(store, np.arange(14), GPU)


def test_workers_cannot_change_what_they_do_not_see():
    with pytest.raises(FlagError, match="--augment-on is workers: it must be auto or device with --store-device cuda"):
        DetectionConfig(augment_on="workers", store_device="cuda").check()
    for augment_on in ("auto", "device"):
        DetectionConfig(augment_on=augment_on, store_device="cuda").check()


def test_a_training_that_cannot_store_there_writes_nothing(side_store, train_tiny, tmp_path):
    with pytest.raises(InputError, match="--store-device cuda, but training runs on the cpu"):
        train_tiny(side_store, tmp_path / "run", "--store-device", "cuda")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def cpu_serves_as_gpu(monkeypatch):
    """Lets `--store-device cuda` keep the canvases in tensors on the CPU."""
    import xray.training.tasks.base as module

    monkeypatch.setattr(module, "where_to_store", lambda wanted, device: device if wanted == "cuda" else None)


@pytest.mark.parametrize("augment", ["none", "strong"])
def test_a_detector_trains_the_same_on_canvases_from_the_device(
    side_store, train_tiny, tmp_path, cpu_serves_as_gpu, augment
):
    flags = ("--augment-on", "device", "--augment", augment, "--ema")
    for store_device, n_workers in (("cpu", 2), ("cuda", 0)):
        train_tiny(
            side_store, tmp_path / store_device, *flags, "--store-device", store_device, "--n-workers", n_workers
        )
    states = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("cpu", "cuda")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    predictions = [tmp_path / name / "validation" / "predictions.json" for name in ("cpu", "cuda")]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()


def test_a_segmenter_trains_the_same_on_masks_from_the_device(mask_store, train_masks, tmp_path, cpu_serves_as_gpu):
    flags = ("--augment-on", "device", "--augment", "light")
    for store_device in ("cpu", "cuda"):
        train_masks(mask_store, tmp_path / store_device, *flags, "--store-device", store_device)
    states = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("cpu", "cuda")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("flags", "kind", "expected"),
    [
        ({}, "cpu", False),
        ({}, "cuda", True),
        ({"augment_on": "workers"}, "cuda", False),
        ({"augment_on": "device"}, "cpu", True),
        ({"store_device": "cuda"}, "cuda", True),
    ],
)
def test_where_batches_are_augmented(side_store, flags, kind, expected):
    from types import SimpleNamespace

    from xray.training.tasks.detection import DetectionTask

    config = DetectionConfig(backbone="mobilenet_v2", weights="none", fpn_channels=16, **flags)
    task = DetectionTask(config, open_store(side_store))
    task._trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)), world_size=1)
    task._jit_is_scripting = False
    assert task.augments_on_device is expected
    assert task.training_options() == {"later": expected, "pixels": True}
