"""How good boxes are: VOC 2010 average precision at IoU > 0.4, per finding and over Kaggle's 15 classes; FROC; COCO AP.

Everything works on `BoxTable`s whose `images` number the same n_images radiographs. Boxes are continuous
(x1, y1, x2, y2): a box from 0 to 10 is 10 pixels wide, without the devkit's "+ 1".
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from xray.evaluation.located import Located
from xray.findings import CATEGORIES, NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.boxes import BoxTable, xyxy_to_xywh
from xray.structures.predictions import NO_FINDING_CATEGORY

IOU_THRESHOLD = 0.4
COCO_IOUS, COCO_RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
FP_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The operating points of the LUNA16 challenge, widely used since; its score is their mean sensitivity."""


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which of N predictions is right, and which of M truth boxes is found.

    order: (N,) int64, the predictions from the highest score down; equal scores keep their order in the table.
    is_true: (N,) bool, the prediction is a true positive.
    truth: (N,) int64, row of the truth box that the prediction overlaps most; -1 where it overlaps none.
    iou: (N,) float64, that overlap, in [0, 1].
    found_by: (M,) int64, row of the prediction that found the truth box; -1 where it is missed.
    """

    order: np.ndarray
    is_true: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    found_by: np.ndarray


def match_boxes(truth: BoxTable, predictions: BoxTable, iou_threshold: float = IOU_THRESHOLD) -> Matches:
    """Matches predictions to the truth as the VOC 2010 development kit does.

    From the highest score down, each prediction is held against the truth box of its image and category that it
    overlaps most (the first of equals). It is a true positive if that IoU is *greater* than `iou_threshold` and no
    earlier prediction took that truth box; otherwise it is a false positive, even if it overlaps another, free box.
    """
    truth_order, starts, stops = _candidates(truth, predictions)
    order = np.argsort(-predictions.scores, kind="stable")
    is_true, best, iou, taken = _match(
        order, starts, stops, predictions.boxes, truth.boxes[truth_order], float(iou_threshold)
    )
    found_by = np.full(len(truth), -1, dtype=np.int64)
    found_by[truth_order] = taken
    overlapped = best >= 0
    best[overlapped] = truth_order[best[overlapped]]
    return Matches(order, is_true, best, iou, found_by)


def _candidates(truth: BoxTable, predictions: BoxTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An order of the M truth boxes, and where in it those of each prediction's image and category start and stop."""
    # One number an (image, category) pair, so that a sorted array finds the truth boxes of a prediction.
    n_labels = 1 + max(truth.labels.max(initial=0), predictions.labels.max(initial=0))
    truth_keys = truth.images * n_labels + truth.labels
    truth_order = np.argsort(truth_keys, kind="stable")
    sorted_keys = truth_keys[truth_order]
    keys = predictions.images * n_labels + predictions.labels
    starts = np.searchsorted(sorted_keys, keys, side="left")
    return truth_order, starts, np.searchsorted(sorted_keys, keys, side="right")


@numba.njit(cache=True, nogil=True)
def _match(order, starts, stops, boxes, truth, threshold):
    n = len(boxes)
    is_true = np.zeros(n, dtype=np.bool_)
    best = np.full(n, -1, dtype=np.int64)
    best_iou = np.zeros(n)
    taken = np.full(len(truth), -1, dtype=np.int64)
    for row in order:
        area = (boxes[row, 2] - boxes[row, 0]) * (boxes[row, 3] - boxes[row, 1])
        for k in range(starts[row], stops[row]):
            width = min(boxes[row, 2], truth[k, 2]) - max(boxes[row, 0], truth[k, 0])
            height = min(boxes[row, 3], truth[k, 3]) - max(boxes[row, 1], truth[k, 1])
            if width <= 0 or height <= 0:
                continue
            overlap = width * height
            iou = overlap / (area + (truth[k, 2] - truth[k, 0]) * (truth[k, 3] - truth[k, 1]) - overlap)
            if iou > best_iou[row]:
                best[row], best_iou[row] = k, iou
        if best_iou[row] > threshold and taken[best[row]] < 0:
            is_true[row] = True
            taken[best[row]] = row
    return is_true, best, best_iou, taken


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
    # A reader can set a threshold only between scores, so a run of equal scores gives its last point only.
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

    As Kaggle scores it, the truth of that has the unit box for each image without a box of the other categories.

    located: where categories can be scored; what cannot is left out. None for everywhere.
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
        false positives an image are of the images on which it is scored.

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


