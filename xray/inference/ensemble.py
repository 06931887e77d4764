"""Several models' predictions made one: weighted boxes fusion, or a variant of non-maximum suppression.

Weighted boxes fusion is our own (xray.structures.boxes); non-maximum suppression, soft NMS and non-maximum weighted are
those of the ensemble-boxes package. All of them work within one radiograph and one category.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from xray.errors import FlagError
from xray.findings import NO_FINDING_BOX
from xray.structures.boxes import BoxTable, box_iou, concatenate_with_masks
from xray.structures.fusion import FUSED_SCORES, weighted_boxes_fusion
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions

METHODS = ("wbf", "nms", "soft_nms", "nmw")
SOFT_NMS_SIGMA = 0.5


def fuse(
    predictions: Sequence[Predictions],
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.4,
    skip_threshold: float = 0.0,
    method: str = "wbf",
    score: str = "avg",
) -> Predictions:
    """Fuses the predictions of several models, radiograph by radiograph.

    predictions: one entry a model. A radiograph that a model has no box for counts as seen and found empty by it.
    weights: one positive number a model; equal when None.
    iou_threshold: in (0, 1); boxes of one category that overlap by more are taken for one finding.
    skip_threshold: in [0, 1]; boxes with a lower score, and boxes without area, are left out.
    method: "wbf" averages overlapping boxes by score; "nms" keeps the strongest; "soft_nms" keeps all and lowers the
        scores of the weaker ones by exp(-IoU² / 0.5) (iou_threshold plays no part in it); "nmw" averages by score ×
        overlap and keeps the strongest one's score.
    score: of a box fused by "wbf", as in `weighted_boxes_fusion`. With "avg" and unequal weights it can exceed 1 and
        is cut to 1; "box_and_model_avg" cannot.

    "No finding" rows (category 15, unit box) are probabilities, not boxes: each radiograph gets their mean, weighted,
    over the models that gave one. With the methods other than "wbf" a box's score is first multiplied by its model's
    weight / the largest weight. A fused box keeps the mask of its highest-scored member that has one.

    Returns radiographs in order of first appearance; boxes by radiograph, scores descending. Raises FlagError for
    settings out of range, InputError for boxes or scores that are.
    """
    per_model = _check(len(predictions), weights, iou_threshold, skip_threshold, method, score)
    index: dict[str | int, int] = {}
    parts = []
    for model in predictions:
        rows = np.array([index.setdefault(image_id, len(index)) for image_id in model.image_ids], dtype=np.int64)
        parts.append((dataclasses.replace(model.table, images=rows[model.table.images]), model.masks))
    table, masks = concatenate_with_masks(parts)
    models = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])

    is_normal = (table.labels == NO_FINDING_CATEGORY) & (table.boxes == NO_FINDING_BOX).all(axis=1)
    rows = np.flatnonzero(~is_normal)
    if method == "wbf":
        result = weighted_boxes_fusion(
            table.select(rows), models[rows], per_model.tolist(), iou_threshold, skip_threshold, score
        )
        fused, source = result.table, _strongest_with_mask(rows, result.cluster, table.scores, masks)
    else:
        has_area = ((table.boxes[:, 2:] - table.boxes[:, :2]) > 0).all(axis=1)
        rows = rows[(table.scores >= skip_threshold)[rows] & has_area[rows]]
        weighted = table.scores * (per_model / per_model.max())[models]
        fused, source = _suppress(table, weighted, rows, masks, iou_threshold, method)
    normal = _average_no_finding(table.select(is_normal), per_model[models[is_normal]])

    merged = BoxTable.concatenate([fused, normal])
    masks_of_fused = {row: masks[source_row] for row, source_row in source.items()}
    table, masks = merged.select_masked(np.lexsort((-merged.scores, merged.images)), masks_of_fused)
    return Predictions(tuple(index), dataclasses.replace(table, scores=table.scores.clip(0, 1)), masks)


def _check(
    n_models: int, weights: Sequence[float] | None, iou_threshold: float, skip_threshold: float, method: str, score: str
) -> np.ndarray:
    checked = np.ones(n_models) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
    is_positive = bool(np.isfinite(checked).all() and (checked > 0).all())
    for holds, message in (
        (n_models > 0, "nothing to fuse: give at least one predictions file"),
        (len(checked) == n_models, f"{len(checked)} weights for {n_models} predictions files: give one a file"),
        (
            is_positive,
            f"weights must be positive numbers, not {checked.tolist()}: leave out a model that should not count",
        ),
        (0 < iou_threshold < 1, f"the IoU threshold is {iou_threshold}: it must lie between 0 and 1"),
        (0 <= skip_threshold <= 1, f"the skip threshold is {skip_threshold}: it must lie between 0 and 1"),
        (method in METHODS, f"unknown fusion method {method!r}: use one of {', '.join(METHODS)}"),
        (score in FUSED_SCORES, f"unknown fused score {score!r}: use one of {', '.join(FUSED_SCORES)}"),
    ):
        if not holds:
            raise FlagError(message)
    return checked


def _average_no_finding(table: BoxTable, weights: np.ndarray) -> BoxTable:
    """One row a radiograph that has any: the weighted mean of the models' probabilities."""
    images, inverse = np.unique(table.images, return_inverse=True)
    total = np.bincount(inverse, weights=table.scores * weights, minlength=len(images))
    scores = total / np.bincount(inverse, weights=weights, minlength=len(images))
    labels = np.full(len(images), NO_FINDING_CATEGORY)
    return BoxTable.of(images, labels, np.tile(NO_FINDING_BOX, (len(images), 1)), scores)


