"""Which predicted boxes find which true ones, as Kaggle's metric and PASCAL VOC match them."""

import dataclasses

import numba
import numpy as np

from xray.structures.boxes import BoxTable

IOU_THRESHOLD = 0.4


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which of N predictions is right, and which of M truth boxes is found.

    order: (N,) int64, the predictions from the highest score down; equal scores keep their order in the table.
    is_true: (N,) bool, the prediction is a true positive.
    truth: (N,) int64, row of the truth box that the prediction overlaps most; -1 where it overlaps none.
    iou: (N,) float64, the overlap with that truth box, in [0, 1].
    found_by: (M,) int64, row of the prediction that found the truth box; -1 where it is missed.
    """

    order: np.ndarray
    is_true: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    found_by: np.ndarray


def match_boxes(truth: BoxTable, predictions: BoxTable) -> Matches:
    """Matches predictions to the truth as the VOC 2010 development kit does.

    From the highest score down, each prediction is held against the truth box of its image and category that it
    overlaps most (the first of equals). It is a true positive if that IoU is *greater* than IOU_THRESHOLD and no
    earlier prediction took that truth box; otherwise it is a false positive, even if it overlaps another, free box.
    """
    truth_order, starts, stops = candidates(truth, predictions)
    order = np.argsort(-predictions.scores, kind="stable")
    is_true, best, iou, taken = _match(order, starts, stops, predictions.boxes, truth.boxes[truth_order], IOU_THRESHOLD)
    found_by = np.full(len(truth), -1, dtype=np.int64)
    found_by[truth_order] = taken
    overlapped = best >= 0
    best[overlapped] = truth_order[best[overlapped]]
    return Matches(order, is_true, best, iou, found_by)


def candidates(truth: BoxTable, predictions: BoxTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
