"""The annotations of a COCO file → boxes and masks; what cannot be used, and which radiographs it makes incomplete.

A radiograph is normal only if the file says so. One of whose annotations some could not be used is left out: what was
left out would be learned as background. An annotation that belongs to no image of the file could be any radiograph's.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import Dropped
from xray.datasets.sources.coco_images import MALFORMED, FaultError, Images, names_in
from xray.datasets.sources.coco_shapes import NO_AREA, UNUSABLE_MASK, read_annotation
from xray.datasets.sources.coco_units import refuse_other_units
from xray.datasets.sources.normal_names import NORMAL_BOXES, NormalNames
from xray.datasets.sources.object_review import IGNORED, REVIEWED, withheld_by
from xray.datasets.sources.segmentations import Segmentation
from xray.errors import InputError
from xray.findings import NO_FINDING_BOX
from xray.radiographs.file_warnings import FileWarning
from xray.structures.boxes import BoxTable
from xray.structures.values import finite_number, flag_of, identity, shown, whole_number

NO_SUCH_IMAGE = "annotation of an unknown image"

Crowds = Literal["auto", "keep", "ignore"]
Unplaced = Literal["refuse", "ignore"]

_CROWD_WORDS = ("crowd", "group")


@dataclasses.dataclass
class Annotations:
    """Usable boxes with their readers, places and masks.

    lost: numbers of the images of which an annotation was left out that is not simply repeated, or which are said to be
    normal and have findings. normal: numbers of those that are said to be normal.
    contradictory: number of each image that is said to be normal and has findings → where it is said.
    without_area: number of an image → categories of its key points, which have no box or mask.
    withheld: number of an image → categories of annotations that a review has rejected or not confirmed.
    not_annotated: numbers of lost images that their entries say are not annotated.
    n_marked, n_contradictory: images with a box of what means so, and those of them that have findings.
    """

    boxes: BoxTable
    readers: list[tuple[str, ...]]
    places: list[str]
    masks: dict[int, Segmentation]
    lost: set[int]
    warnings: list[FileWarning]
    normal: set[int] = dataclasses.field(default_factory=set)
    contradictory: dict[int, str] = dataclasses.field(default_factory=dict)
    without_area: dict[int, set[int]] = dataclasses.field(default_factory=dict)
    withheld: dict[int, set[int]] = dataclasses.field(default_factory=dict)
    not_annotated: set[int] = dataclasses.field(default_factory=set)
    n_marked: int = 0
    n_contradictory: int = 0


def read_annotations(
    rows: list[Any],
    images: Images,
    categories: list[dict[str, Any]],
    file: Path,
    dropped: list[Dropped],
    normal: Collection[int] = (),
    crowds: Crowds = "auto",
    unplaced: Unplaced = "refuse",
) -> Annotations:
    """Reads all annotations of a COCO file; those that are left out are entered in `dropped`.

    normal: the file's own ids of what `without_normal` took out of the categories.
    crowds: whether run lengths with iscrowd 1 are one object. They are to CVAT's brush and to supervision, not to the
        COCO set itself; "auto" keeps them unless the file has crowds that can be no single object.
    unplaced: what becomes of annotations whose image the file does not list.

    With "refuse", raises InputError where there are such and a radiograph without annotations could be
    the one they belong to; for annotations that name no image at all; and where boxes are shares of the sides.
    """
    number_of_category = {category["source_category_id"]: category["id"] for category in categories}
    takes_crowds = crowds == "keep" or (crowds == "auto" and not _has_true_crowds(rows, categories))
    result = Annotations(BoxTable.empty(), [], [], {}, set(), [])
    numbers: list[int] = []
    labels, boxes = [], []
    repeats: dict[tuple[Any, ...], list[int]] = {}
    strays: list[Dropped] = []
    with_annotation: set[int] = set()
    said_normal: list[tuple[int, str, dict[str, Any]]] = []
    for position, row in enumerate(rows):
        place = f"{file.name} annotation {position}"
        try:
            image = _image_of(row, images)
        except FaultError as fault:
            strays.append(Dropped(place, fault.reason, detail=fault.detail))
            continue
        if image < 0:
            continue  # Its image was left out before, and is in `dropped`.
        with_annotation.add(image)
        if why := withheld_by({**row, **_attributes(row)}):
            labels_withheld = _labels_withheld(row, number_of_category, normal)
            if labels_withheld:
                dropped.append(Dropped(place, REVIEWED, IGNORED, why))
                result.withheld.setdefault(image, set()).update(labels_withheld)
                continue
        if _is_of(row, normal):
            said_normal.append((image, place, row))
            continue
        size = (images.images[image].width, images.images[image].height)
        try:
            label, box, mask, remarks = read_annotation(row, number_of_category, takes_crowds, size)
        except FaultError as fault:
            dropped.append(Dropped(place, fault.reason, detail=fault.detail))
            result.lost.add(image)
            continue
        if box is None:
            result.without_area.setdefault(image, set()).add(label)
            result.warnings.append(FileWarning(NO_AREA, place))
            continue
        names = names_in(row.get("readers"))
        same = repeats.setdefault((image, label, *box, names), [])
        if (twin := _twin(same, mask, result.masks)) is not None:
            if mask is not None:
                result.masks[twin] = mask
            dropped.append(Dropped(place, reasons.DUPLICATE))
            continue
        same.append(len(numbers))
        result.warnings += [FileWarning(kind, place) for kind in remarks if kind != UNUSABLE_MASK]
        if UNUSABLE_MASK in remarks:
            dropped.append(Dropped(place, UNUSABLE_MASK, "mask left out, box kept", remarks[UNUSABLE_MASK]))
        if mask is not None:
            result.masks[len(numbers)] = mask
        numbers.append(image)
        labels.append(label)
        boxes.append(box)
        result.readers.append(names)
        result.places.append(place)
    n_empty = len(images.images) - len(with_annotation)
    nowhere = next((stray for stray in strays if stray.reason == MALFORMED), None)
    if nowhere is not None and unplaced == "refuse":
        raise InputError(
            f"{nowhere.where} belongs to no image ({nowhere.detail}), so it may belong to any radiograph: correct its "
            "image_id, or add --unplaced ignore to leave it out"
        )
    if strays and unplaced == "refuse" and n_empty:
        raise InputError(
            f"{file} has annotations of images that it does not list ({len(strays)}; the first: {strays[0].where}, "
            f"{strays[0].detail}), so its {n_empty} radiographs without an annotation may not be normal: correct the "
            "image ids, or add --unplaced ignore if those images are missing on purpose"
        )
    dropped += strays
    result.boxes = BoxTable.of(numbers, labels, boxes)
    _judge_normal(result, said_normal, numbers)
    sizes = [(image.width or np.nan, image.height or np.nan) for image in images.images]
    refuse_other_units(result.boxes.boxes, np.array(sizes, dtype=np.float64).reshape(-1, 2)[result.boxes.images], file)
    return result


def without_normal(
    categories: list[dict[str, Any]], normal: NormalNames, file: Path
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The categories without those that mean that nothing was found, and these: the file's own id → name.

    Raises InputError where `normal` names one that the file does not have.
    """
    names = normal.among((category["name"] for category in categories), str(file))
    taken = {category["source_category_id"]: category["name"] for category in categories if category["name"] in names}
    others = [category for category in categories if category["source_category_id"] not in taken]
    return [{**category, "id": number} for number, category in enumerate(others, start=1)], taken


