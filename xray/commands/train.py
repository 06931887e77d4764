"""Trains a detector, a segmenter or a classifier: python xray/train.py --data-path DATA --save-path RUN.

Reads the config, opens the dataset directory, builds the task and hands it to Lightning's Trainer. Every later command
takes the run directory as --weights.
"""

import contextlib
import dataclasses
import functools
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xray
from xray.commands.runner import run_command
from xray.errors import InputError
from xray.files import PART
from xray.storage.places import run_training
from xray.training.config import (
    CONFIG_FILE,
    TASKS,
    ClassificationConfig,
    DetectionConfig,
    SegmentationConfig,
    TrainingConfig,
)
from xray.training.launch import (
    Launch,
    Rendezvous,
    convert_once,
    find_launch,
    follow_the_first,
    wait_for_first_error,
    with_launch,
)
from xray.training.recipes import save_config
from xray.training.sagemaker import failure_reported, is_sagemaker, publish, sagemaker_flags
from xray.training.stages import read_training, train_in_stages

if TYPE_CHECKING:
    import numpy as np

    from xray.datasets.store import Store
    from xray.training.checkpoints import Progress

EXIT_TERMINATED = 143

Config = TASKS["detection"]
"""What shells complete; --task chooses another."""

# What a run directory may hold before training starts: a conversion, finished or interrupted, a sweep of lr_find, and
# what a cross-validation that was killed in its first moment leaves, and a tracker that refused to begin.
BEFORE_TRAINING = {"dataset", "lr_find.png", "wandb", "cv.yaml" + PART, "stages.yaml" + PART}


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

    from xray.datasets.store import open_store
    from xray.models.device import keep_freed_memory, lightning_precision, resolve_device
    from xray.models.tensors import load_tensors
    from xray.structures.sides import told
    from xray.training.average import KeepBest, deploy_average
    from xray.training.callbacks import deploy
    from xray.training.checkpoints import (
        LAST,
        BestCheckpoint,
        LastCheckpoint,
        Stopped,
        check_resumable,
        clear_leftovers,
    )
    from xray.training.failures import explain, is_lost_worker, quiet_threads
    from xray.training.loading import shared_with_workers
    from xray.training.precision import choose_precision
    from xray.training.trackers import build_loggers, check_trackers
    from xray.training.trainer import build_trainer

    device = resolve_device(config.device)
    lightning_precision(config.precision, device)  # refuses what the device cannot, before anything is read
    check_trackers(config)
    if device.type == "cpu":
        keep_freed_memory()
    progress = check_resumable(run, config) if config.resume else None
    rendezvous = Rendezvous(launch, device.type == "cuda") if launch.can_meet else None
    store = open_store(dataset_directory(config, run, launch, rendezvous))
    task = build_task(task_name, config, store)
    if not config.resume:
        choose_precision(task, device)
    # What was "auto" is decided now.
    config = task.config
    precision = lightning_precision(config.precision, device)
    task.check_store_device(device)
    task.check_validation()
    print(who_trains(len(task.train_rows), len(task.val_rows), config.fold))
    choices = task.plan.lines()
    print(*choices, sep="\n", end="\n" if choices else "")
    print(told(task.swap, store.categories, task.flip > 0, task.names_sides))
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
    run.mkdir(parents=True, exist_ok=True)
    if is_first:
        save_config(run / CONFIG_FILE, task_name, config, choices)
    if not launch.by:
        start_others_by_script()
    trainer = build_trainer(config, run, task.monitored, device, precision, draw_validation, loggers)
    (last,) = (one for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint))
    best = next((one for one in trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint)), None)
    kept = next((one for one in trainer.callbacks if isinstance(one, KeepBest)), None)  # type: ignore[attr-defined]
    if trainer.world_size > 1:
        last.last_words()
    go_on = f"python xray/train.py --task {task_name} --save-path {run} --resume"
    try:
        with quiet_threads(), shared_with_workers():
            trainer.fit(task, ckpt_path=run / LAST if progress else None, weights_only=True)
            if best is None or kept is None:
                if is_first:
                    checkpoint = load_tensors(run / LAST)
                    deploy(run, task, checkpoint["state_dict"], epoch=checkpoint["epoch"])
                outcome = f"the weights of epoch {trainer.current_epoch} are deployed"
            else:
                score = None if best.best_model_score is None else float(best.best_model_score)
                outcome = "" if score is None else f"best {task.monitored}: {score:.4f}"
                if config.average_best > 1:
                    print(deploy_average(trainer, task, run, kept, score))
    except SystemExit:
        # What Lightning makes of Ctrl-C.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except Stopped as stopped:
        if trainer.is_global_zero:
            print(f"stopped by SIGTERM and saved: {stopped}; continue with {go_on}", file=sys.stderr)
        # Where the first process has started this one, only the status of the first one counts.
        return 0 if launch.by == "lightning" else EXIT_TERMINATED
    except Exception as error:
        words = explain(error, config, last.was_validating)
        if last.is_asked and is_lost_worker(error) and is_first:
            # The manager of a job that ends all of its processes ends the loaders too.
            print(f"stopped by SIGTERM; continue from the last checkpoint with {go_on}", file=sys.stderr)
            return EXIT_TERMINATED
        if words is None or config.debug:
            raise
        raise InputError(words) from error
    finally:
        # Strict mode lasts as long as its training.
        torch.use_deterministic_algorithms(False)
    print(f"\n{outcome}. The run is in {run}; next:" if outcome else "")
    print(f"  python tools/infer.py --weights {run} --data-path RADIOGRAPHS --save-path OUT")
    if "tensorboard" in config.logger:
        print(f"  tensorboard --logdir {run}")
    return 0


