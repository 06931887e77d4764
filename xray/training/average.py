"""The average of a run's best checkpoints, which often generalises better than each (Izmailov et al. 2018, "Averaging
Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407; here of the best epochs, as the winners of
SIIM-ACR did, rather than of the last).

While the run trains, the weights of its best validated checkpoints are kept; at its end they are averaged.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from xray.file_names import BEST
from xray.models.tensors import load_tensors
from xray.models.weights import load_deployed
from xray.training.callbacks import deploy
from xray.training.checkpoints import KEPT_WEIGHTS, WEIGHTS_ALONE

NORM_BATCHES = 256
"""The statistics of batch norms are estimated from at most this many training batches."""
AVERAGED = "averaged_epochs"
"""In model.json of an average: the epochs that it was made of, from 0."""


class KeepBest(Callback):
    """Keeps the weights of the `count` best validated checkpoints in RUN/average; 0 and 1 keep none.

    Kept are the weights that were validated: the moving average where there is one.
    scores: epoch, from 0 → validation score, of the kept checkpoints; of equal scores the earliest is kept.
    """

    def __init__(self, run: Path, monitored: str, count: int) -> None:
        self.folder, self.monitored, self.count = run / KEPT_WEIGHTS, monitored, count
        self.scores: dict[int, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = state["scores"]

    def path(self, epoch: int) -> Path:
        """Where the weights of an epoch are."""
        return self.folder / f"epoch-{epoch + 1}.ckpt"

    def clear(self) -> None:
        """Deletes the weights of epochs that are no longer among the best."""
        for path in set(self.folder.glob("*.ckpt")) - {self.path(epoch) for epoch in self.scores}:
            path.unlink()

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Runs before last.ckpt is written: a run that is killed between the two repeats the epoch, and with it this
        step."""
        epoch = trainer.current_epoch
        if self.count < 2 or (epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        if trainer.is_global_zero:
            self.clear()
        scores = {**self.scores, epoch: float(trainer.callback_metrics[self.monitored])}
        best = sorted((one for one in scores if scores[one] == scores[one]), key=lambda one: (-scores[one], one))
        self.scores = {one: scores[one] for one in sorted(best[: self.count])}
        if epoch in self.scores:
            trainer.save_checkpoint(self.path(epoch), storage_options=WEIGHTS_ALONE)


def deploy_average(trainer: L.Trainer, task: Any, run: Path, keeper: KeepBest, best: float | None) -> str:
    """Averages the weights that were kept, validates the average once, and deploys it unless it is worse than the best.

    best: the best validation score of a single checkpoint, whose model is deployed so far. The statistics of
    batch norms are estimated anew with training canvases, and averaged where they are frozen.
    Returns a sentence about the result.
    """
    epochs = [epoch for epoch in keeper.scores if keeper.path(epoch).is_file()]
    if best is None or len(epochs) < 2:
        return "fewer than two checkpoints were validated: there is nothing to average"
    if trainer.is_global_zero:
        keeper.clear()
    # The validation below must enter neither curves nor checkpoints.
    trainer.callbacks, trainer.loggers = [], []  # type: ignore[attr-defined]  # Lightning's own assign it
    task.load_state_dict(mean_of([keeper.path(epoch) for epoch in epochs]))
    reestimate_norms(trainer, task)
    trainer.validate(task, verbose=False)
    # As precise as Lightning keeps the best one's: what is equal must not be worse by rounding.
    score = float(torch.tensor(float(task.metrics[task.monitored]), dtype=torch.float32))
    which = f"average of epochs {', '.join(str(epoch + 1) for epoch in epochs)}"
    words = f"{which}: {task.monitored} {score:.4f} against {best:.4f} of the best one"
    if score >= best:
        if trainer.is_global_zero:
            deploy(run, task, task.state_dict(), **{AVERAGED: epochs})
        return f"{words}: the average is deployed"
    if AVERAGED in load_deployed(run)[0]:
        # A run that was resumed: its earlier average was deployed, and the best checkpoint is better than this one.
        checkpoint = load_tensors(run / BEST)
        task.load_state_dict(checkpoint["state_dict"])
        trainer.validate(task, verbose=False)
        if trainer.is_global_zero:
            deploy(run, task, checkpoint["state_dict"], epoch=checkpoint["epoch"])
    return f"{words}: the best one stays deployed"


def mean_of(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the state dicts in checkpoints, summed in float64; integer tensors are those of the first one."""
    total: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    for path in paths:
        state = load_tensors(path)["state_dict"]
        first = first or state
        for name, value in state.items():
            if value.is_floating_point():
                total[name] = total.get(name, 0) + value.double()
    return {name: (total[name] / len(paths)).to(v.dtype) if name in total else v for name, v in first.items()}


def reestimate_norms(trainer: L.Trainer, task: Any) -> int:
    """Replaces the statistics of batch norms that train by those of up to NORM_BATCHES training batches.

    Averaged weights give other features than each did by itself, so that the mean of the statistics does not fit them.
    Returns how many norms there are; without any, nothing is computed.
    """
    task.to(trainer.strategy.root_device)
    task.model.train()
    kind = nn.modules.batchnorm._BatchNorm
    norms = [one for one in task.model.modules() if isinstance(one, kind) and one.training and one.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    task.first_epoch = task.first_batch = 0
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for index, batch in enumerate(itertools.islice(task.train_dataloader(), NORM_BATCHES) if norms else ()):
            for norm in norms:
                # Together this is the mean over the batches; the first replaces what was there.
                norm.momentum = 1 / (index + 1)
            batch = task.on_after_batch_transfer(move_data_to_device(batch, task.device), 0)
            task.on_train_batch_start(batch, index)
            task.losses(batch)
            task.on_train_batch_end(None, batch, index)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    task.model.eval()
    return len(norms)
