"""Two sets of predictions on the same truth: the difference of each number, and how far it would vary.

The bootstrap is paired: a resample of patients is the same for both, so that what makes a radiograph hard for both
cancels out (Efron and Tibshirani 1993, ch. 8 and 16).
"""

import dataclasses
import math
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.alignment import in_order, patient_numbers
from xray.evaluation.box_intervals import mean_of_present, resample_findings
from xray.evaluation.box_metrics import coco_precision, detection_metrics
from xray.evaluation.coco_bootstrap import resample_coco
from xray.evaluation.evaluate import ABNORMAL
from xray.evaluation.label_metrics import operating_curve
from xray.evaluation.labels import LabelScores, resample_label
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


@dataclasses.dataclass(frozen=True)
class Difference:
    """One number of both. metric: key of TITLES. name: of the finding, TOTAL for the mean over them.

    first, second: its values. ends: 95 % interval of second − first, p_value: of its being 0; None without resamples.
    """

    metric: str
    name: str
    first: float
    second: float
    ends: list[float] | None
    p_value: float | None

    @property
    def difference(self) -> float:
        """Second less first."""
        return self.second - self.first


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both on the same n radiographs. differences: by metric, the total first. left_out: metrics that one of them has
    not. n_patients: None where they are not known, so that radiographs were drawn. scored: `fingerprint`."""

    n_images: int
    n_patients: int | None
    n_resamples: int
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    scored: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: {metric: {"total" or finding: {first, second, difference, …_ci95, p_value}}}."""
        found: dict[str, Any] = {}
        for one in self.differences:
            numbers: dict[str, Any] = {"first": one.first, "second": one.second, "difference": one.difference}
            if one.ends is not None:
                numbers |= {"difference_ci95": one.ends, "p_value": one.p_value}
            found.setdefault(one.metric, {})[one.name or "total"] = numbers
        return {
            "n_images": self.n_images,
            "n_patients": self.n_patients,
            "resamples": self.n_resamples,
            "comparison": found,
            "left_out": list(self.left_out),
            "fingerprint": {"scored": self.scored},
        }


def compare(store: Store, first: Scored, second: Scored, n_resamples: int = 1000, seed: int = 0) -> Comparison:
    """Every number that both have.

    Raises InputError if they are not of the same radiographs and truth, or have no number in common.
    """
    if set(first.image_ids) != set(second.image_ids):
        n_shared = len(set(first.image_ids) & set(second.image_ids))
        raise InputError(
            f"the first is of {len(first.image_ids)} radiographs, the second of {len(second.image_ids)}, and they "
            f"share {n_shared}: choose the same ones for both with --split or --fold"
        )
    rows = rows_of(first, store)
    order = np.argsort(rows)
    scored = fingerprint(store, rows)
    for name, one in (("first", first), ("second", second)):
        if one.annotations != scored["annotations_sha256"]:
            raise InputError(f"the {name} was scored against another truth than {store.path} has: evaluate it again")
    first, second = _sorted(first, order), _sorted(second, np.argsort(rows_of(second, store)))
    rows = rows[order]
    records = [store.records[row] for row in rows.tolist()]
    patients = patient_numbers(records)
    times = draw_patients(patients, n_resamples, seed) if n_resamples else None
    differences: list[Difference] = []
    left_out = []
    if first.boxes is not None and second.boxes is not None:
        differences += _boxes(store, rows, (first.boxes, second.boxes), patients, times)
    elif first.boxes is not None or second.boxes is not None:
        left_out.append("boxes")
    differences += _masks(first.masks, second.masks, patients, times)
    differences += _labels(store, rows, first.labels, second.labels, patients, times)
    left_out += sorted({*first.masks} ^ {*second.masks}) + sorted({*first.labels} ^ {*second.labels})
    if not differences:
        raise InputError("the two have nothing in common that can be compared: both need boxes, masks or labels")
    known = {str(record["patient"]) for record in records if record.get("patient") is not None}
    n_drawn = n_resamples if times is not None else 0
    return Comparison(len(rows), len(known) or None, n_drawn, tuple(differences), tuple(left_out), scored)


def difference_of(
    metric: str, name: str, values: tuple[float, float], samples: tuple[np.ndarray, np.ndarray] | None
) -> Difference:
    """samples: of both, (n_resamples,), in the same resamples."""
    if samples is None:
        return Difference(metric, name, *values, None, None)
    sample = samples[1] - samples[0]
    return Difference(metric, name, *values, percentile_interval(sample), p_value(sample))


def p_value(sample: np.ndarray) -> float:
    """See P_VALUE. sample: (n_resamples,) differences, NaN ones being left out; NaN where there is none."""
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return math.nan
    fewest = min(int(np.count_nonzero(sample <= 0)), int(np.count_nonzero(sample >= 0)))
    return min(1.0, 2 * (fewest + 1) / (len(sample) + 1))


