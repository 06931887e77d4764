"""Checkpoints that are complete or not there, and from which a training goes on exactly.

last.ckpt is written at the end of each epoch, every --save-every-n-steps optimizer steps, and when SIGTERM asks the
training to stop. What a step draws at random depends on seed, epoch and step alone, so it does not matter where an
epoch was cut.
"""

import contextlib
import csv
import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from xray.errors import InputError
from xray.files import PART
from xray.models.tensors import load_tensors, save_tensors
from xray.training.config import TrainingConfig

LAST, BEST = "last.ckpt", "best.ckpt"
TABLE = "metrics.csv"

NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
"""What a checkpoint holds that a training can go on from."""

TWICE = 1.0
"""Seconds in which a second SIGTERM is the first one's echo: torchrun hands on what its processes got as well."""

ASK_EVERY = 10
"""Batches after which several processes ask each other whether one of them has been told to stop."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a checkpoint's training has come: whole epochs, batches of the epoch after them, optimizer steps."""

    epochs: int
    batches: int
    steps: int


def progress_of(checkpoint: dict[str, Any]) -> Progress:
    """Where a training goes on from a checkpoint."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    batches = loops["epoch_loop.batch_progress"]["current"]["processed"]
    is_within = epochs["started"] > epochs["processed"]
    return Progress(int(epochs["processed"]), int(batches) if is_within else 0, int(checkpoint["global_step"]))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint of a training, on the CPU. Raises InputError that names the file if it is anything else."""
    advice = f"start another run, with --weights {path.parent} from what this one had reached"
    try:
        checkpoint = load_tensors(path)
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None
    except Exception as error:
        raise InputError(
            f"{path} is damaged or foreign ({type(error).__name__}), and was not loaded: {advice}"
        ) from None
    missing = [name for name in NEEDED if name not in checkpoint] if isinstance(checkpoint, dict) else list(NEEDED)
    if missing:
        raise InputError(f"{path} is no checkpoint of a training, it has no {missing[0]}: {advice}")
    try:
        progress_of(checkpoint)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} does not say how far its training had come: {advice}") from None
    return checkpoint


def check_resumable(run: Path, config: TrainingConfig) -> Progress | None:
    """Where the training in `run` goes on; None where its first checkpoint had not been written.

    Raises InputError if the checkpoint is damaged, or missing although epochs were finished, or if an epoch that was
    cut would go on with other batches.
    """
    path = run / LAST
    if path.is_file():
        checkpoint = read_checkpoint(path)
        progress, own = progress_of(checkpoint), _layout(config)
        if progress.batches:
            _check_layout(own, {**own, **checkpoint.get("layout", {})})
        return progress
    epochs = epochs_in_table(run / TABLE)
    # Between an epoch's row and its checkpoint a run may be killed; of later ones there was a checkpoint.
    if epochs > 1:
        raise InputError(
            f"{run} has no {LAST}, though {epochs} epochs were finished: restore it, or start another run, with "
            f"--weights {run} from what this one had reached"
        )
    return None


def epochs_in_table(path: Path) -> int:
    """Rows of a run's metrics.csv."""
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def clear_leftovers(run: Path) -> None:
    """Deletes what a killed run was writing: temporary files of a run directory's own."""
    names = (LAST, BEST, TABLE, "config.yaml", "model.safetensors", "model.json", "validation/predictions.json")
    for name in names:
        (run / (name + PART)).unlink(missing_ok=True)


class WholeCheckpoints(CheckpointIO):
    """Lightning's way to the disk: files written whole and synced, and read with `weights_only` alone."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replaces `path` once all of it is on the disk. Raises OSError where it is full."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_tensors(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """What `read_checkpoint` returns and raises."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint that is there."""
        Path(path).unlink(missing_ok=True)


