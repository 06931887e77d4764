"""COCO segmentations (polygons, plain or compressed run lengths) → compressed RLE at the radiograph's original size."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def encode_mask(segmentation: Any, width: int, height: int) -> tuple[dict[str, Any], int]:
    """A COCO segmentation → ({"size": [height, width], "counts": str}, its number of pixels).

    segmentation: a list of polygons [x1, y1, x2, y2, …] in original pixels, or an RLE whose counts are a list or a
    string.

    Raises ValueError for a polygon with fewer than three points or coordinates that are not finite, for run lengths
    that do not fill the radiograph exactly, for another size, and for a mask without a pixel.
    """
    width, height = int(width), int(height)
    if isinstance(segmentation, dict):
        rle = _check_rle(segmentation, width, height)
    elif isinstance(segmentation, list) and segmentation:
        polygons = [_check_polygon(polygon) for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise ValueError("neither polygons nor run lengths")
    n_pixels = int(coco_mask.area(rle))
    if n_pixels == 0:
        raise ValueError("the mask has no pixel")
    counts = rle["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}, n_pixels


def decode_mask(rle: dict[str, Any]) -> np.ndarray:
    """A compressed COCO RLE → (height, width) uint8 of 0 and 1. Raises ValueError where its counts do not fit."""
    return coco_mask.decode(rle)


def _check_polygon(polygon: Any) -> list[float]:
    try:
        points = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon's coordinates are not numbers") from None
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError("a polygon needs at least three points with finite coordinates")
    # pycocotools draws the outline point by point: coordinates far outside would cost time and memory without end.
    if np.abs(points).max() > 1e6:
        raise ValueError("a polygon lies far outside the radiograph")
    return points.tolist()


def _check_rle(rle: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise ValueError(f"run lengths for [height, width] {size}, the radiograph is {[height, width]}")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    # The C code behind pycocotools trusts its input: what does not fill the image exactly never reaches it.
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("run lengths must be whole numbers of at least 0")
    if sum(runs) != width * height:
        raise ValueError(f"run lengths cover {sum(runs)} of {width * height} pixels")
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)


def _decompress(text: str) -> list[int]:
    """COCO's compressed counts: five bits a character from "0" on, bit 6 for "goes on", from the third run on as the
    difference to the last run but one (the LEB128-like code of pycocotools' maskApi)."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("compressed run lengths hold a character that is none of COCO's")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of a number")
    return runs
