"""Cross-validates: trains a model on all folds but one, for each fold: python tools/cv.py with the flags of a training.

Each model predicts the fold that it has not seen; together these predictions cover the training split.
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from annotated_types import Interval

from xray.commands.runner import run_command
from xray.commands.training_inputs import check_data, check_run_directory, dataset_directory
from xray.errors import FlagError, InputError, spelled
from xray.file_names import CONFIG_FILE, METRICS, PREDICTIONS
from xray.files import complete, differing, make_folder
from xray.flags import FoldNumber, check_ranges, flag_value, parse_flags, refuse_repeated, require, take_flags
from xray.storage.places import run_training
from xray.training import stages as staged
from xray.training.config import DetectionConfig, TrainingConfig
from xray.training.launch import find_launch
from xray.training.recipes import STAGES, config_values, read_yaml, save_config
from xray.training.side_by_side import EXIT_TERMINATED, Work, run_all

if TYPE_CHECKING:
    from xray.datasets.store import Store

SAVED = "cv.yaml"
"""In RUN: the flags that the trainings were started with."""
PREDICTED = "out_of_fold"
"""In the run directory of a fold: what its model predicts of that fold. The folder is made when the training is done,
and its predictions.json written when that is."""
N_RESAMPLES = 1000
FREE = {"save_path", "device", "n_workers"}
"""Flags of a training that may differ when it is resumed, as they do not belong to the experiment."""

MAIN = {
    "detection": ("map40", "map40_kaggle", "coco_ap", "coco_ap50", "coco_ap75"),
    "segmentation": ("dice", "dice_positive", "dice_union", "iou", "false_positive_rate"),
    "classification": ("mean_auroc", "mean_average_precision"),
}
"""The metrics that are printed of each task, where they are defined."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folds:
    """Cross-validation's own flags; all others are those of a training, below, and hold for each fold's."""

    folds: tuple[FoldNumber, ...] = ()
    """Folds to hold back, each in a training of its own; default: all of the dataset."""
    parallel: Annotated[int, Interval(ge=1, le=64)] = 1
    """Trainings at a time (1 to 64): each has its own GPU (with --devices D, its own D), or its share of the CPU's
    threads."""


