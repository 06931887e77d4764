"""Turned rectangles and ellipses as labelling tools give them → polygons, and the upright box around them.

Angles are in degrees, clockwise as one looks at the picture (y grows downwards).
"""

import math
from collections.abc import Sequence

from xray.structures.values import finite_number

Polygon = list[float]
"""x1, y1, x2, y2, … in pixels."""
Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 of an upright box, in pixels."""


def coordinate(value: object) -> float:
    """A number of a file. Raises ValueError where it is none, or not finite."""
    number = finite_number(value)
    if number is None:
        raise ValueError("a coordinate is missing")
    return number


def around(polygon: Sequence[float]) -> Corners:
    """The upright box around a polygon."""
    return min(polygon[0::2]), min(polygon[1::2]), max(polygon[0::2]), max(polygon[1::2])


def turned_rectangle(corners: Corners, degrees: float, pivot: tuple[float, float]) -> Polygon:
    """The four corners of a rectangle, given as it is before it is turned about `pivot`."""
    x1, y1, x2, y2 = corners
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    polygon: Polygon = []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        dx, dy = x - pivot[0], y - pivot[1]
        polygon += [pivot[0] + dx * cosine - dy * sine, pivot[1] + dx * sine + dy * cosine]
    return polygon


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> tuple[Polygon, Corners]:
    """A polygon along an ellipse, nowhere more than a tenth of a pixel inside it, and the exact box around it.

    Half the width of the box is √((a cos φ)² + (b sin φ)²), half its height √((a sin φ)² + (b cos φ)²).
    """
    (x, y), (a, b) = center, radii
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # A chord over an angle t of a circle of radius r is r(1 - cos(t/2)) away from its arc; an ellipse's is less.
    largest = max(abs(a), abs(b), 1.0)
    n = min(720, max(16, math.ceil(math.pi / math.acos(1 - 0.1 / largest))))
    polygon: Polygon = []
    for number in range(n):
        angle = 2 * math.pi * number / n
        dx, dy = a * math.cos(angle), b * math.sin(angle)
        polygon += [x + dx * cosine - dy * sine, y + dx * sine + dy * cosine]
    half_width, half_height = math.hypot(a * cosine, b * sine), math.hypot(a * sine, b * cosine)
    return polygon, (x - half_width, y - half_height, x + half_width, y + half_height)
