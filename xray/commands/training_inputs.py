"""What a training begins with: a run directory that is free, a dataset, and the task that is made of both."""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.errors import InputError, spelled
from xray.file_names import CONFIG_FILE, CONVERSION
from xray.files import PART, check_writable
from xray.training.config import ClassificationConfig, DetectionConfig, SegmentationConfig, TrainingConfig
from xray.training.launch import Launch, Rendezvous, convert_once
from xray.training.sagemaker import is_sagemaker

if TYPE_CHECKING:
    from xray.datasets.store import Store

# What a run directory may hold before training starts: a conversion, finished or interrupted, a sweep of lr_find, and
# what a cross-validation that was killed in its first moment leaves, and a tracker that refused to begin.
BEFORE_TRAINING = {"dataset", "lr_find.png", "wandb", "cv.yaml" + PART, "stages.yaml" + PART}


def check_run_directory(run: Path, resume: bool) -> None:
    """Raises InputError unless `run` can be started; `check_resumable` checks whether it can be resumed."""
    if not run.exists() or run.is_dir():
        check_writable(run)
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
            f"stand-in with {spelled('phantoms')} --save-path raw and give --data-path raw/vinbig"
        )
    if not is_store(data) and not is_raw_vinbig(data):
        raise InputError(
            f"{data} is neither a dataset directory (annotations.json, images.npy) nor a raw VinBig directory "
            f"(train.csv, train/): convert it with {spelled('convert')}"
        )


def dataset_directory(
    config: TrainingConfig, run: Path, launch: Launch | None = None, rendezvous: Rendezvous | None = None
) -> Path:
    """The dataset directory to train on; a raw VinBig directory is converted into the run first, by one process."""
    from xray.datasets.conversion_account import print_account
    from xray.datasets.sources import convert
    from xray.datasets.store import is_store

    data = Path(config.data_path)
    if is_store(data):
        return data
    dataset = run / "dataset"

    def is_there() -> bool:
        return (dataset / CONVERSION).is_file()

    def convert_raw() -> None:
        print(f"{data} is a raw VinBig directory: converting it once into {dataset}")
        try:
            conversion = convert("vinbig", data, dataset, n_workers=config.n_workers)
        except InputError as error:
            if not any(flag in str(error) for flag in ("--n-folds", "--image-size", "--overwrite")):
                raise
            # Training has no such flags itself.
            raise InputError(
                f"{error}; such flags belong to {spelled('convert')} vinbig --data-path {data}: convert with them "
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
                f"first with {spelled('convert')}, or start the training with torchrun"
            )
        convert_raw()
    return dataset


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


def rows_of_stage(task_name: str, config: TrainingConfig) -> tuple[set[str], set[str]]:
    """Builds what a stage trains, and lets go of it: → ids of the radiographs that train, and that validate.

    Raises InputError for all that can be wrong with its data and flags.
    """
    data = Path(config.data_path)
    check_data(data)

    from xray.datasets.store import is_store, open_store
    from xray.models.device import resolve_device

    if not is_store(data):
        raise InputError(f"{data} is a raw VinBig directory: stages need a dataset directory of {spelled('convert')}")
    store = open_store(data)
    # It says again what it chose when it trains.
    with contextlib.redirect_stdout(io.StringIO()):
        task = build_task(task_name, config, store)
    task.check_store_device(resolve_device(config.device))
    ids: tuple[set[str], set[str]] = task.ids
    return ids
