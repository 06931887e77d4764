"""Average precision of boxes as COCO defines it, equal to what pycocotools computes."""

import math
from collections.abc import Sequence

import numba
import numpy as np

from xray.evaluation.box_matching import candidates
from xray.structures.boxes import BoxTable, xyxy_to_xywh

COCO_IOUS, COCO_RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)


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

    The rows of (N, 10) are those of the table, not of the order.
    """
    truth_order, starts, stops = candidates(truth, predictions)
    order = np.lexsort((predictions.images, -predictions.scores))
    # By way of x, y, width, height as in COCO's files, since this conversion rounds.
    boxes, truth_boxes = (xyxy_to_xywh(part) for part in (predictions.boxes, truth.boxes[truth_order]))
    return order, _match_coco(order, starts, stops, boxes, truth_boxes, COCO_IOUS)


# error_model: without a test for divisions by zero, which cannot happen.
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
