"""Whether boxes lie in their pictures: they may be in other units, or of pictures of another size. One rule for all.

A box passes an edge if it lies beyond it by more than FAR of the side, at least by a pixel: boxes with a margin pass it
by less, and are cut there. Half of at least FEWEST boxes tell that they are of other units or pictures. MANY of them,
and more than one, do so where it is known what would be right: another form or other units that fit, a public set
whose boxes all lie in pictures of one size, or pictures that only the files themselves say the size of.

Boxes of pictures that were made larger since pass no edge, but stay away from the right and the lower one, and from
both alike. Where no file says how large the pictures were, ENOUGH boxes that all end before HALF of the width and of
the height are refused if they reach about as far across as down; such that end before MOST of both are warned of. The
user may say that the pictures have the size that they had (--same-size), as all boxes of some finding may lie there.
"""

from collections.abc import Callable

import numpy as np

from xray.datasets.source import Source
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import RadiographError, radiograph_size

FAR = 0.05
"""Share of a side by which a box must pass the edge to speak of other units."""
FEWEST = 4
MANY = 0.05
ENOUGH = 20
HALF, MOST = 0.52, 0.75
"""Shares of a side. Where findings are sought in whole chests, some of 20 boxes reach further."""
ALIKE = 2 / 3
"""Of the larger of two such shares the other one is at least this, where pictures were made larger: squeezed to squares
before, they are so by another factor in each direction."""
SAME_SIZE = "--same-size if they have the size at which they were annotated"
MOST_OPENED = 64
"""Pictures that are opened where no file says how large they are."""

SIZES_OF_PICTURES = "sizes that no file says are taken from the pictures, which must be as large as when annotated"
MAY_BE_SMALLER = "boxes that may be of smaller pictures"


