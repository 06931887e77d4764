"""Weighted boxes fusion of a whole dataset at once, compiled by numba once it has much to do."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from xray.errors import InputError
from xray.structures.boxes import BoxTable

FUSED_SCORES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
ROWS_A_PART = 50_000
"""Boxes that one thread fuses at a time: enough to outweigh its start, few enough to sort in the cache."""
UNCOMPILED = 1000
"""Boxes that Python fuses in the time, about 0.3 s, that numba takes to be imported and to load the compiled kernel."""
_n_uncompiled = 0
"""Boxes that this process has fused without it."""

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Fused:
    """What weighted boxes fusion returns: M fused boxes and which boxes went into each.

    table: the M fused boxes; images ascending, scores descending within an image.
    counts: (M,) int64, number of boxes fused into each.
    cluster: (N,) int64, for each input box the row of `table` that it went into; -1 if it was skipped.
    """

    table: BoxTable
    counts: np.ndarray
    cluster: np.ndarray


def weighted_boxes_fusion(
    table: BoxTable,
    models: np.ndarray,
    weights: Sequence[float],
    iou_threshold: float = 0.55,
    skip_threshold: float = 0.0,
    score: str = "avg",
) -> Fused:
    """Weighted boxes fusion of all images at once (Solovyev, Wang, Gabruseva 2021, arXiv:1910.13302).

    Within one image and one category, boxes join, from the highest score down, the cluster whose fused box they
    overlap most if that IoU exceeds `iou_threshold`; a cluster's box is the mean of its boxes weighted by score ×
    model weight. Scores are those of the ensemble-boxes package (its default arguments) with the same `conf_type`.

    models: (N,) int, which model (or reader) each box comes from, an index into `weights`.
    weights: one positive number a model.
    skip_threshold: boxes with a lower score are left out, and so are boxes without area.
    score: "avg", "max", "box_and_model_avg" or "absent_model_aware_avg".

    Raises InputError for weights that are not positive, models out of range, scores outside [0, 1], boxes that are
    not finite or inverted, and unknown `score` names.
    """
    models = np.asarray(models, dtype=np.int64).reshape(-1)
    weight_of = np.asarray(weights, dtype=np.float64).reshape(-1)
    _check_fusion(table, models, weight_of, score)
    has_area = ((table.boxes[:, 2:] - table.boxes[:, :2]) > 0).all(axis=1)
    usable = np.flatnonzero((table.scores >= skip_threshold) & has_area)
    by_image = usable[np.argsort(table.images[usable], kind="stable")]

    def fuse_images(rows: np.ndarray) -> tuple[BoxTable, np.ndarray, np.ndarray, np.ndarray]:
        return _fuse_rows(table, rows, models[rows], weight_of, iou_threshold, FUSED_SCORES.index(score))

    parts = _in_threads(fuse_images, _split_at_images(by_image, table.images))
    cluster, n_fused = np.full(len(table), -1, dtype=np.int64), 0
    for fused, _, rows, number in parts:
        cluster[rows] = n_fused + number
        n_fused += len(fused)
    counts = np.concatenate([np.zeros(0, dtype=np.int64), *(counts for _, counts, _, _ in parts)])
    return Fused(BoxTable.concatenate([fused for fused, _, _, _ in parts]), counts, cluster)


def _split_at_images(rows: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """Rows ordered by image → parts of about ROWS_A_PART of them, no image in two."""
    starts = np.append(0, np.flatnonzero(np.diff(images[rows])) + 1)
    bounds = starts[np.unique(np.searchsorted(starts, np.arange(ROWS_A_PART, len(rows), ROWS_A_PART), "right") - 1)]
    return [part for part in np.split(rows, bounds) if len(part)]


def _in_threads(function: Callable[[Part], Result], parts: list[Part]) -> list[Result]:
    """`function` of each part, in order. It has to leave the interpreter free most of the time to gain anything."""
    n_threads = min(os.cpu_count() or 1, len(parts))
    if n_threads < 2:
        return [function(part) for part in parts]
    # Plain threads rather than numba's own: those abort the process when two threads start them, or after a fork.
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, parts))


def _fuse_rows(
    table: BoxTable, rows: np.ndarray, models: np.ndarray, weights: np.ndarray, iou_threshold: float, score_kind: int
) -> tuple[BoxTable, np.ndarray, np.ndarray, np.ndarray]:
    """Fuses some of the table's rows → fused boxes, their counts, and for `rows` in another order the box they went in.

    models: of these rows.
    """
    order = np.lexsort((-(table.scores[rows] * weights[models]), table.labels[rows], table.images[rows]))
    rows, models = rows[order], models[order]
    images, labels = table.images[rows], table.labels[rows]
    changes = np.flatnonzero((np.diff(images) != 0) | (np.diff(labels) != 0)) + 1
    starts = np.concatenate([[0], changes, [len(rows)]]).astype(np.int64)
    owner, first, boxes, scores, counts = _kernel(len(rows))(
        starts, table.boxes[rows], table.scores[rows], models, weights, float(iou_threshold), score_kind
    )
    images, labels = images[first], labels[first]
    by_score = np.lexsort((-scores, images))
    number = np.empty(len(first), dtype=np.int64)
    number[by_score] = np.arange(len(first))
    fused = BoxTable(images[by_score], labels[by_score], boxes[by_score], scores[by_score])
    return fused, counts[by_score], rows, number[owner]


def _check_fusion(table: BoxTable, models: np.ndarray, weights: np.ndarray, score: str) -> None:
    if score not in FUSED_SCORES:
        raise InputError(f"unknown fused score {score!r}: use one of {', '.join(FUSED_SCORES)}")
    if len(weights) == 0 or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError(f"fusion weights must be positive numbers, one a model, not {weights.tolist()}")
    if len(models) != len(table):
        raise InputError(f"{len(table)} boxes but {len(models)} model numbers: give one a box")
    if len(table) == 0:
        return
    if models.min() < 0 or models.max() >= len(weights):
        raise InputError(f"boxes of model {models.max()} but only {len(weights)} weights: give one weight a model")
    if not np.isfinite(table.boxes).all() or (table.boxes[:, 2:] < table.boxes[:, :2]).any():
        raise InputError("boxes to fuse must be finite with x1 <= x2 and y1 <= y2: check the predictions' bbox values")
    if not ((table.scores >= 0) & (table.scores <= 1)).all():
        raise InputError("scores to fuse must lie between 0 and 1: check the predictions' score values")


def _kernel(n_boxes: int) -> Callable[..., Any]:
    """`_fuse_groups`, compiled unless it has done little so far. Both give the same to the last bit."""
    global _n_uncompiled
    if _n_uncompiled + n_boxes > UNCOMPILED:
        return _compiled()
    _n_uncompiled += n_boxes
    return _fuse_groups


@functools.cache
def _compiled() -> Callable[..., Any]:
    import numba

    # error_model: no test for a division by zero, none of which can happen; it also halves the time to compile.
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(_fuse_groups)
    return compiled


def _fuse_groups(starts, boxes, scores, models, weights, iou_threshold, score_kind):  # type: ignore[no-untyped-def]
    """Clusters each group: one image and category, sorted by weighted score. Clusters are numbered as they arise.

    Returns owner (N,), each box's cluster; and of each cluster first, the row of its first box, boxes, scores, counts.
    """
    n = len(boxes)
    owner = np.empty(n, dtype=np.int64)
    first = np.empty(n, dtype=np.int64)
    fused = np.empty((n, 4))
    areas = np.empty(n)
    sums = np.zeros((n, 4))
    confidence = np.zeros(n)
    highest = np.zeros(n)
    weight_sum = np.zeros(n)
    counts = np.zeros(n, dtype=np.int64)
    n_clusters = 0
    for group in range(len(starts) - 1):
        group_clusters = n_clusters
        for j in range(starts[group], starts[group + 1]):
            x1, y1, x2, y2 = boxes[j, 0], boxes[j, 1], boxes[j, 2], boxes[j, 3]
            area = (x2 - x1) * (y2 - y1)
            best, best_iou = -1, iou_threshold
            for k in range(group_clusters, n_clusters):
                width = min(fused[k, 2], x2) - max(fused[k, 0], x1)
                height = min(fused[k, 3], y2) - max(fused[k, 1], y1)
                if width <= 0 or height <= 0:
                    continue
                overlap = width * height
                iou = overlap / (area + areas[k] - overlap)
                if iou > best_iou:
                    best, best_iou = k, iou
            if best < 0:
                best = n_clusters
                first[best] = j
                n_clusters += 1
            weighted = scores[j] * weights[models[j]]
            owner[j] = best
            counts[best] += 1
            confidence[best] += weighted
            highest[best] = max(highest[best], weighted)
            weight_sum[best] += weights[models[j]]
            for d in range(4):
                sums[best, d] += weighted * boxes[j, d]
                # A lone box stays exactly what it was, whatever its score, zero included.
                fused[best, d] = (
                    sums[best, d] / confidence[best]
                    if counts[best] > 1 and confidence[best] > 0
                    else boxes[first[best], d]
                )
            areas[best] = (fused[best, 2] - fused[best, 0]) * (fused[best, 3] - fused[best, 1])

    total = weights.sum()
    present = np.zeros((n_clusters, len(weights)) if score_kind >= 2 else (1, 1), dtype=np.bool_)
    if score_kind >= 2:
        for j in range(n):
            present[owner[j], models[j]] = True
    result = np.zeros(n_clusters)
    for k in range(n_clusters):
        if score_kind == 0:
            result[k] = confidence[k] / counts[k] * min(len(weights), counts[k]) / total
        elif score_kind == 1:
            result[k] = highest[k] / weights.max()
        else:
            seen = 0.0
            for m in range(len(weights)):
                if present[k, m]:
                    seen += weights[m]
            if score_kind == 2:
                result[k] = confidence[k] / weight_sum[k] * seen / total
            else:
                result[k] = confidence[k] / (weight_sum[k] + total - seen)
    return owner, first[:n_clusters].copy(), fused[:n_clusters].copy(), result, counts[:n_clusters].copy()
