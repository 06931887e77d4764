"""Lines of YOLO's label files → boxes and polygons, in shares of the picture's sides.

A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 …` with three points or more: an outline, or the four corners
of a turned box. Ultralytics writes further columns behind these: a confidence and a track's number in predictions, and
key points in poses.
"""

import dataclasses
import math

from xray.datasets import source as reasons
from xray.datasets.sources.coco_images import MALFORMED, FaultError
from xray.datasets.sources.trees.shapes import Corners, around
from xray.errors import InputError
from xray.structures.values import finite_number, shown, whole_number

BEYOND = "coordinates beyond the picture"
TOLERANCE = 0.01
"""Shares by which coordinates may lie beyond the picture, as in Ultralytics; such boxes are cut at its edge."""
ROUNDING = 1e-5
"""Shares that are float noise of a writer, which keeps six digits."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One object. number: of its class, from 0. corners: x1, y1, x2, y2; polygon: x1, y1, x2, y2, … or None."""

    number: int
    corners: Corners
    polygon: list[float] | None


def read_line(text: str, n_classes: int, place: str) -> Line:
    """Reads one line. place: where it stands, for messages.

    Raises FaultError for a line that is no object, and InputError for one that only files of another kind have.
    """
    words = text.split()
    try:
        number = whole_number(words[0])
    except ValueError:
        number = None
    values = _numbers(words[1:])
    if number is None or values is None:
        raise FaultError(reasons.NOT_A_NUMBER, shown(text))
    _refuse_other_kinds(values, place)
    if not 0 <= number < n_classes:
        raise FaultError(reasons.UNKNOWN_CLASS, f"class {number} of {n_classes}, counted from 0")
    if len(values) < 4:
        raise FaultError(MALFORMED, f"{len(words)} columns: {shown(text)}")
    if min(values) < -TOLERANCE or max(values) > 1 + TOLERANCE:
        raise FaultError(BEYOND, shown(text))
    if len(values) > 4:
        polygon = [_to_edge(value) for value in values]
        return Line(number, around(polygon), polygon)
    x, y, width, height = values
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    left, top, right, bottom = map(_to_edge, corners)
    return Line(number, (left, top, right, bottom), None)


def _numbers(words: list[str]) -> list[float] | None:
    values = []
    for word in words:
        try:
            values.append(finite_number(word))
        except ValueError:
            return None
    return None if None in values else [value for value in values if value is not None]


def _refuse_other_kinds(values: list[float], place: str) -> None:
    """Raises InputError for lines that belong to no labels: of predictions, tracks and poses."""
    n_columns = len(values) + 1
    has_track = len(values) == 6 and values[-1] > 1 and values[-1].is_integer() and max(values[:5]) <= 1
    if len(values) == 5 or has_track:
        raise InputError(
            f"{place} has {n_columns} columns, the last a confidence or a track's number: these are predictions of "
            "YOLO and not labels, which have class x y width height, or class and an outline"
        )
    if len(values) > 5 and len(values) % 2:
        raise InputError(
            f"{place} has {n_columns} columns: neither class x y width height nor class and points; it may be of a "
            "pose or of predictions, which are not read"
        )


def _to_edge(value: float) -> float:
    """Float noise beyond the picture's edge is the edge."""
    nearest = min(1.0, max(0.0, value))
    return nearest if math.isclose(value, nearest, rel_tol=0, abs_tol=ROUNDING) else value
