"""COCO segmentations (polygons, plain or compressed run lengths) → compressed RLE at the radiograph's original size,
and from there onto the canvas."""

import functools
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from xray.data import source as reasons
from xray.data.rle import BEYOND, DISORDER, MALFORMED
from xray.data.store import Store

MAX_CHARACTERS = 8
"""Of one number of compressed run lengths: 40 bits, far more than a radiograph's pixels need."""


UNUSABLE = "unusable mask"


class MaskError(ValueError):
    """A segmentation that is no mask of the radiograph; `reason` is one of a few fixed texts, to count by."""

    def __init__(self, message: str, reason: str = UNUSABLE) -> None:
        super().__init__(message)
        self.reason = reason


def encode_mask(segmentation: Any, width: int, height: int) -> tuple[dict[str, Any], int]:
    """A COCO segmentation → ({"size": [height, width], "counts": str}, its number of pixels).

    segmentation: a list of polygons [x1, y1, x2, y2, …] in original pixels, or an RLE whose counts are a list or a
    string.

    Raises MaskError for a polygon with fewer than three points or coordinates that are not finite, for run lengths
    that do not fill the radiograph exactly, for another size, and for a mask without a pixel.
    """
    width, height = int(width), int(height)
    if isinstance(segmentation, dict):
        rle = _check_rle(segmentation, width, height)
    elif isinstance(segmentation, list) and segmentation:
        polygons = [_check_polygon(polygon) for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise MaskError("neither polygons nor run lengths")
    n_pixels = int(coco_mask.area(rle))
    if n_pixels == 0:
        raise MaskError("the mask has no pixel")
    counts = rle["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}, n_pixels


def decode_mask(rle: dict[str, Any]) -> np.ndarray:
    """A compressed COCO RLE → (height, width) uint8 of 0 and 1. Raises ValueError where its counts do not fit."""
    return coco_mask.decode(rle)


def mask_canvas(store: Store, row: int) -> np.ndarray:
    """The true masks of one radiograph on its canvas → (K, S, S) uint8 of 0 and 1, nearest neighbour.

    K: the store's categories in the order of their ids. Masks of one category are joined; a box without a mask leaves
    nothing. The same as letterboxing the decoded masks, in a time that does not depend on the radiograph's size.
    Raises ValueError for run lengths that do not fill the radiograph.
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
        raise ValueError(f"run lengths for [height, width] {rle['size']}, the radiograph is {[height, width]}")
    edges = np.cumsum(_decompress(rle["counts"]))
    if len(edges) == 0 or edges[-1] != width * height or (np.diff(edges) < 0).any():
        raise ValueError(f"run lengths do not cover the {width * height} pixels")
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


def _check_polygon(polygon: Any) -> list[float]:
    try:
        points = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        raise MaskError("a polygon's coordinates are not numbers") from None
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise MaskError("a polygon needs at least three points with finite coordinates")
    # pycocotools draws the outline point by point: coordinates far outside would cost time and memory without end.
    if np.abs(points).max() > 1e6:
        raise MaskError("a polygon lies far outside the radiograph")
    return points.tolist()


def _check_rle(rle: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise MaskError(
            f"run lengths for [height, width] {size}, the radiograph is {[height, width]}", reasons.MASK_SIZE
        )
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    runs = _decompress(counts).tolist() if isinstance(counts, str) else counts
    # The C code behind pycocotools trusts its input: what does not fill the image exactly never reaches it.
    if not isinstance(runs, list) or not all(isinstance(run, int) for run in runs):
        raise MaskError("run lengths must be whole numbers of at least 0", MALFORMED)
    if any(run < 0 for run in runs):
        raise MaskError(f"run lengths must be whole numbers of at least 0, and one is {min(runs)}", DISORDER)
    if sum(runs) != width * height:
        reason = BEYOND if sum(runs) > width * height else MALFORMED
        raise MaskError(f"run lengths cover {sum(runs)} of {width * height} pixels", reason)
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)


def _decompress(text: str) -> np.ndarray:
    """COCO's compressed counts: five bits a character from "0" on, bit 6 for "goes on", from the fourth run on as the
    difference to the last run but one (the LEB128-like code of pycocotools' maskApi)."""
    codes = np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 0x20 == 0)
    starts = np.concatenate([[0], last + 1])
    lengths = np.diff(starts, append=len(codes))
    if ((codes < 0) | (codes >= 64)).any() or not text.isascii() or (lengths > MAX_CHARACTERS).any():
        raise MaskError("compressed run lengths hold a character that is none of COCO's", MALFORMED)
    if lengths[-1]:
        raise MaskError("compressed run lengths end in the middle of a number", MALFORMED)
    if len(last) == 0:
        return last
    starts, lengths = starts[:-1], lengths[:-1]
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[last] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
