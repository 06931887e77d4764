"""Small trees of public sets, made from nothing."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np


def picture(path: Path, width: int = 40, height: int = 30) -> Path:
    """Writes a PNG or JPEG file, another one for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    cv2.imwrite(str(path), rng.integers(0, 256, (height, width), dtype=np.uint8))
    return path


def table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    """Writes a CSV file; a header of column names joined by commas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def summary(source):
    """File name → (split, patient, names of labels, of unknown ones) of a source."""
    names = {category["id"]: category["name"] for category in source.categories}
    return {
        image.file_name: (
            image.split,
            image.patient,
            [names[label] for label in image.labels or ()],
            [names[label] for label in image.unknown],
        )
        for image in source.images
    }


def reasons_of(source):
    """Reason → places, of what was left out."""
    found: dict[str, list[str]] = {}
    for drop in source.dropped:
        found.setdefault(drop.reason, []).append(drop.where)
    return found


def boxes_of(source):
    """(file name, category, box rounded to 1/1000, readers) each."""
    names = {category["id"]: category["name"] for category in source.categories}
    table = source.boxes
    return [
        (source.images[image].file_name, names[label], [round(value, 3) for value in box], readers)
        for image, label, box, readers in zip(
            table.images.tolist(), table.labels.tolist(), table.boxes.tolist(), source.readers, strict=True
        )
    ]
