"""Trains a detector: python xray/train.py --data-path DATA --save-path RUN.

Reads the config, opens the dataset directory, builds the task and hands it to Lightning's Trainer. The run directory
it writes is what every later command takes as --weights.
"""

import dataclasses
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder first: xray/data would shadow any package named `data`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from xray.command import InputError, run_command
from xray.config import CONFIG_FILE, TrainingConfig, read_training_flags, save_config

if TYPE_CHECKING:
    import numpy as np

    from xray.data.store import Store

# What a run directory may hold before training starts: a conversion, finished or interrupted, and a sweep of lr_find.
BEFORE_TRAINING = {"dataset", "lr_find.png"}


def main(task_name: str, config: TrainingConfig) -> None:
    """Trains until `config.n_epochs`. A run that exists is continued with `resume` or left alone."""
    run = Path(config.save_path)
    last = run / "last.ckpt"
    check_run_directory(run, config.resume, last)
    check_data(Path(config.data_path))

    # Heavy imports wait until the flags are known to be right, so that --help and mistakes answer at once.
    import torch

    from xray.data.store import open_store
    from xray.training.device import lightning_precision, resolve_device
    from xray.training.trainer import build_trainer

    device = resolve_device(config.device)
    precision = lightning_precision(config.precision, device)
    store = open_store(dataset_directory(config, run))
    task = build_task(task_name, config, store)
    print(f"{len(task.train_rows)} radiographs train, {len(task.val_rows)} validate (fold {config.fold})")
    if not config.resume:
        print(task.load_initial_weights())
    # Convolutions are faster on it than on PyTorch's own order, on CPUs as on GPUs.
    task.model.to(memory_format=torch.channels_last)
    if config.compile:
        # In place, so that the state dict keeps its names. Every shape stands still, but for an epoch's last batch.
        task.model.compile(dynamic=False)
    run.mkdir(parents=True, exist_ok=True)
    save_config(run / CONFIG_FILE, task_name, config)
    trainer = build_trainer(config, run, task.monitored, device, precision, draw_validation)
    try:
        trainer.fit(task, ckpt_path=last if config.resume else None, weights_only=True)
    except SystemExit:
        # What Lightning makes of Ctrl-C.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    best = trainer.checkpoint_callback.best_model_score
    print(f"\nbest {task.monitored}: {float(best):.4f}. The run is in {run}; go on with" if best is not None else "")
    print(f"  python tools/infer.py --weights {run} --data-path RADIOGRAPHS --save-path OUT")
    print(f"  tensorboard --logdir {run}")


def build_task(name: str, config: TrainingConfig, store: "Store") -> Any:
    """The LightningModule of a task; initial weights are not loaded yet."""
    # Each brings libraries of its own: only the one that is asked for is imported.
    match name:
        case "detection":
            from xray.detection.task import DetectionTask as TaskType
        case "segmentation":
            from xray.segmentation.task import SegmentationTask as TaskType
        case "classification":
            from xray.classification.task import ClassificationTask as TaskType
    return TaskType(config, store)


def draw_validation(task: Any, row: int) -> "np.ndarray":
    """Truth and prediction of one validation radiograph side by side, (H, W, 3) uint8."""
    from xray.outputs.pictures import draw_findings, draw_with_truth, in_words, rows_of

    store, validated = task.store, task.validated
    record, canvas, categories = store.records[row], store.canvas(row), store.categories
    left, top, right, bottom = canvas.content
    scale = [(right - left) / record["width"], (bottom - top) / record["height"]] * 2
    pictures, tables = [], []
    number = validated.image_ids.index(record["source_id"])
    for source, image, scored in ((store, row, False), (validated, number, True)):
        table, masks = rows_of(source.boxes if source is store else source.table, source.masks, image)
        tables.append(table)
        table = dataclasses.replace(table, boxes=table.boxes * scale)
        pixels = store.images[row][top:bottom, left:right]
        pictures.append(draw_findings(pixels, table, masks, categories, scored=scored, max_side=640))
    truth, found = tables
    return draw_with_truth(*pictures, truth, in_words(found, categories), categories)


def check_run_directory(run: Path, resume: bool, last: Path) -> None:
    """Raises InputError unless `run` can be started, or resumed."""
    if resume:
        if not last.is_file():
            raise InputError(
                f"nothing to resume in {run}: it has no {last.name}, no epoch was finished; start without --resume"
            )
        if not zipfile.is_zipfile(last):
            raise InputError(
                f"{last} is damaged: start another run, with --weights {run} from what this one had reached"
            )
        return
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file: give a directory as --save-path")
    if run.is_dir() and {entry.name for entry in run.iterdir()} - BEFORE_TRAINING:
        raise InputError(f"{run} exists already: continue it with --resume, or give another --save-path")


def check_data(data: Path) -> None:
    """Raises InputError unless `data` is a dataset directory or a raw VinBig directory."""
    from xray.data.store import is_store
    from xray.data.vinbig import is_raw_vinbig

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


def dataset_directory(config: TrainingConfig, run: Path) -> Path:
    """The dataset directory to train on; a raw VinBig directory is converted into the run first."""
    from xray.data.store import is_store
    from xray.data.vinbig import convert_vinbig

    data = Path(config.data_path)
    if is_store(data):
        return data
    dataset = run / "dataset"
    if not (dataset / "conversion.json").is_file():
        print(f"{data} is a raw VinBig directory: converting it once into {dataset}")
        convert_vinbig(data, dataset, n_workers=config.n_workers)
    return dataset


if __name__ == "__main__":

    def start() -> None:
        """Flags first: mistakes in them count as failures of the command too."""
        main(*read_training_flags(sys.argv[1:]))

    sys.exit(run_command(start, debug="--debug" in sys.argv))
