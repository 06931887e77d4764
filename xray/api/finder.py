"""What made results: the models and their settings, as far as files of results name them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray.structures.thresholds import SHOWN_FROM, Thresholds, in_force


@dataclasses.dataclass(frozen=True)
class Finder:
    """What found the findings.

    categories: id → name. has_masks: whether it can find masks. runs: files and folders of its models, empty where that
    is not known. mirrored, gate, triplet, scales: its settings. thresholds: what was fitted for its findings, if
    anything was. shown_from: without that the lowest score that pictures and reports show. hard_gate: as of `Pipeline`.
    map_labels: category ids of the channels of `Result.maps`. prune, upright: as of `load`.
    has_places: as of `Pipeline`. settings: what made_by.json says of them. fused: what it says of fused results,
    where it is known of all that were fused.
    """

    categories: dict[int, str]
    has_masks: bool
    runs: tuple[Path, ...] = ()
    mirrored: bool = False
    gate: str = "soft"
    triplet: tuple[float, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    thresholds: Thresholds | None = None
    shown_from: float = SHOWN_FROM
    hard_gate: float | None = None
    map_labels: tuple[int, ...] = ()
    prune: int = 0
    upright: bool = False
    has_places: bool = True
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fused: Mapping[str, Any] | None = None

    def shown(self, threshold: float | None) -> tuple[float, Thresholds | None]:
        """What decides which findings are shown, as `in_force` says. threshold: what a user set, if anything."""
        return in_force(self.thresholds, threshold, default=self.shown_from)
