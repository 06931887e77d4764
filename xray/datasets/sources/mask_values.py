"""What the values in a picture of a mask mean: which is the background, and which were drawn.

Two lungs drawn as 85 and 170, or as red and blue, are both mask; so a picture is read by the values that it stores.
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from xray.radiographs.grayscale import look_up
from xray.radiographs.radiograph import RadiographError
from xray.radiographs.stored_values import StoredValues, read_stored

FEW = 32
"""Values of a lossless picture up to which each was chosen, unless it lies on the edge between two others."""
MANY = 4096
"""Values from which a picture no longer holds objects numbered one by one."""
VOID = (224, 224, 192)
"""The colour of PASCAL VOC's borders, which are neither object nor background."""

BLACK_ON_WHITE, WHITE_ON_BLACK, BLACK, WHITE = "black on white", "white on black", "black", "white"

_NEAR = 12
"""Levels of 255 by which what stands for black may differ from it."""
_FLAT = 16
"""Levels of 255 that neighbours within an object differ by at most, in a lossy picture."""
_BACKGROUND, _WHITE = 0.75, 0.95
"""Share of the picture's edges that a background covers; that of white where there is black for it as well."""


@dataclasses.dataclass(frozen=True)
class MaskValues:
    """A picture of a mask.

    labels: (height, width) uint8 or uint16; 0 is the background, k is `names[k - 1]`.
    names: the values that were drawn, as stored: "1", "#FA3253", or "1 (#800000)" for the index of a palette.
    keys: what each may be called by, in lower case.
    tones: BLACK_ON_WHITE, WHITE_ON_BLACK, or the only tone, BLACK or WHITE, of a picture that has no other value; ""
    for all others. has_void: it has PASCAL VOC's borders, which count as background.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    keys: tuple[frozenset[str], ...]
    tones: str = ""
    has_void: bool = False


def read_values(path: Path | str) -> MaskValues:
    """Reads a picture of a mask.

    In a lossless picture of up to 32 values, or of more that meet in sharp edges, all that is not background is mask.
    The background is what is transparent, or else black; where there is neither, it is white, the first index of a
    palette or another value, if that covers most of the picture's edges. Where white covers them all but wholly, black
    is what was drawn. Shades between two values (soft edges, what JPEG adds) count to the nearer one. Where no value
    stands out (probabilities), the mask is what is brighter than half of white.

    Raises RadiographError for a file that is no picture, and for one in which no value can be told to be background.
    """
    stored = read_stored(path)
    n, shape = len(stored.names), stored.places.shape
    if n == 1:
        is_mask = _is_drawn(stored)
        tones = (
            {0: BLACK, 255: WHITE}.get(int(stored.levels[0]), "") if (stored.colours == stored.levels[0]).all() else ""
        )
        drawn_values = (tuple(stored.names), tuple(stored.keys)) if is_mask else ((), ())
        return MaskValues(np.full(shape, int(is_mask), dtype=np.uint8), *drawn_values, tones)
    edges = [stored.places[[0, -1]].ravel(), stored.places[:, [0, -1]].ravel()]
    border = np.bincount(np.concatenate(edges), minlength=n) / (2 * sum(shape))
    is_chosen = np.ones(2, dtype=bool) if n == 2 and not stored.is_lossy else _chosen(stored)
    if is_chosen is None or not is_chosen.any():
        return _brighter_than_half(stored, border)
    background = _background(stored, is_chosen, border)
    if background is None:
        raise RadiographError(
            f"{Path(path).name}: which of its {n} values is the background cannot be told: make it black or transparent"
        )
    is_background, on_white = background
    is_drawn = is_chosen & ~is_background
    is_void = is_drawn & (stored.colours == VOID).all(axis=1) if stored.colours.shape[1] == 3 else np.zeros(n, bool)
    has_void = bool(is_void.any() and (is_drawn & ~is_void).any())
    if has_void:
        is_drawn, is_background = is_drawn & ~is_void, is_background | is_void
    drawn = np.flatnonzero(is_drawn)
    labels = np.zeros(n, dtype=np.uint8 if len(drawn) < 256 else np.uint16)
    labels[drawn] = np.arange(1, len(drawn) + 1)
    shades = np.flatnonzero(~is_drawn & ~is_background)
    labels[shades] = labels[_nearest(stored, shades, np.flatnonzero(is_drawn | (is_chosen & is_background)))]
    names = tuple(stored.names[place] for place in drawn.tolist())
    keys = tuple(stored.keys[place] for place in drawn.tolist())
    tones = _tones(stored, drawn, on_white)
    return MaskValues(look_up(stored.places, labels), names, keys, tones, has_void)


def looks_like_mask(path: Path) -> bool:
    """Whether a PNG or JPEG file is drawn in a few values, as no radiograph is. Raises RadiographError.

    Much of such a picture is even, and hardly a pixel differs from the four commonest values.
    """
    stored = read_stored(path)
    n = len(stored.names)
    if n <= 2:
        return True
    low, high = _around(stored.grey())
    even = float(np.mean(low == high))
    if n <= FEW and not stored.is_lossy and even >= 0.8:
        return True
    histogram = np.bincount(np.rint(stored.levels).astype(np.int64), stored.counts(), minlength=256)
    explained = 0.0
    for _ in range(4):
        explained += _take_window(histogram, int(np.argmax(np.convolve(histogram, np.ones(17), "same"))))
    return even >= 0.4 and explained >= 0.9 * stored.places.size


def _is_drawn(stored: StoredValues) -> bool:
    """Whether the only value of a picture is mask."""
    # The first index of a palette is the background of those who draw classes; white is whatever it is in others.
    is_first = stored.indices is not None and stored.indices[0] == 0 and not (stored.colours[0] == 255).all()
    return bool(stored.levels[0] > 0) and not is_first


def _background(stored: StoredValues, is_chosen: np.ndarray, border: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """(N,) the values of the background, and whether it is white; None where it cannot be told."""
    near = _NEAR if stored.is_lossy and stored.levels.max() > FEW else 0
    is_black = (stored.colours <= near).all(axis=1) & ~stored.is_clear
    is_white: np.ndarray = np.all(stored.colours >= 255 - near, axis=1)
    if stored.is_clear.any():
        # Black is what was drawn where there is nothing else.
        is_mask = is_chosen & ~is_black & ~stored.is_clear
        return stored.is_clear | (is_black & is_mask.any()), False
    if is_black.any():
        on_white = border[is_white].sum() >= _WHITE
        return (is_white if on_white else is_black), bool(on_white)
    if border[is_white].sum() >= _BACKGROUND:
        return is_white, True
    if stored.indices is not None and border[stored.indices == 0].sum() >= 0.5:
        return stored.indices == 0, False
    commonest = int(np.argmax(np.where(is_chosen, border, 0)))
    if border[commonest] >= _BACKGROUND:
        return np.arange(len(border)) == commonest, False
    return None


def _tones(stored: StoredValues, drawn: np.ndarray, on_white: bool) -> str:
    """Whether one tone was drawn on the opposite one."""
    if len(drawn) != 1 or stored.is_clear.any():
        return ""
    near = _NEAR if stored.is_lossy else 0
    if on_white:
        return BLACK_ON_WHITE if (stored.colours[drawn] <= near).all() else ""
    return WHITE_ON_BLACK if (stored.colours[drawn] >= 255 - near).all() else ""


def _chosen(stored: StoredValues) -> np.ndarray | None:
    """(N,) the values that somebody chose, the others being shades of these; None where none stands out."""
    n, levels, counts = len(stored.names), stored.levels, stored.counts()
    low, high = _around(stored.places)
    is_inner = low == high
    is_plateau = stored.counts(is_inner) >= 0.1 * counts
    is_shade = ~is_plateau & (stored.counts(_is_between(stored, low, high)) >= 0.5 * counts)
    if stored.is_lossy:
        # Classes numbered 1, 2, … come through a JPEG file of high quality.
        return np.ones(n, dtype=bool) if levels.max() <= FEW else _peaks(stored)
    if n > FEW and stored.colours.shape[1] > 1:
        return is_plateau & (counts >= 0.001 * stored.places.size)
    if n > FEW and not (n <= MANY and is_shade.mean() <= 0.2 and _are_edges_sharp(stored, is_inner)):
        return _peaks(stored)
    if levels.max() > 127 and n <= 256:
        # What is left of a lossy picture: rare values beside a common one, nowhere an area of their own.
        near = np.abs(stored.colours[:, None] - stored.colours[None]).max(axis=2) <= _NEAR
        near &= stored.alphas[:, None] == stored.alphas[None]
        is_shade |= ~is_plateau & (near & (20 * counts[:, None] <= counts[None])).any(axis=1)
    return ~is_shade


def _are_edges_sharp(stored: StoredValues, is_inner: np.ndarray) -> bool:
    """Whether most edges are those of objects numbered one by one, and not steps of a slope."""
    low, high = _around(stored.grey())
    steps = (high - low)[~is_inner]
    return len(steps) == 0 or float(np.median(steps)) > stored.levels.max() / 8


def _peaks(stored: StoredValues) -> np.ndarray | None:
    """(N,) the values at which the histogram has peaks of its own, each a few levels wide; None for fewer than two."""
    grey, levels = stored.grey(), np.rint(stored.levels).astype(np.int64)
    low, high = _around(grey)
    counts = stored.counts()
    histogram = np.bincount(levels, counts, minlength=256)
    flat = np.bincount(grey[high - low <= _FLAT], minlength=256)
    least = 0.01 * (grey.size - max(histogram[: _NEAR + 1].sum(), histogram[-_NEAR - 1 :].sum()))
    remaining, is_chosen = histogram.copy(), np.zeros(len(levels), dtype=bool)
    while remaining.any():
        centre = int(np.argmax(remaining))
        window, around = (slice(max(0, centre - reach), centre + reach + 1) for reach in (8, 24))
        flanks = float(histogram[around].sum() - histogram[window].sum())
        mass = _take_window(remaining, centre)
        if mass >= max(1.0, least, 4 * flanks) and flat[window].sum() >= 0.1 * mass:
            in_window = np.flatnonzero(np.abs(levels - centre) <= 8)
            is_chosen[in_window[np.argmax(counts[in_window])]] = True
    return is_chosen if is_chosen.sum() > 1 else None


def _take_window(histogram: np.ndarray, centre: int) -> float:
    """How much a histogram holds within 8 levels of one; it is taken out of it."""
    window = slice(max(0, centre - 8), centre + 9)
    mass = float(histogram[window].sum())
    histogram[window] = 0
    return mass


def _brighter_than_half(stored: StoredValues, border: np.ndarray) -> MaskValues:
    levels = stored.levels
    on_white = bool(border[levels >= 200].sum() >= _WHITE and (levels <= 55).any())
    levels = 255 - levels if on_white else levels
    top = float(levels.max())
    # Where nothing reaches half of white, it is half of the brightest.
    is_mask = levels > (127 if top > 127 else top / 2)
    labels = look_up(stored.places, is_mask.astype(np.uint8))
    names = ("darker than half" if on_white else "brighter than half",)
    return MaskValues(labels, names, (frozenset(),), BLACK_ON_WHITE if on_white else WHITE_ON_BLACK)


def _nearest(stored: StoredValues, of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each value in `of` the nearest in `among`; the brighter one of two."""
    # What is half transparent lies between what is opaque and nothing.
    seen = np.column_stack([stored.colours, stored.alphas])
    among = among[np.argsort(-stored.levels[among], kind="stable")]
    nearest = np.empty(len(of), dtype=np.int64)
    for number, place in enumerate(of.tolist()):
        nearest[number] = among[np.argmin(np.abs(seen[among] - seen[place]).sum(axis=1))]
    return nearest


def _around(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest of the 3 x 3 pixels around each."""
    square = np.ones((3, 3), dtype=np.uint8)
    return cv2.erode(pixels, square), cv2.dilate(pixels, square)


def _is_between(stored: StoredValues, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(height, width) whether a pixel has a lower and a higher one beside it, in one of the channels."""
    if stored.colours.shape[1] == 1 and (stored.alphas == 255).all():
        return (low < stored.places) & (stored.places < high)
    result = np.zeros(stored.places.shape, dtype=bool)
    for channel in (*stored.colours.T, stored.alphas):
        values = look_up(stored.places, np.rint(channel).astype(np.uint8))
        low, high = _around(values)
        result |= (low < values) & (values < high)
    return result
