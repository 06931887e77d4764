"""Masks of radiographs, in pictures or as run lengths, and their components, as worker processes read them.

All work that may take much time or memory for a hostile file is done here; the module imports only what workers need.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.datasets.sources.mask_values import MaskValues, read_values
from xray.radiographs.grayscale import look_up
from xray.radiographs.radiograph import RadiographError, radiograph_size
from xray.structures import rle

MAX_VALUES = 256
"""Number of values of a mask that are reported."""
MAX_REGIONS = 10_000
"""Parts of the mask of one radiograph; more are noise, and would fill the dataset with it."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a mask that becomes one annotation.

    box: (4,) float64 xyxy around its pixels, edges included.
    rle: its plain COCO RLE.
    """

    box: np.ndarray
    rle: dict[str, Any]
    category: int = 1


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A radiograph and the pictures of its masks, to be read.

    masks: (category, file) each. smallest: share of the radiograph that a component must cover. joined: all components
    of a picture are one region. values: (value of a mask, in lower case, its category) each; where there are any, the
    categories of `masks` do not count, and other values are background.
    """

    image: Path
    masks: tuple[tuple[int, Path], ...]
    smallest: float = 0.0
    joined: bool = False
    values: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class PictureRegions:
    """What one picture of a mask holds.

    size: its width and height, None if it cannot be read, which `error` explains. regions: empty where the size is not
    the radiograph's. n_small: components left out, of fewer than `smallest` pixels. values: those that were drawn, up
    to MAX_VALUES of them. named, unnamed: those among them that `Pictures.values` names, and not. tones, has_void: as
    for `xray.datasets.sources.mask_values.MaskValues`.
    """

    size: tuple[int, int] | None
    regions: tuple[Region, ...] = ()
    n_small: int = 0
    smallest: int = 1
    error: str = ""
    values: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    tones: str = ""
    has_void: bool = False


@dataclasses.dataclass(frozen=True)
class Runs:
    """A radiograph and the run lengths of its mask, to be read.

    size: width and height in which they count, the radiograph's own if None.
    """

    image: Path
    texts: tuple[str, ...]
    dialect: rle.Dialect
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class RunRegions:
    """What run lengths are: regions, or None where they are no mask of the radiograph.

    reason: one of `xray.structures.rle`'s. fits_other: they are a mask in the other dialect. is_other: and
    were written in it.
    """

    regions: tuple[Region, ...] | None
    reason: str = ""
    error: str = ""
    fits_other: bool = False
    is_other: bool = False


def read_pictures(item: Pictures) -> tuple[tuple[int, int], list[PictureRegions]]:
    """The size of the radiograph, and what each of its masks holds. Raises RadiographError for the radiograph."""
    size = radiograph_size(item.image)
    masks = []
    for category, path in item.masks:
        try:
            masks.append(_read_picture(item, category, path, size))
        except RadiographError as error:
            masks.append(PictureRegions(None, error=str(error)))
    return size, masks


def _read_picture(item: Pictures, category: int, path: Path, size: tuple[int, int]) -> PictureRegions:
    mask = read_values(path)
    height, width = mask.labels.shape
    smallest = max(1, math.ceil(item.smallest * mask.labels.size))
    layers, named = _layers(mask, dict(item.values), category)
    components: list[Region] = []
    n_small = 0
    if (width, height) == size:
        try:
            for number, drawn in layers:
                of_layer, small = regions(drawn, number, smallest, item.joined)
                components += of_layer
                n_small += small
        except RadiographError as error:
            raise RadiographError(f"{path.name}: {error}") from None
    return PictureRegions(
        (width, height),
        tuple(components),
        n_small,
        smallest,
        values=mask.names[:MAX_VALUES],
        named=tuple(key for key in named if key)[:MAX_VALUES],
        unnamed=tuple(name for name, key in zip(mask.names, named, strict=True) if not key)[:MAX_VALUES],
        tones=mask.tones,
        has_void=mask.has_void,
    )


