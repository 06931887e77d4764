"""What is noted of each round of a training, and how close two trainings' losses are."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from benchmarks.harness import Clock, Timing, refuse
from benchmarks.peers import (
    PeakMemory,
    synchronize,
)

DRAWS = 8
"""Passes whose losses are averaged: each samples other anchors and proposals."""
LOSS_TOLERANCE = 0.05
"""Share by which the mean losses may differ, beside three standard errors of that difference."""


class Rounds(Callback):
    """Divides our training into rounds and measures them; after each, the peers have their turn.

    done: the Timing of each.
    """

    def __init__(self, n_warmup: int, n_steps: int, device: torch.device, between: Callable[[], None]) -> None:
        self.n_warmup, self.n_steps, self.device, self.between = n_warmup, n_steps, device, between
        self.done: list[Timing] = []
        self._step, self._images, self._waited, self._last = 0, 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        if self._step > self.n_warmup:
            self._waited += time.perf_counter() - self._last
        elif self._step == self.n_warmup:
            self._memory = PeakMemory(self.device, task)
            synchronize(self.device)
            self._clock = Clock()

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, out: Any, batch: Any, index: int) -> None:
        self._step += 1
        if self._step > self.n_warmup:
            self._images += len(batch["images"])
        if self._step == self.n_warmup + self.n_steps:
            synchronize(self.device)
            timing = self._clock.read(self._images)
            result = {"memory": self._memory.peak(), "waited": self._waited}
            self.done.append(dataclasses.replace(timing, result=result))
            self._step, self._images, self._waited = 0, 0, 0.0
            self.between()
        self._last = time.perf_counter()


def compare_losses(
    ours: Callable[[], Mapping[str, Tensor]], theirs: Callable[[], Mapping[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Name of each loss → by how much the means over `DRAWS` passes of both differ, and the standard error of that.

    Both are shares of the other side's mean.

    Raises InputError where that is more than chance explains, or the losses have other names.
    """
    draws: dict[str, tuple[list[float], list[float]]] = {}
    for side, function in (("ours", ours), ("theirs", theirs)):
        torch.manual_seed(0)
        for _ in range(DRAWS):
            for name, value in function().items():
                draws.setdefault(name, ([], []))[side == "theirs"].append(float(value.detach()))
    differences: dict[str, dict[str, float]] = {}
    for name, (of_ours, of_theirs) in draws.items():
        if len(of_ours) != len(of_theirs):
            raise refuse(f"{name} is a loss of one of them alone")
        first, second = np.array(of_ours), np.array(of_theirs)
        difference = abs(first.mean() - second.mean())
        error = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / DRAWS)
        if not difference <= LOSS_TOLERANCE * abs(second.mean()) + 3 * error:
            raise refuse(f"{name} is {first.mean():.4g} for ours and {second.mean():.4g} for torchvision")
        scale = abs(second.mean()) or 1.0
        differences[name] = {"difference": float(difference / scale), "standard_error": float(error / scale)}
    return differences
