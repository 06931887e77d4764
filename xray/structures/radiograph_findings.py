"""What was found in one radiograph, as reports, pictures and files take it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask


@dataclasses.dataclass(frozen=True, eq=False)
class RadiographFindings:
    """The findings of one radiograph.

    table: its rows, "No finding" among them where there is one; boxes in original pixels, x and y counted from the top
        left corner of the top left pixel. masks: row of the table → COCO RLE of the radiograph's size.
    categories: category id → name. labels: name → probability of the whole radiograph.
    maps: (K, S, S) probabilities on the canvas, None where they are not kept.
    notes: sentences that reports say beside, such as that it may be no frontal chest radiograph.
    has_findings: what the summary of a report says; None for whether there is a finding that is reported.
    has_places: whether places of findings were looked for. Classifiers alone look for none: their labels then say
        whether there are findings.
    """

    table: BoxTable
    masks: Mapping[int, Any]
    categories: Mapping[int, str]
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    maps: np.ndarray | None = None
    notes: Sequence[str] = ()
    has_findings: bool | None = None
    has_places: bool = True

    def name_of(self, label: int) -> str:
        """The name of a category, "category <id>" where it has none."""
        return self.categories.get(label, f"category {label}")

    def joined_masks(self, threshold: float = -np.inf) -> dict[int, np.ndarray]:
        """Category id → (height, width) uint8 of 0 and 1: all masks of a category in one; no category without a mask.

        threshold: lowest score of the rows whose masks count.
        """
        joined: dict[int, np.ndarray] = {}
        for row, rle in self.masks.items():
            if self.table.scores[row] >= threshold:
                label, mask = int(self.table.labels[row]), decode_mask(rle)
                joined[label] = joined[label] | mask if label in joined else mask
        return dict(sorted(joined.items()))
