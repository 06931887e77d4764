"""Training in bfloat16 keeps float32 where it counts; what `--precision auto` chooses, and that a run keeps it."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml

import xray.training.precision
from xray.commands.train import main
from xray.file_names import CONFIG_FILE
from xray.models.detection.detector import build_detector
from xray.models.kernels.convolutions import apply_norms_in_convolutions, speed_up_training
from xray.training.config import DetectionConfig
from xray.training.plan import Plan
from xray.training.precision import FEW_STEPS, choose_precision, step_gain
from xray.training.recipes import read_training_flags

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def tensors(value):
    """All tensors in nested dicts and lists, in their order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.fixture(scope="module")
def runs(side_store, train_tiny, tmp_path_factory):
    """Two epochs with momentum and a moving average: in float32, in bfloat16, and in bfloat16 with a stop between."""
    folder = tmp_path_factory.mktemp("precision")
    flags = ("--ema", "--accumulate", 2)
    float32 = train_tiny(side_store, folder / "32", "--n-epochs", 2, *flags)
    whole = train_tiny(side_store, folder / "bf16", "--n-epochs", 2, "--precision", "bf16", *flags)
    resumed = train_tiny(side_store, folder / "resumed", "--precision", "bf16", *flags)
    # Nothing is said of the precision any more.
    main(*read_training_flags(["--save-path", str(resumed), "--resume", "--n-epochs", "2"]))
    return SimpleNamespace(float32=float32, whole=whole, resumed=resumed)


def checkpoint(run):
    return torch.load(run / "last.ckpt", weights_only=True)


def test_weights_momenta_and_averages_are_float32(runs):
    saved = checkpoint(runs.whole)
    kinds = {value.dtype for value in tensors([saved["state_dict"], saved["optimizer_states"]])}
    assert torch.float32 in kinds
    assert not kinds & {torch.bfloat16, torch.float16}
    momenta = [state["momentum_buffer"] for state in saved["optimizer_states"][0]["state"].values()]
    assert momenta
    # Not just converted at the end: bfloat16 has eight binary digits.
    assert all((one != one.bfloat16().float()).any() for one in momenta if one.numel() > 64)
    weight = saved["state_dict"]["model.backbone.fpn.layer_blocks.0.0.weight"]
    assert (weight != weight.bfloat16().float()).float().mean() > 0.9


def test_steps_in_bfloat16_are_near_those_in_float32(runs):
    one, other = (checkpoint(run)["state_dict"] for run in (runs.float32, runs.whole))
    assert one.keys() == other.keys()
    different = 0
    for name, value in one.items():
        if value.is_floating_point() and "running" not in name and value.ndim > 1:
            assert (other[name] - value).norm() < 0.05 * value.norm(), name
            different += not torch.equal(other[name], value)
    assert different > 10


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_gradients_are_as_near_those_in_float32_as_of_torchvisions_layers(norm):
    """In a network of random weights small errors grow, whoever rounds."""
    torch.manual_seed(0)
    plain = build_detector(2, 128, "resnet18", norm=norm, fpn_channels=128, trainable_layers=3).train()
    plain.to(memory_format=torch.channels_last)
    ours = copy.deepcopy(plain)
    apply_norms_in_convolutions(ours)
    speed_up_training(ours)
    pixels = torch.randn(2, 3, 128, 128)
    slopes = [torch.randn(2, 128, side, side) for side in (32, 16, 8, 4, 2)]

    def gradients(detector, dtype):
        detector.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            maps = detector.backbone(pixels).values()
        assert {one.dtype for one in maps} == {dtype}
        sum((one.float() * slope).mean() for one, slope in zip(maps, slopes, strict=True)).backward()
        found = {name: one.grad.clone() for name, one in detector.named_parameters() if one.grad is not None}
        assert {one.dtype for one in found.values()} == {torch.float32}
        # Frozen stages have none.
        assert "backbone.body.conv1.weight" not in found
        return found

    exact = gradients(plain, torch.float32)
    errors = []
    for detector in (plain, ours):
        found = gradients(detector, torch.bfloat16)
        errors.append(sum(((found[n] - value).norm() / value.norm()).item() for n, value in exact.items()) / len(exact))
        cosines = [F.cosine_similarity(found[n].flatten(), value.flatten(), 0).item() for n, value in exact.items()]
        assert min(cosines) > 0.85
    assert errors[1] < 1.3 * errors[0]


