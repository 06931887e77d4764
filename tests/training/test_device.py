"""Which device and precision a command runs with, and what is said where they are not there."""

import pytest
import torch

from xray.command import InputError
from xray.training.device import lightning_precision, resolve_device

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


@pytest.mark.parametrize(("device", "message"), [("gpu", "unknown"), ("mps", "not supported"), ("", "unknown")])
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
    with pytest.raises(InputError, match="--precision 16 needs a GPU"):
        lightning_precision("16", CPU)
