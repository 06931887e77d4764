"""Optimizers and learning-rate schedules."""

import math
import sys
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from xray.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """SGD with momentum, Adam or AdamW over the parameters that train; biases and norms do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # Fused: one kernel for all weights and all that is done to each, on CPUs as on GPUs.
    if config.optimizer == "sgd":
        optimizer: Optimizer = SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    else:
        optimizer = {"adam": Adam, "adamw": AdamW}[config.optimizer](groups, lr=config.lr, fused=True)
    # It could undo float16's loss scaling itself, but gradients would then be clipped while scaled, which Lightning
    # refuses.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # PyTorch reads it
    return optimizer


def configure(model: nn.Module, config: TrainingConfig, n_steps: int, monitored: str) -> dict[str, Any]:
    """What a LightningModule's `configure_optimizers` returns.

    n_steps: optimizer steps of the whole training. monitored: the validation metric that "plateau" watches.
    """
    optimizer = build_optimizer(model, config)
    steps_per_epoch = max(1, n_steps // config.n_epochs)
    # On a small dataset 500 steps might be all of the training: the warm-up lasts at most one epoch.
    warmup = min(config.warmup_steps, steps_per_epoch)
    if config.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, mode="max", factor=config.gamma, patience=config.step_size)
        # xray.training.callbacks.Plateau steps it, and Lightning never does.
        watch = {"scheduler": plateau, "monitor": monitored, "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": watch}
    if config.schedule == "onecycle":
        scheduler: Any = OneCycleLR(optimizer, max_lr=config.lr, total_steps=n_steps)
    else:
        decay = {
            "step": step_decay(steps_per_epoch, config.step_size, config.gamma),
            "cosine": cosine_decay(n_steps),
        }[config.schedule]
        scheduler = LambdaLR(optimizer, lambda step: decay(step) * min(1.0, (step + 1) / (warmup + 1)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def step_decay(steps_per_epoch: int, step_size: int, gamma: float) -> Callable[[int], float]:
    """The learning rate falls by `gamma` every `step_size` epochs (StepLR), counted in optimizer steps.

    It does not depend on the number of epochs, so a longer training continues a shorter one exactly.
    """
    return lambda step: gamma ** (step // steps_per_epoch // step_size)


def cosine_decay(n_steps: int) -> Callable[[int], float]:
    """From 1 to 0 along half a cosine over the training (Loshchilov and Hutter 2017, arXiv:1608.03983, no restarts)."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
