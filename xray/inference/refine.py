"""A mask's evidence applied to pneumothorax boxes: boxes move towards it, scores follow it, nothing is deleted."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from xray.evaluation.box_metrics import IOU_THRESHOLD, average_precision, match_boxes
from xray.findings import PNEUMOTHORAX
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
    unmatched: a component becomes a box with this share of its own score, unless a box that follows it scores as much,
        counted by the share of the component inside; 0 adds none.
    All in [0, 1], but for the dilation.
    """

    dilation: float = 0.1
    shift: float = 0.0
    penalty: float = 0.0
    unmatched: float = 0.0

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Refinement":
        """The setting that model.json keeps. Raises TypeError or ValueError for a damaged one."""
        return cls(**{EARLIER_NAMES.get(name, name): float(value) for name, value in description.items()})


EARLIER_NAMES = {"pull": "shift", "doubt": "penalty", "orphan": "unmatched"}
"""What version 0.1 called them in model.json."""


GRID = tuple(
    sorted(
        (
            Refinement(dilation, shift, penalty, unmatched)
            for dilation, shift, penalty, unmatched in itertools.product(
                (0.0, 0.1, 0.25), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.3, 0.6, 0.9), (0.0, 0.05, 0.2, 0.5, 1.0)
            )
        ),
        key=lambda setting: setting.shift + setting.penalty + setting.unmatched,
    )
)
"""What `fit_refinement` tries: 300 settings, from the one that changes nothing to those that change the most."""

INDIFFERENT = 0.25
"""Average precisions that differ by less than this share of what one more finding is worth (1 / findings) are equal.

With few findings the highest of 300 is chance: with about 20 phantoms and a weak segmenter it cost up to 0.08 AP on
radiographs that were not fitted on, where the least change among equals never cost any.
"""


@dataclasses.dataclass(frozen=True)
class _Followed:
    """Of each of n boxes: (n,) the row of the component it follows, -1 for none; (n,) the share of it inside."""

    component: np.ndarray
    share: np.ndarray


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
    mine = np.flatnonzero(table.labels == category)
    followed = _follow(table.select(mine), components, masks, [setting.dilation])[setting.dilation]
    applied, alone = _apply(table.select(mine), components, followed, setting)
    boxes, scores = table.boxes.copy(), table.scores.copy()
    boxes[mine], scores[mine] = applied.boxes, applied.scores
    added = _boxes_of(components, alone, setting, category)
    attached = {row: masks[k] for row, k in zip(mine.tolist(), followed.component.tolist(), strict=True) if k in masks}
    attached |= {len(table) + n: masks[k] for n, k in enumerate(alone.tolist()) if k in masks}
    return BoxTable.concatenate([BoxTable(table.images, table.labels, boxes, scores), added]), attached


def fit_refinement(
    truth: BoxTable,
    table: BoxTable,
    components: BoxTable,
    masks: Mapping[int, Any] | None = None,
    settings: Sequence[Refinement] = GRID,
    category: int = PNEUMOTHORAX_CATEGORY,
) -> tuple[Refinement, float, float]:
    """The setting with the highest average precision (IoU > 0.4) of the category on validation data.

    truth, table, components, masks: as for `refine`, all of the same radiographs.
    Returns (setting, AP without refinement, AP with it); both are NaN where the truth has no box of the category. Of
    equal settings (see INDIFFERENT) the earliest wins: with GRID, the least change.
    """
    truth = truth.select(truth.labels == category)
    table = table.select(table.labels == category)
    followed = _follow(table, components, masks or {}, {setting.dilation for setting in settings})
    best = _best(truth, table, components, followed, settings, category)
    return best, _ap(truth, table), _ap(truth, _refined(table, components, followed, best, category))


def cross_validate(
    truth: BoxTable,
    table: BoxTable,
    components: BoxTable,
    masks: Mapping[int, Any],
    patients: np.ndarray,
    settings: Sequence[Refinement] = GRID,
    category: int = PNEUMOTHORAX_CATEGORY,
) -> tuple[float, float]:
    """What fitting is worth on patients that were not fitted on: (AP without refinement, AP with it).

    Two halves of the patients, dealt so that as many in each have the finding, are fitted in turn, and the other half
    is refined with the result. Both numbers are means over the halves; NaN where one has nothing to find.

    patients: (n_images,) int, image → its patient's number. The other arguments are those of `fit_refinement`.
    """
    truth = truth.select(truth.labels == category)
    table = table.select(table.labels == category)
    followed = _follow(table, components, masks, {setting.dilation for setting in settings})
    half = _halves(np.asarray(patients, dtype=np.int64), truth.images)
    parts = [_part(truth, table, components, followed, half == side) for side in (0, 1)]
    scored = []
    for fitted, held in (parts, parts[::-1]):
        best = _best(*fitted, settings, category)
        scored.append((_ap(*held[:2]), _ap(held[0], _refined(*held[1:], best, category))))
    before, after = np.mean(scored, axis=0).tolist()
    return before, after


def _halves(patients: np.ndarray, with_finding: np.ndarray) -> np.ndarray:
    """Deals patients into two halves → (n_images,) 0 or 1; those of the images `with_finding` first."""
    ill = np.zeros(patients.max(initial=0) + 1, dtype=bool)
    ill[patients[with_finding]] = True
    order = np.random.default_rng(0).permutation(len(ill))
    half = np.empty(len(ill), dtype=np.int64)
    half[order[np.argsort(~ill[order], kind="stable")]] = np.arange(len(ill)) % 2
    return half[patients]


