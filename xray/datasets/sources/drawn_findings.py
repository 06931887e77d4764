"""A finding drawn by a reader as contours, as a mask of run lengths, or both → its parts, in worker processes."""

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw

from xray.datasets.sources.mask_reading import Region, regions
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.radiograph import RadiographError
from xray.structures.masks import MASK_SIZE, UNUSABLE, MaskError, decode_mask

DISAGREE = "mask and contours disagree"
SMALLEST_AGREEMENT = 0.8
"""IoU of a mask with what its contours enclose; versions of a drawing library differ in the pixels of the outline."""
SPECK_SHARE = 1e-5
"""Share of the radiograph: smaller parts beside larger ones of a finding are slips of the pen. CheXlocalize has one of
four pixels in its published sample; the smallest nodules have a thousand."""


@dataclasses.dataclass(frozen=True)
class DrawnFinding:
    """One finding of one radiograph. mask: a COCO RLE. contours: [[x, y], …] each, in pixels. None where not drawn so.

    size: (width, height) in which it is drawn.
    """

    category: int
    size: tuple[int, int]
    mask: dict[str, Any] | None
    contours: list[Any] | None


@dataclasses.dataclass(frozen=True)
class DrawnImage:
    """A radiograph's drawn findings. both: masks and contours are given for all, and one of them alone is a fault."""

    name: str
    findings: tuple[DrawnFinding, ...]
    both: bool


@dataclasses.dataclass(frozen=True)
class DrawnRegions:
    """The parts of a radiograph's findings; reason and detail where they cannot be used.

    n_specks: parts that are left out beside larger ones.
    """

    regions: tuple[Region, ...] = ()
    n_specks: int = 0
    reason: str = ""
    detail: str = ""


def read_drawn(image: DrawnImage) -> DrawnRegions:
    """The 8-connected parts of each finding of a radiograph, from its masks, or its contours where there are none."""
    parts: list[Region] = []
    n_specks = 0
    for finding in image.findings:
        try:
            mask = None if finding.mask is None else _checked(finding)
            drawn = None if finding.contours is None else within(finding.contours, *finding.size)
            if image.both and (fault := _disagreement(mask, drawn)):
                return DrawnRegions(reason=DISAGREE, detail=fault)
            shown = mask if mask is not None else drawn
            if shown is not None:
                of_finding, specks = _parts(shown, finding.category)
                parts, n_specks = parts + of_finding, n_specks + specks
        except MaskError as error:
            return DrawnRegions(reason=error.reason, detail=str(error))
        except RadiographError as error:
            return DrawnRegions(reason=UNUSABLE, detail=str(error))
    return DrawnRegions(tuple(parts), n_specks=n_specks)


def _parts(shown: np.ndarray, category: int) -> tuple[list[Region], int]:
    """The parts of a finding, and the number of specks that are left out; a finding of specks alone keeps them."""
    smallest = max(1, math.ceil(SPECK_SHARE * shown.size))
    parts, n_small = regions(shown, category, smallest)
    return (parts, n_small) if parts else (regions(shown, category)[0], 0)


def _checked(finding: DrawnFinding) -> np.ndarray:
    assert finding.mask is not None
    width, height = finding.size
    if finding.mask.get("size") != [height, width]:
        found = str(finding.mask.get("size"))[:40]
        raise MaskError(f"the mask's [height, width] is {found}, the radiograph's {[height, width]}", MASK_SIZE)
    return decode_mask(finding.mask) > 0


def within(contours: list[Any], width: int, height: int) -> np.ndarray:
    """(height, width) bool, the pixels that contours enclose, their outline included: drawn as CheXlocalize's own
    program (annotation_to_segmentation.py) does it.

    Raises MaskError for what are no points, and where no contour has three.
    """
    if width * height > MAX_PIXELS:
        raise MaskError(f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")
    picture = PIL.Image.new("1", (width, height))
    pen = PIL.ImageDraw.Draw(picture)
    n_drawn = 0
    for contour in contours:
        try:
            points = np.asarray(contour, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            raise MaskError("a contour is no list of points") from None
        if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
            raise MaskError("a contour has a point that is none, or is far outside the radiograph")
        if len(points) >= 3:
            pen.polygon([tuple(point) for point in points.tolist()], outline=1, fill=1)
            n_drawn += 1
    if not n_drawn:
        raise MaskError("no contour has three points")
    return np.asarray(picture)


def _disagreement(mask: np.ndarray | None, drawn: np.ndarray | None) -> str:
    """In words how a mask and its contours differ; empty where they are the same."""
    n_mask = 0 if mask is None else int(np.count_nonzero(mask))
    n_drawn = 0 if drawn is None else int(np.count_nonzero(drawn))
    if mask is None or drawn is None or not (n_mask and n_drawn):
        return f"the mask has {n_mask} pixels, the contours {n_drawn}" if n_mask != n_drawn else ""
    n_both = int(np.count_nonzero(mask & drawn))
    overlap = n_both / (n_mask + n_drawn - n_both)
    if overlap >= SMALLEST_AGREEMENT or _is_within_outline(mask, drawn):
        return ""
    return f"their IoU is {overlap:.2f}"


def _is_within_outline(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks differ by a pixel around them alone, which is much of a small one."""
    first, second = (mask.astype(np.uint8) for mask in (one, other))
    around = np.ones((3, 3), dtype=np.uint8)
    beyond = (first > cv2.dilate(second, around)) | (second > cv2.dilate(first, around))
    return not beyond.any()
