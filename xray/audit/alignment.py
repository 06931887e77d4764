"""How much of its detail a radiograph shares with another, after one is laid upon the other.

An affine map is refined from coarse to fine by the enhanced correlation coefficient (Evangelidis and Psarakis 2008, as
OpenCV has it) on edges and ridges, which windows, gamma and inversion of the film's curve leave alone. What is compared
at last are structures of one to three pixels of FINE: vessels and ribs, not the outlines that all chests share.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from xray.audit.pictures import FINE, SIDE, standardized

GRID = 32
LEAST_FITS = 0.65, 0.72
"""Correlation on the coarse and on the middle grid below which a pair is given up; copies of chest-open and phantoms
have 0.76 and 0.84 at least, the nearest of two patients half of the time less than the latter."""
ANY_FIT = -1.0, -1.0
"""The same of a pair that is never given up."""
STEPS = (30, 15, 8)
"""Iterations on grids of 32, 64 and 128 pixels."""
WIDTHS = ((0.7, 4, 5), (0.7, 5, 8), (0.7, 6, 8))
"""Of each grid: standard deviations in pixels of what is smoothed away, of what is taken off as background, and of the
surroundings in which strength is made even."""
DETAIL = (1.0, 3, 8)

Both = tuple[np.ndarray, Callable[[], np.ndarray]]
"""(SIDE, SIDE) uint8, and what gives the same radiograph in (FINE, FINE), which few pairs need."""


def described(small: np.ndarray) -> np.ndarray:
    """(N, H, H) uint8 → (N, GRID²) float32 of norm 1: edges and ridges, of the same strength everywhere."""
    bands = np.zeros((len(small), GRID, GRID), dtype=np.float32)
    for row, picture in enumerate(small):
        grey = cv2.resize(np.ascontiguousarray(picture), (GRID, GRID), interpolation=cv2.INTER_AREA)
        bands[row] = _band(grey, WIDTHS[0])
    return standardized(bands).reshape(len(small), -1)


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well two radiographs fit, as correlations on the coarse and on the middle grid, and in detail, in [0, 1].
    What was not measured, because the pair was given up before, is 0."""

    coarse: float = 0.0
    middle: float = 0.0
    detail: float = 0.0

    def reaches(self, least: tuple[float, float]) -> bool:
        """Whether neither grid's correlation is below the least."""
        return self.coarse >= least[0] and self.middle >= least[1]


def laid_upon(first: Both, second: Both, least: tuple[float, float] = LEAST_FITS) -> Fit:
    """Lays the second radiograph upon the first.

    least: of the coarse and of the middle grid, the correlation below which the pair is given up. Most pairs are
        strangers' and fall at the first, which takes a tenth of the time of all three.
    """
    warp: np.ndarray = np.eye(2, 3, dtype=np.float32)
    fits: list[float] = []
    for level, side in enumerate((GRID, SIDE, FINE)):
        if side < FINE:
            pictures = [np.ascontiguousarray(one[0]) for one in (first, second)]
            pictures = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pictures]
        else:
            pictures = [one[1]() for one in (first, second)]
        ours, theirs = (_band(picture, WIDTHS[level]) for picture in pictures)
        warp[:, 2] *= 2 if level else 1
        ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, STEPS[level], 1e-4)
        try:
            _, found = cv2.findTransformECC(
                ours, theirs, warp, cv2.MOTION_AFFINE, ends, np.ones_like(ours, np.uint8), 3
            )
            warp = np.asarray(found)
        except cv2.error:  # the two have too little in common to be aligned
            return Fit(*fits)
        if side < FINE:
            fits.append(_correlation(ours, theirs, warp))
            if fits[level] < least[level]:
                return Fit(*fits)
    ours, theirs = (_band(picture, DETAIL) for picture in pictures)
    return Fit(fits[0], fits[1], max(0.0, _correlation(ours, theirs, warp)))


def _band(picture: np.ndarray, widths: tuple[float, float, float]) -> np.ndarray:
    grey = picture.astype(np.float32)
    fine, wide, around = widths
    band = cv2.GaussianBlur(grey, (0, 0), fine) - cv2.GaussianBlur(grey, (0, 0), wide)
    return np.asarray(band / (np.sqrt(cv2.GaussianBlur(band * band, (0, 0), around)) + 0.5))


def _correlation(ours: np.ndarray, theirs: np.ndarray, warp: np.ndarray) -> float:
    """Of what both show, where that is at least half of the picture; otherwise 0."""
    shape, flags = ours.shape[::-1], cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(theirs, warp, shape, flags=cv2.INTER_LINEAR | flags)
    inside = cv2.warpAffine(np.ones(ours.shape, np.uint8), warp, shape, flags=cv2.INTER_NEAREST | flags) > 0
    if inside.mean() < 0.5:
        return 0.0
    first, second = ours[inside], laid[inside]
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / norm if norm > 0 else 0.0
