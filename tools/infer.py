"""Finds abnormalities in radiographs: python tools/infer.py --weights RUN --data-path DIR --save-path OUT."""

import csv
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if __name__ == "__main__":
    # The repository's root in place of tools/, whose file names would shadow packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from rich.console import Console

from xray.command import InputError, command
from xray.config import require
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_BOX, PNEUMOTHORAX

if TYPE_CHECKING:
    from xray.data.inputs import Inputs
    from xray.data.predictions import Predictions
    from xray.data.store import Store
    from xray.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Run trained models over radiographs; writes OUT/submission.csv, OUT/predictions.json and what else is asked for.

    Several detectors are fused, several segmenters or classifiers averaged. A segmenter beside a detector refines its
    pneumothorax boxes and gives them a mask.

    A file that cannot be read costs that file only: it is listed in OUT/failures.csv, its row in the submission says
    "No finding", and the exit status is 1.
    """

    weights: tuple[str, ...]
    """Run directories of trained models of any task."""
    data_path: str
    """A folder of DICOM, PNG or JPEG files (searched through), one such file, or a dataset directory."""
    save_path: str
    """Folder to write into."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    tta: bool = True
    """Look at the mirrored radiograph too and fuse both (test-time augmentation)."""
    gate: Literal["soft", "hard"] = "soft"
    """What a classifier's pneumothorax probability does to masks: soft weighs their scores, hard leaves some out."""
    gate_threshold: float | None = None
    """Probability below which --gate hard leaves a radiograph's masks out, in [0, 1]; default: the run's own or 0.5."""
    triplet: tuple[float, float, float] | None = None
    """TOP MIN_AREA BOTTOM: a radiograph has a mask if MIN_AREA of its pixels, a share, exceed TOP; it is made of those
    above BOTTOM. Default: what tools/evaluate.py --fit stored in the run, else the threshold it was trained with."""
    prune: int = 0
    """Cut U-Net++ trained with --deep-supervision to this level, 1 to 4, for speed; 0 leaves them whole."""
    probabilities: bool = False
    """Keep the probability map of each radiograph, so that tools/evaluate.py can search thresholds without a model."""
    overlays: bool = False
    """Draw the findings of each radiograph into OUT/overlays, beside the truth where it is known."""
    truth: str = ""
    """Dataset directory with the truth to draw; default: --data-path where that is one."""
    overlay_threshold: float = 0.3
    """Lowest confidence that overlays show, in [0, 1]."""
    sample_submission: str = ""
    """CSV whose image_id column gives the submission's rows; default: sample_submission.csv in or above the data."""
    split: str = ""
    """Of a dataset directory: only this split, train or test."""
    fold: int = -1
    """Of a dataset directory: only this fold; -1 is all."""
    batch_size: int = 0
    """Radiographs per pass; 0 chooses 2 on a CPU and 16 on a GPU."""
    n_workers: int = os.cpu_count() or 1
    """Processes that decode files while the model works; 0 decodes in the main process."""
    timeout: float = 60.0
    """Seconds that one file may take to decode."""
    overwrite: bool = False
    """Replace the predictions that OUT holds."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: InferConfig) -> int:
    """Exit status 0, or 1 if a radiograph could not be read."""
    check(config)
    out = Path(config.save_path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder as --save-path")
    if (out / "predictions.json").exists() and not config.overwrite:
        raise InputError(f"{out} holds predictions already: give another --save-path, or --overwrite")

    from xray.data.inputs import open_inputs

    data = Path(config.data_path)
    inputs = open_inputs(data, config.split or None, None if config.fold < 0 else config.fold)
    order = rows_of_submission(data, inputs.ids, config.sample_submission)
    truth = truth_of(config, inputs)
    if skipped := len(inputs) - len(set(inputs.ids).intersection(order)):
        print(f"{skipped} radiographs are not in the sample submission and are left alone", file=sys.stderr)
        inputs = inputs.only(set(order))

    # torch last: what is wrong with the input has been said by now.
    from xray.pipeline import load_pipeline
    from xray.segmentation.triplet import Triplet
    from xray.training.device import resolve_device

    device = resolve_device(config.device)
    runs = [Path(run) for run in config.weights]
    triplet = Triplet(*config.triplet) if config.triplet else None
    pipeline = load_pipeline(runs, device, config.tta, config.gate, config.gate_threshold, triplet, config.prune)
    if config.probabilities and not pipeline.segmenters:
        raise InputError("--probabilities keeps the maps of segmenters, and --weights names none")
    batch_size = config.batch_size or (16 if device.type == "cuda" else 2)
    out.mkdir(parents=True, exist_ok=True)
    predictions, labels, failures = find_all(pipeline, inputs, batch_size, config)
    absent = set(order).difference(inputs.ids)
    failures += [(name, "", "no such file") for name in order if name in absent]
    write_results(out, pipeline, order, predictions, labels, failures)
    if config.overlays:
        failed = {name for name, _, _ in failures}
        draw_overlays(
            out / "overlays", inputs, predictions, failed, pipeline.categories, truth, config.overlay_threshold
        )
    n_boxes = int((predictions.table.boxes != NO_FINDING_BOX).any(axis=1).sum())
    print(f"{len(order) - len(failures)} radiographs, {n_boxes} boxes: {out / 'predictions.json'}")
    if failures:
        print(
            f"error: {len(failures)} of {len(order)} radiographs could not be read (first {failures[0][0]}: "
            f"{failures[0][2]}): see {out / 'failures.csv'}",
            file=sys.stderr,
        )
    return 1 if failures else 0


def check(config: InferConfig) -> None:
    """Raises FlagError if a value is out of range."""
    require(config.batch_size >= 0, "batch_size", config.batch_size, "at least 0")
    require(config.n_workers >= 0, "n_workers", config.n_workers, "at least 0")
    require(config.timeout > 0, "timeout", config.timeout, "above 0")
    require(0 <= config.overlay_threshold <= 1, "overlay_threshold", config.overlay_threshold, "in [0, 1]")
    threshold = config.gate_threshold
    require(threshold is None or 0 <= threshold <= 1, "gate_threshold", threshold, "in [0, 1]")
    fits = all(0 <= value <= 1 for value in config.triplet or ())
    require(fits, "triplet", " ".join(map(str, config.triplet or ())), "three numbers in [0, 1], MIN_AREA a share")
    require(0 <= config.prune <= 4, "prune", config.prune, "0 to 4")
    require(config.split in ("", "train", "test"), "split", config.split, "train or test")


def truth_of(config: InferConfig, inputs: "Inputs") -> "Store | None":
    """The dataset with the truth to draw, None where there is none. Raises InputError if --truth knows nothing."""
    from xray.data.store import open_store

    if not config.truth:
        return inputs.store
    store = open_store(Path(config.truth), pixels=False)
    if set(inputs.ids).isdisjoint(store.index_of):
        raise InputError(
            f"--truth {config.truth} has none of the {len(inputs)} radiographs (such as {inputs.ids[0]!r}): give the "
            "dataset directory that they were converted into"
        )
    return store


def rows_of_submission(data: Path, ids: tuple[str, ...], sample: str) -> list[str]:
    """Image ids in the order of the sample submission.

    In that of the files where there is none that speaks of them, or where one file was asked for.
    """
    from xray.outputs.submission import submission_order

    if sample:
        return submission_order(Path(sample))
    if data.is_file():
        return list(ids)
    for candidate in (data / "sample_submission.csv", data.absolute().parent / "sample_submission.csv"):
        # Beside train/ there is one too, and it speaks of test/ alone.
        if candidate.is_file() and not set(ids).isdisjoint(order := submission_order(candidate)):
            return order
    return list(ids)


def find_all(
    pipeline: "Pipeline", inputs: "Inputs", batch_size: int, config: InferConfig
) -> tuple["Predictions", dict[str, dict[str, float]], list[tuple[str, str, str]]]:
    """All findings; {id: {label: probability}} of the classifiers; (id, file name, reason) of what is unreadable."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from xray.data.boxes import BoxTable
    from xray.data.decoding import Undecodable
    from xray.data.predictions import Predictions
    from xray.data.probabilities import INDEX, MapWriter

    tables, masks, n_rows, labels, failures, batch = [], {}, 0, {}, [], []
    maps = None
    # Maps of an earlier command would be taken for these predictions'.
    (Path(config.save_path) / INDEX).unlink(missing_ok=True)
    if config.probabilities:
        size = max(segmenter.canvas_size for segmenter in pipeline.segmenters)
        maps = MapWriter(Path(config.save_path), inputs.ids, pipeline.segmenters[0].categories, size)

    def flush() -> None:
        nonlocal n_rows
        if not batch:
            return
        found = pipeline.find(np.stack([item.canvas for item in batch]), [(i.width, i.height) for i in batch])
        masks.update({n_rows + row: mask for row, mask in found.masks.items()})
        n_rows += len(found.table)
        indices = np.array([item.index for item in batch])
        tables.append(dataclasses.replace(found.table, images=indices[found.table.images]))
        for number, item in enumerate(batch):
            own = {label: float(column[number]) for label, column in found.labels.items()}
            labels[inputs.ids[item.index]] = own
            if maps is not None:
                maps.add(item.index, item.width, item.height, found.maps[number], own)
        batch.clear()

    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stream = inputs.canvases(pipeline.canvas_size, config.n_workers, config.timeout)
        for item in progress.track(stream, total=len(inputs), description="radiographs"):
            if isinstance(item, Undecodable):
                failures.append((inputs.ids[item.index], item.path.name, item.reason))
                continue
            batch.append(item)
            if len(batch) == batch_size:
                flush()
        flush()
    if maps is not None:
        maps.close()
    return Predictions(inputs.ids, BoxTable.concatenate(tables), masks), labels, failures


