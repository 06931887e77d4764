"""Labels unlabelled radiographs with trained detectors, so that others can train on them, too: `train --pseudo OUT`.

Nothing leaks: for the training that holds back fold k of DATA, boxes come from models that did not see fold k either.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xray.commands.runner import command
from xray.errors import InputError, spelled
from xray.file_names import ANNOTATIONS, CONVERSION, IMAGES
from xray.files import check_writable
from xray.flags import Processes, ShareAboveZero, check_paths, check_ranges

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.inference.prediction_journal import PredictionJournal
    from xray.structures.boxes import BoxTable

FOLLOWED = 500
"""Radiographs whose boxes are in memory at a time."""
NAMED = 5
"""How many of the radiographs that are left out are named on the terminal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Label unlabelled radiographs with trained detectors; writes OUT, a dataset directory for `train --pseudo OUT`.

    For the training with fold k held back, boxes come from the models that held back fold k of DATA (with --fold val,
    its validation split); for --fold all, from all of them, fused. Radiographs that are in DATA already, and those of
    its test patients, are left out.

    After an interruption, the same command resumes where it stopped.
    """

    weights: tuple[str, ...]
    """Run directories of trained detectors, at least one; several of one fold are fused."""
    data_path: str
    """The labelled dataset directory, beside which the pseudo-labels are to train."""
    images: str
    """A folder of unlabelled DICOM, PNG or JPEG files (searched through)."""
    save_path: str
    """Dataset directory to write."""
    patients: str = ""
    """CSV (file_name,patient) or COCO file that names each radiograph's patient, beside what DICOM headers say."""
    min_score: ShareAboveZero = 0.1
    """Lowest score of a box that is kept, above 0 and up to 1. Fainter ones are right less than once in ten times, and
    would teach the region proposals, which count every box alike, more noise than findings."""
    tta: bool = True
    """Run the models on the mirrored radiograph, too, and fuse both (test-time augmentation)."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    precision: Literal["auto", "32", "bf16", "16", "int8"] = "auto"
    """What convolutions are computed in, as for xray infer."""
    batch_size: int = 0
    """Radiographs per pass (0 to 4096); 0 chooses 2 on a CPU and as many as its memory allows on a GPU."""
    n_workers: Processes = os.cpu_count() or 1
    """Processes that decode files (0 to 512); 0 decodes in the main process."""
    overwrite: bool = False
    """Replace the pseudo-labels at --save-path; the old ones stay until the new ones are complete."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> int:
    """Labels, then prints how many boxes there are for which fold, and the next command."""
    check(config)
    check_out(config)
    from xray.datasets.store import LABELLING, open_store

    out, data = Path(config.save_path), open_store(Path(config.data_path))
    groups = by_fold([Path(run) for run in config.weights], data)
    work = out / LABELLING
    radiographs = convert(config, work, data)
    models = {str(fold): [run.name for run in runs] for fold, runs in groups.items() if fold is not None}
    models["all"] = [run.name for runs in groups.values() for run in runs]
    with contextlib.ExitStack() as stack:
        journals = {
            fold: stack.enter_context(find(config, work, radiographs, fold, runs)) for fold, runs in groups.items()
        }
        boxes = finish(config, out, data, journals, models, [len(runs) for runs in groups.values()])
    for fold, count in boxes.items():
        print(f"for --fold {fold}: {count} boxes by {', '.join(models[fold])}")
    print(f"next: {spelled('train')} --data-path {config.data_path} --pseudo {out} --fold {next(iter(models))}")
    return 0


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range or a path is empty."""
    from xray.inference.options import check_options

    check_paths(config, "weights", "data_path", "images", "save_path")
    check_ranges(config)
    check_options(infer_config(config, Path(), ()))


def check_out(config: Config) -> None:
    """Raises InputError if --save-path cannot be written to, or holds what is not to be replaced."""
    from xray.datasets.store import JOURNAL, LABELLING
    from xray.radiographs.own_files import check_apart, said
    from xray.radiographs.radiograph import SUFFIXES

    out = Path(config.save_path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give --save-path a directory")
    work = out / LABELLING
    check_writable(out)
    is_begun = work.is_dir() or (out / CONVERSION).is_file()
    if words := said(check_apart(out, Path(config.images), SUFFIXES, is_begun), out):
        print(words, file=sys.stderr)
    if not (out / CONVERSION).is_file():
        names = [JOURNAL] if work.is_dir() else [JOURNAL, ANNOTATIONS, IMAGES]
        if there := [name for name in names if (out / name).exists()]:
            raise InputError(f"{out} holds a {there[0]} of something else: choose another --save-path")
        return
    if work.is_dir() and not (work / "radiographs" / IMAGES).exists() and not any(work.rglob(f"{IMAGES}.part")):
        # This was all that the last run had left to do.
        shutil.rmtree(work)
    try:
        is_pseudo = json.loads((out / CONVERSION).read_bytes()).get("pseudo") is not None
    except (OSError, ValueError, AttributeError):
        is_pseudo = False
    if not is_pseudo:
        raise InputError(f"{out} is a dataset of another kind, which is not replaced: choose another --save-path")
    if not config.overwrite:
        raise InputError(
            f"{out} holds finished pseudo-labels: add --overwrite to replace them, or choose another --save-path"
        )


def by_fold(runs: Sequence[Path], data: "Store") -> dict[int | str | None, list[Path]]:
    """Fold of the dataset, or "val" → the runs that did not see it, ascending; None for those that give labels to "all"
    alone.

    Says of each of these why. Raises InputError where one is no detector of the dataset's categories.
    """
    from xray.models.weights import load_deployed
    from xray.training.pseudo import held_back

    if twice := next((run for place, run in enumerate(runs) if run in runs[:place]), None):
        raise InputError(f"{twice} stands twice after --weights: name each run once")
    groups: dict[int | str | None, list[Path]] = defaultdict(list)
    for run in runs:
        description, _ = load_deployed(run)
        if description["task"] != "detection":
            raise InputError(f"{run} is a run of the task {description['task']}: pseudo-labels are boxes of detectors")
        names = {str(number): name for number, name in data.categories.items()}
        if description.get("categories") != names:
            raise InputError(f"{run} finds other categories than {data.path} has: it cannot label for it")
        fold, why = held_back(run, data)
        groups[fold].append(run)
        if why:
            print(f"{run} gives labels for --fold all alone: {why}", file=sys.stderr)
    # Numbers, then the validation split, then those without either.
    return {fold: groups[fold] for fold in sorted(groups, key=lambda fold: (fold is None, str(fold).zfill(9)))}


def convert(config: Config, work: Path, data: "Store") -> Path:
    """The path of a dataset directory of the unlabelled radiographs, without boxes; made now if it is not complete."""
    from xray.datasets.conversion import write_store
    from xray.datasets.conversion_account import print_account
    from xray.datasets.sources.unlabelled import read_unlabelled
    from xray.datasets.store_files import bits_of

    radiographs, out = work / "radiographs", work.parent
    is_moved = (radiographs / CONVERSION).is_file() and not (radiographs / IMAGES).exists()
    if is_moved and not (out / CONVERSION).exists() and (out / IMAGES).exists():
        # The last run ended between moving the canvases and writing the rest.
        os.replace(out / IMAGES, radiographs / IMAGES)
    patients = config.patients or None
    source = read_unlabelled(config.images, data, patients=patients, n_workers=config.n_workers, apart=out)
    if (radiographs / CONVERSION).is_file():
        conversion = json.loads((radiographs / CONVERSION).read_bytes())
        if (
            conversion["tables_sha256"] == source.fingerprint
            and conversion["parameters"]["image_size"] == data.canvas_size
            and bits_of(conversion) == data.bits
        ):
            return radiographs
        if not config.overwrite:
            raise InputError(
                f"{out} holds an unfinished labelling of other radiographs, or beside another dataset: repeat that "
                "command to continue with it, or add --overwrite to start again"
            )
        shutil.rmtree(work)
    conversion = write_store(
        source,
        radiographs,
        image_size=data.canvas_size,
        bits=data.bits,
        n_folds=1,
        n_workers=config.n_workers,
        overwrite=config.overwrite,
    )
    print(f"{conversion['counts']['images']} radiographs to label")
    left_out: dict[str, list[str]] = defaultdict(list)
    for row in conversion["dropped"]["rows"]:
        left_out[f"{row['action']}, {row['reason']}"].append(row["where"])
    for reason, names in left_out.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        print(f"{reason}: {len(names)} ({', '.join(names[:NAMED])}{more})")
    print_account(conversion, out)
    return radiographs


def infer_config(config: Config, folder: Path, runs: Sequence[Path]) -> Any:
    """The flags of `xray infer` for one group of runs."""
    from xray.commands import infer

    names = ("tta", "device", "precision", "batch_size", "n_workers", "overwrite", "debug")
    shared = {name: getattr(config, name) for name in names}
    return infer.Config(weights=tuple(map(str, runs)), data_path=str(folder), save_path=str(folder.parent), **shared)


def find(
    config: Config, work: Path, radiographs: Path, fold: int | str | None, runs: Sequence[Path]
) -> "PredictionJournal":
    """What a group of runs finds in the radiographs: the rest of them, where some were done before."""
    # torch last: what is wrong with the input has been said by now.
    from xray.commands.find_all import find_all, fingerprint_of, load_models
    from xray.datasets.inputs import open_inputs
    from xray.models.compiler import without_compiler

    with without_compiler():
        importlib.import_module("torchvision")
    from xray.datasets.store import fold_in_words
    from xray.inference.prediction_journal import PredictionJournal

    flags, inputs = infer_config(config, radiographs, runs), open_inputs(radiographs)
    file = work / ("others.part" if fold is None else f"fold-{fold}.part")
    with contextlib.ExitStack() as stack:
        journal = PredictionJournal(file, fingerprint_of(flags, inputs), inputs.ids, config.overwrite)
        stack.enter_context(journal)
        if journal.done < len(inputs):
            who = "for --fold all alone" if fold is None else f"which did not see {fold_in_words(fold)}"
            print(f"labels by {', '.join(run.name for run in runs)}, {who}", file=sys.stderr)
            pipeline, models, start = load_models(flags, len(inputs))
            if journal.done:
                print(f"continuing after {journal.done} of {len(inputs)} radiographs", file=sys.stderr)
            find_all(pipeline, inputs, journal, None, flags, None, models, start)
        # Open, so that no other command writes into it before all is written.
        stack.pop_all()
    return journal


def finish(
    config: Config,
    out: Path,
    data: "Store",
    journals: dict[int | str | None, "PredictionJournal"],
    models: dict[str, list[str]],
    n_models: Sequence[int],
) -> dict[str, int]:
    """Writes the dataset directory from what was found, removes the rest, and returns fold → its number of boxes."""
    from xray.datasets.conversion_account import write_json
    from xray.datasets.sources.unlabelled import partition_of
    from xray.datasets.store import LABELLING

    radiographs = out / LABELLING / "radiographs"
    annotations = json.loads((radiographs / ANNOTATIONS).read_bytes())
    conversion = json.loads((radiographs / CONVERSION).read_bytes())
    counts = dict.fromkeys(models, 0)
    rows = annotations["annotations"]
    for fold, table in tables_of(journals, annotations["images"], list(data.categories), n_models, config.min_score):
        counts[str(fold)] += len(table)
        rows += records_of(table, fold, len(rows))
    conversion["pseudo"] = {
        "partition": partition_of(data),
        "min_score": config.min_score,
        "models": models,
        "boxes": counts,
    }
    # Until conversion.json is there again, the directory counts as unfinished.
    (out / CONVERSION).unlink(missing_ok=True)
    os.replace(radiographs / IMAGES, out / IMAGES)
    write_json(out / ANNOTATIONS, annotations, rows=True)
    write_json(out / CONVERSION, conversion)
    shutil.rmtree(out / LABELLING)
    return counts


def tables_of(
    journals: dict[int | str | None, "PredictionJournal"],
    images: Sequence[dict[str, Any]],
    categories: Sequence[int],
    n_models: Sequence[int],
    min_score: float,
) -> "Iterator[tuple[int | str, BoxTable]]":
    """For each fold and for "all", a part of the radiographs at a time: boxes in original pixels, within their edges.

    n_models: of each journal; it is their weight where all are fused.
    """
    from xray.datasets.source import clip_boxes, has_area, snap
    from xray.datasets.store import ALL_FOLDS
    from xray.inference.ensemble import FUSION_IOU, FUSION_SCORE
    from xray.structures.boxes import BoxTable
    from xray.structures.fusion import weighted_boxes_fusion

    sides = np.array([(image["width"], image["height"]) for image in images])
    for start in range(0, len(images), FOLLOWED):
        positions = range(start, min(start + FOLLOWED, len(images)))
        found: list[tuple[int | str | None, BoxTable]] = []
        for held_back, journal in journals.items():
            table = journal.predictions(positions)[0].table
            # Without the "No finding" rows.
            found.append((held_back, table.select(np.isin(table.labels, categories))))
        every = BoxTable.concatenate([table for _, table in found])
        if len(found) > 1:
            group = np.repeat(np.arange(len(found)), [len(table) for _, table in found])
            weights = [float(n) for n in n_models]
            every = weighted_boxes_fusion(every, group, weights, FUSION_IOU, score=FUSION_SCORE).table
        for part, table in [*found, (ALL_FOLDS, every)]:
            if part is not None:
                widths, heights = sides[table.images].T if len(table) else (np.zeros(0), np.zeros(0))
                table = dataclasses.replace(table, boxes=clip_boxes(snap(table.boxes), widths, heights))
                yield part, table.select(has_area(table.boxes) & (table.scores >= min_score))


def records_of(table: "BoxTable", fold: int | str, n_before: int) -> list[dict[str, Any]]:
    """Rows of annotations.json, whose ids go on after those of `n_before` rows."""
    from xray.datasets.annotation import annotation_row
    from xray.structures.boxes import xyxy_to_xywh

    xywh = xyxy_to_xywh(table.boxes)
    columns = (table.images, table.labels, xywh, xywh[:, 2:].prod(axis=1), table.scores.round(6))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        annotation_row(number, image, label, box, area, ()) | {"score": score, "for_fold": fold}
        for number, (image, label, box, area, score) in enumerate(rows, n_before + 1)
    ]


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main, check, check_out)
