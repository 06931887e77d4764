"""The objects in an XML file of Pascal VOC: corners, what these count, polygons, and the picture's size."""

import dataclasses
from typing import Literal
from xml.etree.ElementTree import Element

from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.values import finite_number, flag_of, whole_number

Corners = Literal["auto", "pixels", "edges"]
XRAY = "xray"
"""<database> of what xray writes, which has the exact box in original pixels beside the one in whole pixels."""
EXACT = "original_bndbox"
SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True)
class Offsets:
    """What is added to (xmin, ymin) and (xmax, ymax) to make edges of them."""

    first: int
    last: int


_PIXELS, _SHIFTED, _EDGES = Offsets(-1, 0), Offsets(-1, -1), Offsets(0, 0)


def in_original(
    edges: list[float],
    polygon: list[float] | None,
    exact: list[float] | None,
    size: tuple[int, int] | None,
    original: tuple[int, int],
) -> tuple[list[float], list[float] | None]:
    """Box and polygon in the pixels of the original radiograph, from which the picture was made.

    edges: the box in the picture. exact: the box in the original, where the file has it as well; it is taken unless
    somebody has moved the other since. size, original: width and height of the picture and of the original.
    """
    scale = [whole / side for whole, side in zip(original, size or original, strict=True)]
    polygon = None if polygon is None else [value * scale[place % 2] for place, value in enumerate(polygon)]
    scaled = [value * scale[place % 2] for place, value in enumerate(edges)]
    # Whole pixels are up to one away from the exact box; somebody may have moved them since.
    margins = [side * 1.001 for side in (*scale, *scale)]
    is_same = exact is not None and all(
        abs(value - whole) <= margin for value, whole, margin in zip(exact, scaled, margins, strict=True)
    )
    return (exact if is_same and exact is not None else scaled), polygon


def offsets_of(tree: Element, corners: Corners) -> Offsets:
    """What makes edges of a file's corners; "auto" decides by its <source>, see `xray.datasets.sources.trees.voc`."""
    if corners != "auto":
        return _PIXELS if corners == "pixels" else _EDGES
    database = text_of(tree, "source/database").casefold()
    if (
        database == XRAY
        or database.startswith("the voc")
        or "pascal voc" in text_of(tree, "source/annotation").casefold()
    ):
        offsets = _PIXELS
    elif database == "roboflow.ai" and text_of(tree, "folder") == "VOC":
        offsets = _SHIFTED  # supervision from 0.12 on
    else:
        return _EDGES
    # Nothing is counted from 1 that has a 0.
    boxes = [box for each in tree.iterfind("object") if (box := corners_in(each, "bndbox")) is not None]
    return _EDGES if any(min(box[:2]) < 1 for box in boxes) else offsets


def corners_in(each: Element, tag: str) -> list[float] | None:
    """xmin, ymin, xmax, ymax of an object's `tag` as they stand there; None where one is missing or no number."""
    try:
        values = [finite_number(text_of(each, f"{tag}/{side}")) for side in SIDES]
    except ValueError:
        return None
    return None if None in values else [value for value in values if value is not None]


def degrees_of(each: Element) -> float:
    """By which CVAT has a box turned, clockwise about its centre; its corners are as they are before that."""
    for attribute in each.iterfind("attributes/attribute"):
        if text_of(attribute, "name") == "rotation":
            try:
                return (finite_number(text_of(attribute, "value")) or 0.0) % 360
            except ValueError:
                return 0.0
    return 0.0


def said_of(each: Element) -> dict[str, str]:
    """Name → text of an object's attributes, as CVAT writes them, and of what stands in it by itself: <deleted>."""
    said = {part.tag: (part.text or "").strip() for part in each if part.tag != "name" and not len(part)}
    attributes = each.iterfind("attributes/attribute")
    return said | {text_of(part, "name"): text_of(part, "value") for part in attributes}


def polygon_of(each: Element) -> list[float] | None:
    """x1, y1, x2, … of <polygon>, as supervision and Roboflow write it; None where there is none of three points."""
    values: list[float] = []
    for number in range(1, 100_000):
        try:
            x, y = (finite_number(text_of(each, f"polygon/{axis}{number}")) for axis in "xy")
        except ValueError:
            return None
        if x is None or y is None:
            break
        values += [x, y]
    return values if len(values) >= 6 else None


def size_in(tree: Element) -> tuple[int, int] | None:
    """Width and height as the file has them; None where it has none, or none that a radiograph can have."""
    try:
        width, height = (whole_number(text_of(tree, f"size/{side}")) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width and height and width > 0 < width * height <= MAX_PIXELS else None


def is_marked(each: Element, tag: str) -> bool:
    """Whether an object's `tag`, such as <difficult>, says yes."""
    try:
        return bool(flag_of(text_of(each, tag)))
    except ValueError:
        return False


def text_of(tree: Element, path: str) -> str:
    """The text at a path below an element, without white space around it; empty where there is none."""
    return (tree.findtext(path) or "").strip()
