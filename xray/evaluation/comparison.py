"""Two sets of predictions on the same truth: the difference of each number, and how far it would vary.

The bootstrap is paired: a resample of patients is the same for both, so that the difficulty of a radiograph for both
cancels out (Efron and Tibshirani 1993, ch. 8 and 16).
"""

import dataclasses
import math
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.alignment import patient_numbers, positions, renumbered
from xray.evaluation.box_intervals import mean_of_present, resample_coco, resample_findings
from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.coco_metrics import coco_precision
from xray.evaluation.evaluate import ABNORMAL
from xray.evaluation.label_metrics import operating_curve
from xray.evaluation.labels import LabelScores, resample_label
from xray.evaluation.located import located_in
from xray.evaluation.mask_metrics import dice_scores
from xray.evaluation.resampling import draw_patients, percentile_interval, resampled_mean
from xray.evaluation.scored import Scored, rows_of
from xray.findings import NO_FINDING_NAME
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY

TOTAL = ""
TITLES = {
    "map40": "AP@0.4",
    "map40_kaggle": "mAP@0.4, Kaggle",
    "coco_ap": "COCO AP",
    "dice": "Dice",
    "dice_positive": "Dice, positives",
    "auroc": "AUROC",
}
P_VALUE = (
    "Twice the share of the resamples in which the difference is zero or on the rarer side of it, counted with one "
    "resample more and at most 1. It is a bootstrap's p-value for a difference of zero, no finer than the number of "
    "resamples, and not adjusted for the number of rows that are looked at."
)


_Number = tuple[float, np.ndarray | None]
"""A value, and its values in the resamples, (n_resamples,); None without resamples."""
_Numbers = dict[tuple[str, str], _Number]
"""(metric, name) → the number of one of the two."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One number of both. metric: key of TITLES. name: of the finding, TOTAL for the mean over them.

    first, second: its values. ends: 95 % interval of second − first, p_value: of its being 0, sample: (n_resamples,)
    differences in the resamples of the patients; None without resamples.
    """

    metric: str
    name: str
    first: float
    second: float
    ends: list[float] | None
    p_value: float | None
    sample: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both on the same n radiographs. differences: by metric, the total first. left_out: metrics that only one of the
    two has. n_patients: None where patients are not known, so that radiographs were drawn. scored: `fingerprint`."""

    n_images: int
    n_patients: int | None
    n_resamples: int
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    scored: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: {metric: {"total" or finding: {first, second, difference, …_ci95, p_value}}}."""
        comparison: dict[str, Any] = {}
        for one in self.differences:
            numbers: dict[str, Any] = {"first": one.first, "second": one.second, "difference": one.difference}
            if one.ends is not None:
                numbers |= {"difference_ci95": one.ends, "p_value": one.p_value}
            comparison.setdefault(one.metric, {})[one.name or "total"] = numbers
        return {
            "n_images": self.n_images,
            "n_patients": self.n_patients,
            "resamples": self.n_resamples,
            "comparison": comparison,
            "left_out": list(self.left_out),
            "fingerprint": {"scored": self.scored},
        }


def compare(store: Store, first: Scored, second: Scored, n_resamples: int = 1000, seed: int = 0) -> Comparison:
    """Every number that both have.

    Raises InputError if the two are not of the same radiographs and truth, or have no number in common.
    """
    if set(first.image_ids) != set(second.image_ids):
        n_shared = len(set(first.image_ids) & set(second.image_ids))
        raise InputError(
            f"the first is of {len(first.image_ids)} radiographs, the second of {len(second.image_ids)}, and they "
            f"share {n_shared}: choose the same ones for both with --split or --fold"
        )
    rows = rows_of(first, store)
    scored = fingerprint(store, rows)
    for name, one in (("first", first), ("second", second)):
        if one.annotations != scored["annotations_sha256"]:
            raise InputError(f"the {name} was scored against another truth than {store.path} has: evaluate it again")
    rows = np.sort(rows)
    records = [store.records[row] for row in rows.tolist()]
    patients = patient_numbers(records)
    times = draw_patients(patients, n_resamples, seed) if n_resamples else None
    masks, labels = ([name for name in one if name in other]
                     for one, other in ((first.masks, second.masks), (first.labels, second.labels)))  # fmt: skip
    numbers: list[_Numbers] = []
    for one in (first, second):
        side = _in_order(one, np.argsort(rows_of(one, store)))
        boxes = side.boxes if first.boxes is not None and second.boxes is not None else None
        numbers.append({} if boxes is None else _of_boxes(store, rows, boxes, patients, times))
        numbers[-1] |= _of_masks(store, rows, {name: side.masks[name] for name in masks}, patients, times)
        numbers[-1] |= _of_labels(store, rows, {name: side.labels[name] for name in labels}, patients, times)
    differences = [difference_of(*key, one, numbers[1][key]) for key, one in numbers[0].items()]
    if not differences:
        raise InputError("the two have nothing in common that can be compared: both need boxes, masks or labels")
    left_out = ["boxes"] if (first.boxes is None) != (second.boxes is None) else []
    left_out += sorted({*first.masks} ^ {*second.masks}) + sorted({*first.labels} ^ {*second.labels})
    known = {str(record["patient"]) for record in records if record.get("patient") is not None}
    n_drawn = n_resamples if times is not None else 0
    return Comparison(len(rows), len(known) or None, n_drawn, tuple(differences), tuple(left_out), scored)


