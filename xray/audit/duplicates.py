"""Radiographs that are copies of one another, however they were resized, windowed, cropped, compressed or mirrored.

Chest radiographs look alike, so that a short hash has false pairs, and it misses cropped copies. Here the nearest
neighbours of each radiograph, as it is and zoomed in, plain and mirrored, are laid upon it and compared in detail. From
which agreement on two are copies is fitted on the dataset itself: between its most alike radiographs of different
patients, and disguised copies that are made of some of them.
"""

import dataclasses
import functools
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from xray.audit.alignment import ANY_FIT, LEAST_FITS, Fit, described, laid_upon
from xray.audit.appearance import corrected
from xray.audit.copy_threshold import FEWEST_STRANGERS, MOST, Limit, fit_few, fit_threshold
from xray.audit.disguises import disguises
from xray.audit.named import DUPLICATE, Named, where
from xray.audit.pictures import SIDE, Pictures, blocks
from xray.datasets.store import Store

SAME_PATIENT = 0.88
"""Least agreement of copies where both are of one known patient: follow-ups of chest-open have up to 0.81."""
SLACK = 0.5
"""By how much less than nearly all disguised copies a pair may fit on coarse grids: of copies of chest-open that are
tilted by 3 degrees, among others, 4 in 1,000 are given up for it, of phantoms none, and of pairs of strangers 70 to
99 %, which are most of the time."""
N_VARIANTS = 4
ZOOM = 0.07
"""Share of each side that is cut off before a radiograph is looked for as a part of others."""
N_NEIGHBOURS = 3
BLOCK = 512
"""Radiographs that are compared with all others at once."""
MOST_WAITING = 4096
"""Pairs that wait for a thread at once."""
N_OTHERS, N_DISGUISED = 400, 24
"""Pairs of different patients, and radiographs with a copy in each disguise, that the threshold is fitted on."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """first, second: rows, first < second. score: agreement in detail, in [0, 1]. mirrored: one is the other's."""

    first: int
    second: int
    score: float
    mirrored: bool


@dataclasses.dataclass(frozen=True)
class Search:
    """pairs: the copies, surest first. threshold: the agreement from which two are copies; those of a kind that is more
    alike need more, see `Limit.beside`. n_compared: pairs that were laid upon each other. expected_false: of these, how
    many of different patients are expected over the threshold. disguised: disguise → (copies made, copies found)."""

    pairs: list[Pair]
    threshold: float
    n_compared: int
    expected_false: float
    disguised: dict[str, tuple[int, int]]

    @property
    def share_found(self) -> float:
        """Of all disguised copies, the share in [0, 1] that is found; NaN without any."""
        made, found = (sum(counts) for counts in zip(*self.disguised.values(), strict=True))
        return found / made if made else float("nan")


Candidate = tuple[int, int, bool]
"""Two places in the searched radiographs, ascending, and whether the second is mirrored."""


def find_duplicates(
    store: Store,
    pictures: Pictures,
    turns: np.ndarray,
    inverted: np.ndarray,
    rows: np.ndarray,
    progress: Callable[[float], None] = lambda share: None,
) -> Search:
    """All copies among `rows`.

    pictures: of all radiographs. turns, inverted: how each is set upright, see `xray.audit.appearance.Appearance`.
    progress: called with the share in [0, 1] that is done.
    """
    if len(rows) < 2:
        return Search([], MOST, 0, 0.0, dict.fromkeys(disguises(np.random.default_rng(0)), (0, 0)))
    upright = np.zeros((len(rows), SIDE, SIDE), dtype=np.uint8)
    for number, row in enumerate(rows.tolist()):
        upright[number] = corrected(pictures.small[row], turns[row], inverted[row])

    def fine(number: int) -> np.ndarray:
        row = int(rows[number])
        return corrected(pictures.fine[row], turns[row], inverted[row])

    def compare(candidate: Candidate, least: tuple[float, float]) -> float:
        first, second, mirrored = candidate
        step = -1 if mirrored else 1
        theirs = upright[second][:, ::step], lambda: np.ascontiguousarray(fine(second)[:, ::step])
        return laid_upon((upright[first], lambda: fine(first)), theirs, least).detail

    descriptions = described(upright)
    candidates = _candidates(upright, descriptions, lambda share: progress(0.1 * share))
    patients = [store.records[row].get("patient") for row in rows.tolist()]
    same = [patients[a] is not None and patients[a] == patients[b] for a, b, _ in candidates]
    others = [one for one, is_same in zip(candidates, same, strict=True) if not is_same]
    chosen = _spread(len(upright), N_DISGUISED)
    copies = _copies(upright, fine, descriptions, np.array(chosen, dtype=np.int64))
    fits = [fit for found in copies.values() for fit in found]
    limit = _limit(others or candidates, [fit.detail for fit in fits], functools.partial(compare, least=ANY_FIT))
    progress(0.2)
    least = least_fits(fits) if len(others) >= FEWEST_STRANGERS else LEAST_FITS
    scores = _in_threads(functools.partial(compare, least=least), candidates, lambda share: progress(0.2 + 0.8 * share))
    best: dict[tuple[int, int], Pair] = {}
    # Among a few radiographs the others may all be copies, too.
    beside = _Neighbours(candidates, scores) if len(others) >= FEWEST_STRANGERS else _Neighbours([], [])
    for (first, second, mirrored), is_same, score in zip(candidates, same, scores, strict=True):
        rows_of_pair = int(rows[first]), int(rows[second])
        if score < (max(SAME_PATIENT, limit.threshold) if is_same else limit.threshold):
            continue
        if score < limit.beside(beside.strangers(first, second)):
            continue
        if rows_of_pair not in best or best[rows_of_pair].score < score:
            best[rows_of_pair] = Pair(*rows_of_pair, score, mirrored)
    pairs = sorted(best.values(), key=lambda pair: (-pair.score, pair.first, pair.second))
    # A disguised copy has its original's neighbours.
    needed = [limit.beside(beside.strangers(number)) for number in chosen]
    disguised = {
        name: (
            len(found),
            sum(fit.reaches(least) and fit.detail >= own for fit, own in zip(found, needed, strict=True)),
        )
        for name, found in copies.items()
    }
    return Search(pairs, limit.threshold, len(candidates), limit.expected_false, disguised)


