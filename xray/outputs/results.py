"""The files that inference writes into its folder, put together from the journal of its predictions by portions."""

import contextlib
import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from xray.datasets.inputs import Inputs
from xray.datasets.store import Store
from xray.errors import spelled
from xray.file_names import LABELS, PREDICTIONS, SUBMISSION
from xray.files import complete
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_BOX, PNEUMOTHORAX
from xray.inference.pipeline import Pipeline
from xray.inference.prediction_journal import PredictionJournal
from xray.outputs.pictures.findings import as_shown, draw_findings, draw_with_truth, in_words, not_said, rows_of
from xray.outputs.pictures.overlays import save_picture
from xray.radiographs.file_warnings import FileWarning
from xray.structures.predictions import Predictions, write_predictions
from xray.structures.probability_maps import MapWriter
from xray.structures.radiograph_findings import RadiographFindings
from xray.structures.submission import ENCODING, write_mask_submission, write_submission
from xray.structures.thresholds import SHOWN_FROM, Thresholds

WARNINGS = "warnings.csv"
MANY_REGIONS = 10
"""Regions of masks, a radiograph, above which a line says what leaves specks out."""
PORTION = 256
"""Radiographs of which the rows are put together at a time."""


def write_results(
    out: Path,
    journal: PredictionJournal,
    order: Sequence[str],
    categories: dict[int, str],
    submission: str,
    failures: Sequence[tuple[str, str, str]],
    warnings: Sequence[tuple[str, FileWarning]] = (),
    shown: tuple[float, Thresholds | None] = (SHOWN_FROM, None),
) -> tuple[int, int]:
    """predictions.json, submission.csv, labels.csv of classifiers; failures.csv and warnings.csv where there are any.

    order: ids in the order of the submission's rows. submission: "boxes", "masks", or "" for none. failures: (id, file
    name, reason). warnings: of each the id, or "". shown: from which score on boxes are, or what decides that in place
    of it. Returns the number of boxes, "No finding" left aside, and of those that are shown.
    """
    numbers = {name: number for number, name in enumerate(journal.image_ids)}
    names = list(dict.fromkeys(label for p in journal.portions() for labels in p.labels.values() for label in labels))
    with contextlib.ExitStack() as files:

        def table(name: str, *header: str, wanted: bool) -> Any:
            """A writer of rows into a CSV file, which gets its name once it is whole; if not wanted, there is none."""
            if not wanted:
                return (out / name).unlink(missing_ok=True)
            temporary = files.enter_context(complete(out / name))
            writer = csv.writer(files.enter_context(temporary.open("w", newline="", **ENCODING)))
            writer.writerow(header)
            return writer

        labels = table(LABELS, "image_id", *names, wanted=bool(names))
        if failure_table := table("failures.csv", "image_id", "file", "reason", wanted=bool(failures)):
            failure_table.writerows(failures)
        if warning_table := table(WARNINGS, "image_id", "file", "warning", "detail", wanted=bool(warnings)):
            warning_table.writerows((name, one.where, one.kind, one.detail) for name, one in warnings)
        if submission:
            rows = files.enter_context(files.enter_context(complete(out / SUBMISSION)).open("wb"))
        for start in range(0, len(order), PORTION):
            ids = order[start : start + PORTION]
            predictions, labels_of = journal.predictions([numbers[name] for name in ids if name in numbers])
            if submission:
                part = out / "portion.part"
                if submission == "masks":
                    write_mask_submission(part, predictions, ids)
                else:
                    write_submission(part, predictions, ids, categories)
                header, *lines = part.read_bytes().splitlines(keepends=True)
                rows.writelines([header, *lines] if start == 0 else lines)
                part.unlink()
            for name in ids:
                if names and (probabilities := labels_of.get(numbers.get(name, -1))):
                    labels.writerow([name, *(f"{probabilities[label]:.6g}" for label in names)])
    # Last, since its presence means that OUT is complete.
    counts = [0, 0]
    write_predictions(out / PREDICTIONS, _counted(journal, categories, shown, counts), categories)
    return counts[0], counts[1]