class Stopped(Exception):
    """SIGTERM asked the training to stop. The message says how far it has come, and whether that was saved."""


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt, also within epochs, and stops the training when SIGTERM comes.

    every_n_steps: optimizer steps between checkpoints within an epoch; 0 saves at its end alone.
    is_asked: SIGTERM came. was_validating: of a training that failed, whether it did in a validation.
    """

    def __init__(self, run: Path, every_n_steps: int = 0) -> None:
        self.path, self.every_n_steps = run / LAST, every_n_steps
        self.is_asked = self.was_validating = False
        self._before: Any = None
        self._asked_at = 0.0

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        # Lightning has set a handler of its own by now, which would stop within the steps that make up one update.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.is_asked:
            if time.monotonic() - self._asked_at > TWICE:
                # A second one ends the process at once.
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            return
        self.is_asked, self._asked_at = True, time.monotonic()
        # Where all processes of a job get the signal, the loaders' end: they need not be missed any more.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.write(2, b"SIGTERM: saves and stops as soon as this step, or validation, is done\n")

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, out: Any, batch: Any, index: int) -> None:
        is_applied = (index + 1) % trainer.accumulate_grad_batches == 0
        if not is_applied or index + 1 == trainer.num_training_batches:
            return
        is_stopped = self._is_stopped(trainer, index + 1)
        if is_stopped or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer)
        if is_stopped:
            raise Stopped(self._words(trainer, index + 1))

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._save(trainer)
        if self._is_stopped(trainer, 0) and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            raise Stopped(self._words(trainer, trainer.num_training_batches))

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self.was_validating = trainer.validating
        self._restore()
        # Several processes are not at the same step when one of them fails.
        is_alone = trainer.world_size == 1
        if self.is_asked and is_alone and trainer.training and not isinstance(exception, Stopped):
            # The loaders' processes got the signal as well. Between two batches all is as at the end of one.
            batches = trainer.fit_loop.epoch_loop.batch_progress.current
            is_between = batches.ready == batches.completed < trainer.num_training_batches
            if is_between and batches.ready and batches.ready % trainer.accumulate_grad_batches == 0:
                self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, task: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["layout"] = _layout(task.config)
        for logger in trainer.loggers:
            # What a checkpoint has behind it is in the curves, too, whatever happens next.
            logger.save()

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)

    def _is_stopped(self, trainer: L.Trainer, n_batches: int) -> bool:
        if trainer.world_size == 1:
            return self.is_asked
        # Whoever runs a job may tell one process only; asking at every step would have all of them wait.
        return n_batches % ASK_EVERY == 0 and trainer.strategy.reduce_boolean_decision(self.is_asked, all=False)

    def _words(self, trainer: L.Trainer, n_batches: float) -> str:
        return f"epoch {trainer.current_epoch + 1}, step {n_batches} of {trainer.num_training_batches}"

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def _check_layout(own: dict[str, int], before: dict[str, int]) -> None:
    """Raises InputError where an epoch that was cut would go on with other batches than it began with.

    What counts is how many radiographs all processes see together: two with 4 each go on where one with 8 was.
    """
    stopped = "and the run was stopped within an epoch with"
    if own["devices"] != before["devices"]:
        together, wanted = (layout["batch-size"] * layout["devices"] for layout in (own, before))
        if together != wanted:
            sizes = f"{own['devices']} processes of --batch-size {own['batch-size']} see {together} radiographs a step"
            fits = f"--batch-size {wanted // own['devices']}, or " if wanted % own["devices"] == 0 else ""
            raise InputError(
                f"{sizes}, {stopped} {before['devices']} processes and {wanted}: give {fits}"
                f"{before['devices']} processes until that epoch is over"
            )
        own = {**own, "batch-size": before["batch-size"]}
    for flag in ("batch-size", "accumulate"):
        if own[flag] != before[flag]:
            raise InputError(
                f"--{flag} is {own[flag]}, {stopped} {before[flag]}: give --{flag} {before[flag]} until that epoch is "
                "over"
            )


def _layout(config: TrainingConfig) -> dict[str, int]:
    """The flags that decide which radiographs are in which batch; `devices` counts the processes of all nodes."""
    processes = config.devices * config.num_nodes
    return {"batch-size": config.batch_size, "accumulate": config.accumulate, "devices": processes}


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt. A ModelCheckpoint that remembers the best score when its run directory was moved, too."""

    def state_dict(self) -> dict[str, Any]:
        """Lightning's without the folder: runs are handed on, and it would tell where on whose machine they were."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return {**state, **names, "dirpath": "", "best_k_models": best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning forgets the score if the path changed, and the next epoch would replace best.ckpt, worse or not."""
        if state_dict["best_model_score"] is None:
            # Nothing was validated yet.
            return
        file = str(Path(self.dirpath or "") / Path(state_dict["best_model_path"]).name)
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": file,
            "kth_best_model_path": file,
            "best_k_models": dict.fromkeys([file], state_dict["best_model_score"]),
        }
        super().load_state_dict({**state_dict, **moved})
