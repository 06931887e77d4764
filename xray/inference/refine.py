"""A mask's evidence applied to pneumothorax boxes: boxes move towards it, scores follow it, nothing is deleted."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from xray.findings import PNEUMOTHORAX
from xray.inference.followed import Followed, areas_of, best_beside, follow, intersections, iou_of
from xray.inference.mask_confidence import Weights
from xray.structures.boxes import BoxTable

PNEUMOTHORAX_CATEGORY = PNEUMOTHORAX + 1


@dataclasses.dataclass(frozen=True)
class Refinement:
    """How far boxes follow the mask. The default changes nothing.

    A box follows, of the components with a pixel inside the dilated box, the one that this box overlaps most (IoU).
    Its evidence e is the component's score (mean probability) × the share of the component's pixels that lie inside;
    0 for a box that follows none.

    dilation: the mask is searched in the box grown by this share of its width and height on each side, at least 0.
    shift: the box moves shift × e of the way to the component's own box; 0 leaves it.
    penalty: share of its score that a box loses where the mask shows nothing; with evidence e it keeps
        1 − penalty × (1 − e).
    unmatched: a component becomes a box with this share of its confidence, unless a box that follows it scores as much,
        counted by the share of the component inside; 0 adds none. If a box that follows it lies on it (IoU of at least
        0.5), the surest of these takes that score instead, so that no finding has two boxes.
    All in [0, 1], but for the dilation.
    intercept, of_mask, of_boxes: make the confidence of a component, see `xray.inference.mask_confidence.Weights`; by
        default it is its score.
    """

    dilation: float = 0.1
    shift: float = 0.0
    penalty: float = 0.0
    unmatched: float = 0.0
    intercept: float = 0.0
    of_mask: float = 1.0
    of_boxes: float = 0.0

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Refinement":
        """The setting in model.json. Raises TypeError, ValueError or AttributeError for a damaged one."""
        setting = cls(**{EARLIER_NAMES.get(name, name): float(value) for name, value in description.items()})
        for name, value in dataclasses.asdict(setting).items():
            least = -MOST if name == "intercept" else 0.0
            most = 1.0 if name in ("shift", "penalty", "unmatched") else MOST
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}, and not from {least:g} to {most:g}")
        return setting

    @property
    def weights(self) -> Weights:
        """How the confidence of a component is made."""
        return Weights(self.intercept, self.of_mask, self.of_boxes)


MOST = 1e6
"""No dilation, and no weight of evidence, is larger."""
EARLIER_NAMES = {"pull": "shift", "doubt": "penalty", "orphan": "unmatched"}
"""Names in model.json of version 0.1."""


SAME = 0.5
"""Intersection over union from which a box and that of a component are of one finding."""


def refine(
    table: BoxTable,
    components: BoxTable,
    masks: Mapping[int, Any],
    setting: Refinement,
    category: int = PNEUMOTHORAX_CATEGORY,
) -> tuple[BoxTable, dict[int, Any]]:
    """Applies the components of masks to the boxes of one category.

    table: boxes of radiographs; those of other categories stay as they are.
    components: boxes of the mask's connected components, of the same radiographs; scores are their mean probability.
    masks: row of `components` → COCO RLE; a component without one counts as filling its box.
    Returns the table, its rows in the same order and the boxes of unmatched components behind them, and row → COCO RLE
    of the component followed.
    """
    rows = np.flatnonzero(table.labels == category)
    followed = follow(table.select(rows), components, masks, [setting.dilation])[setting.dilation]
    best = best_beside(table.select(rows), components)
    applied, added, alone = apply_setting(table.select(rows), components, followed, best, setting, category)
    boxes, scores = table.boxes.copy(), table.scores.copy()
    boxes[rows], scores[rows] = applied.boxes, applied.scores
    # Of each row its component: those of the boxes, then those of the boxes that are added.
    sources = zip(
        [*rows.tolist(), *range(len(table), len(table) + len(alone))], [*followed.component, *alone], strict=True
    )
    attached = {row: masks[int(component)] for row, component in sources if int(component) in masks}
    return BoxTable.concatenate([dataclasses.replace(table, boxes=boxes, scores=scores), added]), attached


def apply_setting(
    boxes: BoxTable,
    components: BoxTable,
    followed: Followed,
    beside: np.ndarray,
    setting: Refinement,
    category: int,
) -> tuple[BoxTable, BoxTable, np.ndarray]:
    """The n boxes after refinement, the boxes of components that need one of their own, and the rows of these."""
    following = np.flatnonzero(followed.component >= 0)
    component, share = followed.component[following], followed.share[following]
    evidence = components.scores[component] * share
    moved = boxes.boxes.copy()
    moved[following] += setting.shift * evidence[:, None] * (components.boxes[component] - moved[following])
    scores = boxes.scores * (1 - setting.penalty)
    scores[following] += boxes.scores[following] * setting.penalty * evidence
    best_score = np.zeros(len(components))  # of the boxes that follow each component
    np.maximum.at(best_score, component, scores[following] * share)
    confidence = setting.unmatched * setting.weights.probability(components.scores, beside)
    needs_box = best_score < confidence
    followers, own_boxes = moved[following], components.boxes[component]
    iou = iou_of(intersections(followers, own_boxes), areas_of(followers), areas_of(own_boxes))
    on = np.flatnonzero((iou >= SAME) & needs_box[component])
    surest = np.full(len(components), -1)
    on = on[np.argsort(scores[following[on]], kind="stable")]
    surest[component[on]] = following[on]  # the last of each stays
    raised = np.flatnonzero(surest >= 0)
    scores[surest[raised]] = np.maximum(scores[surest[raised]], confidence[raised])
    needs_box[raised] = False
    alone = np.flatnonzero(needs_box)
    added = BoxTable.of(
        components.images[alone], np.full(len(alone), category), components.boxes[alone], confidence[alone]
    )
    return dataclasses.replace(boxes, boxes=moved, scores=scores), added, alone
