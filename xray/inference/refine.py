"""A mask's evidence applied to pneumothorax boxes: boxes move towards it, scores follow it, nothing is deleted."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from xray.findings import PNEUMOTHORAX
from xray.inference.mask_confidence import Weights, fit_weights
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
        """The setting that model.json keeps. Raises TypeError, ValueError or AttributeError for a damaged one."""
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

SAME = 0.5
"""Intersection over union from which a box and that of a component are of one finding."""
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
    rows = np.flatnonzero(table.labels == category)
    followed = _follow(table.select(rows), components, masks, [setting.dilation])[setting.dilation]
    best = _best_beside(table.select(rows), components)
    applied, added, alone = _apply(table.select(rows), components, followed, best, setting, category)
    boxes, scores = table.boxes.copy(), table.scores.copy()
    boxes[rows], scores[rows] = applied.boxes, applied.scores
    # Of each row its component: those of the boxes, then those of the boxes that are added.
    sources = zip(
        [*rows.tolist(), *range(len(table), len(table) + len(alone))], [*followed.component, *alone], strict=True
    )
    attached = {row: masks[int(component)] for row, component in sources if int(component) in masks}
    return BoxTable.concatenate([dataclasses.replace(table, boxes=boxes, scores=scores), added]), attached


def fit_refinement(
    truth: BoxTable,
    table: BoxTable,
    components: BoxTable,
    masks: Mapping[int, Any] | None = None,
    settings: Sequence[Refinement] = GRID,
    category: int = PNEUMOTHORAX_CATEGORY,
    confidence: bool = True,
) -> tuple[Refinement, float, float]:
    """The setting with the highest average precision (IoU > 0.4) of the category on validation data.

    truth, table, components, masks: as for `refine`, all of the same radiographs. confidence: whether that of the
    components is fitted to the truth first, for the settings that add boxes; or as the settings say.
    Returns (setting, AP without refinement, AP with it); both are NaN where the truth has no box of the category. Of
    equal settings (see INDIFFERENT) the earliest wins: with GRID, the least change.
    """
    case = _case((truth, table, components), masks or {}, settings, category)
    best = case.best(case.with_confidence(settings) if confidence else settings)
    return best, case.ap(), case.ap(best)


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
    case = _case((truth, table, components), masks, settings, category)
    half = _halves(np.asarray(patients, dtype=np.int64), case.truth.images)
    parts = [case.part(half == side) for side in (0, 1)]
    scored = [
        (held_out.ap(), held_out.ap(fitted.best(fitted.with_confidence(settings))))
        for fitted, held_out in (parts, parts[::-1])
    ]
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


@dataclasses.dataclass(frozen=True)
class _Case:
    """Boxes of one category with their truth, the components beside them, and dilation → what each box follows.

    beside: (components,) the highest score of the radiograph's boxes.
    """

    truth: BoxTable
    table: BoxTable
    components: BoxTable
    beside: np.ndarray
    followed: dict[float, _Followed]
    category: int

    def refined(self, setting: Refinement) -> BoxTable:
        followed = self.followed[setting.dilation]
        applied, added, _ = _apply(self.table, self.components, followed, self.beside, setting, self.category)
        return BoxTable.concatenate([applied, added])

    def with_confidence(self, settings: Sequence[Refinement]) -> list[Refinement]:
        """The settings, those that add boxes with the weights that make the components' confidence the likeliest."""
        from xray.evaluation.box_metrics import match_boxes

        alike = dataclasses.replace(self.components, labels=np.full(len(self.components), self.category))
        is_true = match_boxes(self.truth, alike).is_true
        weights = dataclasses.asdict(fit_weights(self.components.scores, self.beside, is_true))
        return [dataclasses.replace(setting, **weights) if setting.unmatched else setting for setting in settings]

    def ap(self, setting: Refinement | None = None, others: np.ndarray | None = None) -> float:
        """Average precision of the boxes as they are, or refined.

        others: ascending scores of further boxes that hit nothing; they win against equal scores.
        """
        # Of fitting alone: it brings numba and SciPy, which a radiograph is refined without.
        from xray.evaluation.box_metrics import average_precision, match_boxes

        table = self.table if setting is None else self.refined(setting)
        matches = match_boxes(self.truth, table)
        is_true = matches.is_true[matches.order]
        if others is not None and is_true.any():
            place = np.flatnonzero(is_true)
            place += len(others) - np.searchsorted(others, table.scores[matches.order][is_true])
            is_true = np.zeros(place[-1] + 1, dtype=bool)
            is_true[place] = True
        return average_precision(is_true, len(self.truth))

    def best(self, settings: Sequence[Refinement]) -> Refinement:
        from xray.evaluation.box_metrics import IOU_THRESHOLD, match_boxes

        # Most boxes follow nothing and find nothing, whatever the setting: how many stand above a hit is all they
        # decide.
        relevant = match_boxes(self.truth, self.table).iou > IOU_THRESHOLD
        for of_dilation in self.followed.values():
            relevant |= of_dilation.component >= 0
        others, few = np.sort(self.table.scores[~relevant]), self.select(relevant)
        scored = np.array([few.ap(setting, others * (1 - setting.penalty)) for setting in settings])
        return settings[int(np.argmax(scored >= scored.max() - INDIFFERENT / max(len(self.truth), 1)))]

    def select(self, rows: np.ndarray) -> "_Case":
        """The same with those boxes alone for which `rows`, (n,) bool, holds."""
        followed = {key: _Followed(each.component[rows], each.share[rows]) for key, each in self.followed.items()}
        return dataclasses.replace(self, table=self.table.select(rows), followed=followed)

    def part(self, wanted: np.ndarray) -> "_Case":
        """What belongs to the images for which `wanted`, (n_images,) bool, holds."""
        case, is_in = self.select(wanted[self.table.images]), wanted[self.components.images]
        place = np.append(np.cumsum(is_in) - 1, -1)  # of a component among those inside; its last entry is for none, -1
        return dataclasses.replace(
            case,
            truth=self.truth.select(wanted[self.truth.images]),
            components=self.components.select(is_in),
            beside=self.beside[is_in],
            followed={key: _Followed(place[each.component], each.share) for key, each in case.followed.items()},
        )


