"""Small pictures of all radiographs of a dataset, which duplicates and oddities are looked for in.

A radiograph's canvas is cut to what the radiograph fills, uniform borders are cut off, too, and the rest is brought to
one square size, so that neither the canvas, nor a black frame, nor the aspect tells two copies apart.
"""

import dataclasses
import mmap
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from xray.datasets.store import Store

SIDE = 64
"""Of the small pictures, in pixels."""
FINE = 128
"""Of the pictures that two radiographs are compared in at last."""
BETWEEN = 256
"""Canvases that are read before their memory is given back."""
FLAT = 8
"""Grey levels by which a line of a uniform border may vary."""
LEAST_LEFT = 0.4
"""Share of a side that cutting off borders leaves at least; of radiographs that are almost uniform nothing is cut."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """small: (N, SIDE, SIDE) uint8. fine: (N, FINE, FINE) uint8, 16 KiB each: so no canvas is read a second time, as
    candidates for copies hardly ever follow each other. content: (N, 2) float64, lowest and highest grey level but for
    2 % at each end."""

    small: np.ndarray
    fine: np.ndarray
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.small)


def read_pictures(store: Store, progress: Callable[[int], None] = lambda done: None) -> Pictures:
    """Reads every canvas once; memory holds pictures of at most FINE pixels alone.

    progress: called with the number of radiographs that are done.
    """
    n = len(store)
    small, all_fine = np.zeros((n, SIDE, SIDE), dtype=np.uint8), np.zeros((n, FINE, FINE), dtype=np.uint8)
    content = np.zeros((n, 2))
    for row in range(n):
        fine = all_fine[row] = fine_picture(store, row)
        small[row] = cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        content[row] = np.quantile(fine, [0.02, 0.98])
        if (row + 1) % BETWEEN == 0:
            _let_go(store)
        progress(row + 1)
    return Pictures(small, all_fine, content)


def _let_go(store: Store) -> None:
    """Gives back the memory into which canvases that were read are mapped: 15,000 of 1024 pixels have 15 GB."""
    mapped = getattr(store.images, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def fine_picture(store: Store, row: int) -> np.ndarray:
    """(FINE, FINE) uint8, the radiograph without borders."""
    assert store.images is not None  # opened with its pixels
    left, top, right, bottom = store.canvas(row).content
    return square(np.ascontiguousarray(store.images[row, top:bottom, left:right]), FINE)


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """(height, width) uint8 → (side, side) uint8, without uniform borders."""
    return _resized(without_borders(pixels), side)


def without_borders(pixels: np.ndarray) -> np.ndarray:
    """The part of a radiograph (height, width) inside the uniform lines along its edges, which collimation and padding
    leave; all of it where next to nothing else would be left."""
    # What is looked for are frames of some width: a coarse copy shows them, and text in them does not.
    coarse = _resized(pixels, FINE) if max(pixels.shape) > 2 * FINE else pixels
    spans = []
    for axis in (1, 0):
        low, high = np.quantile(coarse, [0.04, 0.96], axis=axis)
        busy = np.flatnonzero(high - low > FLAT)
        if len(busy) < LEAST_LEFT * coarse.shape[1 - axis]:
            return pixels
        factor = pixels.shape[1 - axis] / coarse.shape[1 - axis]
        spans.append((int(busy[0] * factor), int(np.ceil((busy[-1] + 1) * factor))))
    (top, bottom), (left, right) = spans
    return pixels[top:bottom, left:right]


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    shrinks = min(pixels.shape) >= side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(pixels), (side, side), interpolation=interpolation)


def standardized(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W) → (N, H, W) float32, each with mean 0 and norm 1; uniform ones are all 0."""
    pictures = pictures.astype(np.float32)
    pictures = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((pictures**2).sum(axis=(1, 2), keepdims=True))
    return np.divide(pictures, norms, out=np.zeros_like(pictures), where=norms > 1e-6)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n)."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