def test_a_resumed_run_keeps_its_precision_and_its_bits(runs):
    assert yaml.safe_load((runs.resumed / CONFIG_FILE).read_text())["precision"] == "bf16"
    one, other = checkpoint(runs.whole), checkpoint(runs.resumed)
    for left, right in zip(
        tensors([one["state_dict"], one["optimizer_states"]]),
        tensors([other["state_dict"], other["optimizer_states"]]),
        strict=True,
    ):
        assert torch.equal(left, right)


def task_of(precision="auto", n_rows=1000, canvas_size=64, **flags):
    config = dataclasses.replace(DetectionConfig(), precision=precision, n_epochs=10, batch_size=4, **flags)
    store = SimpleNamespace(canvas_size=canvas_size)
    return SimpleNamespace(plan=Plan(config), config=config, train_rows=range(n_rows), store=store, model=None)


@pytest.mark.parametrize(
    ("machine", "flags", "expected", "reason"),
    [
        ({"bfloat16": False}, {}, "32", "PyTorch has no bfloat16 on this processor"),
        ({"amx": True}, {}, "bf16", "this processor has AMX"),
        ({"amx": True}, {"n_rows": 70}, "32", f"fewer than {FEW_STEPS} steps"),
        ({"amx": True}, {"accumulate": 20}, "32", f"fewer than {FEW_STEPS} steps"),
        ({"gain": 1.4}, {}, "bf16", "it makes steps of this network faster on this processor"),
        ({"gain": 1.1}, {}, "32", "bfloat16 makes steps of this network little faster on this processor, or none"),
        ({"gain": 1.4}, {"devices": 2}, "32", "several processes would each make a trial, and might not agree"),
        ({"amx": True}, {"devices": 2}, "bf16", "this processor has AMX"),
        ({"amx": True}, {"precision": "32"}, "32", None),
        ({}, {"precision": "bf16"}, "bf16", None),
    ],
)
def test_what_auto_chooses_on_a_cpu(monkeypatch, machine, flags, expected, reason):
    monkeypatch.setattr(xray.training.precision, "has_bfloat16", lambda: machine.get("bfloat16", True))
    monkeypatch.setattr(xray.training.precision, "has_amx", lambda: machine.get("amx", False))
    tried = []
    monkeypatch.setattr(xray.training.precision, "step_gain", lambda *args: tried.append(args) or machine["gain"])
    task = task_of(**flags)
    choose_precision(task, CPU)
    assert task.config.precision == task.plan.config.precision == expected
    assert task.plan.lines() == ([f"--precision {expected}: {reason}"] if reason else [])
    assert len(tried) == ("gain" in machine and "devices" not in flags)


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bf16"), (False, "32")])
def test_what_auto_chooses_on_a_gpu(monkeypatch, has_it, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_it)
    task = task_of(n_rows=4)
    choose_precision(task, GPU)
    assert task.config.precision == expected


def test_a_trial_leaves_no_trace():
    torch.manual_seed(0)
    model = build_detector(2, 64, "mobilenet_v2", norm="batch", fpn_channels=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    assert 0.02 < step_gain(model, torch.zeros((2, 1, 64, 64), dtype=torch.uint8)) < 50
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_choice_is_kept_with_its_reason(side_store, train_tiny, tmp_path):
    run = train_tiny(side_store, tmp_path / "run", "--precision", "auto")
    config = yaml.safe_load((run / CONFIG_FILE).read_text())
    assert config["precision"] == "32"
    assert any(line.startswith("--precision 32: ") for line in config["chosen"])