def difference_of(metric: str, name: str, first: _Number, second: _Number) -> Difference:
    """first, second: the value of each, and its (n_resamples,) values in the same resamples, None without any."""
    if first[1] is None or second[1] is None:
        return Difference(metric, name, first[0], second[0], None, None)
    sample = second[1] - first[1]
    return Difference(metric, name, first[0], second[0], percentile_interval(sample), p_value(sample), sample)


def p_value(sample: np.ndarray) -> float:
    """See P_VALUE. sample: (n_resamples,) differences, NaN ones being left out; NaN where there is none."""
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return math.nan
    fewest = min(int(np.count_nonzero(sample <= 0)), int(np.count_nonzero(sample >= 0)))
    return min(1.0, 2 * (fewest + 1) / (len(sample) + 1))


def _in_order(scored: Scored, order: np.ndarray) -> Scored:
    """The same predictions with the radiographs in another order."""
    boxes = scored.boxes
    return Scored(
        tuple(scored.image_ids[number] for number in order.tolist()),
        scored.annotations,
        None if boxes is None else renumbered(boxes, positions(order, len(order)), {})[0],
        {name: part[order] for name, part in scored.masks.items()},
        {name: part[order] for name, part in scored.labels.items()},
    )


def _of_boxes(
    store: Store, rows: np.ndarray, predictions: BoxTable, patients: np.ndarray, times: np.ndarray | None
) -> _Numbers:
    located, categories = located_in(store, rows), store.categories
    truth, predictions = (
        located.of(renumbered(store.boxes, positions(rows, len(store)), {})[0]),
        located.of(predictions),
    )
    present = [label for label in sorted(categories) if (truth.labels == label).any()]
    metrics = detection_metrics(truth, predictions, len(rows), categories, located=located)
    precision = coco_precision(truth, predictions, present)
    ap_samples: dict[int, np.ndarray] = {}
    coco_samples: dict[int, np.ndarray] = {}
    if times is not None:
        ap_samples = resample_findings(truth, predictions, patients, categories, times, located)
        coco_samples = resample_coco(truth, predictions, patients, present, times)

    def mean(samples: dict[int, np.ndarray], labels: list[int]) -> np.ndarray | None:
        return mean_of_present([samples[label] for label in labels]) if samples and labels else None

    numbers: _Numbers = {("map40", TOTAL): (metrics["map40"], mean(ap_samples, present))}
    for label in present:
        name = categories[label]
        numbers["map40", name] = metrics["ap40"][name], mean(ap_samples, [label])
    if "map40_kaggle" in metrics:
        normal = [] if math.isnan(metrics["ap40_no_finding"]) else [NO_FINDING_CATEGORY]
        numbers["map40_kaggle", TOTAL] = metrics["map40_kaggle"], mean(ap_samples, present + normal)
        if normal:
            numbers["map40_kaggle", NO_FINDING_NAME] = metrics["ap40_no_finding"], mean(ap_samples, normal)
    numbers["coco_ap", TOTAL] = metrics["coco_ap"], mean(coco_samples, present)
    for k, label in enumerate(present):
        numbers["coco_ap", categories[label]] = float(precision[..., k].mean()), mean(coco_samples, [label])
    return numbers


def _of_masks(
    store: Store, rows: np.ndarray, masks: dict[str, np.ndarray], patients: np.ndarray, times: np.ndarray | None
) -> _Numbers:
    numbers: _Numbers = {}
    if not masks:
        return numbers
    sums = np.stack(list(masks.values()), axis=1)
    names = list(store.categories.values())
    known = ~store.unlocated[rows][:, [names.index(name) for name in masks]]
    scores, positive = dice_scores(*np.moveaxis(sums, 2, 0)), (sums[..., 2] > 0) & known
    columns: dict[str, Any] = {TOTAL: slice(None)}
    columns |= {name: [k] for k, name in enumerate(masks)} if len(masks) > 1 else {}
    for metric, counted in (("dice", known), ("dice_positive", positive)):
        for name, column in columns.items():
            values, counts = scores[:, column], counted[:, column]
            if counts.any():
                sample = None if times is None else resampled_mean(values, counts, patients, times)
                numbers[metric, name] = float(values[counts].mean()), sample
    return numbers


def _of_labels(
    store: Store, rows: np.ndarray, labels: dict[str, np.ndarray], patients: np.ndarray, times: np.ndarray | None
) -> _Numbers:
    numbers: _Numbers = {}
    truths, known = store.labels[rows], ~store.unknown[rows]
    abnormal, is_known = store.abnormal
    columns = {ABNORMAL: (abnormal[rows], is_known[rows])}
    columns |= {name: (truths[:, k], known[:, k]) for k, name in enumerate(store.categories.values())}
    for name, scores in labels.items():
        column = columns.get(name.removesuffix(" (classifier)"))
        if column is None:
            continue
        label = LabelScores.of_known(name, "rows", scores, *column, 0.5, 0.5)
        if curve := operating_curve(label.scores, label.truth):
            sample = None if times is None else resample_label(label, patients[label.places], times)[:, 0]
            numbers["auroc", name] = curve.auroc, sample
    of_categories = [number for (_, name), number in numbers.items() if name in store.categories.values()]
    if len(of_categories) < 2:
        return numbers
    samples = [sample for _, sample in of_categories if sample is not None]
    mean = float(np.mean([value for value, _ in of_categories])), mean_of_present(samples) if samples else None
    return {("auroc", TOTAL): mean, **numbers}
