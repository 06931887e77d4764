"""Findings of the models in a batch of radiographs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from xray.structures.boxes import BoxTable
from xray.structures.radiograph_findings import RadiographFindings


@dataclasses.dataclass(frozen=True)
class Findings:
    """The findings in a batch of radiographs.

    table: boxes in original pixels; `images` 0 … B-1.
    masks: row of the table → COCO RLE at original size.
    maps: (B, K, S, S) float32, the segmenters' mean probability on the canvas in whole 255ths; None without segmenters.
    labels: label → (B,) the classifiers' mean probability that a radiograph has it.
    has_places: as of `RadiographFindings`.
    """

    table: BoxTable
    masks: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    maps: np.ndarray | None = None
    labels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    has_places: bool = True

    def of(self, number: int, categories: Mapping[int, str]) -> RadiographFindings:
        """The findings in one radiograph of the batch. number: 0 … B-1. categories: id → name."""
        rows, masks = self.table.select_masked(self.table.images == number, self.masks)
        labels = {label: float(column[number]) for label, column in self.labels.items()}
        maps = None if self.maps is None else self.maps[number]
        return RadiographFindings(rows, masks, categories, labels, maps, has_places=self.has_places)
