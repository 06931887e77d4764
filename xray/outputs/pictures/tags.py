"""Where the names of boxes go on a picture: tags that do not cover each other and stay inside.

A rectangle is (x1, y1, x2, y2) in whole pixels of the picture, both ends included.
"""

import math
from collections.abc import Sequence

Rectangle = tuple[int, int, int, int]


def place_tag(
    size: tuple[int, int],
    box: Rectangle,
    boxes: Sequence[Rectangle],
    taken: Sequence[Rectangle],
    picture: tuple[int, int],
) -> Rectangle | None:
    """Where the tag of `box` goes: beside it if there is room, else the nearest free place; None if there is none."""
    width, height = size
    x1, y1, x2, y2 = box
    above, below, right = y1 - height - 1, y2 + 2, x2 - width
    beside = [(x1, above), (right, above), (x1, below), (right, below), (x2 + 2, y1), (x1 - width - 1, y1)]
    inside = [(x1 + 3, y1 + 3), (x1 + 3, y2 - height - 2), (right - 2, y1 + 3), (right - 2, y2 - height - 2)]
    best, best_cost = None, float("inf")
    for number, (x, y) in enumerate(beside + inside):
        place = (x, y, x + width - 1, y + height - 1)
        if not _within(place, picture) or any(touch(place, other) for other in taken):
            continue
        # Hiding a nodule's box costs much, lying over a corner of a large one little; earlier places look better.
        cost = 0.05 * number + sum(_covered(other, place) for other in boxes)
        if cost < best_cost:
            best, best_cost = place, cost
    if best is not None:
        return best
    # No room at the box: search the whole picture in steps of half a tag.
    xs = {min(max(x, 0), picture[0] - width) for x in (x1, right, *range(0, picture[0], max(1, width // 2)))}
    ys = {min(max(y, 0), picture[1] - height) for y in (above, below, *range(0, picture[1], max(1, height // 2)))}
    free = [place for x in xs for y in ys if _within(place := (x, y, x + width - 1, y + height - 1), picture)]
    free = [place for place in free if not any(touch(place, other) for other in taken)]
    return min(free, key=lambda place: (_distance(place, box), place), default=None)


def _within(place: Rectangle, picture: tuple[int, int]) -> bool:
    return place[0] >= 0 and place[1] >= 0 and place[2] < picture[0] and place[3] < picture[1]


def touch(first: Rectangle, second: Rectangle) -> bool:
    """Whether two rectangles overlap or lie within two pixels of each other."""
    return _distance(first, second) <= 2


def _distance(first: Rectangle, second: Rectangle) -> float:
    x = max(first[0] - second[2], second[0] - first[2], 0)
    y = max(first[1] - second[3], second[1] - first[3], 0)
    return math.hypot(x, y)


def _covered(box: Rectangle, place: Rectangle) -> float:
    """The share of a box that a place covers."""
    x = min(box[2], place[2]) - max(box[0], place[0]) + 1
    y = min(box[3], place[3]) - max(box[1], place[1]) + 1
    return max(x, 0) * max(y, 0) / ((box[2] - box[0] + 1) * (box[3] - box[1] + 1))


def nearest(box: Rectangle, other: Rectangle) -> tuple[int, int]:
    """The point of `box` nearest to the centre of `other`."""
    x, y = (other[0] + other[2]) // 2, (other[1] + other[3]) // 2
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