def _best(
    truth: BoxTable,
    table: BoxTable,
    components: BoxTable,
    followed: dict[float, _Followed],
    settings: Sequence[Refinement],
    category: int,
) -> Refinement:
    # Most boxes follow nothing and find nothing, whatever the setting: how many stand above a hit is all they decide.
    relevant = match_boxes(truth, table).iou > IOU_THRESHOLD
    for of_dilation in followed.values():
        relevant |= of_dilation.component >= 0
    few, others = table.select(relevant), np.sort(table.scores[~relevant])
    of_few = {dilation: _Followed(own.component[relevant], own.share[relevant]) for dilation, own in followed.items()}
    scored = np.array(
        [
            _ap(truth, _refined(few, components, of_few, setting, category), others * (1 - setting.penalty))
            for setting in settings
        ]
    )
    return settings[int(np.argmax(scored >= scored.max() - INDIFFERENT / max(len(truth), 1)))]


def _part(
    truth: BoxTable, table: BoxTable, components: BoxTable, followed: dict[float, _Followed], wanted: np.ndarray
) -> tuple[BoxTable, BoxTable, BoxTable, dict[float, _Followed]]:
    """What belongs to the images for which `wanted`, (n_images,) bool, holds."""
    rows, kept = wanted[table.images], wanted[components.images]
    place = np.append(np.cumsum(kept) - 1, -1)  # of a component among those kept; its last entry is for none, -1
    own = {dilation: _Followed(place[each.component[rows]], each.share[rows]) for dilation, each in followed.items()}
    return truth.select(wanted[truth.images]), table.select(rows), components.select(kept), own


def _follow(
    boxes: BoxTable, components: BoxTable, masks: Mapping[int, Any], dilations: Iterable[float]
) -> dict[float, _Followed]:
    """Dilation → what each box follows. All dilations at once, so that every mask is decoded once."""
    dilations = sorted(set(dilations))
    box, component = _pairs(boxes.images, components.images)
    near = _intersection(_grown(boxes.boxes[box], dilations[-1]), components.boxes[component]) > 0
    box, component = box[near], component[near]
    grown = np.stack([_grown(boxes.boxes[box], dilation) for dilation in dilations])
    overlap = _intersection(grown, components.boxes[component])
    areas = _area(components.boxes[component])
    inside = np.divide(overlap, areas, out=np.zeros_like(overlap), where=areas > 0)
    order = np.argsort(component, kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(component[order])) + 1) if len(order) else ():
        mask = masks.get(int(component[pairs[0]]))
        if mask is not None:
            inside[:, pairs] = _share_inside(mask, grown[:, pairs])
    union = _area(grown) + areas - overlap
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    followed = {}
    for n, dilation in enumerate(dilations):
        row, share = np.full(len(boxes), -1), np.zeros(len(boxes))
        seen = np.flatnonzero(inside[n] > 0)
        # The best comes last and stays. Between components that both lie inside, the one that fills more of the box is
        # meant, and of equals the surer one.
        seen = seen[np.lexsort((components.scores[component[seen]], iou[n, seen], box[seen]))]
        last = seen[np.append(np.diff(box[seen]) > 0, True)] if len(seen) else seen
        row[box[last]], share[box[last]] = component[last], inside[n, last]
        followed[dilation] = _Followed(row, share)
    return followed


def _apply(
    boxes: BoxTable, components: BoxTable, followed: _Followed, setting: Refinement
) -> tuple[BoxTable, np.ndarray]:
    """The n boxes after refinement, and the rows of the components that need a box of their own."""
    following = np.flatnonzero(followed.component >= 0)
    component, share = followed.component[following], followed.share[following]
    evidence = components.scores[component] * share
    moved = boxes.boxes.copy()
    moved[following] += setting.shift * evidence[:, None] * (components.boxes[component] - moved[following])
    scores = boxes.scores * (1 - setting.penalty)
    scores[following] += boxes.scores[following] * setting.penalty * evidence
    claim = np.zeros(len(components))
    np.maximum.at(claim, component, scores[following] * share)
    return dataclasses.replace(boxes, boxes=moved, scores=scores), np.flatnonzero(
        claim < setting.unmatched * components.scores
    )


def _refined(
    table: BoxTable, components: BoxTable, followed: dict[float, _Followed], setting: Refinement, category: int
) -> BoxTable:
    applied, alone = _apply(table, components, followed[setting.dilation], setting)
    return BoxTable.concatenate([applied, _boxes_of(components, alone, setting, category)])


def _boxes_of(components: BoxTable, alone: np.ndarray, setting: Refinement, category: int) -> BoxTable:
    scores = components.scores[alone] * setting.unmatched
    return BoxTable.of(components.images[alone], np.full(len(alone), category), components.boxes[alone], scores)


def _ap(truth: BoxTable, table: BoxTable, others: np.ndarray | None = None) -> float:
    """Average precision. others: ascending scores of further boxes that hit nothing; they win against equal scores."""
    matches = match_boxes(truth, table)
    is_true = matches.is_true[matches.order]
    if others is not None and is_true.any():
        place = np.flatnonzero(is_true)
        place += len(others) - np.searchsorted(others, table.scores[matches.order][is_true])
        is_true = np.zeros(place[-1] + 1, dtype=bool)
        is_true[place] = True
    return average_precision(is_true, len(truth))


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


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def _intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Common area of two boxes (…, 4) each: (…)."""
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