def _sorted(scored: Scored, order: np.ndarray) -> Scored:
    """Its radiographs in another order."""
    if np.array_equal(order, np.arange(len(order))):
        return scored
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    return Scored(
        tuple(scored.image_ids[number] for number in order.tolist()),
        scored.annotations,
        None if scored.boxes is None else in_order(scored.boxes, position)[0],
        {name: part[order] for name, part in scored.masks.items()},
        {name: part[order] for name, part in scored.labels.items()},
    )


def _boxes(
    store: Store, rows: np.ndarray, tables: tuple[BoxTable, BoxTable], patients: np.ndarray, times: np.ndarray | None
) -> list[Difference]:
    position = np.full(len(store), -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    truth, _ = in_order(store.boxes, position)
    categories = store.categories
    found = [detection_metrics(truth, table, len(rows), categories) for table in tables]
    labels = sorted(categories)
    of_each = []
    for table in tables:
        precision = coco_precision(truth, table, labels)
        of_each.append({label: float(precision[..., k].mean()) for k, label in enumerate(labels)})
    samples = coco = None
    if times is not None:
        samples = [resample_findings(truth, table, patients, categories, times) for table in tables]
        coco = [resample_coco(truth, table, patients, labels, times) for table in tables]
    present = [label for label in labels if (truth.labels == label).any()]

    def pair(sampled: list[dict[int, np.ndarray]] | None, chosen: list[int]) -> Any:
        if sampled is None or not chosen:
            return None
        return tuple(mean_of_present([one[label] for label in chosen]) for one in sampled)

    def values(key: str) -> Any:
        return tuple(one[key] for one in found)

    differences = [difference_of("map40", TOTAL, values("map40"), pair(samples, present))]
    for label in present:
        name = categories[label]
        aps = tuple(one["ap40"][name] for one in found)
        differences.append(difference_of("map40", name, aps, pair(samples, [label])))
    if "map40_kaggle" in found[0]:
        has_normal = not math.isnan(found[0]["ap40_no_finding"])
        every = present + ([NO_FINDING_CATEGORY] if has_normal else [])
        differences.append(difference_of("map40_kaggle", TOTAL, values("map40_kaggle"), pair(samples, every)))
        if has_normal:
            aps = values("ap40_no_finding")
            differences.append(
                difference_of("map40_kaggle", NO_FINDING_NAME, aps, pair(samples, [NO_FINDING_CATEGORY]))
            )
    differences.append(difference_of("coco_ap", TOTAL, values("coco_ap"), pair(coco, present)))
    for label in present:
        aps = tuple(one[label] for one in of_each)
        differences.append(difference_of("coco_ap", categories[label], aps, pair(coco, [label])))
    return differences


def _masks(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], patients: np.ndarray, times: np.ndarray | None
) -> list[Difference]:
    names = [name for name in first if name in second]
    if not names:
        return []
    # (n, K, 3) each
    both = [np.stack([part[name] for name in names], axis=1) for part in (first, second)]
    scores = [dice_scores(*np.moveaxis(sums, 2, 0)) for sums in both]
    positive = both[0][..., 2] > 0
    differences = []
    for metric, counted in (("dice", np.ones_like(positive)), ("dice_positive", positive)):
        columns = {TOTAL: slice(None)} | ({name: [k] for k, name in enumerate(names)} if len(names) > 1 else {})
        for name, column in columns.items():
            own = counted[:, column]
            if not own.any():
                continue
            one, other = (part[:, column] for part in scores)
            values = float(one[own].mean()), float(other[own].mean())
            samples = None
            if times is not None:
                samples = resampled_mean(one, own, patients, times), resampled_mean(other, own, patients, times)
            differences.append(difference_of(metric, name, values, samples))
    return differences


def _labels(
    store: Store,
    rows: np.ndarray,
    first: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
    patients: np.ndarray,
    times: np.ndarray | None,
) -> list[Difference]:
    differences: list[Difference] = []
    counted: list[tuple[float, float]] = []
    resampled: list[tuple[np.ndarray, np.ndarray]] = []
    truths = store.labels[rows]
    columns = {name: truths[:, k] for k, name in enumerate(store.categories.values())}
    columns = {ABNORMAL: truths.any(axis=1), **columns}
    for name in first:
        truth = columns.get(name.removesuffix(" (classifier)"))
        if name not in second or truth is None:
            continue
        one, other = operating_curve(first[name], truth), operating_curve(second[name], truth)
        if one is None or other is None:
            continue
        samples = None
        if times is not None:
            labels = [LabelScores(name, "rows", scores, truth, 0.5, 0.5) for scores in (first[name], second[name])]
            aurocs = [resample_label(label, patients, times)[:, 0] for label in labels]
            samples = aurocs[0], aurocs[1]
        values = one.auroc, other.auroc
        differences.append(difference_of("auroc", name, values, samples))
        if name in store.categories.values():
            counted.append(values)
            resampled += [] if samples is None else [samples]
    if len(counted) < 2:
        return differences
    means = float(np.mean([value for value, _ in counted])), float(np.mean([value for _, value in counted]))
    samples = None
    if resampled:
        firsts, seconds = zip(*resampled, strict=True)
        samples = mean_of_present(list(firsts)), mean_of_present(list(seconds))
    return [difference_of("auroc", TOTAL, means, samples), *differences]
