"""From which agreement two radiographs are copies of one another, fitted on the dataset itself.

As inverse hyperbolic tangents, agreements of radiographs of different patients, "strangers", are close to normal
(Fisher). The threshold lies between what one of them is expected to exceed, and the 2nd percentile of disguised
copies: in the middle, or of a few radiographs nearer to the copies.
"""

import dataclasses
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
FEWEST_BESIDE = 4
"""Agreements with others from which those of two radiographs say how alike their kind is."""
LEAST, MOST = 0.55, 0.9
"""Between which the threshold is."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """The agreement from which two radiographs are copies.

    threshold: of the whole dataset, in [0, 1]. expected_false: how many pairs of different patients are expected over
    it. spread: standard deviation of strangers. lowest: what nearly all disguised copies exceed, both unbounded.
    n_compared: pairs of different patients that are compared. share: where between strangers and copies the threshold
    lies.
    """

    threshold: float
    expected_false: float
    spread: float
    lowest: float
    n_compared: int
    share: float = 0.5

    def beside(self, strangers: Sequence[float]) -> float:
        """The threshold of two radiographs by how they agree with others; never below that of the dataset.

        strangers: agreements of either with other radiographs that are near to it. Radiographs of one kind in a
        dataset of several, such as those of one device, may be more alike than the rest: a copy has to stand out from
        these. What agrees as copies do is none of them: more copies of the same radiograph.
        """
        values = _unbounded([score for score in strangers if score > 0])
        values = values[values < self.lowest]
        if len(values) < FEWEST_BESIDE:
            return self.threshold
        centre = float(np.median(values))
        variance = (float(((values - centre) ** 2).sum()) + WORTH * self.spread**2) / (len(values) + WORTH)
        return max(self.threshold, _between(centre, variance**0.5, self.lowest, self.n_compared, self.share))


def fit_threshold(others: Sequence[float], copies: Sequence[float], n_compared: int) -> Limit:
    """The limit of a dataset.

    others: agreements of the most alike radiographs of different patients, in [0, 1]; a few copies may be among them,
        against which their median and spread are robust. copies: of disguised copies. n_compared: how many pairs of
        different patients are compared in all.
    """
    values = _unbounded(others)
    centre = float(np.median(values))
    below, around = centre - np.quantile(values, 0.1587), 1.4826 * np.median(np.abs(values - centre))
    return _limit(centre, max(float(below), float(around), LEAST_SPREAD), copies, n_compared)


def fit_few(plain: Sequence[float], mirrored: Sequence[float], copies: Sequence[float], n_compared: int) -> Limit:
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
    return _limit(centre, spread, copies, n_compared, FEW_SHARE)


def _limit(centre: float, spread: float, copies: Sequence[float], n_compared: int, share: float = 0.5) -> Limit:
    lowest = _lowest(copies, _highest(centre, spread, n_compared))
    threshold = _between(centre, spread, lowest, n_compared, share)
    chance = 1 - NormalDist(centre, spread).cdf(float(np.arctanh(threshold)))
    return Limit(threshold, n_compared * chance, spread, lowest, n_compared, share)


def _highest(centre: float, spread: float, n_compared: int) -> float:
    """What one of so many strangers is expected to exceed, unbounded."""
    return centre + spread * NormalDist().inv_cdf(1 - 1 / max(n_compared, 100))


def _between(centre: float, spread: float, lowest: float, n_compared: int, share: float) -> float:
    highest = _highest(centre, spread, n_compared)
    return float(np.clip(np.tanh((1 - share) * highest + share * lowest), LEAST, MOST))


def _lowest(copies: Sequence[float], otherwise: float) -> float:
    """What nearly all disguised copies exceed, unbounded."""
    found = [score for score in copies if score > 0]
    return float(_unbounded(np.quantile(found, 0.02))) if found else otherwise


def _unbounded(agreements: object) -> np.ndarray:
    return np.asarray(np.arctanh(np.clip(np.asarray(agreements, dtype=np.float64), 0, 0.9999)))
