"""How good boxes are: VOC 2010 average precision at IoU > 0.4, per finding and over Kaggle's 15 classes; FROC; COCO AP.

Everything works on `BoxTable`s whose `images` number the same n_images radiographs. Boxes are continuous
(x1, y1, x2, y2): a box from 0 to 10 is 10 pixels wide, without the devkit's "+ 1".
"""

import dataclasses
import math
from typing import Any

import numpy as np

from xray.evaluation.box_matching import match_boxes
from xray.evaluation.coco_metrics import coco_metrics
from xray.evaluation.located import Located
from xray.findings import CATEGORIES, NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY

FP_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The operating points of the LUNA16 challenge, widely used since; its score is their mean sensitivity."""


def precision_recall(is_true: np.ndarray, n_truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each prediction, highest score first: (N,) bool → (N,), (N,) float64 in [0, 1]."""
    hits = np.cumsum(is_true)
    return hits / np.arange(1, len(hits) + 1), hits / max(n_truth, 1)


def average_precision(is_true: np.ndarray, n_truth: int) -> float:
    """Area under the interpolated precision–recall curve, all points (VOC 2010 development kit, VOCap.m).

    is_true: (N,) bool, predictions of one category, highest score first.
    n_truth: truth boxes of that category. NaN when it is 0: recall, and with it AP, is not defined.
    """
    if n_truth == 0:
        return math.nan
    precision, _ = precision_recall(is_true, n_truth)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall rises by 1 / n_truth at each true positive and nowhere else; fsum makes the sum exact in any order.
    return math.fsum(envelope[np.asarray(is_true, dtype=bool)]) / n_truth


@dataclasses.dataclass(frozen=True)
class FrocCurve:
    """One point for each distinct score, from the highest down; predictions of equal score enter together.

    thresholds: (P,) float64, predictions of at least this score count.
    fp_per_image: (P,) float64, false positives divided by all images, those without findings among them.
    sensitivity: (P,) float64, share of truth boxes found, in [0, 1].
    """

    thresholds: np.ndarray
    fp_per_image: np.ndarray
    sensitivity: np.ndarray


def froc_curve(is_true: np.ndarray, scores: np.ndarray, n_truth: int, n_images: int | np.ndarray) -> FrocCurve:
    """The FROC curve of predictions sorted from the highest score down.

    is_true: (N,) bool; a second prediction on a finding already found is a false positive, as in the AP.
    scores: (N,) float64, descending.
    n_truth: truth boxes; a curve without any has sensitivity 0.
    n_images: radiographs. Of several findings together, which are scored on different numbers of radiographs, (N,): of
        each prediction's finding. The rates of the findings then add up.
    """
    # A threshold can only lie between different scores, so a run of equal scores gives only its last point.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, dtype=np.int64)
    hits = np.cumsum(is_true)[last]
    if isinstance(n_images, np.ndarray):
        rates = np.cumsum(~np.asarray(is_true, dtype=bool) / np.maximum(n_images, 1))[last]
    else:
        rates = (last + 1 - hits) / max(n_images, 1)
    return FrocCurve(scores[last], rates, hits / max(n_truth, 1))


def sensitivity_at(curve: FrocCurve, fp_per_image: float) -> float:
    """The highest sensitivity reached with at most `fp_per_image` false positives an image; 0 if there is none."""
    return float(curve.sensitivity[curve.fp_per_image <= fp_per_image].max(initial=0.0))


