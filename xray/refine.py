"""A mask's evidence applied to pneumothorax boxes: boxes move towards it, scores follow it, nothing is deleted."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from xray.data.boxes import BoxTable, box_iou
from xray.detection.metrics import average_precision, match_boxes
from xray.findings import PNEUMOTHORAX

PNEUMOTHORAX_CATEGORY = PNEUMOTHORAX + 1


@dataclasses.dataclass(frozen=True)
class Refinement:
    """How far boxes follow the mask. The default changes nothing.

    dilation: the mask is searched in the box grown by this share of its width and height on each side, at least 0.
    pull: 0 leaves the box, 1 replaces it by that of the component it overlaps most, between them linear.
    doubt: what a score loses, as a share, where the mask shows nothing; with evidence e it keeps 1 − doubt × (1 − e).
    orphan: score of a component that no box overlaps, as a share of the component's own; 0 adds none.
    All in [0, 1], but for the dilation.
    """

    dilation: float = 0.1
    pull: float = 0.0
    doubt: float = 0.0
    orphan: float = 0.0


GRID = tuple(
    Refinement(dilation, pull, doubt, orphan)
    for dilation, pull, doubt, orphan in itertools.product(
        (0.0, 0.1, 0.25), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.3, 0.6, 0.9), (0.0, 0.05, 0.2, 0.5, 1.0)
    )
)
"""What `fit_refinement` tries: 300 settings, the one that changes nothing first."""


def refine(
    table: BoxTable,
    components: BoxTable,
    masks: dict[int, Any],
    setting: Refinement,
    category: int = PNEUMOTHORAX_CATEGORY,
) -> tuple[BoxTable, dict[int, Any]]:
    """Applies the components of masks to the boxes of one category.

    table: boxes of radiographs; those of other categories stay as they are.
    components: boxes of the mask's connected components, of the same radiographs; scores are their mean probability.
    masks: row of `components` → COCO RLE.
    Returns the table, its rows in the same order and orphans behind them, and row → COCO RLE of the component taken.
    """
    boxes, scores = table.boxes.copy(), table.scores.copy()
    attached: dict[int, Any] = {}
    taken = np.zeros(len(components), dtype=bool)
    mine = np.flatnonzero(table.labels == category)
    for row in mine.tolist():
        near = np.flatnonzero(components.images == table.images[row])
        overlap = _overlap(_grown(table.boxes[row], setting.dilation), components.boxes[near])
        evidence = 0.0
        if len(near) and overlap.max() > 0:
            # Between components that both lie inside, the one that fills more of the box is meant.
            best = near[np.lexsort((components.scores[near], overlap))[-1]]
            evidence = float(components.scores[best])
            boxes[row] += setting.pull * (components.boxes[best] - boxes[row])
            taken[near[overlap > 0]] = True
            if best in masks:
                attached[row] = masks[best]
        scores[row] *= 1 - setting.doubt * (1 - evidence)
    refined = BoxTable(table.images, table.labels, boxes, scores)
    if not setting.orphan:
        return refined, attached
    orphans = np.flatnonzero(~taken)
    added = BoxTable.of(
        components.images[orphans],
        np.full(len(orphans), category),
        components.boxes[orphans],
        components.scores[orphans] * setting.orphan,
    )
    attached |= {len(table) + n: masks[row] for n, row in enumerate(orphans.tolist()) if row in masks}
    return BoxTable.concatenate([refined, added]), attached


def fit_refinement(
    truth: BoxTable,
    table: BoxTable,
    components: BoxTable,
    settings: Sequence[Refinement] = GRID,
    category: int = PNEUMOTHORAX_CATEGORY,
) -> tuple[Refinement, float, float]:
    """The setting with the highest average precision (IoU > 0.4) of the category on validation data.

    Returns (setting, AP without refinement, AP with it). Of equal ones the earliest wins: with GRID, the least change.
    Both are NaN where the truth has no box of the category.
    """
    truth = truth.select(truth.labels == category)
    table = table.select(table.labels == category)
    scored = [_ap(truth, refine(table, components, {}, setting, category)[0]) for setting in settings]
    best = int(np.argmax(scored))
    return settings[best], _ap(truth, table), scored[best]


def _ap(truth: BoxTable, table: BoxTable) -> float:
    matches = match_boxes(truth, table)
    return average_precision(matches.is_true[matches.order], len(truth))


def _grown(box: np.ndarray, dilation: float) -> np.ndarray:
    margin = dilation * np.tile(box[2:] - box[:2], 2)
    return box + margin * [-1, -1, 1, 1]


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box (4,) with others (N, 4): (N,)."""
    return box_iou(box[None], others)[0] if len(others) else np.zeros(0)
