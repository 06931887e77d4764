"""Which connected component of a mask each box follows, and how much of that lies in the box."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from xray.structures.boxes import BoxTable


@dataclasses.dataclass(frozen=True)
class Followed:
    """Of each of n boxes: (n,) the row of the component it follows, -1 for none; (n,) the share of it inside."""

    component: np.ndarray
    share: np.ndarray


def follow(
    boxes: BoxTable, components: BoxTable, masks: Mapping[int, Any], dilations: Iterable[float]
) -> dict[float, Followed]:
    """Which component each box follows: dilation → the rows of `components`.

    masks: row of `components` → COCO RLE; a component without one counts as filling its box.
    dilations: shares of their sides by which the boxes grow on each side; all at once, so that each mask is decoded
    once.
    """
    dilations = sorted(set(dilations))
    box, component = _pairs(boxes.images, components.images)
    near = intersections(_grown(boxes.boxes[box], dilations[-1]), components.boxes[component]) > 0
    box, component = box[near], component[near]
    grown = np.stack([_grown(boxes.boxes[box], dilation) for dilation in dilations])
    overlap = intersections(grown, components.boxes[component])
    areas = areas_of(components.boxes[component])
    inside = np.divide(overlap, areas, out=np.zeros_like(overlap), where=areas > 0)
    order = np.argsort(component, kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(component[order])) + 1) if len(order) else ():
        mask = masks.get(int(component[pairs[0]]))
        if mask is not None:
            inside[:, pairs] = _share_inside(mask, grown[:, pairs])
    iou = iou_of(overlap, areas_of(grown), areas)
    followed = {}
    for n, dilation in enumerate(dilations):
        row, share = np.full(len(boxes), -1), np.zeros(len(boxes))
        pairs = np.flatnonzero(inside[n] > 0)
        # The best of a box comes last, and the last value of an entry stays. Between components that both lie inside,
        # the one that fills more of the box is meant, and of equals the surer one.
        pairs = pairs[np.lexsort((components.scores[component[pairs]], iou[n, pairs], box[pairs]))]
        row[box[pairs]], share[box[pairs]] = component[pairs], inside[n, pairs]
        followed[dilation] = Followed(row, share)
    return followed


def best_beside(boxes: BoxTable, components: BoxTable) -> np.ndarray:
    """(components,) the highest score of the boxes of the same radiograph, 0 where there is none."""
    best = np.zeros(max(boxes.images.max(initial=-1), components.images.max(initial=-1)) + 1)
    np.maximum.at(best, boxes.images, boxes.scores)
    of_components: np.ndarray = best[components.images]
    return of_components


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of equal values of two lists, as positions in each."""
    order = np.argsort(second, kind="stable")
    starts = np.searchsorted(second[order], first, side="left")
    counts = np.searchsorted(second[order], first, side="right") - starts
    offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.repeat(np.arange(len(first)), counts), order[np.repeat(starts, counts) + offsets]


def _grown(boxes: np.ndarray, dilation: float) -> np.ndarray:
    margin = dilation * np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    return boxes + margin * [-1, -1, 1, 1]


def areas_of(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes (…, 4): (…)."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def iou_of(common: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes by their common areas and their own; 0 where both are empty."""
    union = first + second - common
    iou: np.ndarray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Common areas of boxes (…, 4) and boxes (…, 4): (…)."""
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    return sides.clip(min=0).prod(axis=-1)


def _share_inside(mask: dict[str, Any], boxes: np.ndarray) -> np.ndarray:
    """Share of a mask's pixels, parts of them counted in part, in each of boxes (…, 4) → (…) in [0, 1]."""
    x, y, width, height = (int(value) for value in coco_mask.toBbox(mask))
    pixels = coco_mask.decode(mask)[y : y + height, x : x + width]
    if pixels.size == 0:
        return np.zeros(boxes.shape[:-1])
    # Number of pixels above and to the left of each corner of a pixel; between corners it is bilinear.
    counts = np.zeros((height + 1, width + 1))
    counts[1:, 1:] = pixels.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)

    def at(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        columns, rows = (columns - x).clip(0, width), (rows - y).clip(0, height)
        column = np.minimum(columns.astype(np.int64), width - 1)
        row = np.minimum(rows.astype(np.int64), height - 1)
        right, down = columns - column, rows - row
        above = counts[row, column] * (1 - right) + counts[row, column + 1] * right
        below = counts[row + 1, column] * (1 - right) + counts[row + 1, column + 1] * right
        return above * (1 - down) + below * down

    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    inside = at(x2, y2) - at(x1, y2) - at(x2, y1) + at(x1, y1)
    return (inside / counts[-1, -1]).clip(0, 1)