def what_was_written(
    out: Path,
    n_radiographs: int,
    n_boxes: tuple[int, int],
    shown: tuple[float, Thresholds | None],
    has_submission: bool,
    has_overlays: bool,
    is_of_masks: bool = False,
    is_of_labels: bool = False,
) -> str:
    """The last lines: a number of radiographs, of boxes, and of those that are shown, and a line for each file.

    is_of_masks: whether each box is around a connected region of a mask, as those of segmenters alone are.
    is_of_labels: whether each is the whole radiograph, as those of classifiers alone are.
    """
    threshold, fitted = shown
    if fitted is not None and fitted.from_probability is None:
        which = "at or above their fitted thresholds"
    elif fitted is not None:
        which = f"with a calibrated probability of {fitted.from_probability:g} or more"
    else:
        which = f"with a score of {threshold:g} or more"
    found, n_shown = n_boxes
    if is_of_masks:
        boxes = f"{found} region{'s' * (found != 1)} of masks, {n_shown} of them {which}" if found else "no masks"
    elif is_of_labels:
        labels = f"{found} label{'s' * (found != 1)} of whole radiographs"
        boxes = f"{labels}, {n_shown} of them {which}" if found else "no labels of whole radiographs"
    else:
        boxes = f"{found} box{'es' * (found != 1)}, {n_shown} of them {which}" if found else "no boxes"
    lines = [f"{n_radiographs} radiograph{'s' * (n_radiographs != 1)}, {boxes}: {out / 'predictions.json'}"]
    if is_of_masks and found > MANY_REGIONS * n_radiographs:
        lines.append(
            f"{found / n_radiographs:.0f} regions a radiograph are mostly specks: --triplet leaves out masks that are "
            f"nowhere sure, and {spelled('evaluate')} --fit finds a triplet from --probabilities"
        )
    if has_submission:
        lines.append(f"submission: {out / 'submission.csv'}")
    if (out / LABELS).is_file():
        lines.append(f"labels of whole radiographs: {out / 'labels.csv'}")
    if has_overlays:
        lines.append(f"overlays: {out / 'overlays'}")
    return "\n".join(lines)


def kind_of_submission(pipeline: Pipeline) -> str:
    """What submission.csv holds: "boxes", "masks", or "" where it has no room for the categories."""
    categories = pipeline.categories
    if not pipeline.detectors and list(categories.values()) == [FINDINGS[PNEUMOTHORAX]] and pipeline.segmenters:
        return "masks"
    if max(categories, default=0) > NO_FINDING:
        print(f"no submission.csv: it has room for {NO_FINDING} categories, this model has {max(categories)}")
        return ""
    return "boxes"


def warnings_of(inputs: Inputs, journal: PredictionJournal) -> list[tuple[str, FileWarning]]:
    """Warnings about files, with the id of each: first those from before decoding.

    A file that has an id is named without its folders, which may name a patient; those of a dataset have none that do.
    """
    ids = dict(zip(inputs.names, inputs.ids, strict=True)) if inputs.names else {}
    warnings = [(ids.get(warning.where, ""), warning) for warning in inputs.warnings]
    for portion in journal.portions():
        warnings += [(inputs.ids[at], FileWarning(kind, inputs.file_name(at))) for at, kind in portion.warnings]
    if inputs.store is not None:
        return warnings
    return [
        (name, dataclasses.replace(warning, where=PurePath(warning.where).name) if name else warning)
        for name, warning in warnings
    ]


def _counted(
    journal: PredictionJournal,
    categories: dict[int, str],
    shown: tuple[float, Thresholds | None],
    counts: list[int],
) -> Iterator[Predictions]:
    """The predictions; adds the number of boxes, and of those that are shown, to `counts` meanwhile."""
    threshold, thresholds = shown
    for portion in journal.portions():
        table = portion.table
        is_box = (table.boxes != NO_FINDING_BOX).any(axis=1)
        is_shown = table.scores >= threshold if thresholds is None else thresholds.is_positive(table, categories)
        counts[0] += int(is_box.sum())
        counts[1] += int((is_box & is_shown).sum())
        yield Predictions(journal.image_ids, portion.table, portion.masks)


def map_writer(out: Path, pipeline: Pipeline, journal: PredictionJournal) -> MapWriter:
    """A writer of the probability maps, with those that an interrupted command has written."""
    size = max(segmenter.canvas_size for segmenter in pipeline.segmenters)
    maps = MapWriter(out, journal.image_ids, pipeline.segmenters[0].categories, size, resume=journal.done > 0)
    for portion in journal.portions():
        for position, (width, height) in portion.sizes.items():
            maps.restore(position, width, height, portion.labels.get(position, {}))
    return maps


def save_overlay(
    path: Path,
    name: str,
    pixels: np.ndarray,
    findings: RadiographFindings,
    truth: Store | None,
    threshold: float,
    thresholds: Thresholds | None = None,
) -> None:
    """A picture of one radiograph with its findings; where there is a truth of it, that is on the left.

    pixels: (height, width) uint8. thresholds: fitted ones, which take the place of `threshold`.
    """
    table, categories = findings.table, findings.categories
    words = in_words(table if thresholds is None else thresholds.calibrated(table, categories), categories)
    shown, threshold, left_out = as_shown(findings, thresholds, threshold)
    if truth is None or name not in truth.index_of:
        picture = draw_findings(pixels, shown, f"{name}: {words}", threshold=threshold, notes=left_out)
    else:
        record = truth.records[truth.index_of[name]]
        notes = not_said(record, truth.categories)
        true = RadiographFindings(*rows_of(truth.boxes, truth.masks, truth.index_of[name]), truth.categories)
        pictures = (
            draw_findings(pixels, true, name, scored=False, max_side=1024, notes=notes),
            draw_findings(pixels, shown, name, threshold=threshold, max_side=1024, notes=left_out),
        )
        picture = draw_with_truth(*pictures, true.table, words, truth.categories, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(path, picture)
