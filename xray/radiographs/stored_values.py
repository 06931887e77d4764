"""The values that a picture stores: greys, colours, the indices of a palette and transparency, not display grey."""

import dataclasses
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from xray.radiographs.grayscale import STRIP, look_up, white_level
from xray.radiographs.radiograph import RadiographError, radiograph_size, read_radiograph

MOST_COLOURS = 256
"""Up to so many colours of a picture are values of their own; of a picture with more, its brightness is."""

_GREY = 16
"""Levels of 255 by which JPEG's colours differ from what was drawn, and the channels of a grey from each other."""
_AROUND = 40
"""Levels within which what is around a colour belongs to it."""
_MODE, _MOST_DRAWN = 0.002, 16
"""Share of the picture that a colour has if it was drawn, and how many were drawn at most."""
_DIGITS = np.array([256, 16, 1], dtype=np.uint16)


@dataclasses.dataclass
class StoredValues:
    """The pixels of a picture as places in a table of values, each of which occurs.

    places: (height, width) uint8 or uint16, in the order of the values where they are greys.
    colours: (N, 1) grey or (N, 3) red, green and blue, float64 of 0 to 255; black where nothing can be seen.
    alphas: (N,) float64, 0 (transparent) to 255.
    names: each value as it is stored: "1", "#FA3253", or "1 (#800000)" for the index of a palette.
    keys: what each may be called by, in lower case.
    indices: (N,) of a palette, None without one.
    is_lossy: the values waver, as in a JPEG file.
    """

    places: np.ndarray
    colours: np.ndarray
    alphas: np.ndarray
    names: list[str]
    keys: list[frozenset[str]]
    indices: np.ndarray | None = None
    is_lossy: bool = False

    def __post_init__(self) -> None:
        if not self.alphas.any():
            # All of it is transparent: its values count.
            self.alphas = np.full(len(self.alphas), 255.0)
        bright = self.colours.max(axis=1)
        self.is_clear = self.alphas == 0
        # Of black on nothing, how opaque it is. Red and blue are as bright as white.
        is_black_on_nothing = self.is_clear.any() and not bright.any()
        self.levels = self.alphas if is_black_on_nothing else bright * self.alphas / 255

    def counts(self, where: np.ndarray | None = None) -> np.ndarray:
        """(N,) how many pixels have each value, of those in a (height, width) bool array if one is given."""
        return tally(self.places, len(self.names), where)

    def grey(self) -> np.ndarray:
        """(height, width) uint8, the brightness of each pixel."""
        return look_up(self.places, np.rint(self.levels).astype(np.uint8))


def tally(places: np.ndarray, n: int, where: np.ndarray | None = None) -> np.ndarray:
    """(n,) int64: how often each of 0 … n - 1 occurs."""
    flat = places.reshape(-1)
    chosen = None if where is None else where.reshape(-1)
    counts = np.zeros(n, dtype=np.int64)
    for start in range(0, len(flat), STRIP):
        part = flat[start : start + STRIP]
        counts += np.bincount(part if chosen is None else part[chosen[start : start + STRIP]], minlength=n)
    return counts


def read_stored(path: Path | str) -> StoredValues:
    """Reads a PNG or JPEG file by what it stores, a DICOM file by its display grey.

    Raises RadiographError, naming the file, where it is no picture, is damaged or too large.
    """
    path = Path(path)
    # Its size first: what is too large, truncated or no picture at all is refused there.
    radiograph_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=["PNG", "JPEG"]) as picture:
                return _of_png(picture, path) if picture.format == "PNG" else _of_jpeg(picture)
    except PIL.UnidentifiedImageError:
        return _of_greys(read_radiograph(path).pixels, 255)
    except MemoryError:
        raise RadiographError(f"{path.name}: reading it needs more memory than there is") from None
    except Exception as error:  # whatever Pillow raises on damaged bytes
        # Pillow names the file with its folder, which may name a patient.
        what = str(error).replace(str(path), path.name)
        raise RadiographError(f"{path.name}: damaged picture ({type(error).__name__}: {what})") from None


def _of_jpeg(picture: PIL.Image.Image) -> StoredValues:
    if picture.mode == "L":
        return _of_greys(np.asarray(picture), 255, is_lossy=True)
    pixels = np.asarray(picture.convert("RGB"))
    bright = pixels.max(axis=2)
    is_coloured = cv2.subtract(bright, pixels.min(axis=2)) > _GREY
    drawn = _drawn_colours(pixels) if is_coloured.mean() >= _MODE else None
    return _of_greys(bright, 255, is_lossy=True) if drawn is None else drawn


