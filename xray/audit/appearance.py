"""Radiographs that look unlike the others: inverted, turned, empty, lateral, or something else altogether.

Each radiograph is compared with the dataset's own typical picture, the median of all, and with that turned by quarters
and inverted. What then still differs is measured by what the principal components of all others do not explain.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from xray.audit.named import EMPTY, INVERTED, LATERAL, TURNED, UNLIKE, Named
from xray.audit.pictures import SIDE, Pictures, blocks, standardized
from xray.datasets.store import Store

GRID = 32
"""Side of the pictures that are compared, in pixels."""
BLOCK = 32
"""Radiographs that the typical picture is slid over at once: 10 MB of windows, which processors' caches hold."""
SCALES = (20, 24, 28)
"""Sides to which the typical picture is brought before it is slid over a radiograph; 2 pixels of each edge are off."""
MARGIN = 0.05
"""By how much the typical picture, turned or inverted, must fit better than as it is."""
LEAST_FIT = 0.5
"""Fit below which a radiograph is not said to be turned or inverted: nothing fits it."""
LEAST_CONTRAST = 16
"""Grey levels between the darkest and the brightest 2 % of a radiograph that is not empty."""
FEWEST = 30
"""Radiographs that a typical picture needs."""
N_COMPONENTS = 8
N_PARTS = 5
"""In which radiographs are dealt: the components of four say what is odd in the fifth."""
FAR, WIDE = 3.5, 2.3
"""Robust standard deviations beyond the median from which a radiograph is unlike the others, and the same as a multiple
of what one in ten exceeds, where that is more. Fitted: of chest-open none exceeds 2.7, of phantoms 4.6 is the most;
photographs, CT and MR slices, and other parts of the body among chest-open lie at 3.8 to 6.5."""
LATERAL_VIEWS = ("LL", "RL", "LATERAL", "LAT", "LEFT LATERAL", "RIGHT LATERAL", "L LATERAL", "R LATERAL")
MANY_LATERALS = 0.05
"""Share of lateral radiographs from which they belong to the dataset, and are not named one by one."""


@dataclasses.dataclass(frozen=True)
class Appearance:
    """named: the suspects. turns: (N,) int64, quarter turns, counted as `numpy.rot90` does, that set each radiograph
    upright. inverted: (N,) bool. warnings: what is said of the dataset as a whole."""

    named: list[Named]
    turns: np.ndarray
    inverted: np.ndarray
    warnings: list[str]


def look(store: Store, pictures: Pictures, progress: Callable[[int], None] = lambda done: None) -> Appearance:
    """Compares every radiograph with the others of its view.

    progress: called with the number of radiographs that are compared.
    """
    n = len(pictures)
    named: list[Named] = []
    warnings: list[str] = []
    turns, inverted = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    contrast = pictures.content[:, 1] - pictures.content[:, 0]
    is_empty = contrast < LEAST_CONTRAST
    for row in np.flatnonzero(is_empty).tolist():
        named.append(Named(row, EMPTY, 1 - contrast[row] / 255, f"{contrast[row]:.0f} grey levels of contrast"))
    is_lateral = np.array([is_lateral_view(record) for record in store.records], dtype=bool)
    n_lateral = int(is_lateral.sum())
    if 0 < n_lateral <= MANY_LATERALS * n:
        named += [
            Named(row, LATERAL, 1.0, f"view {store.records[row]['view']} in its header")
            for row in np.flatnonzero(is_lateral).tolist()
        ]
    elif n_lateral:
        warnings.append(
            f"{n_lateral:,} of {n:,} radiographs are lateral by their headers: they are compared with each other and "
            "not named one by one"
        )
    done = 0
    odd: list[tuple[int, float]] = []
    for rows in (np.flatnonzero(~is_lateral & ~is_empty), np.flatnonzero(is_lateral & ~is_empty)):
        if len(rows) < FEWEST:
            if len(rows) and not is_lateral[rows[0]]:
                warnings.append(f"{len(rows)} radiographs are too few to tell which of them are unlike the others")
            continue
        ranks, bands = (np.stack([one(small) for small in pictures.small[rows]]) for one in (ranked, banded))
        models = [np.median(standardized(part), axis=0).astype(np.float32) for part in (ranks, bands)]
        fits = np.zeros((len(rows), 4, 2))
        for block in blocks(len(rows), BLOCK):
            fits[block] = fit((ranks[block], bands[block]), models)
            progress(done := done + len(ranks[block]))
        turns[rows], inverted[rows], margins = _posture(fits)
        for row, margin, best in zip(rows.tolist(), margins.tolist(), fits.max(axis=(1, 2)).tolist(), strict=True):
            named += _misplaced(row, int(turns[row]), bool(inverted[row]), margin, best)
        if not is_lateral[rows[0]]:
            warnings += _about_typical(models)
        for place in np.flatnonzero((turns[rows] != 0) | inverted[rows]).tolist():
            upright = corrected(pictures.small[rows[place]], turns[rows[place]], inverted[rows[place]])
            ranks[place], bands[place] = ranked(upright), banded(upright)
        distances = _distances((ranks, bands), store.folds[rows])
        is_far = distances > max(FAR, WIDE * float(np.quantile(distances, 0.9)))
        odd += zip(rows[is_far].tolist(), distances[is_far].tolist(), strict=True)
    named += [Named(row, UNLIKE, away, f"{away:.1f} standard deviations from the others") for row, away in odd]
    return Appearance(named, turns, inverted, warnings)


