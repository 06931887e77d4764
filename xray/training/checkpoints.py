"""Checkpoints: written whole or not at all; a training that is resumed from one continues exactly.

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
from xray.file_names import BEST, CONFIG_FILE, CURVES, LAST, MODEL_FILE, VALIDATED, WEIGHTS_FILE
from xray.files import PART
from xray.models.tensors import load_tensors, save_tensors
from xray.training.config import TrainingConfig

KEPT_WEIGHTS = "average"
"""Folder of a run with the weights of its best checkpoints (`xray.training.average`)."""
WEIGHTS_ALONE = "weights alone"
"""Given to `Trainer.save_checkpoint` as `storage_options`, it leaves out everything that only resuming needs."""

NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
"""Keys of a checkpoint from which a training can be resumed."""

TWICE = 1.0
"""Seconds within which a second SIGTERM counts as the first: torchrun forwards a signal that its processes have
received already."""

ASK_EVERY = 10
"""Batches after which several processes ask each other whether one of them has been told to stop."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a checkpoint's training has come: whole epochs, batches of the epoch after them, optimizer steps.

    split: `Task.split`, "" in checkpoints of older versions.
    """

    epochs: int
    batches: int
    steps: int
    split: str = ""


def progress_of(checkpoint: dict[str, Any]) -> Progress:
    """How far the training of a checkpoint has come."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    batches = loops["epoch_loop.batch_progress"]["current"]["processed"]
    is_within = epochs["started"] > epochs["processed"]
    steps, split = int(checkpoint["global_step"]), str(checkpoint.get("split", ""))
    return Progress(int(epochs["processed"]), int(batches) if is_within else 0, steps, split)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint of a training, on the CPU. Raises InputError that names the file if it is anything else."""
    advice = f"start another run with --weights {path.parent}, from the weights that this one had reached"
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
    """How far the training in `run` has come; None where its first checkpoint had not been written.

    Raises InputError if the checkpoint is damaged, or missing although epochs were finished, or if an interrupted epoch
    would continue with other batches.
    """
    path = run / LAST
    if path.is_file():
        checkpoint = read_checkpoint(path)
        progress, now = progress_of(checkpoint), _layout(config)
        if progress.batches:
            _check_layout(now, {**now, **checkpoint.get("layout", {})})
        return progress
    epochs = epochs_in_table(run / CURVES)
    # A run may be killed between the row of its first epoch and the checkpoint; before later rows there was one.
    if epochs > 1:
        raise InputError(
            f"{run} has no {LAST}, though {epochs} epochs were finished: restore it, or start another run "
            f"with --weights {run}, from the weights that this one had reached"
        )
    return None


def epochs_in_table(path: Path) -> int:
    """Rows of a run's metrics.csv."""
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def clear_leftovers(run: Path) -> None:
    """Deletes the temporary files that a killed run was writing in its run directory."""
    names = (LAST, BEST, CURVES, CONFIG_FILE, WEIGHTS_FILE, MODEL_FILE, VALIDATED)
    for path in [*(run / (name + PART) for name in names), *(run / KEPT_WEIGHTS).glob(f"*{PART}")]:
        path.unlink(missing_ok=True)


