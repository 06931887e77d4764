"""Masks → polygons along the edges of their pixels, from which pycocotools draws the same mask again, to the pixel.

Polygons have no holes, and YOLO's have no parts. Both are joined into one line here: it goes over to the nearest corner
of the next outline, around that, and back the way it came. The way there and back bounds nothing, so that a mask drawn
by the even-odd rule does not change; tools that also draw the line itself get one a pixel thin.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Outline = np.ndarray
"""(N, 2) int64 corners (x, y) of pixels; the last is joined to the first."""

_EAST, _SOUTH, _WEST, _NORTH = range(4)


def part_outlines(mask: np.ndarray) -> list[list[int]]:
    """A (H, W) mask → a polygon x1, y1, x2, y2, … for each part, whose pixels touch by their sides; none if empty."""
    by_part: dict[int, list[Outline]] = {}
    for part, outline in _outlines(mask):
        by_part.setdefault(part, []).append(outline)
    return [_joined(outlines).ravel().tolist() for outlines in by_part.values()]


def whole_outline(mask: np.ndarray) -> list[int]:
    """A (H, W) mask → one polygon x1, y1, x2, y2, … of all its parts. Raises ValueError for an empty one."""
    outlines = all_outlines(mask)
    if not outlines:
        raise ValueError("the mask has no pixel")
    whole: list[int] = _joined(outlines).ravel().tolist()
    return whole


def all_outlines(mask: np.ndarray) -> list[Outline]:
    """A (H, W) mask → the outlines of all its parts and holes; by the even-odd rule they bound the mask's pixels."""
    return [outline for _, outline in _outlines(mask)]


def _outlines(mask: np.ndarray) -> list[tuple[int, Outline]]:
    """(number of the part, outline) of all parts and holes, clockwise around parts, from the upper left on."""
    inside = np.pad(np.asarray(mask) != 0, 1)
    _, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
    width = inside.shape[1]
    # Sides between a pixel and its neighbour outside, joined where they go on straight; inside is to the right of each.
    ends: dict[int, dict[int, int]] = {}
    for direction, sides in (
        (_EAST, inside & ~np.roll(inside, 1, axis=0)),
        (_WEST, inside & ~np.roll(inside, -1, axis=0)),
        (_SOUTH, (inside & ~np.roll(inside, -1, axis=1)).T),
        (_NORTH, (inside & ~np.roll(inside, 1, axis=1)).T),
    ):
        lines, firsts, lasts = _runs(sides)
        if direction in (_EAST, _WEST):
            rows = lines + (direction == _WEST)
            starts, stops = rows * width + firsts, rows * width + lasts
        else:
            columns = lines + (direction == _SOUTH)
            starts, stops = firsts * width + columns, lasts * width + columns
        if direction in (_WEST, _NORTH):
            starts, stops = stops, starts
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            ends.setdefault(start, {})[direction] = stop
    found = []
    # Each outline has a side that goes east; that of a part's own is met before those of its holes.
    for start in sorted(ends):
        while _EAST in ends[start]:
            corners = _follow(ends, start)
            row, column = divmod(start, width)
            found.append((int(parts[row, column]), np.stack([corners % width, corners // width], axis=1) - 1))
    return found


def _follow(ends: dict[int, dict[int, int]], start: int) -> np.ndarray:
    """The corners of the outline that begins with the side going east from `start`; its sides are used up."""
    corners, at, direction = [start], ends[start].pop(_EAST), _EAST
    while at != start or (direction + 1) % 4 in ends[at]:
        # Where two pixels touch by a corner, turning right stays at the same pixel.
        turn = 1 if (direction + 1) % 4 in ends[at] else -1
        direction = (direction + turn) % 4
        corners.append(at)
        at = ends[at].pop(direction)
    return np.array(corners, dtype=np.int64)


def _runs(sides: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W) bool → line, first and last (exclusive) of each run along the rows."""
    changes = np.diff(np.pad(sides.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    lines, firsts = np.nonzero(changes == 1)
    lasts = np.nonzero(changes == -1)[1]
    return lines, firsts, lasts


def _joined(outlines: Sequence[Outline]) -> Outline:
    """One line around all outlines, each entered from the one before it, at the corner that is nearest to that."""
    from scipy.spatial import cKDTree

    line, first = outlines[0], 0
    last = len(line)
    for outline in outlines[1:]:
        distances, nearest = cKDTree(line[first:last]).query(outline)
        there = int(np.argmin(distances))
        here = first + int(nearest[there])
        # Around the outline back to where it was entered, and back to where the line was left.
        around = np.concatenate([outline[there:], outline[: there + 1], line[here : here + 1]])
        line = np.concatenate([line[: here + 1], around, line[here + 1 :]])
        first, last = here + 1, here + 1 + len(outline)
    return line
