"""The main numbers for groups of radiographs: by view, sex, age, manufacturer, and by the size of boxes."""

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np

from xray.evaluation.alignment import Alignment
from xray.evaluation.box_intervals import mean_of_present, resample_ap
from xray.evaluation.box_matching import IOU_THRESHOLD, Matches, match_boxes
from xray.evaluation.box_metrics import average_precision
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.label_metrics import operating_curve
from xray.evaluation.labels import LabelCurve, resample_label
from xray.evaluation.mask_metrics import dice_scores, segmentation_metrics
from xray.evaluation.masks import MaskEvaluation
from xray.evaluation.resampling import draw_patients, mean_interval, percentile_interval
from xray.radiographs.attributes import age_band

NOT_KNOWN = "not known"
TITLES = {"view": "View", "sex": "Sex", "age": "Age", "manufacturer": "Manufacturer"}
BOX_SIZE = "Box size"
SIZES = ("under 1 %", "1 to 5 %", "over 5 %")
SIZE_EDGES = (0.01, 0.05)
"""Shares of the radiograph that separate small, medium and large boxes."""
MOST_GROUPS = 12


@dataclasses.dataclass(frozen=True)
class Group:
    """One group. attribute: title of the attribute that all of it share. numbers: its part of metrics.json."""

    attribute: str
    name: str
    numbers: dict[str, Any]


def subgroups(evaluation: Evaluation, n_resamples: int = 0) -> list[Group]:
    """The groups of each attribute that at least one radiograph has, and box sizes where boxes are scored.

    numbers: n_images, n_patients; of boxes n_boxes, n_findings (that the group has) and map40, their mean; of masks
    n_positive, dice and dice_positive; of labels n_labels and mean_auroc, over the labels that some radiographs of the
    group have and some do not. Each with its …_ci95, from resamples of the group's patients; 0 resamples leave these
    out, and so does one patient.
    """
    matches = None
    if evaluation.boxes:
        matches = match_boxes(evaluation.boxes.alignment.truth, evaluation.boxes.alignment.predictions)
    groups = []
    for attribute, values in _values(evaluation).items():
        for name in _order(attribute, values):
            chosen = values == name
            groups.append(Group(TITLES[attribute], name, _numbers(evaluation, matches, chosen, n_resamples)))
    if evaluation.boxes and matches is not None and len(evaluation.boxes.alignment.truth):
        groups += _by_size(evaluation.boxes.alignment, matches, n_resamples)
    return groups


