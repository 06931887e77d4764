"""Weighted boxes fusion and soft suppression of a whole dataset at once, compiled by numba once there is much to do."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from xray.errors import InputError
from xray.structures.boxes import BoxTable

FUSED_SCORES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg", "sum")
LEAST_WEIGHT = 1e-100
"""Of a model beside one whose weight is between 1/2 and 1."""
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

    "sum" is our own, in which a model counts once in a cluster, by its strongest box there: Σ_m w_m s_m / Σ_m w_m, the
    first sum over the models m with a box in the cluster, s_m being that box's score. Models that agree raise it. A
    further box of a model that overlaps the cluster is the same finding once more and goes into it, but neither moves
    the box nor lowers the score: by "avg", each faint box that a detector leaves beside a sure one takes a share of the
    sure one's score. With equal weights, and no model with two boxes in a cluster, "avg" and "sum" are the same.
    VinBigData's first place sums *all* boxes of a cluster ("p_det_weight_psum", scaled back into [0, 1] over the whole
    set; github.com/morizin/vinbigdata_solution).

    models: (N,) int, which model (or reader) each box comes from, an index into `weights`.
    weights: one positive number a model.
    skip_threshold: boxes with a lower score are left out, and so are boxes without area.
    score: one of FUSED_SCORES.

    Raises InputError for weights that are not positive, models out of range, scores outside [0, 1], boxes that are
    not finite or inverted, and unknown `score` names.
    """
    models = np.asarray(models, dtype=np.int64).reshape(-1)
    weight_of = np.asarray(weights, dtype=np.float64).reshape(-1)
    _check_fusion(table, models, weight_of, score)
    weight_of = without_scale(weight_of)
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


def without_scale(weights: np.ndarray) -> np.ndarray:
    """(M,) weights in [0, 1], of which only the ratios count: sums of huge ones would overflow, products of tiny ones
    vanish. They are divided by a power of two, which changes no bit of a mean; one that is above 0 is LEAST_WEIGHT at
    least, so that a model alone with its box is still divided by something."""
    scaled = np.ldexp(weights, -int(np.frexp(weights.max())[1]))
    kept: np.ndarray = np.where(weights > 0, np.maximum(scaled, LEAST_WEIGHT), 0.0)
    return kept


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
    owner, first, boxes, scores, counts = _kernel(_fuse_groups, len(rows))(
        _starts(images, labels),
        table.boxes[rows],
        table.scores[rows],
        models,
        weights,
        float(iou_threshold),
        score_kind,
    )
    images, labels = images[first], labels[first]
    by_score = np.lexsort((-scores, images))
    number = np.empty(len(first), dtype=np.int64)
    number[by_score] = np.arange(len(first))
    fused = BoxTable(images[by_score], labels[by_score], boxes[by_score], scores[by_score])
    return fused, counts[by_score], rows, number[owner]


def soft_nms(table: BoxTable, sigma: float = 0.5) -> np.ndarray:
    """Scores (N,) as Gaussian soft non-maximum suppression lowers them (Bodla et al. 2017, arXiv:1704.04503).

    Within one image and one category, the box with the highest score, as lowered so far, is taken, the first row of
    equals, and the scores of those not taken yet are multiplied by exp(-IoU² / sigma); and so on. No box is left out.
    The boxes must have area.
    """
    rows = np.lexsort((table.labels, table.images))
    starts = _starts(table.images[rows], table.labels[rows])
    lowered = np.empty(len(table))
    lowered[rows] = _kernel(_soften_groups, len(table))(starts, table.boxes[rows], table.scores[rows], float(sigma))
    return lowered


def _starts(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of rows ordered by image and label: where each pair of these starts, and the number of rows at the end."""
    changes = np.flatnonzero((np.diff(images) != 0) | (np.diff(labels) != 0)) + 1
    return np.concatenate([[0], changes, [len(images)]]).astype(np.int64)


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


def _kernel(function: Callable[..., Any], n_boxes: int) -> Callable[..., Any]:
    """`function`, compiled unless this process has done little so far. Both give the same to the last bit."""
    global _n_uncompiled
    if _n_uncompiled + n_boxes > UNCOMPILED:
        return _compiled(function)
    _n_uncompiled += n_boxes
    return function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    # error_model: no test for a division by zero, none of which can happen; it also halves the time to compile.
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
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
    # The highest score of each model in each cluster; -1 where it has no box there.
    by_model = score_kind >= 2
    of_model = np.full((n, len(weights)) if by_model else (1, 1), -1.0)
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
            if score_kind == 4 and of_model[best, models[j]] >= 0:
                continue
            if by_model:
                of_model[best, models[j]] = max(of_model[best, models[j]], scores[j])
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

    total, largest = weights.sum(), weights.max()
    result = np.zeros(n_clusters)
    for k in range(n_clusters):
        if score_kind == 0:
            result[k] = confidence[k] / counts[k] * min(len(weights), counts[k]) / total
        elif score_kind == 1:
            result[k] = highest[k] / largest
        else:
            seen, summed = 0.0, 0.0
            for m in range(len(weights)):
                if of_model[k, m] >= 0:
                    seen += weights[m]
                    summed += weights[m] * of_model[k, m]
            if score_kind == 2:
                result[k] = confidence[k] / weight_sum[k] * seen / total
            elif score_kind == 3:
                result[k] = confidence[k] / (weight_sum[k] + total - seen)
            else:
                result[k] = summed / total
    return owner, first[:n_clusters].copy(), fused[:n_clusters].copy(), result, counts[:n_clusters].copy()


def _soften_groups(starts, boxes, scores, sigma):  # type: ignore[no-untyped-def]
    """The lowered scores of each group: one image and category."""
    lowered = scores.copy()
    is_taken = np.zeros(len(boxes), dtype=np.bool_)
    for group in range(len(starts) - 1):
        for _ in range(starts[group], starts[group + 1]):
            taken = -1
            for j in range(starts[group], starts[group + 1]):
                if not is_taken[j] and (taken < 0 or lowered[j] > lowered[taken]):
                    taken = j
            is_taken[taken] = True
            x1, y1, x2, y2 = boxes[taken, 0], boxes[taken, 1], boxes[taken, 2], boxes[taken, 3]
            for j in range(starts[group], starts[group + 1]):
                width = min(boxes[j, 2], x2) - max(boxes[j, 0], x1)
                height = min(boxes[j, 3], y2) - max(boxes[j, 1], y1)
                if is_taken[j] or width <= 0 or height <= 0:
                    continue
                area = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
                iou = width * height / ((x2 - x1) * (y2 - y1) + area - width * height)
                lowered[j] *= math.exp(-(iou * iou) / sigma)
    return lowered
