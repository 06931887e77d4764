"""Parameter groups and learning-rate schedules against the formulas they implement."""

import copy
import math

import numpy as np
import pytest
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from torch import nn
from torch.optim.lr_scheduler import StepLR

from xray.training.config import DetectionConfig
from xray.training.optimizers import build_optimizer, configure


def planned(**values):
    """A config of which nothing is left to choose."""
    chosen = {
        "n_epochs": 100,
        "lr": 0.005,
        "schedule": "step",
        "step_size": 30,
        "warmup_steps": 500,
        "optimizer": "sgd",
    }
    return DetectionConfig(**chosen | values)


def small_model():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Linear(4, 3))
    model[2].requires_grad_(False)
    return model


def rates(config, n_steps, steps=None):
    """The learning rate of each optimizer step."""
    parts = configure(small_model(), config, n_steps, "map40")
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    assert parts["lr_scheduler"]["interval"] == "step"
    seen = []
    for _ in range(steps or n_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(seen)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weights_decay_and_biases_and_norms_do_not(name):
    model = small_model()
    config = planned(optimizer=name, lr=0.3, momentum=0.8, weight_decay=0.01)
    optimizer = build_optimizer(model, config)
    assert type(optimizer).__name__.lower() == name
    decaying, constant = optimizer.param_groups
    assert [id(p) for p in decaying["params"]] == [id(model[0].weight), id(model[3].weight)]
    assert decaying["weight_decay"] == 0.01
    assert [id(p) for p in constant["params"]] == [
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[3].bias)
    ]
    assert constant["weight_decay"] == 0
    assert decaying["lr"] == constant["lr"] == 0.3
    if name == "sgd":
        assert decaying["momentum"] == constant["momentum"] == 0.8


def test_a_step_of_sgd_worked_by_hand():
    model = nn.Linear(1, 1)
    model.weight.data.fill_(2.0)
    model.bias.data.fill_(1.0)
    optimizer = build_optimizer(model, planned(lr=0.1, momentum=0.9, weight_decay=0.5))
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1)).sum().backward()  # both gradients are 1
        optimizer.step()
    # weight: v = 1 + 0.5 * 2 = 2, w = 1.8; v = 0.9 * 2 + 1 + 0.5 * 1.8 = 3.7, w = 1.43.
    # bias: v = 1, b = 0.9; v = 0.9 * 1 + 1 = 1.9, b = 0.71.
    assert model.weight.item() == pytest.approx(1.43)
    assert model.bias.item() == pytest.approx(0.71)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_steps_are_the_plain_ones(name):
    torch.manual_seed(0)
    # Without a norm, before which a bias has no gradient but rounding, in which Adam would make steps.
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    models = [nn.Sequential(*layers).to(memory_format=torch.channels_last)]
    models.append(copy.deepcopy(models[0]))
    config = planned(optimizer=name, lr=0.01)
    fused, plain = (build_optimizer(model, config) for model in models)
    assert all(group["fused"] for group in fused.param_groups)
    # Lightning would refuse to clip gradients.
    assert not _optimizer_handles_unscaling(fused)
    for group in plain.param_groups:
        group["fused"] = False
    for _ in range(4):
        images = torch.randn(2, 2, 8, 8)
        for model, optimizer in zip(models, (fused, plain), strict=True):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


def test_steps_are_those_of_pytorchs_step_lr_by_epochs():
    config = planned(lr=0.8, step_size=2, gamma=0.5, warmup_steps=0, n_epochs=6)
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    scheduler = StepLR(reference, 2, 0.5)
    expected = []
    for _ in range(6):
        expected += [reference.param_groups[0]["lr"]] * 5
        reference.step()
        scheduler.step()
    np.testing.assert_allclose(rates(config, 30), expected)


def test_the_warm_up_rises_linearly_and_lasts_an_epoch_at_most():
    config = planned(lr=1.0, warmup_steps=4, n_epochs=2)
    np.testing.assert_allclose(rates(config, 20)[:6], [0.2, 0.4, 0.6, 0.8, 1, 1])
    # Five steps an epoch: 500 steps of warm-up become five.
    config = planned(lr=1.0, warmup_steps=500, n_epochs=2)
    np.testing.assert_allclose(rates(config, 10), [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1, 1, 1])


def test_a_longer_training_continues_a_shorter_one():
    short, long = (planned(n_epochs=n, step_size=1, gamma=0.5, warmup_steps=3) for n in (2, 4))
    np.testing.assert_array_equal(rates(short, 10), rates(long, 20)[:10])


def test_cosine_falls_to_nothing():
    config = planned(lr=2.0, schedule="cosine", warmup_steps=0, n_epochs=2)
    found = rates(config, 10)
    np.testing.assert_allclose(found, [1 + math.cos(math.pi * step / 10) for step in range(10)])


def test_one_cycle_rises_and_falls():
    found = rates(planned(lr=1.0, schedule="onecycle", n_epochs=4), 40)
    assert found.max() == pytest.approx(1.0, rel=1e-2)
    assert found[0] == pytest.approx(1 / 25)
    assert found[-1] < 1e-3
    assert 5 < found.argmax() < 15


def test_plateau_watches_the_metric():
    config = planned(lr=1.0, schedule="plateau", step_size=2, gamma=0.5)
    parts = configure(small_model(), config, 100, "map40")
    watch = parts["lr_scheduler"]
    assert watch["monitor"] == "map40"
    seen = []
    for score in (0.1, 0.2, 0.2, 0.1, 0.2, 0.3):
        watch["scheduler"].step(score)
        seen.append(parts["optimizer"].param_groups[0]["lr"])
    assert seen == [1, 1, 1, 1, 0.5, 0.5]
