"""Callbacks of every training: speed, pictures, a table of epochs, and the model to deploy."""

import csv
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from xray import __version__
from xray.errors import InputError
from xray.file_names import VALIDATED
from xray.files import replacing
from xray.models.tensors import load_tensors
from xray.models.weights import save_deployed
from xray.structures.predictions import write_predictions
from xray.training.guard import last_step
from xray.training.trackers import holds_pictures, log_picture


class Throughput(Callback):
    """Logs images/s, the share of time spent waiting for data, and peak memory.

    Only clocks of this process are read: nothing waits for the GPU, whose work shows up as the time until it takes the
    next batch.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        # A run that is resumed within an epoch does not call the hook of its start.
        self.on_train_epoch_start(trainer, task)

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """The first batch of an epoch includes starting the workers: counting begins after it."""
        self._images, self._waited = 0, 0.0
        self._start: float | None = None

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, index: int) -> None:
        if self._start is not None:
            self._waited += time.perf_counter() - self._last

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, out: Any, batch: Any, index: int) -> None:
        self._last = time.perf_counter()
        if self._start is None:
            self._start = self._last
            return
        self._images += len(batch["images"])
        if (index + 1) % self.every == 0 or index + 1 == trainer.num_training_batches:
            elapsed = self._last - self._start
            values = {
                "speed/images_per_second": self._images * trainer.world_size / elapsed,
                "speed/data_wait_share": self._waited / elapsed,
                "speed/peak_memory_gib": peak_memory() / 2**30,
            }
            for name, value in values.items():
                task.log(name, value, batch_size=1, logger=False)
            # Lightning's own interval counts from the start of the training and would skip the last step of an epoch.
            for logger in trainer.loggers:
                logger.log_metrics(values, step=last_step(trainer))


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, which reads the losses only every few steps: each reading waits for the GPU."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._read: dict[str, Any] = {}

    def get_metrics(self, trainer: L.Trainer, task: L.LightningModule) -> dict[str, Any]:
        """The numbers beside the bar."""
        if not self._read or trainer.global_step % self.every == 0:
            self._read = super().get_metrics(trainer, task)
        return self._read


def peak_memory() -> int:
    """The most memory in use so far, in bytes: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


class Plateau(Callback):
    """Steps a "plateau" schedule after each epoch that was validated, before last.ckpt is written.

    Lightning would step it after last.ckpt, so that a resumed run would lack the last step.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and config.monitor is not None:
                config.scheduler.step(float(trainer.callback_metrics[config.monitor]))


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but a resumed run has the patience that its flag says, not that of its checkpoint, and one that was
    stopped does not train another epoch. Of the same name, by which a checkpoint has its state."""

    def __init__(self, monitored: str, patience: int) -> None:
        super().__init__(monitored, mode="max", patience=patience, check_finite=False)

    @property
    def is_over(self) -> bool:
        """Whether it has stopped the training."""
        return self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.is_over


class Pictures(Callback):
    """Puts pictures of validation radiographs, truth and prediction side by side, into the loggers that hold pictures.

    draw: (task, row of the store) → (H, W, 3) uint8.
    count: how many; the same radiographs after every epoch, so that progress shows.
    """

    def __init__(self, draw: Callable[[Any, int], np.ndarray], count: int) -> None:
        self.draw, self.count = draw, count

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or task.validated is None:
            return
        loggers = [logger for logger in trainer.loggers if holds_pictures(logger)]
        for number, row in enumerate(task.rows_to_show(self.count) if loggers else ()):
            picture = self.draw(task, row)
            for logger in loggers:
                log_picture(logger, f"validation/{number}", picture, last_step(trainer))


class EpochTable(Callback):
    """Appends one row an epoch to metrics.csv and prints the essentials.

    Lightning's own CSV logger starts a new file when a run is resumed; this one drops the rows of epochs that are
    repeated, and appends.
    """

    def __init__(self, path: Path, monitored: str, n_epochs: int) -> None:
        self.path, self.monitored, self.n_epochs = path, monitored, n_epochs
        self._console = Console()
        self._began = time.perf_counter()
        self._lr: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The seconds that an epoch has taken so far."""
        return {"seconds": time.perf_counter() - self._began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._began = time.perf_counter() - state["seconds"]

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._rows = []
        if self.path.is_file():
            try:
                with self.path.open(newline="") as file:
                    self._rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise InputError(
                    f"{self.path} is damaged ({type(error).__name__}): restore it, or move it away"
                ) from None

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Optimizer) -> None:
        self._lr = optimizer.param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            # Callback metrics keep the last validation's values; this epoch had none.
            metrics = {name: value for name, value in metrics.items() if name.startswith(("train/", "speed/"))}
        # That of the epoch's last step, as loggers have it; by now the optimizer has that of the next one.
        lr = trainer.optimizers[0].param_groups[0]["lr"] if self._lr is None else self._lr
        seconds = time.perf_counter() - self._began
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": lr, "seconds": round(seconds, 2)}
        self._rows.append({**row, **metrics})
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)
        line = self._line(trainer.current_epoch, lr, seconds, metrics)
        self._console.print(line, highlight=False, soft_wrap=True)

    def _line(self, epoch: int, lr: float, seconds: float, metrics: dict[str, float]) -> str:
        parts = [f"epoch {epoch + 1}/{self.n_epochs}", f"loss {metrics.get('train/loss_epoch', float('nan')):.4f}"]
        if self.monitored in metrics:
            parts.append(f"{self.monitored} {metrics[self.monitored]:.4f}")
        if "speed/images_per_second" in metrics:
            parts.append(f"{metrics['speed/images_per_second']:.1f} images/s")
            parts.append(f"waiting for data {metrics['speed/data_wait_share']:.1%}")
        return "  ".join([*parts, f"lr {lr:.2g}", f"{seconds:.0f} s"])


class DeployBest(Callback):
    """Keeps model.safetensors, model.json and validation/predictions.json in step with best.ckpt.

    The weights are read from the checkpoint, into which Lightning puts the moving average where there is one.
    """

    def __init__(self, run: Path, best: ModelCheckpoint) -> None:
        self.run, self.best = run, best
        self._deployed: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The score of the deployed model, so that a resumed run deploys only what is better."""
        return {"deployed": self._deployed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._deployed = state["deployed"]

    def on_train_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        score = self.best.best_model_score
        if not trainer.is_global_zero or score is None or float(score) == self._deployed:
            return
        checkpoint = load_tensors(Path(self.best.best_model_path))
        deploy(self.run, task, checkpoint["state_dict"], epoch=checkpoint["epoch"])
        self._deployed = float(score)


def deploy(run: Path, task: Any, state: Mapping[str, Tensor], **facts: Any) -> None:
    """Writes model.safetensors, model.json and, if the task has validated, validation/predictions.json into a run.

    state: the task's state dict, as in checkpoints. facts: entries of model.json beside the task's own description.
    """
    prefix = "model."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    versions = {"xray": __version__, "torch": str(torch.__version__)}
    save_deployed(run, weights, {**task.describe(), **facts, "versions": versions})
    if task.validated is not None:
        (run / "validation").mkdir(exist_ok=True)
        write_predictions(run / VALIDATED, task.validated, task.store.categories)