def coco_metrics(truth: BoxTable, predictions: BoxTable, categories: dict[int, str]) -> dict[str, float]:
    """COCO's AP (mean over IoU 0.50:0.05:0.95), AP50 and AP75 over `categories`, as pycocotools gives them.

    All predictions count where an image has more than COCO's 100 a category, and boxes of any size (COCO's area "all"
    ends at 100,000 x 100,000 pixels). NaN where there is no truth.
    """
    precision = coco_precision(truth, predictions, sorted(categories))
    parts = {"coco_ap": precision, "coco_ap50": precision[0], "coco_ap75": precision[5]}
    present = (precision > -1).any()
    return {name: float(part[part > -1].mean()) if present else math.nan for name, part in parts.items()}


def coco_precision(truth: BoxTable, predictions: BoxTable, labels: Sequence[int]) -> np.ndarray:
    """Interpolated precision at COCO_IOUS, COCO_RECALLS and each label → (10, 101, K) in [0, 1]; -1 without truth.

    The `precision` of COCOeval.accumulate (Lin et al. 2014, arXiv:1405.0312) without crowds, size classes and a limit
    to the predictions of an image. From the highest score down, equal ones by image and then by row, each prediction
    takes the *free* truth box of its image and category that it overlaps most, the last of equals, if that IoU is at
    least the threshold.
    """
    order, is_true = match_coco(truth, predictions)
    precision = np.full((len(COCO_IOUS), len(COCO_RECALLS), len(labels)), -1.0)
    for number, label in enumerate(labels):
        n_truth = np.count_nonzero(truth.labels == label)
        if n_truth:
            rows = order[predictions.labels[order] == label]
            precision[..., number] = _interpolate_coco(is_true[rows], n_truth, COCO_RECALLS)
    return precision


def match_coco(truth: BoxTable, predictions: BoxTable) -> tuple[np.ndarray, np.ndarray]:
    """COCO's matching: the order of the predictions, (N,) int64, and which are right at each of COCO_IOUS, (N, 10).

    The latter's rows are those of the table, not of the order.
    """
    truth_order, starts, stops = _candidates(truth, predictions)
    order = np.lexsort((predictions.images, -predictions.scores))
    # Through x, y, width, height as in COCO's files, since that rounds.
    boxes, truth_boxes = (xyxy_to_xywh(part) for part in (predictions.boxes, truth.boxes[truth_order]))
    return order, _match_coco(order, starts, stops, boxes, truth_boxes, COCO_IOUS)


# error_model: no test for a division by zero, none of which can happen.
@numba.njit(cache=True, nogil=True, error_model="numpy")
def _match_coco(order, starts, stops, boxes, truth, thresholds):
    """(N, T) bool, whether a prediction is a true positive at a threshold; boxes and truth: x, y, width, height."""
    n_thresholds = len(thresholds)
    is_true = np.zeros((len(boxes), n_thresholds), dtype=np.bool_)
    taken = np.zeros((len(truth), n_thresholds), dtype=np.bool_)
    best = np.empty(n_thresholds, dtype=np.int64)
    best_iou = np.empty(n_thresholds)
    for row in order:
        if starts[row] == stops[row]:
            continue
        for t in range(n_thresholds):
            best[t], best_iou[t] = -1, thresholds[t]
        x, y, area = boxes[row, 0], boxes[row, 1], boxes[row, 2] * boxes[row, 3]
        for k in range(starts[row], stops[row]):
            width = min(boxes[row, 2] + x, truth[k, 2] + truth[k, 0]) - max(x, truth[k, 0])
            height = min(boxes[row, 3] + y, truth[k, 3] + truth[k, 1]) - max(y, truth[k, 1])
            if width <= 0 or height <= 0:
                continue
            overlap = width * height
            iou = overlap / (area + truth[k, 2] * truth[k, 3] - overlap)
            for t in range(n_thresholds):
                if iou < thresholds[t]:
                    break
                if iou >= best_iou[t] and not taken[k, t]:
                    best[t], best_iou[t] = k, iou
        for t in range(n_thresholds):
            if best[t] >= 0:
                is_true[row, t] = taken[best[t], t] = True
    return is_true


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _interpolate_coco(is_true, n_truth, recalls):
    """(T, R): the highest precision from each recall on; is_true: (N, T), highest score first."""
    n, n_thresholds = is_true.shape
    result = np.zeros((n_thresholds, len(recalls)))
    precision = np.empty(n)
    recall = np.empty(n)
    for t in range(n_thresholds):
        n_true = 0.0
        for row in range(n):
            if is_true[row, t]:
                n_true += 1.0
            recall[row] = n_true / n_truth
            # COCO's guard against 0 / 0, which lowers the precision of the very first prediction by 2e-16.
            precision[row] = n_true / (row + 1.0 + 2.0**-52)
        for row in range(n - 1, 0, -1):
            precision[row - 1] = max(precision[row - 1], precision[row])
        row = 0
        for r in range(len(recalls)):
            while row < n and recall[row] < recalls[r]:
                row += 1
            if row == n:
                break
            result[t, r] = precision[row]
    return result


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