def _case(tables: Sequence[BoxTable], masks: Mapping[int, Any], settings: Sequence[Refinement], category: int) -> _Case:
    """tables: the truth, boxes, and components, of all categories."""
    truth, table = (part.select(part.labels == category) for part in tables[:2])
    components = tables[2]
    followed = _follow(table, components, masks, {setting.dilation for setting in settings})
    return _Case(truth, table, components, _best_beside(table, components), followed, category)


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
    iou = _iou(overlap, _area(grown), areas)
    followed = {}
    for n, dilation in enumerate(dilations):
        row, share = np.full(len(boxes), -1), np.zeros(len(boxes))
        pairs = np.flatnonzero(inside[n] > 0)
        # The best of a box comes last, and the last value of an entry stays. Between components that both lie inside,
        # the one that fills more of the box is meant, and of equals the surer one.
        pairs = pairs[np.lexsort((components.scores[component[pairs]], iou[n, pairs], box[pairs]))]
        row[box[pairs]], share[box[pairs]] = component[pairs], inside[n, pairs]
        followed[dilation] = _Followed(row, share)
    return followed


def _best_beside(boxes: BoxTable, components: BoxTable) -> np.ndarray:
    """(components,) the highest score of the boxes of the same radiograph, 0 where there is none."""
    best = np.zeros(max(boxes.images.max(initial=-1), components.images.max(initial=-1)) + 1)
    np.maximum.at(best, boxes.images, boxes.scores)
    of_components: np.ndarray = best[components.images]
    return of_components


def _apply(
    boxes: BoxTable,
    components: BoxTable,
    followed: _Followed,
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
    own = setting.unmatched * setting.weights.probability(components.scores, beside)
    needs_box = best_score < own
    followers, own_boxes = moved[following], components.boxes[component]
    iou = _iou(_intersection(followers, own_boxes), _area(followers), _area(own_boxes))
    on = np.flatnonzero((iou >= SAME) & needs_box[component])
    surest = np.full(len(components), -1)
    on = on[np.argsort(scores[following[on]], kind="stable")]
    surest[component[on]] = following[on]  # the last of each stays
    raised = np.flatnonzero(surest >= 0)
    scores[surest[raised]] = np.maximum(scores[surest[raised]], own[raised])
    needs_box[raised] = False
    alone = np.flatnonzero(needs_box)
    added = BoxTable.of(components.images[alone], np.full(len(alone), category), components.boxes[alone], own[alone])
    return dataclasses.replace(boxes, boxes=moved, scores=scores), added, alone


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


def _iou(common: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes by their common areas and their own; 0 where both are empty."""
    union = first + second - common
    iou: np.ndarray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


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
