"""Object-CXR (MIDL 2020): foreign objects on 10,000 radiographs, outlined by rectangles, ellipses and polygons.

train.csv, dev.csv and test.csv have a row a radiograph: image_name (image_path in some descriptions of it) and
annotation, objects with ; between them: "0 x1 y1 x2 y2" a rectangle, "1 x1 y1 x2 y2" the rectangle around an ellipse,
"2 x1 y1 x2 y2 x3 y3 …" a polygon, in pixels of the JPEG files in train/, dev/ and test/. An empty cell means no object.

What becomes of them: all are "Foreign object" with the box around the shape, and the shape as mask. Support devices
were not outlined, and a radiograph without an object may show any disease: normal means free of objects here. dev is
the split "val". Patients are not known.
"""

from pathlib import Path

import numpy as np

from xray.datasets.source import TEST, TRAIN, VAL, Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    REPEATED,
    as_number,
    check_ids,
    check_resized,
    check_units,
    find_tables,
    rows_once,
)
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.structures.values import is_missing, shown

CATEGORIES = ("Foreign object",)
MALFORMED = "annotation that cannot be read"

_SPLITS = ((TRAIN, "train"), (VAL, "dev"), (TEST, "test"))
_RECTANGLE, _ELLIPSE, _POLYGON = 0, 1, 2
_POINTS = 48
"""Corners of the polygon that stands for an ellipse: it is at most 0.2 % of the radius away."""
_IMAGE_COLUMNS = ("image_name", "image_path")


def read_objectcxr(data_path: Path | str) -> Source:
    """Reads the tables of Object-CXR; looks at no pixel.

    Raises InputError where there is none, one lacks a column, or has coordinates that are no pixels, or of larger
    pictures whose sizes no table tells.
    """
    root = data_root(data_path, "put train.csv, dev.csv, test.csv and the folders train/, dev/ and test/ there")
    tables = {split: _table_of(root, word) for split, word in _SPLITS}
    if not any(tables.values()):
        raise InputError(f"{root} has no train.csv with image_name,annotation: put the tables of Object-CXR there")
    collector = Collector("objectcxr", root, CATEGORIES)
    for split, word in _SPLITS:
        if (path := tables[split]) is not None:
            _read(collector, path, split, word)
    return collector.source()


def _table_of(root: Path, word: str) -> Path | None:
    found = find_tables(root, f"{word}.csv", f"*{word}*.csv")
    return found[0] if found else None


def _read(collector: Collector, path: Path, split: str, word: str) -> None:
    table, content = read_table(path, ["annotation"], _IMAGE_COLUMNS)
    column = next((name for name in _IMAGE_COLUMNS if name in table.columns), None)
    if column is None:
        names = ", ".join(name for name in table.columns if name != "line")
        raise InputError(f"{path} has no column image_name (found {names}): put the tables of Object-CXR there")
    collector.read(content)
    table = rows_once(path, table, collector)
    check_ids(path, table, column, (not is_missing(text) for text in table["annotation"]))
    shapes = [shapes_of(text) for text in table["annotation"].tolist()]
    boxes = [[*points.min(axis=0), *points.max(axis=0)] for of_image in shapes for points in of_image or ()]
    check_units(path, np.array(boxes, dtype=np.float64).reshape(-1, 4), None, "coordinates in pixels of the JPEG files")
    seen: set[str] = set()
    reach: dict[str, tuple[float, float]] = {}
    cells = zip(table[column].tolist(), table["annotation"].tolist(), table["line"].tolist(), shapes, strict=True)
    for image, text, line, of_image in cells:
        place = f"{path.name} line {line}"
        if not image or (name := collector.file_of(image, place, near=word)) is None:
            continue
        collector.describe(name, split=split)
        if name in seen:
            collector.lose(name, place, REPEATED)
            continue
        seen.add(name)
        if of_image is None:
            collector.lose(name, place, MALFORMED, shown(text))
            continue
        for points in of_image:
            (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            collector.box(name, 1, (left, top, right, bottom), place, mask=[points.ravel().tolist()])
        if of_image:
            right, bottom = np.concatenate(of_image).max(axis=0).tolist()
            reach[name] = (right, bottom)
    check_resized(collector, path, reach, word)


def shapes_of(text: str) -> list[np.ndarray] | None:
    """A cell → (N, 2) corners of each shape; None where one of them is none."""
    shapes = []
    for part in ("" if is_missing(text) else text).split(";"):
        words = part.split()
        if not words:
            continue
        kind, *numbers = (as_number(word) for word in words)
        points = np.array(numbers[: len(numbers) // 2 * 2], dtype=np.float64).reshape(-1, 2)
        if len(numbers) % 2 or not np.isfinite(points).all():
            return None
        if kind in (_RECTANGLE, _ELLIPSE) and len(points) == 2:
            (x1, y1), (x2, y2) = points.tolist()
            if x2 < x1 or y2 < y1:
                return None
            is_ellipse = kind == _ELLIPSE
            shapes.append(_ellipse(x1, y1, x2, y2) if is_ellipse else _rectangle(x1, y1, x2, y2))
        elif kind == _POLYGON and len(points) >= 3:
            shapes.append(points)
        else:
            return None
    return shapes


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _ellipse(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Corners on the ellipse inside a rectangle, the four that touch its sides among them."""
    angles = np.arange(_POINTS) * (2 * np.pi / _POINTS)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).round(12)
    corners: np.ndarray = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) + unit * np.array([(x2 - x1) / 2, (y2 - y1) / 2])
    return corners
