"""Whether the boxes of a file lie in its pictures: they may be in other units, or of pictures of another size."""

import numpy as np

from xray.datasets.source import Source
from xray.datasets.sources.table_boxes import FEWEST
from xray.errors import InputError
from xray.radiographs.radiograph import RadiographError, radiograph_size

MOST_OPENED = 64
"""Pictures that are opened where no file says how large they are."""
FAR = 0.05
"""Share of a side by which a box must pass the edge to speak of other units. Boxes with a margin pass it by less, and
are cut there."""


def refuse_boxes_beyond(source: Source, what: str) -> None:
    """Raises InputError where half of the boxes pass an edge of their pictures by more than FAR.

    The box around an outline may do so where the outline is a turned box in a corner: its middle must lie outside.
    Of fewer each is judged when its picture is decoded: it is cut at the edge, and one wholly outside costs its
    radiograph. what: the file or tree, for the message.
    """
    boxes = source.boxes
    sizes = np.array([(image.width or np.nan, image.height or np.nan) for image in source.images]).reshape(-1, 2)
    unknown = np.unique(boxes.images[np.isnan(sizes[boxes.images]).any(axis=1)])
    if len(unknown):
        for number in unknown[np.unique(np.linspace(0, len(unknown) - 1, MOST_OPENED).round().astype(int))].tolist():
            try:
                sizes[number] = radiograph_size(source.images[number].path)
            except RadiographError:
                continue  # That is said when it is decoded.
    known = np.isfinite(sizes[boxes.images]).all(axis=1)
    corners, sides = boxes.boxes[known], sizes[boxes.images[known]]
    misfits = ((corners[:, :2] < -FAR * sides) | (corners[:, 2:] > (1 + FAR) * sides)).any(axis=1)
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    has_outline = np.isin(np.flatnonzero(known), list(source.masks))
    misfits &= ~has_outline | ((middles < 0) | (middles > sides)).any(axis=1)
    n, n_beyond = len(misfits), int(misfits.sum())
    if n >= FEWEST and 2 * n_beyond >= n:
        place = np.flatnonzero(known)[np.flatnonzero(misfits)[0]]
        width, height = sizes[boxes.images[place]].astype(int).tolist()
        box = ", ".join(f"{value:g}" for value in boxes.boxes[place].tolist())
        raise InputError(
            f"{n_beyond} of {n} boxes of {what} pass the edges of their pictures (the first: {source.places[place]}, "
            f"x1, y1, x2, y2 = {box} in a picture of {width} x {height}): they may be in other units, or of pictures "
            "of another size; give the pictures that were annotated"
        )