def write_results(
    out: Path,
    pipeline: "Pipeline",
    order: list[str],
    predictions: "Predictions",
    labels: dict[str, dict[str, float]],
    failures: list[tuple[str, str, str]],
) -> None:
    """predictions.json, submission.csv, labels.csv of classifiers, and failures.csv where there are any."""
    from xray.data.predictions import write_predictions
    from xray.outputs.submission import write_mask_submission, write_submission

    categories = pipeline.categories
    if not pipeline.detectors and list(categories.values()) == [FINDINGS[PNEUMOTHORAX]] and pipeline.segmenters:
        write_mask_submission(out / "submission.csv", predictions, order)
    elif max(categories, default=0) > NO_FINDING:
        print(f"no submission.csv: it has room for {NO_FINDING} categories, this model has {max(categories)}")
    else:
        write_submission(out / "submission.csv", predictions, order, categories)
    names = list(dict.fromkeys(name for own in labels.values() for name in own))
    probabilities = [[name, *(f"{labels[name][label]:.6g}" for label in names)] for name in order if name in labels]
    _write_table(out / "labels.csv", ["image_id", *names], probabilities if names else [])
    _write_table(out / "failures.csv", ["image_id", "file", "reason"], failures)
    # Last, since its presence means that OUT is complete.
    write_predictions(out / "predictions.json", predictions)