def is_lateral_view(record: dict[str, Any]) -> bool:
    """Whether a radiograph's entry in annotations.json says that it was taken from the side."""
    return str(record.get("view", "")).strip().upper() in LATERAL_VIEWS


def corrected(picture: np.ndarray, turns: int, inverted: bool) -> np.ndarray:
    """(H, H) uint8, upright and with bright bones."""
    picture = np.rot90(picture, turns)
    return np.ascontiguousarray(255 - picture if inverted else picture)


def ranked(small: np.ndarray) -> np.ndarray:
    """(H, H) uint8 → (GRID, GRID) float32, the ranks of its smoothed grey levels: no window or gamma changes them."""
    grey = cv2.GaussianBlur(_reduced(small), (0, 0), 1)
    # Equal greys are common in black air: their order must not depend on the sorting.
    _, inverse, counts = np.unique(grey, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return middle[inverse].reshape(grey.shape).astype(np.float32)


def banded(small: np.ndarray) -> np.ndarray:
    """(H, H) uint8 → (GRID, GRID) float32, its edges and ridges, of the same strength everywhere."""
    grey = _reduced(small)
    band = cv2.GaussianBlur(grey, (0, 0), 0.8) - cv2.GaussianBlur(grey, (0, 0), 6)
    strength = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 7)) + 1
    return (band / strength).astype(np.float32)


def _reduced(small: np.ndarray) -> np.ndarray:
    return cv2.resize(small, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)


def fit(parts: Sequence[np.ndarray], models: Sequence[np.ndarray]) -> np.ndarray:
    """How well models fit radiographs by quarter turns that set these upright, and by polarity: as it is, inverted.

    parts: ranks and bands of N radiographs, (N, GRID, GRID) float32 each. models: of the typical one, (GRID, GRID).
    The model is slid over the radiograph at several scales; the highest correlation counts. Returns (N, 4, 2) float64,
    the mean of the parts.
    """
    fits = np.zeros((len(parts), len(parts[0]), 4, 2))
    for of_kind, pictures, model in zip(fits, parts, models, strict=True):
        for side in SCALES:
            reduced = cv2.resize(model, (side, side), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
            # To slide it over a turned radiograph is to slide it, turned back, over the radiograph.
            turned = standardized(np.stack([np.rot90(reduced, -turn) for turn in range(4)])).reshape(4, -1)
            for block in blocks(len(pictures), BLOCK):
                found = _slid(pictures[block], turned, len(reduced))
                best = np.stack([found.max(axis=1), -found.min(axis=1)], axis=-1)
                np.maximum(of_kind[block], best, out=of_kind[block])
    return np.asarray(fits.mean(axis=0))


def _slid(pictures: np.ndarray, templates: np.ndarray, side: int) -> np.ndarray:
    """(n, H, W) pictures, (T, side²) templates of mean 0 and norm 1 → (n, places, T), their correlation at each place;
    0 where a picture is flat."""
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (side, side), axis=(1, 2))
    windows = windows.reshape(-1, side * side)
    squares = np.einsum("ij,ij->i", windows, windows)
    variances = squares - windows.sum(axis=1) ** 2 / side**2
    is_flat = variances <= 1e-5 * squares
    norms = np.sqrt(np.where(is_flat, 1, variances))
    found = np.where(is_flat[:, None], 0, (windows @ templates.T) / norms[:, None])
    return found.reshape(len(pictures), -1, len(templates))