def has_vinbig_categories(categories: dict[int, str]) -> bool:
    """Whether a dataset's categories are VinBig's 14 findings, so that Kaggle's 15-class score has a meaning."""
    return categories == {category["id"]: category["name"] for category in CATEGORIES}


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One category: its N predictions from the highest score down, and its boxes in the truth.

    is_true: (N,) bool. scores: (N,) float64. images: (N,) int64. truth_images: (M,) int64. n_images: radiographs on
    which it is scored.
    """

    label: int
    name: str
    is_true: np.ndarray
    scores: np.ndarray
    images: np.ndarray
    truth_images: np.ndarray
    n_images: int

    @property
    def n_truth(self) -> int:
        """M."""
        return len(self.truth_images)


def by_category(
    truth: BoxTable,
    predictions: BoxTable,
    n_images: int,
    categories: dict[int, str],
    located: Located | None = None,
) -> list[Ranked]:
    """Every category, matched by `match_boxes`; with VinBig's categories, "No finding" (15) is the last one.

    As Kaggle scores it, the truth of "No finding" has the unit box for each image without a box of the other
    categories.

    located: where categories can be scored; boxes elsewhere are left out. None for everywhere.
    """
    truth = truth.select(np.isin(truth.labels, list(categories)))
    if located is not None:
        truth, predictions = located.of(truth), located.of(predictions)
    if has_vinbig_categories(categories):
        categories = {**categories, NO_FINDING_CATEGORY: NO_FINDING_NAME}
        normal = np.setdiff1d(np.arange(n_images), truth.images)
        if located is not None:
            normal = np.flatnonzero(located.normal)
        labels, boxes = np.full(len(normal), NO_FINDING_CATEGORY), np.tile(NO_FINDING_BOX, (len(normal), 1))
        truth = BoxTable.concatenate([truth, BoxTable.of(normal, labels, boxes)])
    matches = match_boxes(truth, predictions)
    ranked = []
    for label, name in sorted(categories.items()):
        rows = matches.order[predictions.labels[matches.order] == label]
        truth_images = truth.images[truth.labels == label]
        columns = (matches.is_true[rows], predictions.scores[rows], predictions.images[rows], truth_images)
        ranked.append(Ranked(label, name, *columns, n_images if located is None else located.n_images(label)))
    return ranked


def detection_metrics(
    truth: BoxTable,
    predictions: BoxTable,
    n_images: int,
    categories: dict[int, str],
    with_coco: bool = True,
    located: Located | None = None,
) -> dict[str, Any]:
    """The numbers of metrics.json for boxes.

    truth, predictions: `images` in [0, n_images); predictions of categories outside `categories` (and, with VinBig's
    categories, outside "No finding", 15) are ignored.
    categories: category id → name.
    with_coco: also COCO's AP.
    located: where categories can be scored; None for everywhere. A prediction of a category elsewhere is dropped, and
        its false positives an image are over the images on which the category is scored.

    Returns n_images; n_truth {name: boxes}; ap40 {name: AP} for the findings present in the truth; map40, their mean;
    with VinBig's categories ap40_no_finding and map40_kaggle; sensitivity_at_fp {name: {"0.125": …, "8": …}}, the
    share of truth boxes found at that many false positives an image; with_coco: coco_ap, coco_ap50, coco_ap75. Where
    some category is not located everywhere: n_unlocated {name: images on which it is not scored} and
    n_unlocated_boxes, the predicted boxes that were dropped. A mean over nothing is NaN.

    A class without truth boxes has no AP (recall is 0 / 0) and is left out of the means, whether or not it was
    predicted; where all 15 classes occur, as in the whole of VinBig, map40_kaggle is the mean over 15.
    """
    n_dropped = 0
    if located is not None:
        dropped = ~located.counts(predictions) & np.isin(predictions.labels, list(categories))
        truth, predictions, n_dropped = located.of(truth), located.of(predictions), int(dropped.sum())
    ranked = by_category(truth, predictions, n_images, categories, located)
    ap = {one.label: average_precision(one.is_true, one.n_truth) for one in ranked if one.n_truth}
    findings = [one for one in ranked if one.label in categories]
    sensitivity = {}
    for one in findings:
        if one.n_truth:
            curve = froc_curve(one.is_true, one.scores, one.n_truth, one.n_images)
            sensitivity[one.name] = {f"{rate:g}": sensitivity_at(curve, rate) for rate in FP_PER_IMAGE}
    metrics: dict[str, Any] = {
        "n_images": n_images,
        "n_truth": {one.name: one.n_truth for one in findings},
        "map40": _mean([ap[label] for label in ap if label in categories]),
        "ap40": {categories[label]: ap[label] for label in ap if label in categories},
        "sensitivity_at_fp": sensitivity,
    }
    if has_vinbig_categories(categories):
        metrics["map40_kaggle"] = _mean(list(ap.values()))
        metrics["ap40_no_finding"] = ap.get(NO_FINDING_CATEGORY, math.nan)
    if with_coco:
        metrics |= coco_metrics(truth, predictions, categories)
    if located is not None and not located.is_whole:
        metrics |= {"n_unlocated": located.n_left_out, "n_unlocated_boxes": n_dropped}
    return metrics


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