def _strongest_with_mask(
    rows: np.ndarray, cluster: np.ndarray, scores: np.ndarray, masks: Mapping[int, object]
) -> dict[int, int]:
    """Fused row → the row of its highest-scored member with a mask, where it has one."""
    went_into = np.full(len(scores), -1, dtype=np.int64)
    went_into[rows] = cluster
    source: dict[int, int] = {}
    for row in sorted(masks):
        fused = int(went_into[row])
        if fused >= 0 and (fused not in source or scores[row] > scores[source[fused]]):
            source[fused] = row
    return source


def _suppress(
    table: BoxTable,
    scores: np.ndarray,
    rows: np.ndarray,
    masks: Mapping[int, object],
    iou_threshold: float,
    method: str,
) -> tuple[BoxTable, dict[int, int]]:
    """Runs a method of ensemble-boxes on each radiograph and category; also fused row → row whose mask it keeps."""
    rows = rows[np.lexsort((table.labels[rows], table.images[rows]))]
    keys = np.stack([table.images[rows], table.labels[rows]], axis=1)
    groups = np.split(rows, 1 + np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1))) if len(rows) else []
    one_group = {"nms": _nms, "soft_nms": _soft_nms, "nmw": _nmw}[method]
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


def _soft_nms(boxes: np.ndarray, scores: np.ndarray, _: float) -> Suppressed:
    from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

    # The package's soft_nms() returns the scores it was given; the lowered ones are left in the array that this
    # function works on, in the order of `rows`.
    lowered = scores.copy()
    rows = cpu_soft_nms_float(boxes, lowered, Nt=0.0, sigma=SOFT_NMS_SIGMA, thresh=-1.0, method=2)
    return boxes[rows], lowered, [np.array([row]) for row in rows]


def _nmw(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Suppressed:
    from ensemble_boxes import non_maximum_weighted

    # The package wants [0, 1]; overlaps do not change when each axis is shifted and scaled to what the boxes span.
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    shift, scale = np.tile(low, 2), np.tile(high - low, 2)
    normalised = ((boxes - shift) / scale).clip(0, 1)
    # A group whose scores are all 0 would be averaged with weights 0, which gives NaN.
    positive = np.maximum(scores, np.finfo(np.float32).eps)
    fused, fused_scores, _ = non_maximum_weighted(
        [normalised], [positive], [np.zeros(len(boxes))], iou_thr=iou_threshold
    )
    fused = np.asarray(fused, dtype=np.float64) * scale + shift
    # Which boxes went into which is not returned: the nearest are those that overlap it enough.
    members = [np.flatnonzero(overlaps > iou_threshold) for overlaps in box_iou(fused, boxes)]
    # It computes in float32; the scores are its strongest members' own.
    nearest = np.abs(np.asarray(fused_scores, dtype=np.float64)[:, None] - scores[None, :]).argmin(axis=1)
    return fused, scores[nearest], members
