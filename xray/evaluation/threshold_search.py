"""Searches of the triplet rule's settings over cached probabilities."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from xray.errors import InputError
from xray.evaluation.mask_metrics import dice_scores
from xray.structures.triplet import LEVELS, Triplet, first_level_over, quantise

TOPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MIN_AREAS = (0.0, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01)
BOTTOMS = tuple(round(0.05 + 0.05 * step, 2) for step in range(10))
GATES = tuple(round(0.01 * step, 2) for step in range(101))


@dataclasses.dataclass(frozen=True)
class Search:
    """The best setting of a search and all of them.

    best: the row of `table` with the highest `dice`, the first of equals.
    table: a row for each setting: its columns, `dice`, and where they can be measured `dice_positive`, `sensitivity`
    and `false_positive_rate`, as in `segmentation_metrics`.
    """

    best: dict[str, float]
    table: pd.DataFrame


def level_counts(probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One radiograph → (2, 257) int32: its pixels, and its true pixels, at or over level 0 … 256.

    probability: (H, W), floats in [0, 1] or uint8. mask: (H, W), the truth.
    Raises ValueError for shapes that differ and for values outside [0, 1].
    """
    if probability.shape != mask.shape or not probability.size:
        raise ValueError(f"probabilities {probability.shape} and mask {mask.shape} must have one shape, not empty")
    levels = quantise(probability)
    histograms = np.stack(
        [np.bincount(values, minlength=256) for values in (levels.ravel(), levels[mask.astype(bool)])]
    )
    counts = np.zeros((2, 257), dtype=np.int32)
    counts[:, :256] = histograms[:, ::-1].cumsum(axis=1)[:, ::-1]
    return counts


class ProbabilityCache:
    """The numbers that a search needs of each radiograph: how many pixels, and true pixels, lie at or over each of 256
    levels.

    About 2 kB a radiograph, so that a setting costs a look-up and a comparison instead of a pass over all pixels.

    counts: `level_counts` of each of N radiographs, kept as (N, 2, 257) int32. Raises InputError without any.
    """

    def __init__(self, counts: Sequence[np.ndarray]) -> None:
        if not counts:
            raise InputError("no probabilities are cached: a search needs at least one radiograph with its truth")
        self.counts = np.stack(counts)

    def of(self, chosen: np.ndarray) -> "ProbabilityCache":
        """The radiographs for which `chosen`, (N,) bool, holds. Raises InputError where there is none."""
        return self if chosen.all() else ProbabilityCache(list(self.counts[chosen]))

    def certainty(self, min_area: float) -> np.ndarray:
        """(N,) float64, the highest of the 256 levels in [0, 1] that at least `min_area` of each radiograph reaches.

        The triplet rule calls a radiograph positive exactly if this certainty is at least the first level over `top`.
        With min_area 0 the rule asks for a single pixel, since a mask needs one.
        """
        areas = self.counts[:, 0]
        least = np.maximum(1, min_area * areas[:, :1])
        # Areas fall from level to level, and at level 0 lies the whole radiograph.
        levels: np.ndarray = LEVELS[np.count_nonzero(areas[:, :256] >= least, axis=1) - 1]
        return levels

    def search(
        self,
        tops: Sequence[float] = TOPS,
        min_areas: Sequence[float] = MIN_AREAS,
        bottoms: Sequence[float] = BOTTOMS,
    ) -> Search:
        """All settings of the triplet rule (those with bottom over top are left out), 1,000 by default.

        Raises InputError if no setting is left.
        """
        areas, hits = self.counts[:, 0], self.counts[:, 1]
        columns = [first_level_over(bottom) for bottom in bottoms]
        least = np.asarray(min_areas, dtype=np.float64) * areas[:, :1]
        scores = [
            _scores(areas[:, [first_level_over(top)]] >= least, hits[:, columns], areas[:, columns], hits[:, 0])
            for top in tops
        ]
        settings = np.array(list(itertools.product(tops, min_areas, bottoms)), dtype=np.float64).reshape(-1, 3)
        table = pd.DataFrame(settings, columns=["top", "min_area", "bottom"])
        table = table.join(pd.concat([pd.DataFrame(), *scores], ignore_index=True))
        return _best(table[table["bottom"] <= table["top"]].reset_index(drop=True))

    def search_gate(
        self, probabilities: np.ndarray, gates: Sequence[float] = GATES, triplet: Triplet | None = None
    ) -> Search:
        """The cascade's gate: below this probability of a classifier, the mask that `triplet` makes is emptied.

        probabilities: (N,) of the radiographs in the order in which they were added. triplet: None for the default
        triplet. The rows have `gate` in place of the triplet. Raises InputError if N differs.
        """
        triplet = triplet or Triplet()
        areas, hits = self.counts[:, 0], self.counts[:, 1]
        if np.shape(probabilities) != (len(areas),):
            raise InputError(f"{np.shape(probabilities)} probabilities for {len(areas)} radiographs: give one each")
        positive = areas[:, first_level_over(triplet.top)] >= triplet.min_area * areas[:, 0]
        bottom = first_level_over(triplet.bottom)
        drawn, overlap = (np.where(positive, counts[:, bottom], 0)[:, None] for counts in (areas, hits))
        is_open = np.asarray(probabilities)[:, None] >= np.asarray(gates, dtype=np.float64)
        table = _scores(is_open, overlap, drawn, hits[:, 0])
        table.insert(0, "gate", np.asarray(gates, dtype=np.float64))
        return _best(table)


def _scores(positive: np.ndarray, overlap: np.ndarray, areas: np.ndarray, true: np.ndarray) -> pd.DataFrame:
    """Metrics of every pair of a way to call radiographs positive and a way to draw their masks, the latter fastest.

    positive: (N, P) bool. overlap, areas: (N, B), pixels of the mask drawn if positive. true: (N,).
    """
    is_true = true > 0
    drawn = dice_scores(overlap, areas, true[:, None])
    empty = np.where(is_true, 0.0, 1.0)
    called = positive.astype(np.float64).T
    # The mean over radiographs is that of the scores of empty masks, plus the difference for radiographs called
    # positive.
    columns = {"dice": (called @ (drawn - empty[:, None]) + empty.sum()) / len(true)}
    if is_true.any():
        columns["dice_positive"] = called[:, is_true] @ drawn[is_true] / is_true.sum()
        columns["sensitivity"] = called[:, is_true] @ (areas[is_true] > 0) / is_true.sum()
    if not is_true.all():
        columns["false_positive_rate"] = called[:, ~is_true] @ (areas[~is_true] > 0) / (~is_true).sum()
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def _best(table: pd.DataFrame) -> Search:
    if table.empty:
        raise InputError("no settings to search: give a top, min area and bottom, a top at least as high as a bottom")
    # Rounded, so that settings whose sums differ only in their order count as equal.
    best = int(np.argmax(table["dice"].round(12).to_numpy()))
    return Search({str(name): float(value) for name, value in table.iloc[best].items()}, table)
