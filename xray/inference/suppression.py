"""Non-maximum suppression and non-maximum weighted of the ensemble-boxes package, of a whole dataset."""

from collections.abc import Mapping

import numpy as np

from xray.structures.boxes import BoxTable, box_iou


def suppress(
    table: BoxTable,
    rows: np.ndarray,
    masks: Mapping[int, object],
    iou_threshold: float,
    method: str,
) -> tuple[BoxTable, dict[int, int]]:
    """Runs "nms" or "nmw" on the chosen rows, within each radiograph and category; also fused row → row whose mask it
    keeps. masks: row → mask. iou_threshold: in (0, 1)."""
    rows = rows[np.lexsort((table.labels[rows], table.images[rows]))]
    keys = np.stack([table.images[rows], table.labels[rows]], axis=1)
    groups = np.split(rows, 1 + np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1))) if len(rows) else []
    scores = table.scores
    one_group = {"nms": _nms, "nmw": _nmw}[method]
    parts, source, done = [], {}, 0
    for group in groups:
        boxes, fused_scores, members = one_group(table.boxes[group], scores[group], iou_threshold)
        image, label = np.full((2, len(boxes)), [[table.images[group[0]]], [table.labels[group[0]]]])
        parts.append(BoxTable.of(image, label, boxes, fused_scores))
        for number, inside in enumerate(members):
            with_mask = [row for row in group[inside].tolist() if row in masks]
            if with_mask:
                source[done + number] = max(with_mask, key=lambda row: scores[row])
        done += len(boxes)
    return BoxTable.concatenate(parts), source


Suppressed = tuple[np.ndarray, np.ndarray, list[np.ndarray]]
"""Boxes, their scores, and the rows that each was made of."""


def _nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Suppressed:
    from ensemble_boxes.ensemble_boxes_nms import nms_float_fast

    rows = np.array(nms_float_fast(boxes, scores, iou_threshold), dtype=np.int64)
    return boxes[rows], scores[rows], [np.array([row]) for row in rows]


def _nmw(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Suppressed:
    from ensemble_boxes import non_maximum_weighted

    # The package takes coordinates in [0, 1]; overlaps do not change when each axis is shifted and scaled to the range
    # of the boxes.
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    shift, scale = np.tile(low, 2), np.tile(high - low, 2)
    normalised = ((boxes - shift) / scale).clip(0, 1)
    # A group whose scores are all 0 would be averaged with weights 0, which gives NaN.
    positive = np.maximum(scores, np.finfo(np.float32).eps)
    fused, fused_scores, _ = non_maximum_weighted(
        [normalised], [positive], [np.zeros(len(boxes))], iou_thr=iou_threshold
    )
    fused = np.asarray(fused, dtype=np.float64) * scale + shift
    # The package does not return which boxes went into which: the nearest are those that overlap it enough.
    members = [np.flatnonzero(overlaps > iou_threshold) for overlaps in box_iou(fused, boxes)]
    # It computes in float32; the scores of its strongest members are kept exactly.
    nearest = np.abs(np.asarray(fused_scores, dtype=np.float64)[:, None] - scores[None, :]).argmin(axis=1)
    return fused, scores[nearest], members