class _Neighbours:
    """How each radiograph agrees with those that it was laid upon, of one that was tried in several ways the best."""

    def __init__(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        self._best: dict[int, dict[int, float]] = defaultdict(dict)
        for (first, second, _), score in zip(candidates, scores, strict=True):
            for one, other in ((first, second), (second, first)):
                self._best[one][other] = max(self._best[one].get(other, 0.0), score)

    def strangers(self, first: int, second: int = -1) -> list[float]:
        """The agreements of either with all but the other, or without a second of the first with all; 0 of pairs that
        were given up."""
        ends = ((first, second), (second, first))
        return [score for one, other in ends for near, score in self._best[one].items() if near != other]


def variants(small: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """What a radiograph may be as a copy: (descriptions (N, GRID²), whether mirrored), plain and zoomed in."""
    cut = round(ZOOM * SIDE / 2)
    zoomed = small[:, cut : SIDE - cut, cut : SIDE - cut]
    return (
        (described(part[:, :, ::step]), step < 0)
        for part, step in itertools.product((small, zoomed), (1, -1))
    )  # fmt: skip


def nearest(queries: np.ndarray, descriptions: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """(M, k) int64, the rows of (N, D) descriptions most like each of (M, D) queries, the most alike first; -1 where
    there are fewer.

    own: (M,) int64, of each query the row that does not count. M x N numbers are held.
    """
    likeness = queries @ descriptions.T
    every = np.arange(len(queries))
    likeness[every, own] = -np.inf
    found = np.full((len(queries), k), -1, dtype=np.int64)
    # Three times the maximum takes a fiftieth of the time of a partition.
    for place in range(min(k, len(descriptions) - 1)):
        found[:, place] = likeness.argmax(axis=1)
        likeness[every, found[:, place]] = -np.inf
    return found


def _candidates(upright: np.ndarray, descriptions: np.ndarray, progress: Callable[[float], None]) -> list[Candidate]:
    """Each radiograph with its nearest neighbours: their number grows with the radiographs, not with their square. All
    products of descriptions are taken, but these are a small part of the time up to 100,000 radiographs."""
    candidates: set[Candidate] = set()
    own = np.arange(len(upright))
    done = 0
    for queries, mirrored in variants(upright):
        for block in blocks(len(upright), BLOCK):
            found = nearest(queries[block], descriptions, own[block], N_NEIGHBOURS)
            for query, others in zip(own[block].tolist(), found.tolist(), strict=True):
                candidates |= {(min(query, other), max(query, other), mirrored) for other in others if other >= 0}
            progress((done := done + len(found)) / (N_VARIANTS * len(upright)))
    return sorted(candidates)


def least_fits(copies: Sequence[Fit]) -> tuple[float, float]:
    """The correlation on the coarse and on the middle grid below which a pair is given up, from those of disguised
    copies: what nearly all of these exceed, less SLACK, as inverse hyperbolic tangents; at least LEAST_FITS.

    Radiographs of one kind, taken in one way, fit each other better on coarse grids than LEAST_FITS, and so do copies.
    """
    limits = []
    for values, least in zip(([fit.coarse for fit in copies], [fit.middle for fit in copies]), LEAST_FITS, strict=True):
        found = [value for value in values if value > 0]
        low = np.arctanh(min(np.quantile(found, 0.02), 0.9999)) if found else 0.0
        limits.append(max(least, float(np.tanh(low - SLACK))))
    return limits[0], limits[1]


def _limit(others: Sequence[Candidate], copies: Sequence[float], compare: Callable[[Candidate], float]) -> Limit:
    """What `fit_threshold`, or of few radiographs `fit_few`, says of candidates of different patients."""
    if len(others) >= FEWEST_STRANGERS:
        sample = [others[place] for place in _spread(len(others), N_OTHERS)]
        return fit_threshold(_in_threads(compare, sample), copies, len(others))
    pairs = sorted({(first, second) for first, second, _ in others})
    plain, mirrored = (_in_threads(compare, [(*pair, side) for pair in pairs]) for side in (False, True))
    return fit_few(plain, mirrored, copies, len(others))


def _copies(
    upright: np.ndarray, fine: Callable[[int], np.ndarray], descriptions: np.ndarray, chosen: np.ndarray
) -> dict[str, list[Fit]]:
    """Disguise → how each copy fits its original; not at all where neither is among the other's nearest neighbours.

    chosen: (M,) int64, the places of the originals.
    """
    result: dict[str, list[Fit]] = {}
    originals = list(variants(upright[chosen]))
    for name, disguise in disguises(np.random.default_rng(0)).items():
        copies = [disguise(fine(number)) for number in chosen.tolist()]
        small = np.stack([cv2.resize(copy, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for copy in copies])
        described_copies = described(small)
        fits = [Fit()] * len(chosen)
        # In a dataset each of the two is looked for among the others of the other.
        for (queries, mirrored), (reverse, _) in zip(variants(small), originals, strict=True):
            is_near = _is_near(queries, descriptions[chosen], descriptions, chosen)
            is_near |= _is_near(reverse, described_copies, descriptions, chosen)
            step = -1 if mirrored else 1
            for place in np.flatnonzero(is_near).tolist():
                number = int(chosen[place])
                pair = small[place][:, ::step], functools.partial(_flipped, copies[place], step)
                fit = laid_upon((upright[number], functools.partial(fine, number)), pair)
                fits[place] = max(fits[place], fit, key=lambda fit: fit.detail)
        result[name] = fits
    return result


def _is_near(queries: np.ndarray, targets: np.ndarray, descriptions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(M,) bool, whether a target is among the nearest of its query, beside all descriptions but the row `own`."""
    likeness = queries @ descriptions.T
    likeness[np.arange(len(own)), own] = -np.inf
    n = min(N_NEIGHBOURS, likeness.shape[1])
    least = -np.partition(-likeness, n - 1, axis=1)[:, n - 1]
    return np.asarray((queries * targets).sum(axis=1) >= least)


def _flipped(picture: np.ndarray, step: int) -> np.ndarray:
    return np.ascontiguousarray(picture[:, ::step])


def _spread(n: int, most: int) -> list[int]:
    """At most so many of range(n), evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []


def _in_threads(
    compare: Callable[[Candidate], float],
    candidates: Sequence[Candidate],
    progress: Callable[[float], None] = lambda share: None,
) -> list[float]:
    scores: list[float] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV works outside Python's lock
        try:
            # What waits takes memory, too: not all of a large dataset waits at once.
            for block in blocks(len(candidates), MOST_WAITING):
                for score in pool.map(compare, candidates[block]):
                    scores.append(score)
                    if len(scores) % 100 == 0:
                        progress(len(scores) / len(candidates))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return scores


def named_pairs(store: Store, pairs: Iterable[Pair]) -> list[Named]:
    """Pairs of copies as reasons to look, with what is wrong with each in words."""
    names = np.array(list(store.categories.values()), dtype=object)
    result = []
    for pair in pairs:
        first, second = pair.first, pair.second
        places = [where(store, row) for row in (first, second)]
        notes = [f"in {places[0]} and in {places[1]}" if places[0] != places[1] else f"both in {places[0]}"]
        if pair.mirrored:
            notes.append("mirrored")
        patients = [store.records[row].get("patient") for row in (first, second)]
        if None not in patients and patients[0] != patients[1]:
            notes.append("of two patients by name")
        known = ~(store.unknown[first] | store.unknown[second])
        differing = names[(store.labels[first] != store.labels[second]) & known].tolist()
        if differing:
            notes.append(f"labels differ: {', '.join(differing)}")
        result.append(Named(first, DUPLICATE, pair.score, "; ".join(notes), other=second))
    return result