def _layers(
    mask: MaskValues, category_of: dict[str, int], category: int
) -> tuple[list[tuple[int, np.ndarray]], tuple[str, ...]]:
    """(category, (height, width) bool) each, and for each value what `category_of` calls it, "" where it does not."""
    if not category_of:
        return [(category, mask.labels > 0)], ("",) * len(mask.names)
    named = tuple(next((key for key in sorted(keys) if key in category_of), "") for keys in mask.keys)
    numbers = [category_of.get(key, 0) for key in named]
    numbered = look_up(mask.labels, np.array([0, *numbers], dtype=np.uint16))
    return [(number, numbered == number) for number in sorted(set(numbers) - {0})], named


def read_runs(item: Runs) -> RunRegions:
    """The regions of run lengths, joined. Raises RadiographError where the radiograph's size cannot be read."""
    width, height = item.size or radiograph_size(item.image)
    mask = np.zeros((height, width), dtype=bool)
    for text in item.texts:
        try:
            mask |= rle.decode(text, height, width, item.dialect)
        except rle.RunLengthError as error:
            other = rle.other(item.dialect)
            fits_other = rle.fits(text, height, width, other)
            is_other = fits_other and rle.is_telling(text, item.dialect)
            return RunRegions(None, error.reason, str(error), fits_other, is_other)
    try:
        return RunRegions(tuple(regions(mask)[0]))
    except RadiographError as error:
        raise RadiographError(f"{item.image.name}: {error}") from None


def regions(mask: np.ndarray, category: int = 1, min_pixels: int = 1, joined: bool = False) -> tuple[list[Region], int]:
    """The 8-connected components of a (height, width) bool mask that have at least `min_pixels` pixels.

    joined: all of them as one region.
    Returns them from the left to the right, and the number of smaller components, which are left out. Raises
    RadiographError for more than MAX_REGIONS.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    is_large = stats[:, cv2.CC_STAT_AREA] >= min_pixels
    is_large[0] = False  # the background
    n_small = len(is_large) - 1 - int(is_large.sum())
    large = np.flatnonzero(is_large)
    large = large[np.lexsort((stats[large, cv2.CC_STAT_TOP], stats[large, cv2.CC_STAT_LEFT]))]
    corners = stats[large][:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    far = corners + stats[large][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    if joined and len(large):
        box = np.concatenate([corners.min(axis=0), far.max(axis=0)])
        return [_region(is_large[labels], box, category, (0, 0), mask.shape)], n_small
    if len(large) > MAX_REGIONS:
        raise RadiographError(f"its mask has {len(large)} parts, more than {MAX_REGIONS}")
    parts = []
    for label, (left, top), (right, bottom) in zip(large.tolist(), corners.tolist(), far.tolist(), strict=True):
        # Only where the component is: a mask of many would otherwise take the time of as many masks.
        inside = labels[top:bottom, left:right] == label
        parts.append(_region(inside, np.array([left, top, right, bottom]), category, (left, top), mask.shape))
    return parts, n_small


def _region(
    part: np.ndarray, box: np.ndarray, category: int, corner: tuple[int, int], shape: tuple[int, ...]
) -> Region:
    """A region from the part of the mask, of that shape, whose upper left pixel is at `corner` (x, y)."""
    (left, top), height = corner, shape[0]
    if len(part) < height:
        # A row of nothing keeps a run from going on in the next column of the part, as it does not in the mask.
        part = np.concatenate([part, np.zeros((1, part.shape[1]), dtype=bool)])
    starts, ends = rle.runs_of(part)
    column, row = np.divmod(starts, len(part))
    shift = (column + left) * height + row + top - starts
    counts = rle.coco_counts(starts + shift, ends + shift, shape[0] * shape[1])
    return Region(box.astype(np.float64), {"size": list(shape), "counts": counts.tolist()}, category)
