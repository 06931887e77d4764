"""A table of one's own that names each radiograph's patient, so that folds keep a patient's radiographs together."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from xray.command import InputError
from xray.data.radiograph import source_id
from xray.data.source import Dropped, SourceImage
from xray.data.tables import read_table

PATIENT_UNKNOWN = "patient unknown"

_NAME_COLUMNS = ("file_name", "image_id", "ImageId", "filename", "image", "id")


def name_patients(
    images: Sequence[SourceImage], table: Path, dropped: list[Dropped]
) -> tuple[list[SourceImage], bytes]:
    """The same images with the patients that a table names, and the table's bytes.

    table: a CSV with the columns file_name and patient, or a COCO file whose images have both. Names are compared
    without suffix: as they stand, from the source's directory on, or else without their folders. An image that the
    table does not name, or names under several patients, stays a patient of its own, which `dropped` is told.

    Raises InputError for a file that is neither, and where it names none of the images.
    """
    rows, content = _read(table)
    paths = {_bare(image.file_name) for image in images}
    by_path = {_bare(name): patient for name, patient in rows}
    by_stem: dict[str, set[str]] = {}
    for name, patient in rows:
        if _bare(name) not in paths:
            by_stem.setdefault(_stem(name), set()).add(patient)
    found = []
    for image in images:
        name = _bare(image.file_name)
        known = {by_path[name]} if name in by_path else by_stem.get(_stem(name), set())
        found.append(dataclasses.replace(image, patient=next(iter(known)) if len(known) == 1 else None))
        if len(known) != 1:
            detail = f"the table has {len(known)} for that name" if known else ""
            dropped.append(Dropped(image.file_name, PATIENT_UNKNOWN, "kept as a patient of its own", detail))
    if all(image.patient is None for image in found):
        raise InputError(
            f"{table} names the patient of none of the {len(images)} images: its file names must be theirs"
        )
    return found, content


def _read(path: Path) -> tuple[list[tuple[str, str]], bytes]:
    """(file name, patient) of each row that has both, and the file's bytes."""
    if path.suffix.lower() == ".json":
        try:
            content = path.read_bytes()
            entries = json.loads(content)["images"]
            rows = [(str(entry["file_name"]), entry.get("patient")) for entry in entries]
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): check --patients") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path} is not a COCO file: its images need file_name and patient") from None
        return [(name, str(patient)) for name, patient in rows if isinstance(patient, str | int)], content
    table, content = read_table(path)
    column = next((name for name in _NAME_COLUMNS if name in table.columns), None)
    if column is None or "patient" not in table.columns:
        found = ", ".join(name for name in table.columns if name != "line")
        raise InputError(f"{path} needs the columns file_name and patient (found {found})")
    rows = zip(table[column].tolist(), table["patient"].tolist(), strict=True)
    return [(name, patient) for name, patient in rows if name and patient], content


def _bare(name: str) -> str:
    """A file name with its folders, without its suffix."""
    folder, slash, last = name.replace("\\", "/").removeprefix("./").rpartition("/")
    return folder + slash + source_id(last)


def _stem(name: str) -> str:
    return _bare(name).rpartition("/")[2]
