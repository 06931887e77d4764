"""COCO segmentations in every form that tools write → polygons or run lengths, and the box around them.

Written are: polygons as [[x1, y1, x2, y2, …], …], as one flat list, or as lists of points; run lengths as COCO's text,
as a list of numbers (some of them 12.0 or "12"), with iscrowd 1 or not; and whole masks as rows of 0 and 1.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from xray.datasets import source as reasons
from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.masks import MaskError, check_run_lengths
from xray.structures.rle import MALFORMED, coco_counts, runs_of
from xray.structures.values import finite_number, is_missing, whole_number

TRANSPOSED = "run lengths with width and height in the other order"
SLIVER = "part of a mask with fewer than three points"

Segmentation = list[list[float]] | dict[str, Any]
"""Polygons [x1, y1, x2, y2, …] in pixels, or {"size": [height, width], "counts": numbers or COCO's text}."""


def plain_segmentation(value: Any) -> tuple[Segmentation | None, int]:
    """A segmentation in any form → (itself as polygons or run lengths, number of its parts that were left out).

    None where there is none (null, [], [[]]). Parts of fewer than three points have no area, and pycocotools takes
    such a list of four numbers for a box: they are left out as long as another part is there.

    Raises MaskError for what is none of these forms.
    """
    if isinstance(value, dict) and value:
        return _run_lengths(value), 0
    if value in ([], {}) or is_missing(value):
        return None, 0
    if not isinstance(value, list):
        raise MaskError("neither polygons nor run lengths")
    parts = [value] if not isinstance(value[0], list | tuple) else [part for part in value if part != []]
    if not parts:
        return None, 0
    if any(not isinstance(part, list | tuple) for part in parts):
        raise MaskError("a polygon's coordinates are not numbers")
    if _is_dense(parts):
        return _encode_dense(np.array(parts, dtype=np.uint8)), 0
    if all(len(part) == 2 for part in parts) and len(parts) >= 3:
        # One polygon, as a list of its points.
        parts = [list(itertools.chain.from_iterable(parts))]
    polygons = [_coordinates(part) for part in parts]
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    if not whole:
        raise MaskError("a polygon needs at least three points with finite coordinates")
    return whole, len(polygons) - len(whole)


def bounds(segmentation: Segmentation, width: int | None = None, height: int | None = None) -> np.ndarray:
    """(4,) float64 xyxy around a plain segmentation, in pixels, edges included.

    width, height: of the radiograph, where they are known; run lengths must be of that size.

    Raises MaskError for run lengths that do not fill their size, or are of another size, and for a mask without area.
    """
    if isinstance(segmentation, list):
        points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation])
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        size = segmentation["size"]
        checked = check_run_lengths(segmentation, width or size[1], height or size[0])
        x, y, w, h = coco_mask.toBbox(checked).tolist()
        box = np.array([x, y, x + w, y + h])
    if (box[2:] <= box[:2]).any():
        raise MaskError("the mask has no area", reasons.EMPTY)
    return box


def turned(segmentation: Segmentation | None, box: np.ndarray, width: int, height: int) -> Segmentation | None:
    """Run lengths whose size is written [width, height] as they were meant; None where nothing speaks for that.

    What speaks for it is the annotation's own box (xyxy): read the right way round, the mask fits it to the pixel.
    """
    if not isinstance(segmentation, dict) or width == height or segmentation["size"] != [width, height]:
        return None
    other = {"size": [height, width], "counts": segmentation["counts"]}
    try:
        return other if (np.abs(bounds(other) - box) <= 1).all() else None
    except MaskError:
        return None


def _run_lengths(value: dict[str, Any]) -> dict[str, Any]:
    size, counts = value.get("size"), value.get("counts")
    try:
        sides = [whole_number(side) for side in size] if isinstance(size, list | tuple) else []
    except ValueError:
        sides = []
    if len(sides) != 2 or any(side is None or side < 1 for side in sides):
        raise MaskError(f"run lengths need a size [height, width], not {str(size)[:40]}")
    if isinstance(counts, list):
        try:
            counts = [run if type(run) is int else whole_number(run) for run in counts]
        except ValueError:
            counts = [None]
        if None in counts:
            raise MaskError("run lengths must be whole numbers of at least 0", MALFORMED)
    elif not isinstance(counts, str | bytes):
        raise MaskError("run lengths need counts, a list or COCO's text", MALFORMED)
    return {"size": sides, "counts": counts}


def _coordinates(part: Sequence[Any]) -> list[float]:
    """x1, y1, x2, y2, … of one polygon, which may also be a list of points."""
    flat = list(itertools.chain.from_iterable(part)) if all(isinstance(p, list | tuple) for p in part) else list(part)
    try:
        numbers = [finite_number(number) for number in flat]
    except (ValueError, TypeError):
        numbers = [None]
    if None in numbers or len(numbers) % 2:
        raise MaskError("a polygon's coordinates are not pairs of finite numbers")
    return [float(number) for number in numbers if number is not None]


def _is_dense(rows: Sequence[Any]) -> bool:
    """Whether a list is the rows of a mask of 0 and 1; no polygon has such corners alone."""
    width = len(rows[0])
    if len(rows) < 2 or width < 3 or len(rows) * width > MAX_PIXELS or any(len(row) != width for row in rows):
        return False
    return all(type(value) in (bool, int, float) and value in (0, 1) for row in rows for value in row)


def _encode_dense(mask: np.ndarray) -> dict[str, Any]:
    starts, ends = runs_of(mask)
    return {"size": list(mask.shape), "counts": coco_counts(starts, ends, mask.size).tolist()}
