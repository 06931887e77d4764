"""Trains a detector, a segmenter or a classifier: python xray/train.py --data-path DATA --save-path RUN.

Reads the config, opens the dataset directory, builds the task and hands it to Lightning's Trainer. Every later command
takes the run directory as --weights.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xray
from xray.commands.runner import run_command
from xray.commands.training_inputs import build_task, check_data, check_run_directory, dataset_directory, rows_of_stage
from xray.errors import InputError, spelled
from xray.file_names import CONFIG_FILE, LAST
from xray.files import make_folder
from xray.storage.places import run_training
from xray.training.config import TASKS, TrainingConfig
from xray.training.launch import (
    Launch,
    Rendezvous,
    find_launch,
    follow_the_first,
    wait_for_first_error,
    with_launch,
)
from xray.training.recipes import save_config
from xray.training.sagemaker import failure_reported, is_sagemaker, publish, sagemaker_flags
from xray.training.side_by_side import is_part
from xray.training.stage_runs import train_in_stages
from xray.training.stages import read_training

if TYPE_CHECKING:
    import numpy as np
    import torch

    from xray.training.checkpoints import Progress

EXIT_TERMINATED = 143

Config = TASKS["detection"]
"""What shells complete; --task chooses another."""


def main(task_name: str, config: TrainingConfig) -> int:
    """Trains until `config.n_epochs`. A run that exists is continued with `resume` or left alone.

    Returns the exit status: 143 where SIGTERM stopped the training, after saving a checkpoint.
    """
    run, launch = Path(config.save_path), find_launch()
    is_first = launch.rank == 0
    if is_first:
        check_run_directory(run, config.resume)
    check_data(Path(config.data_path))

    # Heavy imports come after the checks of flags, so that --help and mistakes answer at once.
    import torch

    from xray.models.device import keep_freed_memory, lightning_precision, resolve_device
    from xray.training.checkpoints import check_resumable, clear_leftovers
    from xray.training.trackers import build_loggers, check_trackers
    from xray.training.trained_on import note_dataset
    from xray.training.trainer import build_trainer

    device = resolve_device(config.device)
    lightning_precision(config.precision, device)  # refuses what the device cannot, before anything is read
    check_trackers(config)
    if device.type == "cpu":
        keep_freed_memory()
    progress = check_resumable(run, config) if config.resume else None
    rendezvous = Rendezvous(launch, device.type == "cuda") if launch.can_meet else None
    if progress is not None and progress.epochs > config.n_epochs:
        if is_first:
            print(
                f"nothing to do: {run} has trained {progress.epochs} epochs, and --n-epochs is {config.n_epochs}: give "
                "more, or leave it out"
            )
        return 0
    task = open_task(task_name, config, dataset_directory(config, run, launch, rendezvous), device, progress, is_first)
    # What was "auto" is decided now.
    config, choices = task.config, task.plan.lines()
    precision = lightning_precision(config.precision, device)
    say_what_trains(task, device, choices)
    if config.resume and is_first:
        clear_leftovers(run)
        print(where_it_goes_on(progress, run))
    if progress is None:
        print(task.load_initial_weights())
    # Convolutions are faster on it than on PyTorch's own order, on CPUs as on GPUs.
    task.model.to(memory_format=torch.channels_last)
    if config.compile:
        # In place, so that the state dict keeps its names. Every shape stands still, but for an epoch's last batch.
        task.model.compile(dynamic=False)
    # The curves of a run that was killed before its first checkpoint begin again, too.
    steps_done = progress.steps if progress else 0 if config.resume else None
    loggers = build_loggers(config, task_name, run, is_first, steps_done)
    make_folder(run)
    if is_first:
        save_config(run / CONFIG_FILE, task_name, config, choices)
        # After what makes it a run: one that is killed in between can be resumed.
        note_dataset(run, task.store)
    if not launch.by:
        start_others_by_script()
    trainer = build_trainer(config, run, task.monitored, device, precision, draw_validation, loggers)
    status, outcome = fit(trainer, task, run, launch, progress, f"{spelled('train')} --task {task_name}")
    if outcome is not None:
        say_what_is_next(config, run, outcome)
    return status


def open_task(
    name: str, config: TrainingConfig, data: Path, device: "torch.device", progress: "Progress | None", is_first: bool
) -> Any:
    """The task of a training on a dataset directory; what the flags leave open is chosen.

    progress: what an earlier command has reached, None where it begins. Raises InputError where the data do not do.
    """
    from xray.datasets.store import open_store
    from xray.training.precision import choose_precision
    from xray.training.trained_on import check_dataset

    store = open_store(data)
    if config.resume and (changed := check_dataset(Path(config.save_path), store)) and is_first:
        print(changed, file=sys.stderr)
    task = build_task(name, config, store)
    if progress is not None:
        task.check_split(progress)
    if not config.resume:
        choose_precision(task, device)
    return task


def say_what_trains(task: Any, device: "torch.device", choices: Sequence[str]) -> None:
    """Prints how many radiographs train, and what was chosen; before that, it checks what these choices need."""
    from xray.structures.sides import told

    task.check_store_device(device)
    task.check_validation()
    print(who_trains(len(task.train_rows), len(task.val_rows), task.config.fold))
    if task.plan.reasons:
        print("chosen for this training, as no flag gives it:")
    print(*choices, sep="\n", end="\n" if choices else "")
    print(told(task.swap, task.store.categories, task.flip > 0, task.names_sides))


def fit(
    trainer: Any, task: Any, run: Path, launch: Launch, progress: "Progress | None", command: str
) -> tuple[int, str | None]:
    """Trains to the end → exit status, and what to say of the weights; None for this where SIGTERM stopped it.

    command: with which the same training goes on.
    Raises KeyboardInterrupt after Ctrl-C, and InputError for what can be explained.
    """
    import torch

    from xray.training.checkpoints import LastCheckpoint, Stopped
    from xray.training.failures import explain, is_lost_worker, quiet_threads
    from xray.training.loaders import shared_with_workers

    is_first, config = launch.rank == 0, task.config
    (last,) = (one for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint))
    if trainer.world_size > 1:
        last.last_words()
    go_on = f"{command} --save-path {run} --resume"
    try:
        with quiet_threads(), shared_with_workers():
            trainer.fit(task, ckpt_path=run / LAST if progress else None, weights_only=True)
            outcome = deploy_weights(trainer, task, run, is_first)
            if (stopped := early_stop_in_words(trainer)) and is_first:
                print(f"\n{stopped}")
            return 0, outcome
    except SystemExit:
        # What Lightning makes of Ctrl-C.
        if trainer.interrupted:
            if trainer.is_global_zero and not is_part():
                print(f"{where_it_goes_on(last.saved or progress, run)}, with {go_on}", file=sys.stderr)
            raise KeyboardInterrupt from None
        raise
    except Stopped as stopped:
        if trainer.is_global_zero:
            how = "" if is_part() else f"; continue with {go_on}"
            print(f"stopped by SIGTERM and saved: {stopped}{how}", file=sys.stderr)
        # Where the first process has started this one, only the status of the first one counts.
        return 0 if launch.by == "lightning" else EXIT_TERMINATED, None
    except Exception as error:
        words = explain(error, config, last.was_validating)
        if last.is_asked and is_lost_worker(error) and is_first:
            # The manager of a job that ends all of its processes ends the loaders too.
            print(f"stopped by SIGTERM; continue from the last checkpoint with {go_on}", file=sys.stderr)
            return EXIT_TERMINATED, None
        if words is None or config.debug:
            raise
        raise InputError(words) from error
    finally:
        # Strict mode lasts as long as its training.
        torch.use_deterministic_algorithms(False)


def say_what_is_next(config: TrainingConfig, run: Path, outcome: str) -> None:
    """Prints where the run is, and the commands that take it."""
    said = f"\n{outcome}. The run is in {run}" if outcome else ""
    if is_part():
        print(said)
        return
    print(said and f"{said}; next:")
    print(f"  {spelled('infer')} --weights {run} --data-path RADIOGRAPHS --save-path OUT")
    if "tensorboard" in config.logger:
        print(f"  tensorboard --logdir {run}")


def early_stop_in_words(trainer: Any) -> str:
    """A line that says why --early-stop has ended a training, "" where it has not."""
    from xray.training.callbacks import EarlyStopping

    stopper = trainer.early_stopping_callback
    if not isinstance(stopper, EarlyStopping) or not stopper.is_over:
        return ""
    n, flag = stopper.wait_count, f"--early-stop {stopper.patience}"
    since = f"the last {n} validations" if n > 1 else "the last validation"
    return f"stopped after {trainer.current_epoch} epochs by {flag}: {since} brought no better {stopper.monitor}"


def deploy_weights(trainer: Any, task: Any, run: Path, is_first: bool) -> str:
    """Deploys the weights that a training ends with, where no callback has done so → a line about them.

    Without validation these are the last ones, with --average-best the mean of the best ones.
    """
    from xray.models.tensors import load_tensors
    from xray.training.average import KeepBest, deploy_average
    from xray.training.callbacks import deploy
    from xray.training.checkpoints import BestCheckpoint

    best = next((one for one in trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint)), None)
    kept = next((one for one in trainer.callbacks if isinstance(one, KeepBest)), None)
    if best is None or kept is None:
        if is_first:
            checkpoint = load_tensors(run / LAST)
            deploy(run, task, checkpoint["state_dict"], epoch=checkpoint["epoch"])
        return f"the weights of epoch {trainer.current_epoch} are deployed"
    score = None if best.best_model_score is None else float(best.best_model_score)
    if task.config.average_best > 1:
        print(deploy_average(trainer, task, run, kept, score))
    return "" if score is None else f"best {task.monitored}: {score:.4f}"


def draw_validation(task: Any, row: int) -> "np.ndarray":
    """Truth and prediction of one validation radiograph side by side, (H, W, 3) uint8."""
    from xray.outputs.pictures.findings import draw_findings, draw_with_truth, in_words, not_said, rows_of
    from xray.structures.radiograph_findings import RadiographFindings

    store, validated = task.store, task.validated
    record, canvas, categories = store.records[row], store.canvas(row), store.categories
    left, top, right, bottom = canvas.content
    scale = [(right - left) / record["width"], (bottom - top) / record["height"]] * 2
    pictures, tables = [], []
    number = validated.image_ids.index(record["source_id"])
    for source, image, scored in ((store, row, False), (validated, number, True)):
        table, masks = rows_of(source.boxes if source is store else source.table, source.masks, image)
        tables.append(table)
        findings = RadiographFindings(dataclasses.replace(table, boxes=table.boxes * scale), masks, categories)
        pixels = store.shown(row)[top:bottom, left:right]
        notes = not_said(record, categories) if source is store else []
        pictures.append(draw_findings(pixels, findings, scored=scored, max_side=640, notes=notes))
    (truth, predicted), (of_truth, of_predicted) = tables, pictures
    return draw_with_truth(of_truth, of_predicted, truth, in_words(predicted, categories), categories, record)


def who_trains(n_training: int, n_validating: int, fold: int | str) -> str:
    """Says how many radiographs train, and how many validate."""
    if fold == "all":
        return f"all {n_training} radiographs train, none validates: the last weights are deployed"
    which = "the dataset's validation split" if fold == "val" else f"fold {fold}"
    return f"{n_training} radiographs train, {n_validating} validate ({which})"


def where_it_goes_on(progress: "Progress | None", run: Path) -> str:
    """Says where a resumed run continues."""
    if progress is None:
        return f"{run} was ended before its first checkpoint: it starts from the beginning"
    batches = f" and {progress.batches} steps" if progress.batches else ""
    return f"goes on after {progress.epochs} epochs{batches}"


def start_others_by_script() -> None:
    """Lets Lightning start the other processes of `--devices N` with xray/train.py and the flags of this one.

    Lightning repeats the command line, which may begin with `xray train` or `python -m xray train`.
    """
    sys.argv[0] = str(Path(xray.__file__).with_name("train.py"))
    sys.modules["__main__"].__spec__ = None


def run() -> int:
    """The command; returns its exit status."""

    def start() -> int:
        """Reads the flags and trains."""
        for_sagemaker = is_sagemaker() and not {"--help", "-h"} & set(sys.argv)
        with failure_reported() if for_sagemaker else contextlib.nullcontext():
            args, launch = sys.argv[1:], find_launch()
            # A process that another one started has the flags of that one.
            if for_sagemaker and launch.by != "lightning":
                args = sagemaker_flags(args, os.environ)
                # Now the environment says which host this is.
                launch = find_launch()
            follow_the_first(launch)
            try:
                return train(args, launch, for_sagemaker)
            except Exception:
                if launch.rank:
                    wait_for_first_error()
                raise

    def train(args: list[str], launch: Launch, for_sagemaker: bool) -> int:
        """Trains with flags, and what the environment adds to them; returns the exit status."""
        sys.argv[1:] = args = with_launch(args, launch)

        def main_and_publish(task: str, config: TrainingConfig, stages: tuple[TrainingConfig, ...]) -> int:
            if stages:
                check_run_directory(Path(config.save_path), config.resume)
                status = train_in_stages(task, config, stages, functools.partial(rows_of_stage, task))
            else:
                status = main(task, config)
            if for_sagemaker and launch.rank == 0:
                publish(Path(config.save_path))
            return status

        def check_out(config: TrainingConfig) -> None:
            if launch.rank == 0:
                check_run_directory(Path(config.save_path), config.resume)

        status = run_training(read_training, main_and_publish, check_out, launch.rank == 0) or 0
        if status and launch.rank:
            # The first process prints the error; if this one ended now, that would be cut off.
            wait_for_first_error()
        return status

    return run_command(start, debug="--debug" in sys.argv)
