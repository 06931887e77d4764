"""Boxes of a whole dataset as flat columns, their overlaps, and weighted boxes fusion.

Flat columns instead of a list per image let fusion and metrics run over hundreds of thousands of boxes without a
Python loop.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np

from xray.errors import InputError

FUSED_SCORES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
ROWS_A_PART = 50_000
"""Boxes that one thread fuses at a time: enough to outweigh its start, few enough to sort in the cache."""

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class BoxTable:
    """Boxes of many images; row i of every column is one box.

    images: (N,) int64, index of the image in some list kept beside the table.
    labels: (N,) int64, category ids.
    boxes: (N, 4) float64, x1, y1, x2, y2 in original pixels.
    scores: (N,) float64, in [0, 1]; 1 for the truth.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, images: object, labels: object, boxes: object, scores: object = None) -> "BoxTable":
        """Builds a table from anything NumPy can read; scores default to 1. Raises ValueError if lengths differ."""
        images = np.asarray(images, dtype=np.int64).reshape(-1)
        labels = np.asarray(labels, dtype=np.int64).reshape(-1)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        scores = np.ones(len(images)) if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
        if not len(images) == len(labels) == len(boxes) == len(scores):
            raise ValueError(f"columns differ in length: {len(images)}, {len(labels)}, {len(boxes)}, {len(scores)}")
        return cls(images, labels, boxes, scores)

    @classmethod
    def empty(cls) -> "BoxTable":
        """A table without rows."""
        return cls.of([], [], [], [])

    @classmethod
    def concatenate(cls, tables: Sequence["BoxTable"]) -> "BoxTable":
        """The rows of all tables, in order."""
        if not tables:
            return cls.empty()
        fields = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(table, name) for table in tables]) for name in fields))

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> "BoxTable":
        """The rows given by a boolean mask or by indices."""
        return BoxTable(self.images[rows], self.labels[rows], self.boxes[rows], self.scores[rows])

    def select_masked(self, rows: np.ndarray, masks: Mapping[int, Any]) -> tuple["BoxTable", dict[int, Any]]:
        """`select`, with the masks of these rows by their new numbers. rows: indices. masks: row → mask."""
        return self.select(rows), {new: masks[row] for new, row in enumerate(rows.tolist()) if row in masks}

    def best_per_image(self, limit: int) -> "BoxTable":
        """The `limit` highest scores of every image; images ascending, scores descending within one."""
        order = np.lexsort((-self.scores, self.images))
        images = self.images[order]
        starts = np.searchsorted(images, images)
        return self.select(order[np.arange(len(order)) - starts < limit])


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """COCO's (N, 4) x, y, width, height → (N, 4) x1, y1, x2, y2, float64."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 → COCO's (N, 4) x, y, width, height, float64."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: (N, 4) and (M, 4) xyxy → (N, M) in [0, 1]; 0 where both are empty."""
    first = np.asarray(first, dtype=np.float64).reshape(-1, 4)
    second = np.asarray(second, dtype=np.float64).reshape(-1, 4)
    overlap = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    intersection = overlap.clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    iou: np.ndarray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


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
    kept = np.flatnonzero((table.scores >= skip_threshold) & has_area)
    by_image = kept[np.argsort(table.images[kept], kind="stable")]

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
    n_threads = min(numba.config.NUMBA_NUM_THREADS, len(parts))  # type: ignore[attr-defined]  # set when it is loaded
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
    owner, first, boxes, scores, counts = _fuse_groups(
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


# error_model: no test for a division by zero, none of which can happen; it also halves the time to compile.
@numba.njit(cache=True, nogil=True, error_model="numpy")
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
