"""Optimizers and learning-rate schedules."""

from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> SGD:
    """SGD with momentum over the parameters that train; biases and norms do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return SGD([group for group in groups if group["params"]], lr=lr, momentum=momentum)


def step_decay(optimizer: Optimizer, steps_per_epoch: int, step_size: int, gamma: float, warmup_steps: int) -> LambdaLR:
    """StepLR by epochs (lr × gamma every `step_size` epochs) with a linear warm-up over the first steps.

    It counts optimizer steps and knows nothing of the number of epochs, so a longer training continues a shorter one.
    The warm-up lasts at most one epoch: on a small dataset 500 steps might otherwise be all of it.
    """
    warmup = min(warmup_steps, steps_per_epoch)

    def factor(step: int) -> float:
        decay = gamma ** (step // steps_per_epoch // step_size)
        return decay * min(1.0, (step + 1) / (warmup + 1))

    return LambdaLR(optimizer, factor)


def every_step(optimizer: Optimizer, scheduler: LambdaLR) -> dict[str, Any]:
    """What `configure_optimizers` returns for a schedule that advances with every optimizer step."""
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
