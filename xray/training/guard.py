"""Watches the losses of a training: their curve, and steps that must not be taken.

A step whose loss or gradients are not finite is never applied: the optimizer's own kernel looks at a flag on the device
and leaves the weights alone. On a GPU the flags of several steps are read together, when the losses are logged, so that
no step waits for the device.
"""

import dataclasses
import math
import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, Optimizer

from xray.errors import InputError
from xray.models.batch_shares import n_together

MOST_UNREAD = 64
"""The most steps whose flags may wait unread on a GPU."""
MOST_NAMED = 16
"""Radiographs that a message names."""


@dataclasses.dataclass
class Step:
    """One optimizer step: what its message needs, and whether it was left out.

    terms: for each of its batches the names of the loss terms and their values (T,). rows: (B,) for each batch.
    is_bad: () bool on the device.
    """

    epoch: int
    number: int
    of: float
    terms: list[tuple[tuple[str, ...], Tensor]]
    rows: list[Tensor]
    is_bad: Tensor

    def words(self, source_ids: list[str]) -> str:
        """What was not finite, where, on which radiographs."""
        values: dict[str, float] = {}
        for names, terms in self.terms:
            values |= {name: v for name, v in zip(names, terms.tolist(), strict=True) if not math.isfinite(v)}
        problem = ", ".join(f"{name} is {value}" for name, value in values.items())
        if not problem:
            total = sum(float(terms.sum()) for _, terms in self.terms)
            problem = f"the gradients are not finite, though the loss is ({total:.4g}),"
        shown = ", ".join(source_ids[:MOST_NAMED])
        if len(source_ids) > MOST_NAMED:
            shown += f" and {len(source_ids) - MOST_NAMED} more"
        return f"{problem} in epoch {self.epoch + 1}, step {self.number} of {self.of}, on the radiographs {shown}"


