"""What the numbers of a box are called, as columns of a table or as keys in a cell, and the form that this means."""

import ast
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from xray.datasets.sources.tables import plain_name
from xray.structures.values import finite_number

Form = Literal["xywh", "xyxy", "cxcywh"]
FORMS: tuple[Form, ...] = ("xywh", "xyxy", "cxcywh")

_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"), ("minx", "miny", "maxx", "maxy"), ("xtl", "ytl", "xbr", "ybr"),
    ("startx", "starty", "endx", "endy"), ("xstart", "ystart", "xend", "yend"),
)  # fmt: skip
_SIDES = (("w", "h"), ("width", "height"), ("bw", "bh"))
_STARTS = (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("x1", "y1"), ("x0", "y0"), ("xtl", "ytl"))
_CENTRES = (("cx", "cy"), ("xcenter", "ycenter"), ("xcentre", "ycentre"), ("centerx", "centery"), ("xc", "yc"),
            ("centrex", "centrey"), ("xmid", "ymid"))  # fmt: skip


def boxes_among(known: Mapping[str, str]) -> list[tuple[tuple[str, ...], Form]]:
    """Four of some names that are those of a box, and its form; of several the likeliest first.

    known: plain name → the name as it is spelt, which is returned.
    """
    found: list[tuple[tuple[str, ...], Form]] = []
    kinds: list[tuple[Form, Any, Any]] = [
        ("xyxy", _CORNERS, None),
        ("cxcywh", _CENTRES, _SIDES),
        ("xywh", _STARTS, _SIDES),
    ]
    for form, starts, ends in kinds:
        for start in starts:
            for names in [start] if ends is None else [(*start, *end) for end in ends]:
                if all(name in known for name in names):
                    found.append((tuple(known[name] for name in names), form))
    return found


def keyed_form(texts: Iterable[str]) -> Form | None:
    """The form of the first cell of a column that holds boxes by name; None where none does."""
    for text in texts:
        for box in _dicts(text) or ():
            if (read := _numbers(box)) is not None:
                return read[0]
    return None


def read_keyed(text: str, form: Form) -> list[list[float]] | None:
    """The boxes of a cell such as "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]"; None where one is not of `form`."""
    boxes = []
    for box in _dicts(text) or [{}]:
        read = _numbers(box)
        if read is None or read[0] != form:
            return None
        boxes.append(read[1])
    return boxes


def _dicts(text: str) -> list[dict[Any, Any]] | None:
    if "{" not in text:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        boxes = value if isinstance(value, list | tuple) else [value]
        if boxes and all(isinstance(box, dict) for box in boxes):
            return list(boxes)
    return None


def _numbers(box: Mapping[Any, Any]) -> tuple[Form, list[float]] | None:
    found = boxes_among({plain_name(str(key)): str(key) for key in box if str(key) == key})
    if not found:
        return None
    names, form = found[0]
    try:
        numbers = [finite_number(box[name]) for name in names]
    except ValueError:
        return None
    known = [number for number in numbers if number is not None]
    return (form, known) if len(known) == len(numbers) else None
