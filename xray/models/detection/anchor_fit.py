"""Anchors laid out for the boxes of a dataset: their sides by pyramid level and their ratios, chosen by overlap.

Boxes of each size count, however few there are: small nodules and calcifications are rare, and they are what is looked
for. With the plain mean of the overlaps, anchors gather where most boxes are.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

STANDARD_SIDES = (32, 64, 128, 256, 512)
"""Anchor sides of torchvision's Faster R-CNN, one for each level, on a canvas of STANDARD_CANVAS pixels."""
STANDARD_RATIOS = (0.5, 1.0, 2.0)
STANDARD_CANVAS = 1024
FASTER_RCNN, RETINANET = "faster_rcnn", "retinanet"
STRIDES = (4, 8, 16, 32, 64)
"""Canvas pixels from one cell of a pyramid level to the next, of Faster R-CNN."""
STRIDES_OF = {FASTER_RCNN: STRIDES, RETINANET: (8, 16, 32, 64, 128)}

MATCHED, BEYOND = 0.7, 0.2
"""An anchor is a positive of the proposals from this overlap on; overlap beyond it counts for this share."""
RAREST = 0.02
"""Boxes of rarer sizes count as if they were this share of all, so that a single odd box does not move anchors."""
ENOUGH = 0.97
"""Once this share of the boxes, as they count, has an anchor at an overlap of 0.5, a cell gets no more anchors."""
LEAST_GAIN = 0.01
"""By how much that share must grow for a cell to get more anchors."""
LEAST = 0.95
"""The standard layout is given up where a smaller share of the boxes, each counted once, has an anchor at an overlap of
0.5."""
WORTH = {0.5: 0.06, 0.7: 0.4}
"""How much that share must grow, and at which overlap, for a standard layout with more to be given up."""
EQUAL = 0.001
"""Layouts whose values differ by no more count as equally good."""
STEPS = 8
"""Sides and ratios tried in an octave."""
REACH = (1.5, 16.0)
"""Sides of a level in units of its stride: below, boxes fall between the cells; above, a cell does not see the box."""
MOST_BOXES = 500
"""The most boxes that a fit looks at; of more boxes, equally many of all areas are taken."""
ROUNDS = 3
LAYOUTS = ((1, 3), (1, 5), (2, 3), (3, 3), (2, 5), (3, 5))
"""Sides and ratios of a cell, from few anchors to many."""


@dataclasses.dataclass(frozen=True)
class AnchorSides:
    """The anchors of every cell.

    sides: of each of the five levels, roots of the anchors' areas in canvas pixels, equally many for each level.
    ratios: height ÷ width.
    """

    sides: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Fit:
    """The chosen anchors, with the shares of boxes that have one at an overlap of 0.5 and of 0.7.

    recall: of `anchors`. standard: of the standard layout on this canvas. Both: each box counts once. is_standard:
    whether the standard layout was kept.
    """

    anchors: AnchorSides
    recall: dict[float, float]
    standard: dict[float, float]
    is_standard: bool


