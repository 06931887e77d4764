"""A region of Label Studio → the upright box around it in pixels, and its mask."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xray.datasets.sources.trees.brush import decode_brush
from xray.datasets.sources.trees.shapes import around, coordinate, ellipse, turned_rectangle
from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.masks import MaskError, encode_pixels
from xray.structures.values import finite_number, whole_number

NO_AREA = "points and lines, which have no area: their label is known to be there, not where"

_SHAPES = ("width", "points", "rle", "radiusX", "imageDataURL", "vertices")


@dataclasses.dataclass(frozen=True)
class Region:
    """value: the result's shape. size: (width, height) of the picture as Label Studio has it, None if it has none.

    turned: degrees by which the picture was turned while it was labelled.
    """

    value: dict[str, Any]
    size: tuple[int, int] | None
    turned: float

    @classmethod
    def of(cls, result: dict[str, Any]) -> "Region":
        """The region of a result. A picture's size that is none is not used."""
        try:
            sides = [whole_number(result.get(f"original_{side}")) for side in ("width", "height")]
            turned = finite_number(result.get("image_rotation")) or 0.0
        except ValueError:
            sides, turned = [None, None], 0.0
        width, height = sides
        size = (width, height) if width and height and 0 < width * height <= MAX_PIXELS else None
        return cls(result["value"], size, turned)

    @staticmethod
    def has_shape(value: dict[str, Any]) -> bool:
        """Whether a result's value is a region of the picture."""
        return any(key in value for key in _SHAPES) or ("x" in value and "y" in value)

    @staticmethod
    def labels_of(result: dict[str, Any]) -> list[str]:
        """The labels in a result: rectanglelabels, polygonlabels, …, or labels."""
        value = result.get("value")
        lists = [value[key] for key in value if str(key).endswith("labels")] if isinstance(value, dict) else []
        return [str(label).strip() for each in lists if isinstance(each, list) for label in each if str(label).strip()]

    @property
    def is_without_area(self) -> bool:
        """Whether it is a key point or a line."""
        is_point = not any(key in self.value for key in _SHAPES) or "keypointlabels" in self.value
        return is_point or "vertices" in self.value


def corners_and_mask(region: Region, size: tuple[int, int]) -> tuple[Sequence[float], Any]:
    """The box around a region, xyxy in pixels of `size` (width, height), and its mask; None for an upright rectangle.

    Raises MaskError, ValueError, KeyError or TypeError for what is no region, and for pictures that were turned while
    they were labelled: the coordinates are then those of the turned one.
    """
    value = region.value
    if region.turned % 360:
        raise ValueError(f"the picture was turned by {region.turned} degrees in the labelling tool")
    if "rle" in value:
        pixels = decode_brush(value["rle"], *size)
        if not pixels.any():
            raise MaskError("the mask has no pixel")
        columns, rows = np.flatnonzero(pixels.any(axis=0)), np.flatnonzero(pixels.any(axis=1))
        corners = [float(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        return corners, encode_pixels(pixels)
    if "imageDataURL" in value:
        raise ValueError("a bitmask, which is not read: label with BrushLabels")
    across, down = (side / 100 for side in size)
    degrees = finite_number(value.get("rotation")) or 0.0
    if "points" in value:
        if len(value["points"]) < 3:
            raise ValueError("a polygon needs three points or more")
        polygon = [coordinate(axis) * unit for x, y in value["points"] for axis, unit in ((x, across), (y, down))]
        return around(polygon), [polygon]
    x, y = coordinate(value["x"]) * across, coordinate(value["y"]) * down
    if "radiusX" in value:
        radii = (coordinate(value["radiusX"]) * across, coordinate(value["radiusY"]) * down)
        polygon, around_it = ellipse((x, y), radii, degrees)
        return around_it, [polygon]
    upright = (x, y, x + coordinate(value["width"]) * across, y + coordinate(value["height"]) * down)
    if not degrees % 360:
        return upright, None
    polygon = turned_rectangle(upright, degrees, (x, y))
    return around(polygon), [polygon]
