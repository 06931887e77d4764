"""From which agreement two radiographs are copies of one another, fitted on the dataset itself.

As inverse hyperbolic tangents, agreements of radiographs of different patients, "strangers", are close to normal
(Fisher). The threshold lies between what one of them is expected to exceed, and the 2nd percentile of disguised
copies: in the middle, or of a few radiographs nearer to the copies.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

FEWEST_STRANGERS = 150
"""Agreements from which their median and spread are taken as they are: those of about 25 radiographs."""
LEAST_SPREAD = 0.08
"""Least standard deviation of strangers: that of chest-open."""
USUAL_SPREAD, WORTH = 0.13, 20
"""Standard deviation among few radiographs, that of phantoms, of which chest-open has less; and as how many pairs of
their own it counts."""
FEW_SHARE = 0.67
"""Of a few radiographs the threshold lies nearer to copies than to strangers, of whom too few are known."""
LEAST, MOST = 0.55, 0.9
"""Between which the threshold is."""


def fit_threshold(others: Sequence[float], copies: Sequence[float], n_compared: int) -> tuple[float, float]:
    """The threshold, and how many pairs of different patients are expected over it.

    others: agreements of the most alike radiographs of different patients, in [0, 1]; a few copies may be among them,
        against which their median and spread are robust. copies: of disguised copies. n_compared: how many pairs of
        different patients are compared in all.
    """
    values = _unbounded(others)
    centre = float(np.median(values))
    below, around = centre - np.quantile(values, 0.1587), 1.4826 * np.median(np.abs(values - centre))
    return _between(centre, max(float(below), float(around), LEAST_SPREAD), copies, n_compared)


def fit_few(
    plain: Sequence[float], mirrored: Sequence[float], copies: Sequence[float], n_compared: int
) -> tuple[float, float]:
    """The same for a few radiographs, all of which may be copies of one.

    plain, mirrored: (n,) each, agreements of the same pairs, at least one. Of the two at most one is a copy's: the
    lower ones are strangers' for certain, and so is what lies nearer to them than to copies. How much strangers differ
    is not known from a few: their spread counts as that of some pairs more.
    """
    both = np.sort(_unbounded([plain, mirrored]), axis=0)
    lower = float(np.median(both[0]))
    strangers = both[1][both[1] < (lower + _lowest(copies, lower)) / 2]
    n = len(strangers)
    centre = float(strangers.mean()) if n else lower
    variance = float(((strangers - centre) ** 2).sum()) + WORTH * USUAL_SPREAD**2
    # The centre of n is itself uncertain by as much as the mean of n.
    spread = float(np.sqrt(variance / (n + WORTH) * (1 + 1 / max(n, 1))))
    return _between(centre, spread, copies, n_compared, FEW_SHARE)


def _between(
    centre: float, spread: float, copies: Sequence[float], n_compared: int, share: float = 0.5
) -> tuple[float, float]:
    highest = centre + spread * NormalDist().inv_cdf(1 - 1 / max(n_compared, 100))
    threshold = float(np.clip(np.tanh((1 - share) * highest + share * _lowest(copies, highest)), LEAST, MOST))
    chance = 1 - NormalDist(centre, spread).cdf(float(np.arctanh(threshold)))
    return threshold, n_compared * chance


def _lowest(copies: Sequence[float], otherwise: float) -> float:
    """What nearly all disguised copies exceed, unbounded."""
    found = [score for score in copies if score > 0]
    return float(_unbounded(np.quantile(found, 0.02))) if found else otherwise


def _unbounded(agreements: object) -> np.ndarray:
    return np.asarray(np.arctanh(np.clip(np.asarray(agreements, dtype=np.float64), 0, 0.9999)))
