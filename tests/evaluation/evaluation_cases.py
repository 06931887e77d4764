"""A small truth of boxes, and predictions of it."""

from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions

SQUARE, OTHER = (100, 100, 500, 500), (500, 1000, 900, 1800)
IMAGES = [
    ("a", "train", 0, "p"),
    ("b", "train", 0, "p"),
    ("c", "train", 1, "q"),
    ("d", "train", 1, None),
    ("e", "test", -1, None),
    ("f", "test", -1, None),
]
BOXES = [(0, 4, SQUARE), (2, 4, SQUARE), (3, 4, OTHER), (4, 4, SQUARE), (4, 1, OTHER)]


def predicted(*rows: tuple) -> Predictions:
    """Rows of (image_id, category, box, score)."""
    names = list(dict.fromkeys(row[0] for row in rows))
    columns = list(zip(*rows, strict=True))
    return Predictions(tuple(names), BoxTable.of([names.index(row[0]) for row in rows], *columns[1:]))
