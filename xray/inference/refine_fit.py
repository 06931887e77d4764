"""How far boxes follow masks, fitted to the truth of a validation fold.

It stands apart from `refine`, as it brings numba and SciPy, which the refinement of a radiograph does without.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.evaluation.box_matching import IOU_THRESHOLD, match_boxes
from xray.evaluation.box_metrics import average_precision
from xray.inference.followed import Followed, best_beside, follow
from xray.inference.mask_confidence import fit_weights
from xray.inference.refine import PNEUMOTHORAX_CATEGORY, Refinement, apply_setting
from xray.structures.boxes import BoxTable

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
"""The settings that `fit_refinement` tries: 300, from the one that changes nothing to those that change the most."""
INDIFFERENT = 0.25
"""Average precisions that differ by less than this share of what one more finding is worth (1 / findings) are equal.

With few findings the highest of 300 is chance: with about 20 phantoms and a weak segmenter it cost up to 0.08 AP on
radiographs that were not fitted on, where the least change among equal settings never cost AP.
"""


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

    truth, table, components, masks: as for `refine`, all of the same radiographs. confidence: whether the confidence of
    components is first fitted to the truth, for the settings that add boxes; otherwise it is as the settings say.
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
    """The effect of fitting on patients that were not fitted on: (AP without refinement, AP with it).

    The patients are dealt into two halves with equally many findings. Each half is fitted in turn, and the other half
    is refined with the result. Both numbers are means over the halves; NaN where a half has no finding.

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
    followed: dict[float, Followed]
    category: int

    def refined(self, setting: Refinement) -> BoxTable:
        followed = self.followed[setting.dilation]
        applied, added, _ = apply_setting(self.table, self.components, followed, self.beside, setting, self.category)
        return BoxTable.concatenate([applied, added])

    def with_confidence(self, settings: Sequence[Refinement]) -> list[Refinement]:
        """The settings, those that add boxes with the weights that make the components' confidence the likeliest."""
        alike = dataclasses.replace(self.components, labels=np.full(len(self.components), self.category))
        is_true = match_boxes(self.truth, alike).is_true
        weights = dataclasses.asdict(fit_weights(self.components.scores, self.beside, is_true))
        return [dataclasses.replace(setting, **weights) if setting.unmatched else setting for setting in settings]

    def ap(self, setting: Refinement | None = None, others: np.ndarray | None = None) -> float:
        """Average precision of the boxes as they are, or refined.

        others: ascending scores of further boxes that hit nothing; they win against equal scores.
        """
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
        # Most boxes follow no component and find nothing, whatever the setting: they only count where they stand above
        # a hit.
        relevant = match_boxes(self.truth, self.table).iou > IOU_THRESHOLD
        for of_dilation in self.followed.values():
            relevant |= of_dilation.component >= 0
        others, few = np.sort(self.table.scores[~relevant]), self.select(relevant)
        scored = np.array([few.ap(setting, others * (1 - setting.penalty)) for setting in settings])
        return settings[int(np.argmax(scored >= scored.max() - INDIFFERENT / max(len(self.truth), 1)))]

    def select(self, rows: np.ndarray) -> "_Case":
        """The same with those boxes alone for which `rows`, (n,) bool, holds."""
        followed = {key: Followed(each.component[rows], each.share[rows]) for key, each in self.followed.items()}
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
            followed={key: Followed(place[each.component], each.share) for key, each in case.followed.items()},
        )


def _case(tables: Sequence[BoxTable], masks: Mapping[int, Any], settings: Sequence[Refinement], category: int) -> _Case:
    """tables: the truth, boxes, and components, of all categories."""
    truth, table = (part.select(part.labels == category) for part in tables[:2])
    components = tables[2]
    followed = follow(table, components, masks, {setting.dilation for setting in settings})
    return _Case(truth, table, components, best_beside(table, components), followed, category)