def _drawn_colours(pixels: np.ndarray) -> StoredValues | None:
    """(height, width, 3) uint8 of a JPEG file in a few colours → each pixel as the nearest; None for other files.

    A yellow lung and a white background are equally bright: only their colours differ.
    """
    step = math.ceil(math.sqrt(pixels[..., 0].size / STRIP))
    sample, square = np.ascontiguousarray(pixels[::step, ::step]), np.ones((3, 3), dtype=np.uint8)
    is_even = (cv2.subtract(cv2.dilate(sample, square), cv2.erode(sample, square)) <= _GREY).all(axis=2)
    even = sample[is_even]
    if 2 * len(even) < is_even.size:
        return None
    modes = _modes(even, _MODE * is_even.size)
    nearest = _nearest_mode(even, modes)
    drawn = np.array([np.median(even[nearest == number], axis=0) for number in np.unique(nearest).tolist()])
    # A photograph has shades of all kinds, and so has a radiograph with something drawn on it.
    is_drawn = np.abs(even - drawn[_nearest_mode(even, drawn)]).max(axis=1) <= _GREY
    if not 2 <= len(drawn) <= _MOST_DRAWN or is_drawn.mean() < 0.95:
        return None
    # Of each of 32 x 32 x 32 cubes of colours the nearest, so that a pixel is but looked up.
    cubes = np.stack(np.unravel_index(np.arange(32**3), (32, 32, 32)), axis=1) * 8 + 4
    table = _nearest_mode(cubes, drawn)
    places = np.empty(pixels.shape[:2], dtype=np.uint8)
    rows = max(1, STRIP // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        red, green, blue = (part.astype(np.uint16) for part in cv2.split(pixels[start : start + rows] >> 3))
        places[start : start + rows] = table[(red << 10) | (green << 5) | blue]
    colours = np.where(drawn <= _GREY, 0, np.where(drawn >= 255 - _GREY, 255, drawn)).round()
    names = [_hex(colour) for colour in colours]
    keys = [frozenset((name.lower(),)) for name in names]
    return StoredValues(places, colours, np.full(len(colours), 255.0), names, keys)


def _modes(colours: np.ndarray, least: float) -> np.ndarray:
    """(N, 3) uint8 → (K, 3) the colours around which at least so many of them lie, K being 1 to _MOST_DRAWN + 1."""
    bins, counts = np.unique((colours >> 4).astype(np.uint16) @ _DIGITS, return_counts=True)
    centres = np.stack([bins >> 8, (bins >> 4) & 15, bins & 15], axis=1).astype(np.float64) * 16 + 8
    modes: list[np.ndarray] = []
    while counts.any() and len(modes) <= _MOST_DRAWN:
        is_near = np.abs(centres - centres[np.argmax(counts)]).max(axis=1) <= _AROUND
        if counts[is_near].sum() >= least or not modes:
            modes.append(np.average(centres, axis=0, weights=counts * is_near))
        counts = counts * ~is_near
    return np.array(modes)


def _nearest_mode(colours: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 → (...) uint8, which of (K, 3) modes is nearest to each."""
    distances = [np.abs(colours - mode.astype(np.float32)).sum(axis=-1) for mode in modes]
    nearest: np.ndarray = np.argmin(distances, axis=0)
    return nearest.astype(np.uint8)


def _of_png(picture: PIL.Image.Image, path: Path) -> StoredValues:
    clear = picture.info.get("transparency")
    if picture.mode == "P":
        return _of_palette(picture)
    if picture.mode == "1":
        return _of_greys(np.asarray(picture).astype(np.uint8) * np.uint8(255), 255, 255, clear)
    if picture.mode == "L":
        # Pillow spreads values of 2 and 4 bits over all of the range.
        with open(path, "rb") as file:
            bits = file.read(25)[24]
        return _of_greys(np.asarray(picture), 255, {1: 255, 2: 85, 4: 17}.get(bits, 1), clear)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        values = values if values.dtype == np.uint16 else values.clip(0, 65535).astype(np.uint16)
        return _of_greys(values, white_level(int(values.max()), 16), 1, clear)
    return _of_colours(np.array(picture.convert("RGBA")))


def _of_greys(
    pixels: np.ndarray, white: int, scale: int = 1, clear: object = None, is_lossy: bool = False
) -> StoredValues:
    """(height, width) uint8 or uint16. scale: of the stored values. clear: the stored value that is transparent."""
    values = np.flatnonzero(tally(pixels, 256 if pixels.dtype == np.uint8 else 65536))
    places = np.zeros(int(values[-1]) + 1, dtype=np.uint8 if len(values) <= 256 else np.uint16)
    places[values] = np.arange(len(values))
    in_file = (values // scale).tolist()
    is_seen = np.array([type(clear) is not int or value != clear for value in in_file])
    is_seen |= not is_seen.any()
    colours = np.minimum(255.0, values[:, None] * (255 / white)) * is_seen[:, None]
    keys = [{str(stored), str(value)} for stored, value in zip(in_file, values.tolist(), strict=True)]
    if white == 255:
        keys = [key | {f"#{value:02x}{value:02x}{value:02x}"} for key, value in zip(keys, values.tolist(), strict=True)]
    names = [str(value) for value in in_file]
    alphas = np.where(is_seen, 255.0, 0.0)
    return StoredValues(
        look_up(pixels, places), colours, alphas, names, [frozenset(key) for key in keys], None, is_lossy
    )


def _of_palette(picture: PIL.Image.Image) -> StoredValues:
    pixels = np.asarray(picture)
    indices = np.flatnonzero(tally(pixels, 256))
    table, opaque = np.zeros((256, 3)), np.full(256, 255.0)
    palette = np.array(picture.getpalette("RGB") or [], dtype=np.float64)[: 3 * 256].reshape(-1, 3)
    table[: len(palette)] = palette
    clear = picture.info.get("transparency")
    if isinstance(clear, bytes):
        opaque[: len(clear)] = list(clear[:256])
    elif isinstance(clear, int) and 0 <= clear < 256:
        opaque[clear] = 0
    if len(indices) > 1 and (table[indices] == table[indices[0]]).all() and (opaque[indices] == 255).all():
        # A palette that tells nothing apart: the indices are what was meant.
        return _of_greys(pixels, 255)
    names, keys = [], []
    for index in indices.tolist():
        colour = _hex(table[index])
        names.append(str(index) if (table[index] == index).all() else f"{index} ({colour})")
        keys.append(frozenset((str(index), colour.lower())))
    places = np.zeros(256, dtype=np.uint8)
    places[indices] = np.arange(len(indices))
    alphas = opaque[indices]
    colours = table[indices] * ((alphas[:, None] > 0) | ~alphas.any())
    return StoredValues(look_up(pixels, places), colours, alphas, names, keys, indices)


def _of_colours(pixels: np.ndarray) -> StoredValues:
    """(height, width, 4) uint8 RGBA."""
    if not pixels[..., 3].any():
        pixels[..., 3] = 255
    pixels[pixels[..., 3] == 0] = 0
    counted = PIL.Image.fromarray(pixels).getcolors(MOST_COLOURS)
    if counted is None:
        bright, alpha = pixels[..., :3].max(axis=2), pixels[..., 3]
        return _of_greys(cv2.multiply(bright, alpha, scale=1 / 255) if bright.any() else alpha, 255)
    table = np.array(sorted(colour for _, colour in counted), dtype=np.uint8)
    codes = np.ascontiguousarray(table).view("<u4").ravel()
    order = np.argsort(codes)
    places = np.empty(pixels.shape[:2], dtype=np.uint8)
    for row in range(len(pixels)):
        line = np.ascontiguousarray(pixels[row]).view("<u4").ravel()
        places[row] = order[np.searchsorted(codes[order], line)]
    names, keys = [], []
    for *colour, alpha in table.tolist():
        plain = [str(colour[0])] if len(set(colour)) == 1 else []
        names.append((plain or [_hex(colour)])[0] + (f" at {alpha} of 255" if 0 < alpha < 255 else ""))
        keys.append(frozenset([_hex(colour).lower(), *plain]))
    return StoredValues(places, table[:, :3].astype(np.float64), table[:, 3].astype(np.float64), names, keys)


def _hex(colour: Iterable[float]) -> str:
    return "#" + "".join(f"{int(value):02X}" for value in colour)