def _is_of(row: Any, categories: Collection[int]) -> bool:
    try:
        return bool(categories) and whole_number(row["category_id"]) in categories
    except (KeyError, TypeError, ValueError):
        return False


def _attributes(row: dict[str, Any]) -> dict[str, Any]:
    """Name → value of an annotation's attributes, which may be a list of names and values."""
    attributes = row.get("attributes")
    if isinstance(attributes, list):
        return {str(one["name"]): one.get("value") for one in attributes if isinstance(one, dict) and "name" in one}
    return attributes if isinstance(attributes, dict) else {}


def _labels_withheld(row: dict[str, Any], numbers: dict[int, int], normal: Collection[int]) -> set[int]:
    """What an annotation that does not count would have said something of: its category, or all."""
    if _is_of(row, normal):
        return set(numbers.values())
    try:
        return {numbers[whole_number(row.get("category_id"))]}  # type: ignore[index]
    except (ValueError, KeyError):
        return set()


def _judge_normal(result: Annotations, said_normal: list[tuple[int, str, dict[str, Any]]], numbers: list[int]) -> None:
    """Enters which images are normal, and loses those of which one reader says so and has findings.

    said_normal: (image, place, annotation). numbers: the image of each box.
    """
    findings: dict[int, list[tuple[str, ...]]] = {image: [()] for image in (*result.lost, *result.without_area)}
    for image, names in zip(numbers, result.readers, strict=True):
        findings.setdefault(image, []).append(names)
    for image, place, row in said_normal:
        names = names_in(row.get("readers"))
        # What one reader does not see another may.
        if any(not names or not others or set(names) & set(others) for others in findings.get(image, ())):
            result.contradictory.setdefault(image, place)
        elif image not in findings and not _stands_for_nothing(row):
            result.warnings.append(FileWarning(NORMAL_BOXES, place))
    marked = {image for image, _, row in said_normal if not _stands_for_nothing(row)}
    result.normal = {image for image, _, _ in said_normal} - set(findings)
    result.n_marked, result.n_contradictory = len(marked), len(marked & result.contradictory.keys())
    result.lost |= result.contradictory.keys()