class WholeCheckpoints(CheckpointIO):
    """Lightning's access to the disk: files are written whole and synced, and read with `weights_only`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replaces `path` once all of it is on the disk. Raises OSError where it is full."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if storage_options == WEIGHTS_ALONE:
            checkpoint = {name: checkpoint[name] for name in ("state_dict", "epoch")}
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
    """Writes last.ckpt, also within epochs, and stops the training when SIGTERM comes.

    every_n_steps: optimizer steps between checkpoints within an epoch; 0 saves at its end alone.
    is_asked: SIGTERM came. was_validating: whether a training that failed did so in a validation.
    saved: how far the training of last.ckpt has come, as far as this process has written it; None before.
    """

    def __init__(self, run: Path, every_n_steps: int = 0) -> None:
        self.path, self.every_n_steps = run / LAST, every_n_steps
        self.is_asked = self.was_validating = False
        self.saved: Progress | None = None
        self._before: Any = None
        self._asked_at = 0.0
        self._is_failing = False

    def last_words(self) -> None:
        """Lets one process of several print its error before SIGTERM ends it; called before the training.

        torchrun sends SIGTERM to all processes at the moment when one of them has ended, which is also when the others
        fail. Lightning 2.6 gives the signal back to this handler when it has cleaned up.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._end_unless_failing)

    def _end_unless_failing(self, number: int, frame: Any) -> None:
        if self._is_failing and not self._asked_at:
            self._asked_at = time.monotonic()
        if not self._is_failing or time.monotonic() - self._asked_at > TWICE:
            _end_now()

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        # By now Lightning has set a handler of its own, which would stop between the batches of one update.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.is_asked:
            if time.monotonic() - self._asked_at > TWICE:
                # A second SIGTERM ends the process at once.
                _end_now()
            return
        self.is_asked, self._asked_at = True, time.monotonic()
        # Where all processes of a job get the signal, the loading ones end, too, which is no error then.
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
            self._save(trainer, index + 1)
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
        # Several processes are not at the same step when one of them fails.
        is_alone = trainer.world_size == 1
        self._restore()
        if not is_alone:
            self._is_failing = True
            self.last_words()
        if self.is_asked and is_alone and trainer.training and not isinstance(exception, Stopped):
            # The loading processes got the signal, too. Between two batches, the state is that at the end of a batch.
            batches = trainer.fit_loop.epoch_loop.batch_progress.current
            is_between = batches.ready == batches.completed < trainer.num_training_batches
            if is_between and batches.ready and batches.ready % trainer.accumulate_grad_batches == 0:
                self._save(trainer, batches.ready)

    def on_save_checkpoint(self, trainer: L.Trainer, task: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["layout"], checkpoint["split"] = _layout(task.config), task.split
        for logger in trainer.loggers:
            # The steps of a checkpoint are on the disk in the curves, too, if the run is killed next.
            logger.save()

    def _save(self, trainer: L.Trainer, batches: int = 0) -> None:
        """batches: of the epoch that is not over; 0 at the end of one."""
        trainer.save_checkpoint(self.path)
        self.saved = Progress(trainer.current_epoch + (not batches), batches, trainer.global_step)

    def _is_stopped(self, trainer: L.Trainer, n_batches: int) -> bool:
        if trainer.world_size == 1:
            return self.is_asked
        # A job's manager may signal one process only; if all asked each other at every step, all would wait.
        return n_batches % ASK_EVERY == 0 and trainer.strategy.reduce_boolean_decision(self.is_asked, all=False)

    def _words(self, trainer: L.Trainer, n_batches: float) -> str:
        return f"epoch {trainer.current_epoch + 1}, step {n_batches} of {trainer.num_training_batches}"

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def _end_now() -> None:
    """Ends this process as SIGTERM does where nothing handles it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _check_layout(now: dict[str, int], previous: dict[str, int]) -> None:
    """Raises InputError where an interrupted epoch would continue with other batches than it began with.

    Decisive is the number of radiographs of all processes: two processes with batches of 4 may continue an epoch that
    one process began with batches of 8.
    """
    stopped = "and the run was stopped within an epoch with"
    if now["devices"] != previous["devices"]:
        together, wanted = (layout["batch-size"] * layout["devices"] for layout in (now, previous))
        if together != wanted:
            sizes = f"{now['devices']} processes of --batch-size {now['batch-size']} see {together} radiographs a step"
            fits = f"--batch-size {wanted // now['devices']}, or " if wanted % now["devices"] == 0 else ""
            raise InputError(
                f"{sizes}, {stopped} {previous['devices']} processes and {wanted}: give {fits}"
                f"{previous['devices']} processes until that epoch is over"
            )
        now = {**now, "batch-size": previous["batch-size"]}
    for flag in ("batch-size", "accumulate"):
        if now[flag] != previous[flag]:
            raise InputError(
                f"--{flag} is {now[flag]}, {stopped} {previous[flag]}: give --{flag} {previous[flag]} until that epoch "
                "is over"
            )


def _layout(config: TrainingConfig) -> dict[str, int]:
    """The flags that decide which radiographs are in which batch; `devices` counts the processes of all nodes."""
    processes = config.devices * config.num_nodes
    return {"batch-size": config.batch_size, "accumulate": config.accumulate, "devices": processes}


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt: a ModelCheckpoint that remembers the best score even after its run directory was moved."""

    def state_dict(self) -> dict[str, Any]:
        """Lightning's without the folder, which names a place on somebody's machine: runs are given to others."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return {**state, **names, "dirpath": "", "best_k_models": best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning forgets the score if the path changed; then the next epoch would replace best.ckpt even if it is
        worse."""
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
