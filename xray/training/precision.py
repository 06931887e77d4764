"""Which arithmetic `--precision auto` trains in: decided once, when a run begins, and kept in its config."""

import copy
import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from xray.flags import AUTO
from xray.models.device import has_amx, has_bfloat16

FEW_STEPS = 200
"""Trainings of fewer steps stay in float32: they end soon, and a trial takes as long as several of them."""
WORTH = 1.25
"""How many times faster a step must be in bfloat16 where the processor has no AMX. ResNets gain more, networks of
narrow convolutions less."""
REPEATS = 3
MOST_RADIOGRAPHS = 2
"""Radiographs in a trial's batch."""


def choose_precision(task: Any, device: torch.device) -> None:
    """Replaces a task's `--precision auto` by "32" or "bf16", with the reason.

    The same processor gives the same choice, so that a run can be repeated: with AMX nothing is timed, and elsewhere
    gains are far above or far below WORTH.
    """
    if task.config.precision != AUTO:
        return
    precision, reason = _of_device(task, device)
    task.plan.choose("precision", precision, reason)
    task.config = task.plan.config


def _of_device(task: Any, device: torch.device) -> tuple[str, str]:
    config = task.config
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported()
        return ("bf16", "this GPU has it") if has_it else ("32", "this GPU has no bfloat16")
    if not has_bfloat16():
        return "32", "PyTorch has no bfloat16 on this processor"
    n_steps = config.n_epochs * math.ceil(len(task.train_rows) / config.batch_size / config.accumulate)
    if n_steps < FEW_STEPS:
        return "32", f"fewer than {FEW_STEPS} steps"
    if has_amx():
        return "bf16", "this processor has AMX"
    if config.devices * config.num_nodes > 1:
        return "32", "several processes would each make a trial, and might not agree"
    size = task.store.canvas_size
    images = torch.zeros((min(MOST_RADIOGRAPHS, config.batch_size), 1, size, size), dtype=torch.uint8)
    if step_gain(task.model, images) < WORTH:
        return "32", "bfloat16 makes steps of this network little faster on this processor, or none"
    return "bf16", "it makes steps of this network faster on this processor"


def step_gain(model: nn.Module, images: Tensor) -> float:
    """How many times faster than in float32 the network computes forward and backward in bfloat16, on this CPU.

    images: (B, 1, S, S) uint8. Of a detector only trunk and pyramid are measured, which take most of a step. The model
    is not changed.
    """
    model = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    # The first part of a detector's forward pass; its losses would need boxes.
    detector: Any = model if hasattr(model, "backbone") else None
    seconds: dict[bool, list[float]] = {False: [], True: []}

    def step(is_lowered: bool) -> None:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_lowered):
            if detector is None:
                outputs = _tensors(model(images))
            else:
                outputs = list(detector.backbone((images - detector.mean) / detector.std).values())
            total = torch.stack([one.float().mean() for one in outputs]).sum()
        total.backward()
        model.zero_grad(set_to_none=True)

    with torch.random.fork_rng(devices=[]):
        # In alternation, and in processor time: other work on the machine then counts for neither.
        for number in range(REPEATS + 1):
            for is_lowered in seconds:
                start = time.process_time()
                step(is_lowered)
                if number:
                    seconds[is_lowered].append(time.process_time() - start)
    return statistics.median(seconds[False]) / statistics.median(seconds[True])


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in _tensors(part)]