def _write_table(path: Path, header: list[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a CSV file; without rows there is none, nor one of an earlier command."""
    path.unlink(missing_ok=True)
    if rows:
        temporary = path.with_name(path.name + ".part")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        os.replace(temporary, path)


def draw_overlays(
    folder: Path,
    inputs: "Inputs",
    predictions: "Predictions",
    failed: set[str],
    categories: dict[int, str],
    truth: "Store | None",
    threshold: float,
) -> None:
    """One picture a radiograph, of its original pixels; where the truth is known, it stands on the left."""
    from rich.progress import track

    from xray.outputs.overlays import save_picture
    from xray.outputs.pictures import draw_findings, draw_with_truth, in_words, rows_of

    for index, name in track(list(enumerate(inputs.ids)), "overlays", console=Console(stderr=True)):
        if name in failed:
            continue
        pixels = inputs.pixels(index)
        table, masks = rows_of(predictions.table, predictions.masks, index)
        words = in_words(table, categories)
        if truth is None or name not in truth.index_of:
            picture = draw_findings(pixels, table, masks, categories, f"{name}: {words}", threshold=threshold)
        else:
            true, true_masks = rows_of(truth.boxes, truth.masks, truth.index_of[name])
            pictures = (
                draw_findings(pixels, true, true_masks, truth.categories, name, scored=False, max_side=1024),
                draw_findings(pixels, table, masks, categories, name, threshold=threshold, max_side=1024),
            )
            picture = draw_with_truth(*pictures, true, words, truth.categories)
        target = folder / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        save_picture(target, picture)


if __name__ == "__main__":
    sys.exit(command(InferConfig, main))
