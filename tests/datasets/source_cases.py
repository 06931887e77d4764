"""Small sources for the conversion tests: pictures whose content tells where they lie, and VinBig directories."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from xray.datasets.source import Source, SourceImage
from xray.structures.boxes import BoxTable

HEADER = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")


def gradient(width: int, height: int, offset: int = 0) -> np.ndarray:
    """(height, width) uint8, darker on the left and at the top; never black."""
    ramp = np.linspace(20, 200, width)[None, :] + np.linspace(0, 30, height)[:, None] + offset % 20
    return ramp.astype(np.uint8)


def write_picture(path: Path, width: int = 60, height: int = 40, offset: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), gradient(width, height, offset))
    return path


def write_dicom(path: Path, width: int = 60, height: int = 40, patient: str = "Doe^Jane") -> Path:
    """An uncompressed 8-bit file, with a patient's name that must not travel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientName = patient
    ds.Rows, ds.Columns, ds.SamplesPerPixel = height, width, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = gradient(width, height).tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def write_table(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def picture_source(folder: Path, n: int, boxes: BoxTable | None = None, readers: Any = None, **changes: Any) -> Source:
    """n pictures of 60 x 40 with the given boxes of categories 1 and 2."""
    images = [
        SourceImage(write_picture(folder / f"{number}.png", offset=number), f"{number}.png", f"id{number}")
        for number in range(n)
    ]
    boxes = BoxTable.empty() if boxes is None else boxes
    values: dict[str, Any] = {
        "kind": "test",
        "layout": "pictures",
        "images": images,
        "boxes": boxes,
        "readers": [()] * len(boxes) if readers is None else readers,
        "places": [f"line {number}" for number in range(len(boxes))],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "fingerprint": "f",
    }
    return Source(**(values | changes))


def told(source: Source) -> dict[str, dict[str, Any]]:
    """Of each radiograph, by its id: split, patient, size, labels, unknown, unlocated by name, and its boxes.

    A box is its category's name and x1, y1, x2, y2, and the reader where one is named.
    """
    names = {category["id"]: category["name"] for category in source.categories}
    result: dict[str, dict[str, Any]] = {}
    for number, image in enumerate(source.images):
        rows = [row for row in range(len(source.boxes)) if source.boxes.images[row] == number]
        result[image.source_id] = {
            "split": image.split,
            "patient": image.patient,
            "size": (image.width, image.height),
            **{key: [names[k] for k in getattr(image, key) or ()] for key in ("labels", "unknown", "unlocated")},
            "boxes": [
                (names[int(source.boxes.labels[row])], *source.boxes.boxes[row].tolist(), *source.readers[row])
                for row in rows
            ],
        }
    return result


def why(source: Source) -> list[tuple[str, str]]:
    """Where and why something was left out or changed, in order."""
    return sorted((drop.where, drop.reason) for drop in source.dropped)


def stated(source):
    """Id → names that it shows, and names that are unknown of it."""
    names = {category["id"]: category["name"] for category in source.categories}
    return {
        image.source_id: tuple([names[one] for one in ids or ()] for ids in (image.labels, image.unknown))
        for image in source.images
    }


def said(source):
    """Kind of each warning → its detail, the last one's."""
    return {warning.kind: warning.detail for warning in source.warnings}