def standard_anchors(canvas_size: int, scale: float = 1.0, family: str = FASTER_RCNN) -> AnchorSides:
    """torchvision's layout, which shrinks and grows with the canvas, `scale` times as large."""
    # Of RetinaNet three in an octave, whole pixels.
    steps = (1.0,) if family == FASTER_RCNN else (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    whole = [[int(side * step) for step in steps] for side in STANDARD_SIDES]
    sides = tuple(tuple(side * scale * canvas_size / STANDARD_CANVAS for side in of_level) for of_level in whole)
    return AnchorSides(sides, STANDARD_RATIOS)


def by_level(sides: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Sides of all levels in one row, equally many of each, finest level first → `AnchorSides.sides`."""
    per_level = len(sides) // len(STRIDES)
    return tuple(tuple(sides[level * per_level : (level + 1) * per_level]) for level in range(len(STRIDES)))


def fit_anchors(boxes: np.ndarray, canvas_size: int, family: str = FASTER_RCNN) -> Fit:
    """Anchors for the boxes of a dataset.

    boxes: (N, 4) xyxy in canvas pixels; empty ones are left out. canvas_size: pixels a side.
    The value of a layout is the mean of the boxes' largest overlaps, where boxes of rare sizes count more
    (`size_weights`) and what goes beyond an overlap of 0.7 counts little. It is maximised by changing one side or ratio
    at a time, beginning with quantiles; a cell gets more anchors only where fewer miss boxes. The standard layout stays
    where it is about as good, where there is no box, and where no layout reaches more boxes.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)]
    standard = standard_anchors(canvas_size, family=family)
    strides = STRIDES_OF[family]
    overlaps = best_overlaps(standard, boxes, strides)
    before = _shares(overlaps)
    if len(boxes) == 0:
        return Fit(standard, before, before, True)
    weights = size_weights(boxes)
    some = _some_of_all_areas(boxes)
    best, recall = standard, before
    of_standard = reached = _shares(overlaps, weights)
    for n_sides, n_ratios in LAYOUTS:
        candidate = _climb(some, canvas_size, strides, n_sides, n_ratios)
        overlaps = best_overlaps(candidate, boxes, strides)
        of_candidate = _shares(overlaps, weights)
        if best is standard or of_candidate[0.5] - reached[0.5] > LEAST_GAIN:
            best, recall, reached = candidate, _shares(overlaps), of_candidate
        if reached[0.5] >= ENOUGH:
            break
    # A fitted layout need not be better: boxes of one pixel are reached by none.
    least_gain = WORTH[0.5] if before[0.5] >= LEAST else 0.0
    if reached[0.5] - of_standard[0.5] <= least_gain and reached[0.7] - of_standard[0.7] <= WORTH[0.7]:
        best, recall = standard, before
    return Fit(best, recall, before, best is standard)