def passing(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy, (N, 2) or (2,) widths and heights → (N,) bool, which boxes pass an edge; NaN is no edge.

    Sizes of 1 are those of shares: there a pixel is nothing.
    """
    limits = np.broadcast_to(np.asarray(sizes, dtype=np.float64), (len(corners), 2))
    slack = np.where(limits > 1, np.maximum(FAR * limits, 1.0), np.where(np.isfinite(limits), FAR * limits, 1.0))
    first, second = corners[:, :2], corners[:, 2:]
    with np.errstate(invalid="ignore"):
        # Of numbers that are no two corners each may lie beyond.
        outside = (np.minimum(first, second) < -slack) | (np.maximum(first, second) > limits + slack)
    return np.asarray(outside.any(axis=1), dtype=bool)


def is_much(n_passing: int, n: int, is_known: bool = False) -> bool:
    """Whether so many of n boxes pass an edge that they are of other units or pictures.

    is_known: it is known what would be right, see above.
    """
    return (n >= FEWEST and 2 * n_passing >= n) or (is_known and n_passing > 1 and n_passing > MANY * n)


def reach(corners: np.ndarray, sizes: np.ndarray) -> tuple[float, float] | None:
    """The largest shares of width and height at which boxes (N, 4) end, where they tell of the size of their pictures.

    sizes: (N, 2), NaN where it is not known. None for too few boxes, and where one reaches MOST of a side.
    """
    shares = (corners[:, 2:] / sizes)[np.isfinite(sizes).all(axis=1) & np.isfinite(corners).all(axis=1)]
    if len(shares) < ENOUGH:
        return None
    across, down = shares.max(axis=0).tolist()
    return (across, down) if max(across, down) < MOST else None


def is_enlarged(ends: tuple[float, float]) -> bool:
    """Whether boxes that end at these shares of width and height are of pictures that were smaller, see above."""
    return max(ends) < HALF and min(ends) >= ALIKE * max(ends)


def said_of_reach(corners: np.ndarray, sizes: np.ndarray, what: str, advice: str, is_said: bool = False) -> str:
    """A warning of boxes that end before MOST of their pictures' sides, see `reach`; empty where there is none.

    what: the file or tree. advice: what to do about it. is_said: a file says that the pictures have these sizes.
    Raises InputError where they are of pictures that were smaller, see `is_enlarged`, and no file says so.
    """
    ends = reach(corners, sizes)
    if ends is None:
        return ""
    across, down = ends
    where = f"none of {len(corners)} ends beyond {across:.0%} of the width and {down:.0%} of the height of its picture"
    if is_enlarged(ends) and not is_said:
        raise InputError(f"{what}: the boxes seem to be of smaller pictures, {where}: {advice}")
    return f"{where}: if they are, {advice}"


def refuse_boxes_beyond(source: Source, what: str, same_size: bool = False) -> None:
    """Raises InputError where boxes are of other units, or of pictures of another size; see above.

    The box around an outline may pass an edge where the outline is a turned box in a corner: its middle must lie
    outside. Of fewer each is judged when its picture is decoded: it is cut at the edge, and one wholly outside costs
    its radiograph. what: the file or tree, for messages. same_size: the user says that pictures whose size no file says
    have the size that they had.
    """
    boxes = source.boxes
    sizes = np.array([(image.width or np.nan, image.height or np.nan) for image in source.images]).reshape(-1, 2)
    unsaid = np.isnan(sizes).any(axis=1)
    unknown = np.unique(boxes.images[unsaid[boxes.images]])
    for number in spread(unknown, MOST_OPENED):
        try:
            sizes[number] = radiograph_size(source.images[number].path)
        except RadiographError:
            continue  # That is said when it is decoded.
    has_outline = np.isin(np.arange(len(boxes)), list(source.masks))
    is_of_picture = unsaid[boxes.images]
    for rows in (np.flatnonzero(~is_of_picture), np.flatnonzero(is_of_picture)):
        chosen = rows[np.isfinite(sizes[boxes.images[rows]]).all(axis=1)]
        corners, limits = boxes.boxes[chosen], sizes[boxes.images[chosen]]
        middles = (corners[:, :2] + corners[:, 2:]) / 2
        misfits = passing(corners, limits)
        misfits &= ~has_outline[chosen] | ((middles < 0) | (middles > limits)).any(axis=1)
        is_unsaid = bool(len(rows)) and bool(is_of_picture[rows[0]])
        if is_much(int(misfits.sum()), len(misfits), is_unsaid):
            place = chosen[np.flatnonzero(misfits)[0]]
            width, height = sizes[boxes.images[place]].astype(int).tolist()
            box = ", ".join(f"{value:g}" for value in boxes.boxes[place].tolist())
            raise InputError(
                f"{misfits.sum()} of {len(misfits)} boxes of {what} pass the edges of their pictures (the first: "
                f"{source.places[place]}, x1, y1, x2, y2 = {box} in a picture of {width} x {height}): they may be in "
                "other units, or of pictures of another size; give the pictures that were annotated"
                + (", or write their width and height in the file" if is_unsaid else "")
            )
        if is_unsaid and source.sizes_of_files and not same_size:
            source.warnings.append(FileWarning(SIZES_OF_PICTURES, source.layout, f"{len(unknown)} pictures with boxes"))
            advice = "give the pictures that were annotated, or write their width and height in the file, or say "
            advice += SAME_SIZE
            if said := said_of_reach(corners, limits, what, advice):
                source.warnings.append(FileWarning(MAY_BE_SMALLER, source.layout, said))


def spread(numbers: np.ndarray, most: int) -> list[int]:
    """At most so many of (N,) numbers, from everywhere."""
    if not len(numbers):
        return []
    chosen: list[int] = numbers[np.unique(np.linspace(0, len(numbers) - 1, most).round().astype(np.int64))].tolist()
    return chosen


SizesOf = Callable[[np.ndarray], np.ndarray]
"""Numbers of boxes → (M, 2) widths and heights of their pictures, NaN where they are not known."""