class Guard(Callback):
    """Logs the losses, clips gradients, and leaves out steps whose loss or gradients are not finite.

    clip: largest gradient norm, 0 for none. every: steps between entries of the curve.
    allowed: steps that may be left out in a training before it stops. skipped: steps that were left out so far.
    scales: float16 with scaled losses, where gradients often overflow and the scaler leaves out such steps itself; only
    the loss is checked then.
    Raises InputError in the training where one more step than `allowed` was left out.
    """

    def __init__(self, clip: float, every: int, allowed: int = 0, scales: bool = False) -> None:
        self.clip, self.every, self.allowed, self.scales = clip, every, allowed, scales
        self.skipped = 0
        self._task: Any = None
        self._unread: list[Step] = []
        self._terms: list[tuple[tuple[str, ...], Tensor]] = []
        self._rows: list[Tensor] = []
        self._epoch: Tensor | None = None
        self._statistics: list[tuple[Tensor, Tensor]] = []

    # The curve

    def on_train_epoch_start(self, trainer: L.Trainer, task: Any) -> None:
        self._epoch = None

    def on_after_backward(self, trainer: L.Trainer, task: Any) -> None:
        """Notes the loss terms of a batch, and adds it to the epoch's mean unless its loss is not finite."""
        names, terms = task.terms
        self._terms.append((names, terms))
        self._rows.append(self._batch_rows)
        total = terms.sum().double()
        weight = torch.where(total.isfinite(), n_together(len(self._batch_rows)), 0)
        part = torch.stack([torch.where(weight > 0, total, 0) * weight, weight.double()])
        self._epoch = part if self._epoch is None else self._epoch.to(part.device) + part

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, out: Any, batch: Any, index: int) -> None:
        is_applied = (index + 1) % trainer.accumulate_grad_batches == 0 or index + 1 == trainer.num_training_batches
        if not is_applied:
            return
        is_logged = trainer.global_step % self.every == 0
        # Steps are numbered from 0, as Lightning does. Lightning itself would log them after the checkpoint, and a run
        # that is killed in between would lack one.
        if trainer.loggers and is_logged:
            names, terms = task.terms
            values = dict(zip((f"train/{name}" for name in names), terms.tolist(), strict=True))
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": sum(values.values()), **values}, step=last_step(trainer))
        if is_logged or len(self._unread) >= MOST_UNREAD or task.device.type == "cpu":
            self.check_steps()

    def on_train_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        self.check_steps()
        total, weight = (float("nan"), 1.0) if self._epoch is None else self._epoch.tolist()
        mean = total / weight if weight else float("nan")
        task.log("train/loss_epoch", mean, logger=False)
        values = {"train/loss_epoch": mean}
        if self.allowed:
            task.log("train/skipped_steps", float(self.skipped), logger=False)
            values["train/skipped_steps"] = float(self.skipped)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=last_step(trainer))

    # Steps that are not taken

    def on_train_start(self, trainer: L.Trainer, task: Any) -> None:
        self._task = task
        self._unread = []
        self._statistics = []
        for optimizer in trainer.optimizers:
            _begin_momentum(optimizer)
        if self.allowed:
            # A forward pass updates these statistics before its loss is known.
            self._statistics = [(value, value.clone()) for value in running_statistics(task.model)]

    def on_train_batch_start(self, trainer: L.Trainer, task: Any, batch: Any, index: int) -> None:
        self._batch_rows = batch["rows"]
        if index % trainer.accumulate_grad_batches == 0:
            self._terms, self._rows = [], []
            if self._statistics:
                current, saved = zip(*self._statistics, strict=True)
                torch._foreach_copy_(list(saved), list(current))

    def on_before_optimizer_step(self, trainer: L.Trainer, task: Any, optimizer: Optimizer) -> None:
        """Here gradients are complete (of all batches and processes) and not scaled."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss = torch.stack([terms.sum() for _, terms in self._terms]).sum()
        norm: Tensor | None = None
        if self.clip or not self.scales:
            norm = get_total_norm([p.grad for p in parameters])
        bad = ~torch.isfinite(loss if self.scales or norm is None else loss + norm)
        if trainer.world_size > 1:
            everywhere = bad.float()
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MAX)
            bad = everywhere > 0
        # PyTorch's fused optimizers read these flags in their kernel, as for a GradScaler.
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        if self.clip and norm is not None:
            clip_grads_with_norm_(parameters, self.clip, norm)
        for value, saved in self._statistics:
            torch.where(bad, saved, value, out=value)
        number = trainer.fit_loop.epoch_loop.batch_idx + 1
        step = Step(trainer.current_epoch, number, trainer.num_training_batches, self._terms, self._rows, bad)
        self._unread.append(step)

    def on_validation_start(self, trainer: L.Trainer, task: Any) -> None:
        self.check_steps()

    def check_steps(self) -> None:
        """Reads the flags of the steps made since the last time; raises InputError as training does."""
        steps, self._unread = self._unread, []
        if steps:
            for step, is_bad in zip(steps, torch.stack([step.is_bad for step in steps]).tolist(), strict=True):
                if is_bad:
                    self._leave_out(step)

    def _leave_out(self, step: Step) -> None:
        self.skipped += 1
        records = self._task.store.records
        rows = [row for rows in step.rows for row in rows.tolist()]
        if self._task.trainer.world_size > 1:
            rows = self._task.rows_of_batches(step.number - len(step.rows), step.number)
        words = step.words([str(records[row]["source_id"]) for row in rows])
        if self.skipped <= self.allowed:
            if not self._task.trainer.is_global_zero:
                return
            print(f"step left out, {self.skipped} of at most {self.allowed}: {words}", file=sys.stderr)
            return
        advice = "lower --lr or --clip-grad, or skip such steps with --skip-bad-steps N, and continue with --resume"
        if self.allowed:
            advice = f"{self.allowed} steps were left out before it, as --skip-bad-steps allows; lower --lr"
        raise InputError(f"{words}: the step was not applied, and the last checkpoint is from before it: {advice}")

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Steps left out so far, and the mean of an epoch that is going on."""
        self.check_steps()
        return {"skipped": self.skipped, "epoch": None if self._epoch is None else self._epoch.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self._epoch = state["skipped"], state["epoch"]

    def on_save_checkpoint(self, trainer: L.Trainer, task: Any, checkpoint: dict[str, Any]) -> None:
        """Raises InputError where weights are not finite, so that they do not replace a good checkpoint."""
        state = {name: value for name, value in task.model.state_dict().items() if value.is_floating_point()}
        if not math.isfinite(float(get_total_norm(state.values()))):
            lost = [name for name, value in state.items() if not value.isfinite().all()]
            raise InputError(
                f"{len(lost)} of the model's tensors ({', '.join(lost[:2])}) are not finite after step "
                f"{trainer.global_step}: nothing was saved, and the last checkpoint is from before it; lower --lr"
            )


def last_step(trainer: L.Trainer) -> int:
    """The number of the last step in Lightning's curves, which begin with 0.

    So a checkpoint after n steps has the points below n; points of a killed run from n on are replaced.
    """
    return max(0, trainer.global_step - 1)


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Means and variances that batch norms keep while they train."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    values = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    return [value for value in values if value.is_floating_point()]


def _begin_momentum(optimizer: Optimizer) -> None:
    """Lets momentum begin at 0, which gives the same first step as no momentum.

    If the very first step is left out, PyTorch 2.14's fused SGD continues with uninitialised memory.
    """
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