OWN_FLAGS = ("--folds", "--parallel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Folds, DetectionConfig):
    """What shells complete; --task chooses another."""


def main(
    task: str, config: TrainingConfig, folds: Folds, args: Sequence[str], stages: Sequence[TrainingConfig] = ()
) -> int:
    """Trains what is not trained yet, predicts, gathers, and prints a row a fold.

    args: the training's flags. stages: of a training in stages, see `xray.training.stages`.
    Returns the exit status: 143 where SIGTERM stopped the trainings, after each saved a checkpoint.
    """
    run, launch = Path(config.save_path), find_launch()
    check_ranges(folds)
    require(len(set(folds.folds)) == len(folds.folds), "folds", " ".join(map(str, folds.folds)), "each given once")
    if launch.world > 1 or config.num_nodes > 1:
        raise InputError(
            "cross-validation starts its trainings itself, on one machine: start it without torchrun or srun, and "
            "without --num-nodes; or train each fold by itself with --fold"
        )
    check_run_directory(run, config.resume)
    check_data(Path(config.data_path))
    for number, stage in enumerate(stages, 1):
        try:
            check_data(Path(config.data_path if number == 1 else stage.data_path))
        except InputError as error:
            raise InputError(f"stage {number}: {error}") from None
    if config.resume:
        check_same(run, task, config, stages)
        # Flags that are not repeated hold for folds that are not begun yet, too, whatever the defaults are by now.
        args = ["--config", str(run / SAVED), *take_flags(args, config=None)[1]]
    slots = slots_for(folds.parallel, config)

    from xray.datasets.store import open_store
    from xray.training.trained_on import check_dataset, note_dataset

    # What is predicted is the canvases of the last stage.
    data = Path(stages[-1].data_path) if stages else dataset_directory(config, run)
    check_data(data)
    store = open_store(data, pixels=False)
    if config.resume and (changed := check_dataset(run, store, with_folds=True)):
        print(changed, file=sys.stderr)
    chosen = chosen_folds(store, folds.folds)
    if n_val := int((store.splits == "val").sum()):
        print(f"the validation split of {store.path}, {n_val} radiographs, is not used: folds validate")
    make_folder(run)
    if not config.resume:
        save_config(run / SAVED, task, config, stages=staged.stage_values(task, stages))
    # After what makes it a cross-validation: one that is killed in between can be resumed.
    note_dataset(run, store)

    def note(work: Work, command: str) -> None:
        if command == "train":
            (run / work.name / PREDICTED).mkdir(exist_ok=True)

    works = [
        Work(f"fold{fold}", commands_of(run / f"fold{fold}", fold, data, task, config, args, bool(stages)))
        for fold in chosen
    ]
    for work in works:
        if not work.commands:
            print(f"{work.name} is done: {run / work.name}")
    status, failed = run_all(works, slots, note)
    go_on = "continue with the same command and --resume"
    if status == EXIT_TERMINATED:
        print(f"stopped by SIGTERM: {go_on}", file=sys.stderr)
        return EXIT_TERMINATED
    if status:
        how = f"by signal {-status}" if status < 0 else f"with status {status}, as its own message above says"
        raise InputError(f"{failed} ended {how}, and no other was begun: {go_on}")
    gather(run, store, chosen, task)
    return 0


def check_same(run: Path, task: str, config: TrainingConfig, stages: Sequence[TrainingConfig]) -> None:
    """Raises FlagError where a training's flag is not what the cross-validation in `run` was started with."""
    before = read_yaml(run / SAVED)
    before_stages = before.pop(STAGES, [])
    if len(before_stages) != len(stages):
        raise FlagError(
            f"{run} was started with {len(before_stages)} stages: give its --config, or another --save-path"
        )
    staged.check_same(before_stages, staged.stage_values(task, stages), run, FREE)
    now = yaml.safe_load(yaml.safe_dump(config_values(task, config)))
    for name in differing(before, now):
        if name not in FREE:
            wanted = f"{before.get(name)}, {run} was started with it; or give another --save-path"
            require(False, name, now.get(name), wanted)


def slots_for(parallel: int, config: TrainingConfig) -> list[dict[str, str]]:
    """What the environment of each of the trainings at a time says: which GPUs it sees, or how many threads it has.

    Raises FlagError where there are too few GPUs.
    """
    if parallel == 1:
        return [{}]
    if config.device != "cpu":
        import torch

        n = torch.cuda.device_count()
        if n:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",")[:n] if visible else list(map(str, range(n)))
            each = config.devices
            require(parallel * each <= n, "parallel", parallel, f"at most {n // each}: of {n} GPUs each has {each}")
            groups = [names[number * each : (number + 1) * each] for number in range(parallel)]
            return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() else cores
    return [{"OMP_NUM_THREADS": str(max(1, threads // parallel))} for _ in range(parallel)]


def chosen_folds(store: "Store", wanted: Sequence[int]) -> list[int]:
    """The folds to hold back. Raises FlagError for one that the dataset lacks, InputError where it has only one."""
    existing = sorted({int(fold) for fold in store.folds[store.splits == "train"]})
    if len(existing) < 2:
        raise InputError(f"{store.path} has {len(existing)} fold: convert with --n-folds 2 or more")
    for fold in wanted:
        require(fold in existing, "folds", fold, f"one of {', '.join(map(str, existing))}, those of {store.path}")
    return sorted(wanted) or existing


def commands_of(
    run: Path,
    fold: int,
    data: Path,
    task: str,
    config: TrainingConfig,
    args: Sequence[str],
    is_staged: bool = False,
) -> tuple[tuple[str, ...], ...]:
    """What is left to do for a fold whose run directory is `run`: its training, and the predictions of its model.

    is_staged: the training has stages, which know their data themselves.
    """
    commands = []
    places = ("--save-path", str(run), "--device", config.device, "--n-workers", str(config.n_workers))
    if (run / PREDICTED / PREDICTIONS).is_file():
        return ()
    if not (run / PREDICTED).is_dir():
        if any((run / name).is_file() for name in (CONFIG_FILE, staged.SAVED)):
            # It knows its other flags, and which values were found for those that are chosen by themselves.
            flags: tuple[str, ...] = ("--task", task, "--resume", *(["--debug"] if config.debug else []))
        else:
            # Of a flag given twice the last one counts.
            flags = (*args, *(() if is_staged else ("--data-path", str(data))), "--fold", str(fold))
        commands.append(("train", *flags, *places))
    inference = ("--weights", str(run), "--data-path", str(data), "--split", "train", "--fold", str(fold))
    commands.append(("infer", *inference, *places[2:], "--save-path", str(run / PREDICTED)))
    return tuple(commands)


def gather(run: Path, store: "Store", folds: Sequence[int], task: str) -> None:
    """Writes RUN/predictions.json, its made_by.json and RUN/metrics.json from what was predicted of each fold, and
    prints the table."""
    from xray.datasets.prediction_ids import read_any_predictions
    from xray.evaluation.cross_validation import cross_validate, out_of_fold
    from xray.evaluation.evaluate import plain_numbers
    from xray.structures.made_by import joined, read_made_by, write_made_by
    from xray.structures.predictions import write_predictions

    predicted = {fold: run / f"fold{fold}" / PREDICTED / PREDICTIONS for fold in folds}
    by_fold = {fold: read_any_predictions(path, store) for fold, path in predicted.items()}
    out = run / PREDICTIONS
    write_predictions(out, out_of_fold(store, by_fold), store.categories)
    write_made_by(run, (out.name,), joined([read_made_by(path) for path in predicted.values()]))
    metrics = cross_validate(store, by_fold, N_RESAMPLES)
    with complete(run / METRICS) as temporary:
        temporary.write_text(json.dumps(plain_numbers(metrics), indent=1, allow_nan=False) + "\n")
    show(metrics, [name for name in MAIN[task] if name in metrics])
    every = " ".join(str(run / f"fold{fold}") for fold in folds)
    print(f"\nout-of-fold predictions: {out}; next:")
    print(f"  {spelled('evaluate')} --predictions {out} --data-path {store.path} --save-path REPORT")
    print(f"  {spelled('infer')} --weights {every} --data-path RADIOGRAPHS --save-path OUT")


def show(metrics: dict[str, Any], names: Sequence[str]) -> None:
    """Prints a row a fold, their mean and standard deviation, and the numbers of all out-of-fold predictions."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="cross-validation", title_justify="left")
    for heading in ("fold", "radiographs", *names):
        table.add_column(heading, justify="left" if heading == "fold" else "right", no_wrap=True)
    for fold in metrics["folds"]:
        cells = (f"{fold[name]:.4f}" if name in fold else "" for name in names)
        table.add_row(str(fold["fold"]), str(fold["n_images"]), *cells)
    for title, part in (("mean", metrics["mean"]), ("± standard deviation", metrics["standard_deviation"])):
        table.add_row(title, "", *(f"{part[name]:.4f}" if name in part else "" for name in names))
    table.add_row("all together", str(metrics["n_images"]), *(f"{metrics[name]:.4f}" for name in names))
    intervals = [metrics.get(f"{name}_ci95") for name in names]
    table.add_row("95 % interval", "", *("–".join(f"{end:.3f}" for end in ends) if ends else "" for ends in intervals))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    console.print("", table, sep="\n")


def read(args: Sequence[str]) -> tuple[str, TrainingConfig, Folds, list[str], tuple[TrainingConfig, ...]]:
    """Task, config and cross-validation's own flags, checked; the training's flags as they were given; its stages."""
    if {"-h", "--help"} & set(args):
        with contextlib.suppress(SystemExit):
            parse_flags(Folds, ["--help"], prog="xray cv")
        folds, others = Folds(), list(args)
    else:
        refuse_repeated(Folds, args)
        folds, others = parse_flags(Folds, args, return_unknown_args=True)
    if flag_value(others, "fold") is not None:
        raise FlagError("--fold is of a single training: choose the folds that are held back with --folds")
    # A recipe may name a fold of its own.
    given = [arg for arg in others if arg != "--resume"]
    saved = Path(flag_value(others, "save_path") or "") / SAVED
    if "--resume" in others and flag_value(others, "config") is None and saved.is_file() and STAGES in read_yaml(saved):
        given = ["--config", str(saved), *given]
        others = [*given, "--resume"]
    is_staged = staged.has_stages(others)
    flags = [*(given if is_staged else others), "--fold", "0"]
    begun = read_yaml(saved).get(STAGES, []) if "--resume" in others and saved.is_file() else []
    task, config, stages = staged.read_training(flags, SAVED, OWN_FLAGS, begun)
    if is_staged and "--resume" in others:
        config = dataclasses.replace(config, resume=True)
        if not (Path(config.save_path) / SAVED).is_file():
            raise InputError(f"nothing to resume in {config.save_path}: it has no {SAVED}; start without --resume")
    return task, config, folds, given, stages


def run() -> int:
    """The command; returns its exit status."""

    def start() -> int:
        """Reads the flags and cross-validates."""
        return run_training(read, main, lambda config: check_run_directory(Path(config.save_path), config.resume)) or 0

    return run_command(start, debug="--debug" in sys.argv)
