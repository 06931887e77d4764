"""True masks of a dataset's radiographs on their canvases."""

import functools
from typing import Any

import cv2
import numpy as np

from xray.datasets.store import Store
from xray.structures.masks import MaskError, decompress


def mask_canvas(store: Store, row: int) -> np.ndarray:
    """The true masks of one radiograph on its canvas → (K, S, S) uint8 of 0 and 1, nearest neighbour.

    K: the store's categories in the order of their ids. Masks of one category are joined; boxes without a mask are left
    out. The same as letterboxing the decoded masks, in a time that does not depend on the radiograph's size.
    Raises MaskError for run lengths that do not fill the radiograph.
    """
    place = {category: number for number, category in enumerate(store.categories)}
    canvas, size = store.canvas(row), store.canvas_size
    left, top, right, bottom = canvas.content
    result = np.zeros((len(place), size, size), dtype=np.uint8)
    for box in np.flatnonzero(store.boxes.images == row).tolist():
        if box in store.masks:
            seen = _shrink(store.masks[box], canvas.width, canvas.height, right - left, bottom - top)
            result[place[int(store.boxes.labels[box])], top:bottom, left:right] |= seen
    return result


def _shrink(rle: dict[str, Any], width: int, height: int, new_width: int, new_height: int) -> np.ndarray:
    """A compressed COCO RLE → (new_height, new_width) uint8 of 0 and 1 by nearest neighbour, without decoding it."""
    if rle["size"] != [height, width]:
        raise MaskError(f"run lengths for [height, width] {rle['size']}, the radiograph is {[height, width]}")
    edges = np.cumsum(decompress(rle["counts"]))
    if len(edges) == 0 or edges[-1] != width * height or (np.diff(edges) < 0).any():
        raise MaskError(f"run lengths do not cover the {width * height} pixels")
    # Nearest neighbour looks at some columns and some rows only. An edge of a run, counted in pixels down the columns
    # of the radiograph, lies behind so many of the pixels looked at.
    columns, repeats = _nearest(width, new_width)
    rows = np.repeat(*_nearest(height, new_height))
    x, y = np.divmod(edges, height)
    before = np.searchsorted(columns, x)
    is_seen = columns[before.clip(max=len(columns) - 1)] == x
    sampled = before * new_height + np.where(is_seen, np.searchsorted(rows, y), 0)
    counts = np.diff(sampled, prepend=0)
    transposed = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), counts).reshape(len(columns), new_height)
    return (transposed if len(columns) == new_width else np.repeat(transposed, repeats, axis=0)).T


@functools.lru_cache(maxsize=1024)
def _nearest(n: int, n_new: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n pixels in a line n_new show, by OpenCV's own rule, and how many show each; int64, ascending."""
    line = np.arange(n, dtype=np.float32)[None]
    shown = cv2.resize(line, (n_new, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0].astype(np.int64)
    return np.unique(shown, return_counts=True)