def _values(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Attribute → (n,) str, of those attributes that are known of any radiograph."""
    records = evaluation.alignment.records
    columns = {name: np.array([_value(one.get(name), name) for one in records], dtype=object) for name in TITLES}
    return {name: values for name, values in columns.items() if (values != NOT_KNOWN).any()}


def _value(value: object, attribute: str) -> str:
    if value is None or not str(value).strip():
        return NOT_KNOWN
    if attribute == "age":
        # A source's own table may have years, which are grouped into bands.
        return age_band(value) or NOT_KNOWN
    return str(value).strip()


def _order(attribute: str, values: np.ndarray) -> list[str]:
    """The groups in the order in which they are shown: ages rising, others from the largest down, unknown ones last."""
    counts = Counter(values.tolist())

    def key(name: str) -> tuple[bool, float, str]:
        rank = float(name.rstrip("+").split("-")[0]) if attribute == "age" and name != NOT_KNOWN else -counts[name]
        return name == NOT_KNOWN, rank, name

    return sorted(counts, key=key)[:MOST_GROUPS]


def _numbers(evaluation: Evaluation, matches: Matches | None, chosen: np.ndarray, n_resamples: int) -> dict[str, Any]:
    """The numbers of the `chosen` radiographs, (n,) bool."""
    alignment = evaluation.alignment
    # The group's patients are numbered anew; numbers of other patients are not used.
    patients = np.full(len(alignment), -1, dtype=np.int64)
    _, patients[chosen] = np.unique(alignment.patients[chosen], return_inverse=True)
    times = draw_patients(patients[chosen], n_resamples) if n_resamples else None
    numbers: dict[str, Any] = {"n_images": int(chosen.sum()), "n_patients": int(patients.max(initial=-1)) + 1}
    if evaluation.boxes and matches is not None:
        boxes = evaluation.boxes.alignment
        of_rows = (chosen[boxes.truth.images], chosen[boxes.predictions.images])
        numbers |= _ap_numbers(boxes, matches, *of_rows, patients, times)
    if evaluation.masks:
        numbers |= _mask_numbers(evaluation.masks, chosen, patients[chosen], times)
    if evaluation.labels:
        numbers |= _label_numbers(evaluation.labels.curves, chosen, patients, times)
    return numbers


def _ap_numbers(
    alignment: Alignment,
    matches: Matches,
    of_truth: np.ndarray,
    of_predictions: np.ndarray,
    patients: np.ndarray,
    times: np.ndarray | None,
) -> dict[str, Any]:
    """The mean AP of some truth boxes, (M,) bool, and predictions, (N,) bool, whose matches are known."""
    truth, predictions = alignment.truth, alignment.predictions
    order = matches.order[of_predictions[matches.order]]
    labels, is_true, images = predictions.labels[order], matches.is_true[order], predictions.images[order]
    aps, samples = [], []
    for label in alignment.categories:
        truth_images = truth.images[(truth.labels == label) & of_truth]
        if not len(truth_images):
            continue
        rows = labels == label
        aps.append(average_precision(is_true[rows], len(truth_images)))
        if times is not None:
            samples.append(resample_ap(is_true[rows], patients[images[rows]], patients[truth_images], times))
    numbers: dict[str, Any] = {"n_boxes": int(of_truth.sum()), "n_findings": len(aps)}
    numbers["map40"] = math.fsum(aps) / len(aps) if aps else math.nan
    if samples:
        numbers["map40_ci95"] = percentile_interval(mean_of_present(samples))
    return numbers


def _mask_numbers(
    masks: MaskEvaluation, chosen: np.ndarray, patients: np.ndarray, times: np.ndarray | None
) -> dict[str, Any]:
    sums = [part[chosen] for part in (masks.intersections, masks.predicted, masks.true)]
    counted = masks.counted[chosen]
    positive, scores = sums[2] > 0, dice_scores(*sums)
    metrics = segmentation_metrics(*sums, counted=counted) if counted.any() else {"dice": math.nan}
    numbers: dict[str, Any] = {"n_positive": int(positive.any(axis=1).sum()), "dice": metrics["dice"]}
    numbers["dice_positive"] = metrics.get("dice_positive", math.nan)
    if times is not None:
        for name, known in (("dice", counted), ("dice_positive", positive)):
            numbers[f"{name}_ci95"] = mean_interval(scores, known, patients, times)
    return numbers


def _label_numbers(
    curves: tuple[LabelCurve, ...], chosen: np.ndarray, patients: np.ndarray, times: np.ndarray | None
) -> dict[str, Any]:
    labels = [curve.label for curve in curves if curve.label.origin in ("rows", "maps")]
    areas, samples = [], []
    for label in labels or [curve.label for curve in curves]:
        part = label.inside(chosen)
        curve = operating_curve(part.scores, part.truth)
        if curve is None:
            continue
        areas.append(curve.auroc)
        if times is not None:
            samples.append(resample_label(part, patients[part.places], times)[:, 0])
    numbers: dict[str, Any] = {"n_labels": len(areas), "mean_auroc": float(np.mean(areas)) if areas else math.nan}
    if samples:
        numbers["mean_auroc_ci95"] = percentile_interval(mean_of_present(samples))
    return numbers


def _by_size(alignment: Alignment, matches: Matches, n_resamples: int) -> list[Group]:
    """AP of the boxes of each size.

    As in COCO's evaluation, truth boxes of other sizes neither count nor make their predictions false, and a prediction
    that is false counts where its own size belongs.
    """
    truth, predictions = alignment.truth, alignment.predictions
    true_size, predicted_size = (_size_of(table.boxes, alignment.sizes[table.images]) for table in (truth, predictions))
    # A prediction that overlaps a truth box enough belongs to that box, even if it is not the first.
    on_truth = matches.iou > IOU_THRESHOLD
    size = np.where(on_truth, true_size[np.where(on_truth, matches.truth, 0)], predicted_size)
    patients = alignment.patients
    times = draw_patients(patients, n_resamples) if n_resamples else None
    groups = []
    for number, name in enumerate(SIZES):
        of_truth = true_size == number
        if not of_truth.any():
            continue
        images = np.unique(truth.images[of_truth])
        numbers: dict[str, Any] = {"n_images": len(images), "n_patients": len(np.unique(patients[images]))}
        numbers |= _ap_numbers(alignment, matches, of_truth, size == number, patients, times)
        groups.append(Group(BOX_SIZE, name, numbers))
    return groups


def _size_of(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) int64, number of each box's size among SIZES."""
    shares = ((boxes[:, 2:] - boxes[:, :2]) / sizes).prod(axis=1)
    numbers: np.ndarray = np.searchsorted(SIZE_EDGES, shares, side="right")
    return numbers