def rows_of_stage(task_name: str, config: TrainingConfig) -> tuple[set[str], set[str]]:
    """Builds what a stage trains, and lets go of it: → ids of the radiographs that train, and that validate.

    Raises InputError for all that can be wrong with its data and flags.
    """
    data = Path(config.data_path)
    check_data(data)

    from xray.datasets.store import is_store, open_store
    from xray.models.device import resolve_device

    if not is_store(data):
        raise InputError(
            f"{data} is a raw VinBig directory: stages need a dataset directory of python tools/convert.py"
        )
    store = open_store(data)
    # It says again what it chose when it trains.
    with contextlib.redirect_stdout(io.StringIO()):
        task = build_task(task_name, config, store)
    task.check_store_device(resolve_device(config.device))
    training, validating = (
        {task.store.records[row]["source_id"] for row in rows} for rows in (task.train_rows, task.val_rows)
    )
    return training, validating


def build_task(name: str, config: TrainingConfig, store: "Store") -> Any:
    """The LightningModule of a task; initial weights are not loaded yet."""
    # Each brings libraries of its own: only the one that is asked for is imported.
    match config:
        case DetectionConfig():
            from xray.training.tasks.detection import DetectionTask

            return DetectionTask(config, store)
        case SegmentationConfig():
            from xray.training.tasks.segmentation import SegmentationTask

            return SegmentationTask(config, store)
        case ClassificationConfig():
            from xray.training.tasks.classification import ClassificationTask

            return ClassificationTask(config, store)
    raise ValueError(f"{name} is none of the tasks")


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


def check_run_directory(run: Path, resume: bool) -> None:
    """Raises InputError unless `run` can be started; `check_resumable` checks whether it can be resumed."""
    if resume:
        return
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file: give a directory as --save-path")
    present = {entry.name for entry in run.iterdir()} if run.is_dir() else set()
    # A run that is killed in its first moment leaves a config that is not complete.
    if present - BEFORE_TRAINING - {CONFIG_FILE + PART}:
        raise InputError(f"{run} exists already: continue it with --resume, or give another --save-path")


def check_data(data: Path) -> None:
    """Raises InputError unless `data` is a dataset directory or a raw VinBig directory."""
    from xray.datasets.sources.vinbig import is_raw_vinbig
    from xray.datasets.store import is_store

    if not data.exists():
        raise InputError(
            f"no data at {data}: download the VinBigData competition's data from Kaggle and unpack it there, or make a "
            "stand-in with python tools/phantoms.py --save-path raw and give --data-path raw/vinbig"
        )
    if not is_store(data) and not is_raw_vinbig(data):
        raise InputError(
            f"{data} is neither a dataset directory (annotations.json, images.npy) nor a raw VinBig directory "
            "(train.csv, train/): convert it with python tools/convert.py"
        )


def dataset_directory(
    config: TrainingConfig, run: Path, launch: Launch | None = None, rendezvous: Rendezvous | None = None
) -> Path:
    """The dataset directory to train on; a raw VinBig directory is converted into the run first, by one process."""
    from xray.datasets.conversion import print_account
    from xray.datasets.sources import convert
    from xray.datasets.store import is_store

    data = Path(config.data_path)
    if is_store(data):
        return data
    dataset = run / "dataset"

    def is_there() -> bool:
        return (dataset / "conversion.json").is_file()

    def convert_raw() -> None:
        print(f"{data} is a raw VinBig directory: converting it once into {dataset}")
        try:
            conversion = convert("vinbig", data, dataset, n_workers=config.n_workers)
        except InputError as error:
            if not any(flag in str(error) for flag in ("--n-folds", "--image-size", "--overwrite")):
                raise
            # Training has no such flags itself.
            raise InputError(
                f"{error}; such flags belong to python tools/convert.py vinbig --data-path {data}: convert with them "
                "first, then train on the new dataset directory"
            ) from None
        for reason, count in conversion["dropped"]["counts"].items():
            print(f"left out or changed, {reason}: {count}")
        print_account(conversion, dataset)

    if rendezvous is not None:
        convert_once(rendezvous, is_there, convert_raw)
    elif not is_there():
        if launch is not None and launch.rank and not is_sagemaker():
            raise InputError(
                f"{data} is a raw VinBig directory, and the nodes cannot agree which of them converts it: convert it "
                "first with python tools/convert.py, or start the training with torchrun"
            )
        convert_raw()
    return dataset


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
