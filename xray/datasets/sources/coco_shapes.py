"""One annotation of a COCO file → its category, box and mask, or the reason why it has none."""

from typing import Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import FINE_GRID, has_area, snap
from xray.datasets.sources.coco_images import MALFORMED, FaultError
from xray.datasets.sources.segmentations import SLIVER, TRANSPOSED, Segmentation, bounds, plain_segmentation, turned
from xray.datasets.sources.trees.shapes import around, turned_rectangle
from xray.structures.boxes import xywh_to_xyxy
from xray.structures.masks import MaskError, check_segmentation
from xray.structures.values import finite_number, flag_of, is_missing, shown, whole_number

UNKNOWN_CATEGORY = "unknown category"
CROWD = "crowd region"
CROWD_TAKEN = "run lengths with iscrowd 1 taken as one object each; --crowds ignore leaves their radiographs out"
UNUSABLE_MASK = "unusable mask"
NO_AREA = "key points without a box, which have no area: their label is known to be there, not where"
KEY_POINTS = "key points beside a box, which are not read"
TURNED_BOX = "boxes that are turned in the labelling tool: taken as the upright box around, and a mask"


def read_annotation(
    row: dict[str, Any],
    number_of_category: dict[int, int],
    takes_crowds: bool,
    size: tuple[int | None, int | None],
) -> tuple[int, tuple[float, ...] | None, Segmentation | None, dict[str, str]]:
    """(category, xyxy box snapped to the grid, mask or None, remarks: kind → detail) of one annotation.

    The box is None where it has key points alone.
    takes_crowds: whether run lengths with iscrowd 1 are one object. size: width and height of the radiograph, if known.
    Raises FaultError where the annotation has neither a usable box nor a usable mask.
    """
    try:
        label = number_of_category[whole_number(row.get("category_id"))]  # type: ignore[index]
    except (ValueError, KeyError):
        raise FaultError(UNKNOWN_CATEGORY, f"category_id {shown(row.get('category_id'))}") from None
    try:
        is_crowd = bool(flag_of(row.get("iscrowd")))
    except ValueError as error:
        raise FaultError(MALFORMED, f"iscrowd: {error}") from None
    remarks: dict[str, str] = {}
    has_place = not (_is_empty(row.get("bbox")) and _is_empty(row.get("segmentation")))
    if not _is_empty(row.get("keypoints")):
        if not has_place and not is_crowd:
            _check_key_points(row["keypoints"])
            return label, None, None, remarks
        remarks[KEY_POINTS] = ""
    mask, mask_fault = None, None
    try:
        mask, n_slivers = plain_segmentation(row.get("segmentation"))
        if n_slivers:
            remarks[SLIVER] = ""
    except MaskError as error:
        mask_fault = error
    if is_crowd and not (takes_crowds and isinstance(mask, dict)):
        raise FaultError(CROWD)
    if is_crowd:
        remarks[CROWD_TAKEN] = ""
    box, fault = _box(row.get("bbox"))
    width, height = size
    if mask is None and mask_fault is None and box is not None and (degrees := _degrees(row.get("attributes"))):
        polygon = turned_rectangle(tuple(box.tolist()), degrees, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        mask, box, remarks[TURNED_BOX] = [polygon], snap(np.array(around(polygon)), FINE_GRID), ""
    if mask is not None and box is not None and width and height:
        other = turned(mask, box, width, height)
        if other is not None:
            mask, remarks[TRANSPOSED] = other, ""
    if box is None and mask is not None:
        # Tools leave the box out, or write zeros, where there is a mask.
        try:
            box = snap(bounds(mask, width, height), FINE_GRID)
            fault = None if has_area(box) else FaultError(reasons.EMPTY)
            # What is no mask of this radiograph shows no box either.
            check_segmentation(mask)
        except MaskError as error:
            fault = FaultError(error.reason, str(error))
    if fault is not None or box is None:
        if mask_fault is not None:
            raise FaultError(mask_fault.reason, str(mask_fault))
        raise fault or FaultError(reasons.NOT_A_NUMBER)
    if mask_fault is not None:
        remarks[UNUSABLE_MASK] = str(mask_fault)
    return label, tuple(box.tolist()), mask, remarks


def _box(value: Any) -> tuple[np.ndarray | None, FaultError | None]:
    """(4,) xyxy snapped to the grid, or the reason why x, y, width, height are no box."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        numbers = [finite_number(number) for number in value] if isinstance(value, list | tuple) else []
    except ValueError:
        numbers = []
    if len(numbers) != 4 or None in numbers:
        return None, FaultError(reasons.NOT_A_NUMBER, f"bbox {shown(value)}")
    with np.errstate(over="ignore", invalid="ignore"):
        box = snap(xywh_to_xyxy(np.array(numbers, dtype=np.float64).reshape(1, 4)), FINE_GRID)[0]
    if not np.isfinite(box).all():
        return None, FaultError(reasons.NOT_A_NUMBER, f"bbox {shown(value)}")
    if (box[2:] < box[:2]).any():
        return None, FaultError(reasons.INVERTED)
    if not has_area(box):
        return None, FaultError(reasons.EMPTY)
    return box, None


def _check_key_points(points: Any) -> None:
    """Raises FaultError for what is no list of numbers: of each point x, y, and 0 if it is not there."""
    try:
        if not isinstance(points, list) or None in map(finite_number, points):
            raise ValueError("no list of numbers")
    except ValueError:
        raise FaultError(MALFORMED, f"keypoints {shown(points)}") from None


def _is_empty(value: Any) -> bool:
    """Whether there is no box, or no mask: nothing, empty lists, or zeros in its place."""
    if isinstance(value, list | tuple):
        return all(_is_empty(each) or (each == 0 and not isinstance(each, bool)) for each in value)
    return is_missing(value) or value == {}


def _degrees(attributes: Any) -> float:
    """By which CVAT has a box turned, clockwise about its centre; its bbox is as it is before that.

    Raises FaultError for what is no number.
    """
    try:
        return (finite_number(attributes.get("rotation")) or 0.0) % 360 if isinstance(attributes, dict) else 0.0
    except ValueError as error:
        raise FaultError(MALFORMED, f"rotation: {error}") from None