def _stands_for_nothing(row: dict[str, Any]) -> bool:
    """Whether the box of "No finding" is VinBigData's [0, 0, 1, 1], zeros, or none, and no place in the picture."""
    try:
        box = tuple(finite_number(number) for number in row.get("bbox") or ())
    except (TypeError, ValueError):
        return False
    return box in ((), NO_FINDING_BOX) or not any(box)


def _twin(same: list[int], mask: Segmentation | None, masks: dict[int, Segmentation]) -> int | None:
    """Of boxes that are alike the one which an annotation only repeats: with its mask, or one of the two without."""
    if mask is None:
        return same[0] if same else None
    return next((row for row in same if masks.get(row, mask) == mask), None)


def _image_of(row: Any, images: Images) -> int:
    """Number of an annotation's image, -1 for one that was left out. Raises FaultError where there is none."""
    if not isinstance(row, dict):
        raise FaultError(MALFORMED, f"it is {shown(row)}")
    try:
        own_id = identity(row.get("image_id"))
    except ValueError:
        raise FaultError(MALFORMED, f"image_id {shown(row.get('image_id'))}") from None
    if own_id is None:
        raise FaultError(MALFORMED, "without an image_id")
    if own_id not in images.number_of:
        raise FaultError(NO_SUCH_IMAGE, f"image_id {shown(own_id)}")
    return images.number_of[own_id]


def _has_true_crowds(rows: list[Any], categories: list[dict[str, Any]]) -> bool:
    """Whether a file marks regions of many objects, as the COCO set does.

    A crowd by box or polygon alone can only be meant as one: tools that write a single object with iscrowd 1 do so
    because it is run lengths. A category may also say that it is a group.
    """
    groups = {
        category["source_category_id"]
        for category in categories
        if any(word in category["name"].casefold().split() for word in _CROWD_WORDS)
    }
    for row in rows:
        if not isinstance(row, dict):
            continue
        try:
            if not flag_of(row.get("iscrowd")):
                continue
            if not isinstance(row.get("segmentation"), dict) or whole_number(row.get("category_id")) in groups:
                return True
        except ValueError:
            continue
    return False