def size_weights(boxes: np.ndarray) -> np.ndarray:
    """How much each box (N, 4) of positive sides counts, (N,) with a sum of 1: more, the fewer are of its size.

    It is 1 / √ of the share of boxes whose side (the root of the area) is within half an octave of its own.
    """
    log_side = np.log2((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) / 2
    in_order = np.sort(log_side)
    near = np.searchsorted(in_order, log_side + 0.5, "right") - np.searchsorted(in_order, log_side - 0.5, "left")
    weights: np.ndarray = 1 / np.sqrt(np.maximum(near / len(boxes), RAREST))
    return weights / weights.sum()


def recall_of(anchors: AnchorSides, boxes: np.ndarray, family: str = FASTER_RCNN) -> dict[float, float]:
    """The share of boxes (N, 4) that some anchor overlaps by at least 0.5, and by 0.7; NaN where there is no box."""
    return _shares(best_overlaps(anchors, boxes, STRIDES_OF[family]))


def _shares(best: np.ndarray, weights: np.ndarray | None = None) -> dict[float, float]:
    """What `recall_of` says, of the largest overlap of each box (N,), which counts by its weight (N,), or once."""
    if len(best) == 0:
        return {0.5: float("nan"), 0.7: float("nan")}
    return {overlap: float(np.average(best >= overlap, weights=weights)) for overlap in (0.5, 0.7)}


def best_overlaps(anchors: AnchorSides, boxes: np.ndarray, strides: Sequence[int] = STRIDES) -> np.ndarray:
    """The largest intersection over union of each box (N, 4) with an anchor, (N,) in [0, 1]."""
    best = np.zeros(len(boxes))
    for stride, sides in zip(strides, anchors.sides, strict=True):
        for side, ratio in itertools.product(sides, anchors.ratios):
            np.maximum(best, _overlaps(boxes, stride, side, ratio), out=best)
    return best


def _overlaps(boxes: np.ndarray, stride: int, side: float, ratio: float) -> np.ndarray:
    """The overlap of each box with the nearest of the equal anchors whose centres lie on multiples of `stride`.

    No anchor farther away overlaps more: the farther apart the middles of two intervals are, the less they share.
    """
    width, height = side / np.sqrt(ratio), side * np.sqrt(ratio)
    box_sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    away = np.abs(middles - np.round(middles / stride) * stride)
    sides = np.array([width, height])
    common = np.clip((sides + box_sides) / 2 - away, 0, np.minimum(sides, box_sides)).prod(axis=1)
    return common / (width * height + box_sides.prod(axis=1) - common)


def _some_of_all_areas(boxes: np.ndarray) -> np.ndarray:
    """Up to MOST_BOXES of the boxes, by equal steps through their areas."""
    order = np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
    return boxes[order[np.linspace(0, len(boxes) - 1, min(len(boxes), MOST_BOXES)).astype(np.int64)]]


def _climb(boxes: np.ndarray, canvas_size: int, strides: Sequence[int], n_sides: int, n_ratios: int) -> AnchorSides:
    """Anchors with so many sides and ratios for each cell, improved one at a time."""
    extent = boxes[:, 2:] - boxes[:, :2]
    log_side, log_ratio = np.log2(extent.prod(axis=1)) / 2, np.log2(extent[:, 1] / extent[:, 0])
    weights = size_weights(boxes)
    # The middles of equal shares of the boxes.
    ratios = np.quantile(log_ratio, (np.arange(n_ratios) + 0.5) / n_ratios)
    ratio_steps = _steps(log_ratio.min(), log_ratio.max())
    ends = [np.log2(np.array(REACH) * stride) for stride in strides]
    most = np.log2(1.25 * canvas_size)
    side_steps = [_steps(low, max(low, min(high, most))) for low, high in ends]
    spread = np.quantile(log_side, (np.arange(len(strides) * n_sides) + 0.5) / (len(strides) * n_sides))
    sides = [
        np.clip(part, steps[0], steps[-1])
        for part, steps in zip(np.split(spread, len(strides)), side_steps, strict=True)
    ]

    def part_of(level: int, side: float) -> np.ndarray:
        """The largest overlaps with the anchors of one side of one level."""
        of_ratios = [_overlaps(boxes, strides[level], 2.0**side, 2.0**ratio) for ratio in ratios]
        return np.max(of_ratios, axis=0)

    def value(best: np.ndarray) -> float:
        """Of the largest overlaps of the boxes (n,)."""
        return float(weights @ (np.minimum(best, MATCHED) + BEYOND * np.maximum(best - MATCHED, 0)))

    for _ in range(ROUNDS):
        for level, place in itertools.product(range(len(strides)), range(n_sides)):
            others = [
                part_of(k, sides[k][j])
                for k, j in itertools.product(range(len(strides)), range(n_sides))
                if (k, j) != (level, place)
            ]
            others_best = np.max(others, axis=0)
            values = [value(np.maximum(others_best, part_of(level, side))) for side in side_steps[level]]
            # Of about equal layouts, the one most like the standard one: eight cells wide.
            equal = side_steps[level][np.array(values) >= max(values) - EQUAL]
            sides[level][place] = equal[np.argmin(np.abs(equal - np.log2(8 * strides[level])))]
        for place in range(n_ratios):
            others_best = _best_of(boxes, strides, sides, np.delete(ratios, place))
            values = [value(np.maximum(others_best, _best_of(boxes, strides, sides, [ratio]))) for ratio in ratio_steps]
            ratios[place] = ratio_steps[int(np.argmax(values))]
    return AnchorSides(
        tuple(tuple(float(side) for side in np.round(2.0 ** np.sort(part), 2)) for part in sides),
        tuple(float(ratio) for ratio in np.round(2.0 ** np.sort(ratios), 3)),
    )


def _best_of(
    boxes: np.ndarray, strides: Sequence[int], sides: Sequence[np.ndarray], ratios: Sequence[float] | np.ndarray
) -> np.ndarray:
    best = np.zeros(len(boxes))
    for stride, part in zip(strides, sides, strict=True):
        for side, ratio in itertools.product(part, ratios):
            np.maximum(best, _overlaps(boxes, stride, 2.0**side, 2.0**ratio), out=best)
    return best


def _steps(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, max(2, int(np.ceil((high - low) * STEPS)) + 1))
