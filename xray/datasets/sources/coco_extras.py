"""What `xray export --format coco` adds to a COCO file, so that a dataset comes back as it was.

Pictures may be smaller than the radiographs that they were made of: an image's `original_width` and `original_height`
then say how large these are, and an annotation's `original_segmentation` has its mask in their pixels. An image's
`labels`, `unknown` and `unlocated` are category ids, see `coco_known`. Other tools ignore all of these.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.datasets.sources.coco_images import FILE_SIDES
from xray.datasets.sources.coco_known import key_of
from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.masks import MaskError, decode_mask, encode_mask, resized_mask
from xray.structures.values import finite_number, whole_number

_LOOKED_AT = 100
"""Annotations by which it is told what kind of COCO file it is."""


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """The lists of a COCO file as they stand there."""

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]

    @classmethod
    def of(cls, content: bytes, file: Path) -> "CocoFile":
        """Raises InputError, which names the file, for what is not COCO."""
        try:
            coco = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is not JSON ({error}): give a COCO file") from None
        values = coco if isinstance(coco, dict) else {}
        lists = [values.get(key) for key in ("images", "annotations", "categories")]
        if not all(isinstance(value, list) for value in lists):
            raise InputError(f"{file} is not a COCO file: it needs the lists images, annotations and categories")
        if any(isinstance(row, dict) and "segments_info" in row for row in values["annotations"][:_LOOKED_AT]):
            raise InputError(
                f"{file} is a panoptic file, whose findings are colours of pictures: give that of instances"
            )
        return cls(*(value for value in lists if isinstance(value, list)))


def in_original_pixels(coco: CocoFile) -> CocoFile:
    """The same lists with sizes, boxes and masks in the pixels of the originals, as far as the file has them."""
    scales: dict[Any, tuple[int, int, int, int]] = {}
    images = []
    for entry in coco.images:
        sides = _sides(entry)
        if sides is not None:
            scales[key_of(entry.get("id"))] = sides
            of_file = dict(zip(FILE_SIDES, sides[:2], strict=True))
            entry = {**entry, "width": sides[2], "height": sides[3], **of_file}
        images.append(entry)
    if not scales:
        return coco
    rows = [
        _enlarged(row, scales[key]) if isinstance(row, dict) and (key := key_of(row.get("image_id"))) in scales else row
        for row in coco.annotations
    ]
    return CocoFile(images, rows, coco.categories)


def _sides(entry: Any) -> tuple[int, int, int, int] | None:
    """(width, height) of the picture and of the original; None where the two are not both there, or are equal."""
    if not isinstance(entry, dict) or "original_width" not in entry:
        return None
    try:
        sides = [whole_number(entry.get(name)) for name in ("width", "height", "original_width", "original_height")]
    except ValueError:
        return None
    if any(side is None or side < 1 for side in sides) or sides[:2] == sides[2:]:
        return None
    width, height, original_width, original_height = (side for side in sides if side is not None)
    return None if original_width * original_height > MAX_PIXELS else (width, height, original_width, original_height)


def _enlarged(row: dict[str, Any], sides: tuple[int, int, int, int]) -> dict[str, Any]:
    """An annotation in the pixels of the original; what is no box or mask stays as it is, and is judged later."""
    width, height, original_width, original_height = sides
    x, y = original_width / width, original_height / height
    result = dict(row)
    try:
        numbers = [finite_number(number) for number in row["bbox"]]
        if len(numbers) == 4 and None not in numbers:
            scaled = [number * by for number, by in zip(numbers, (x, y, x, y), strict=True) if number is not None]
            result["bbox"] = scaled
    except (KeyError, TypeError, ValueError):
        pass
    mask = row.get("segmentation")
    if not mask:
        return result
    whole = row.get("original_segmentation")
    try:
        if whole is not None and _is_of(mask, whole, sides):
            result["segmentation"] = whole
        elif isinstance(mask, list):
            result["segmentation"] = [_scaled(polygon, x, y) for polygon in mask]
        else:
            result["segmentation"] = resized_mask(mask, *sides)
    except (MaskError, TypeError, ValueError, OverflowError):
        pass
    return result


def _scaled(polygon: list[Any], x: float, y: float) -> list[float]:
    numbers = [finite_number(number) for number in polygon]
    if None in numbers or len(numbers) % 2:
        raise ValueError("no polygon")
    return [number * (y if place % 2 else x) for place, number in enumerate(numbers) if number is not None]


def _is_of(mask: Any, whole: Any, sides: tuple[int, int, int, int]) -> bool:
    """Whether a mask of the picture is still the one that was made of the original's: somebody may have edited it."""
    width, height, original_width, original_height = sides
    if not isinstance(whole, dict):
        return False
    made = made_smaller(decode_mask(encode_mask(whole, original_width, original_height)[0]), width, height)
    return bool((decode_mask(encode_mask(mask, width, height, may_be_empty=True)[0]) == made).all())


def made_smaller(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W) uint8 mask of 0 and 1 → (height, width), by the nearest pixel.

    One that would vanish keeps all pixels that it touches.
    """
    if mask.shape == (height, width):
        return mask
    small: np.ndarray = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if not small.any() and mask.any():
        small = (cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0).astype(
            np.uint8
        )
    return small
