"""Boxes of a whole dataset as flat columns, and their overlaps.

Flat columns instead of a list per image let fusion and metrics run over hundreds of thousands of boxes without a
Python loop.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Mask = TypeVar("Mask")


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

    def select_masked(self, rows: np.ndarray, masks: Mapping[int, Mask]) -> "tuple[BoxTable, dict[int, Mask]]":
        """The rows given by a boolean mask or by indices, and their masks: row of a table → mask, old and new."""
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self.select(rows), renumbered(masks, numbers)

    def rows_by_image(self) -> dict[int, list[int]]:
        """Image → its rows, of the images that have any."""
        rows: dict[int, list[int]] = {}
        for row, image in enumerate(self.images.tolist()):
            rows.setdefault(image, []).append(row)
        return rows

    def best_per_image(self, limit: int) -> "BoxTable":
        """The `limit` highest scores of every image; images ascending, scores descending within one."""
        order = np.lexsort((-self.scores, self.images))
        images = self.images[order]
        starts = np.searchsorted(images, images)
        return self.select(order[np.arange(len(order)) - starts < limit])


def renumbered(masks: Mapping[int, Mask], rows: np.ndarray) -> dict[int, Mask]:
    """Masks by the row of their box, once only these `rows` are left, in this order; those of other rows go."""
    return {new: masks[old] for new, old in enumerate(rows.tolist()) if old in masks}


def concatenate_with_masks(parts: Iterable[tuple[BoxTable, Mapping[int, Any]]]) -> tuple[BoxTable, dict[int, Any]]:
    """The rows of all tables, in order, and row → mask under their new numbers."""
    tables: list[BoxTable] = []
    masks: dict[int, Any] = {}
    n_rows = 0
    for table, masks_of_part in parts:
        masks |= {n_rows + row: mask for row, mask in masks_of_part.items()}
        n_rows += len(table)
        tables.append(table)
    return BoxTable.concatenate(tables), masks


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


def overlapping(first: BoxTable, second: BoxTable, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of both tables and IoU of all pairs of boxes of one image with an IoU of at least `least`, above 0."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    orders = [np.argsort(table.images, kind="stable") for table in (first, second)]
    shared = np.intersect1d(first.images, second.images)
    bounds = [
        np.searchsorted(table.images[order], np.stack([shared, shared + 1]))
        for table, order in zip((first, second), orders, strict=True)
    ]
    for start, stop, other_start, other_stop in np.concatenate(bounds).T.tolist():
        rows, others = orders[0][start:stop], orders[1][other_start:other_stop]
        iou = box_iou(first.boxes[rows], second.boxes[others])
        i, j = np.nonzero(iou >= least)
        parts.append((rows[i], others[j], iou[i, j]))
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    of_first, of_second, ious = (np.concatenate(column) for column in zip(*parts, strict=True))
    return of_first, of_second, ious