def _posture(fits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 4, 2) fits → quarter turns (N,), inverted (N,), and how much better these fit than as it is (N,)."""
    flat = fits.reshape(len(fits), 8)
    best = flat.argmax(axis=1)
    margins = flat.max(axis=1) - flat[:, 0]
    best = np.where((margins > MARGIN) & (flat.max(axis=1) >= LEAST_FIT), best, 0)
    return best // 2, best % 2 == 1, margins


def _misplaced(row: int, turns: int, inverted: bool, margin: float, best: float) -> list[Named]:
    detail = f"fits the typical radiograph by {best:.2f} then, by {best - margin:.2f} as it is"
    named = [Named(row, INVERTED, margin, detail)] if inverted else []
    if turns:
        # rot90 turns counter-clockwise, so the radiograph stands clockwise by as much.
        named.append(Named(row, TURNED, margin, f"by {90 * turns}° clockwise; {detail}"))
    return named


def _distances(parts: Sequence[np.ndarray], folds: np.ndarray) -> np.ndarray:
    """Ranks and bands of upright radiographs, (n, GRID, GRID) float32 each, and their folds → (n,) robust standard
    deviations from the others of the fold.

    Of the ranks and of the bands, the part that the first principal components do not explain; the mean of both.
    Radiographs that lie far off do not shape the components.
    """
    total = np.zeros(len(folds))
    for pictures in parts:
        reduced = np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA) for one in pictures])
        vectors = standardized(reduced).reshape(len(folds), -1)
        used = np.ones(len(vectors), dtype=bool)
        for _ in range(2):
            residuals = _unexplained(vectors, used)
            scores = _robust(residuals, residuals[used])
            used = scores < FAR
        for fold in np.unique(folds):
            inside = folds == fold
            if inside.sum() >= 2 * FEWEST:
                scores[inside] = _robust(residuals[inside], residuals[inside])
        total += scores
    return total / 2


def _unexplained(vectors: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(n, D) → (n,) length of what the principal components of other vectors do not explain of each.

    Among few radiographs an odd one would have a component of its own: each is held against those of other parts.
    """
    residuals = np.zeros(len(vectors))
    part = np.arange(len(vectors)) % N_PARTS
    for number in range(N_PARTS):
        others = vectors[used & (part != number)]
        centre = others.mean(axis=0)
        # Eigenvectors of 256 x 256, however many radiographs there are.
        _, components = np.linalg.eigh((others - centre).T @ (others - centre))
        basis = components[:, ::-1][:, : min(N_COMPONENTS, len(others) // 4)]
        apart = vectors[part == number] - centre
        residuals[part == number] = np.linalg.norm(apart - (apart @ basis) @ basis.T, axis=1)
    return residuals


def _robust(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Distance of values from the median of others, in standard deviations as the median absolute deviation has it."""
    median = np.median(of)
    spread = 1.4826 * np.median(np.abs(of - median))
    return np.asarray((values - median) / max(spread, 1e-3))


def drawn_chest() -> np.ndarray:
    """(SIDE, SIDE) uint8, a chest in its coarsest outlines: neck and shoulders before air, two dark lungs, heart."""
    chest = np.full((SIDE, SIDE), 70, dtype=np.uint8)
    half = [[40, 0], [44, 8], [63, 16], [63, 26], [58, 32], [58, 63]]
    body = [*half, *([SIDE - 1 - x, y] for x, y in half[::-1])]
    cv2.fillPoly(chest, [np.array(body)], 150)
    chest[46:, 5:59] = 190
    chest[:, 28:36] = 200
    for middle, side in ((19, 1), (45, -1)):
        lung = [[4, 11], [-1, 13], [-6, 24], [-9, 46], [5, 46], [7, 24], [6, 13]]
        cv2.fillPoly(chest, [np.array([[middle + side * x, y] for x, y in lung])], 70)
    cv2.ellipse(chest, (36, 39), (9, 8), 35, 0, 360, 200, -1)
    return np.asarray(cv2.GaussianBlur(chest, (0, 0), 2))


def _about_typical(models: Sequence[np.ndarray]) -> list[str]:
    """Whether most radiographs of the dataset are inverted or turned, which comparing them cannot show."""
    chest = drawn_chest()
    fits = fit([model[None] for model in models], [ranked(chest), banded(chest)])
    turns, inverted, _ = _posture(fits)
    what = [*(["inverted"] if inverted[0] else []), *([f"turned by {90 * turns[0]}° clockwise"] if turns[0] else [])]
    return [f"the typical radiograph of this dataset looks {' and '.join(what)}"] if what else []
