"""COCO segmentations (polygons, plain or compressed run lengths) → compressed RLE at the radiograph's original size."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.rle import BEYOND, DISORDER, MALFORMED, coco_counts, runs_of

MAX_CHARACTERS = 8
"""Of one number of compressed run lengths: 40 bits, far more than a radiograph's pixels need."""
MAX_OUTLINE = 2_000_000
"""Pixels along all polygons of a mask; around a radiograph of 74 million they are 34,000."""

UNUSABLE = "unusable mask"
MASK_SIZE = "mask and image differ in size"


class MaskError(InputError, ValueError):
    """A segmentation that is no mask of the radiograph; `reason` is one of a few fixed texts, to count by."""

    def __init__(self, message: str, reason: str = UNUSABLE) -> None:
        super().__init__(message)
        self.reason = reason


def encode_mask(segmentation: Any, width: int, height: int, may_be_empty: bool = False) -> tuple[dict[str, Any], int]:
    """A COCO segmentation → ({"size": [height, width], "counts": str}, its number of pixels).

    segmentation: a list of polygons [x1, y1, x2, y2, …] in original pixels, or an RLE whose counts are a list or a
    string.

    Raises MaskError for a polygon with fewer than three points or coordinates that are not finite, for run lengths
    that do not fill the radiograph exactly, for another size, and for a mask without a pixel unless it may be empty.
    """
    width, height = int(width), int(height)
    _check_size(width, height)
    if isinstance(segmentation, dict):
        rle = check_run_lengths(segmentation, width, height)
    elif isinstance(segmentation, list) and segmentation:
        polygons = _check_polygons(segmentation)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise MaskError("neither polygons nor run lengths")
    n_pixels = int(coco_mask.area(rle))
    if n_pixels == 0 and not may_be_empty:
        raise MaskError("the mask has no pixel")
    counts = rle["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}, n_pixels


def decode_mask(rle: dict[str, Any]) -> np.ndarray:
    """A COCO RLE → (height, width) uint8 of 0 and 1. Raises MaskError where its counts do not fit its size."""
    pixels: np.ndarray = coco_mask.decode(check_run_lengths(rle, *_size_of(rle)))
    return pixels


def check_segmentation(segmentation: Any) -> None:
    """Raises MaskError unless a COCO segmentation is polygons, or an RLE whose counts fill a size within limits."""
    if isinstance(segmentation, list) and segmentation:
        _check_polygons(segmentation)
    else:
        check_run_lengths(segmentation, *_size_of(segmentation))


def resized_mask(segmentation: Any, width: int, height: int, new_width: int, new_height: int) -> dict[str, Any]:
    """A COCO segmentation of one size → RLE of another, by the nearest pixel. Raises MaskError as `encode_mask`."""
    rle, _ = encode_mask(segmentation, width, height, may_be_empty=True)
    pixels = cv2.resize(decode_mask(rle), (new_width, new_height), interpolation=cv2.INTER_NEAREST_EXACT)
    return encode_pixels(pixels)


def encode_pixels(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) mask, nonzero where it is → COCO's compressed RLE {"size": [H, W], "counts": str}."""
    height, width = mask.shape
    counts = coco_counts(*runs_of(mask), mask.size).tolist()
    return encode_mask({"size": [height, width], "counts": counts}, width, height, may_be_empty=True)[0]


def box_around(segmentation: Any) -> list[float]:
    """x, y, width, height around a COCO segmentation, in pixels; zeros for an empty one. Raises MaskError."""
    if isinstance(segmentation, list):
        points = np.concatenate(_check_polygons(segmentation)).reshape(-1, 2)
        return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]
    box: list[float] = coco_mask.toBbox(check_run_lengths(segmentation, *_size_of(segmentation))).tolist()
    return box


def _check_polygons(polygons: list[Any]) -> list[list[float]]:
    checked, outline = [], 0.0
    for polygon in polygons:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise MaskError("a polygon's coordinates are not numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise MaskError("a polygon needs at least three points with finite coordinates")
        # pycocotools draws the outline point by point, several to the pixel: one that is far outside or goes to and fro
        # would cost time and memory without end.
        if np.abs(points).max() > 1e6:
            raise MaskError("a polygon lies far outside the radiograph")
        corners = points.reshape(-1, 2)
        outline += float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())
        if outline > MAX_OUTLINE:
            raise MaskError(f"the outline of its polygons is longer than {MAX_OUTLINE} pixels")
        checked.append(points.tolist())
    return checked


def _size_of(rle: Any) -> tuple[int, int]:
    """Width and height of an RLE."""
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise MaskError(f"run lengths need a size [height, width], not {str(size)[:40]}")
    _check_size(size[1], size[0])
    return size[1], size[0]


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MaskError(f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")


def check_run_lengths(rle: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """The same RLE, compressed. Raises MaskError unless it fills a radiograph of that size: the C code behind
    pycocotools trusts what it gets."""
    _check_size(width, height)
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise MaskError(
            f"run lengths for [height, width] {str(size)[:40]}, the radiograph is {[height, width]}", MASK_SIZE
        )
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        runs = decompress(counts)
        # The largest first: a sum of larger ones might overflow into the right one.
        lowest, highest = (int(runs.min()), int(runs.max())) if len(runs) else (0, 0)
        total = highest if highest > width * height else int(runs.sum())
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        lowest, total = min(counts, default=0), sum(counts)
    else:
        raise MaskError("run lengths must be whole numbers of at least 0", MALFORMED)
    if lowest < 0:
        raise MaskError(f"run lengths must be whole numbers of at least 0, and one is {lowest}", DISORDER)
    if total != width * height:
        reason = BEYOND if total > width * height else MALFORMED
        raise MaskError(f"run lengths cover {total} of {width * height} pixels", reason)
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    compressed: dict[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return compressed


def decompress(text: str) -> np.ndarray:
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
