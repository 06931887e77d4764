"""The user's table of the patient of each radiograph, so that folds keep a patient's radiographs together."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.source import Dropped, SourceImage
from xray.datasets.sources.named_files import NamedFiles, without_suffix
from xray.datasets.sources.tables import read_table, spellings
from xray.errors import InputError
from xray.structures.values import identity, one_spelling, shown, text_of

PATIENT_UNKNOWN = "patient unknown"

NAME_COLUMNS = (
    "filename", "imageid", "imageindex", "imagename", "imagepath", "filepath", "path", "file", "image", "id",
)  # fmt: skip
PATIENT_COLUMNS = (
    "patient", "patientid", "subject", "subjectid", "patid", "pid", "mrn", "patientno", "patientnumber", "patientnr",
    "patientkey", "patientidentifier", "anonpatientid", "deidpatientid", "subjectno", "subjectnumber", "personid",
)  # fmt: skip
"""Columns in the order in which they are looked for, without case and punctuation."""

_WHOLE, _BARE, _LOOSE = range(3)
"""How a row names a file: by its whole name, by its path without the suffix, or in another way that may mean it."""


def patient_in(entry: Mapping[str, Any]) -> Any:
    """The patient of an entry of a COCO file, under any of the usual keys: patient, patient_id, "Subject ID"."""
    if "patient" in entry:
        return entry["patient"]
    named = spellings(entry)
    return next((entry[named[name]] for name in PATIENT_COLUMNS if name in named), None)


def name_patients(
    images: Sequence[SourceImage], table: Path, dropped: list[Dropped]
) -> tuple[list[SourceImage], bytes]:
    """The same images with the patients that a table names, and the table's bytes.

    table: a CSV with the columns file_name and patient, or a COCO file whose images have both. Names are compared as
    they stand, from the source's directory on; or else without suffix; or else without their folders, or by the number
    that they spell. Patients 17, 17.0 and 017 are one; an empty or missing one counts as not known. An image that the
    table does not name, or names under several patients, stays a patient of its own, and is entered in `dropped`.

    Raises InputError for a file that is neither, and where it names none of the images.
    """
    rows, content = _read(table)
    known = _by_image(images, rows)
    with_patients = []
    for image in images:
        patients = known.get(image.file_name, set())
        with_patients.append(dataclasses.replace(image, patient=next(iter(patients)) if len(patients) == 1 else None))
        if len(patients) != 1:
            detail = f"the table has {len(patients)} for that name" if patients else ""
            dropped.append(Dropped(image.file_name, PATIENT_UNKNOWN, "kept as a patient of its own", detail))
    if all(image.patient is None for image in with_patients):
        raise InputError(f"{table} names no patient of the {len(images)} images: it must have their file names")
    return with_patients, content


def _by_image(images: Sequence[SourceImage], rows: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    """File name of an image → its patients, by the rows that name it most exactly."""
    files = NamedFiles(image.file_name for image in images)
    bare: dict[str, list[str]] = defaultdict(list)
    for name in files.names:
        bare[without_suffix(name)].append(name)
    patients_of: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for text, patient in rows:
        name = text.replace("\\", "/").removeprefix("./")
        if name in files.ids:
            meant, how = [name], _WHOLE
        elif without_suffix(name) in bare:
            meant, how = bare[without_suffix(name)], _BARE
        else:
            meant, how = files.meant_by(name), _LOOSE
        for file_name in meant:
            patients_of[file_name][how].add(patient)
    return {name: ways[min(ways)] for name, ways in patients_of.items()}


def _read(path: Path) -> tuple[list[tuple[str, str]], bytes]:
    """(file name, patient) of each row that has both, and the file's bytes."""
    rows: list[tuple[Any, Any]]
    if path.suffix.lower() == ".json":
        try:
            content = path.read_bytes()
            entries = json.loads(content)["images"]
            rows = [(text_of(entry["file_name"]), patient_in(entry)) for entry in entries]
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): check --patients") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path} is not a COCO file: its images need file_name and patient") from None
    else:
        table, content = read_table(path)
        spelling = spellings(table.columns)
        column = next((spelling[name] for name in NAME_COLUMNS if name in spelling), None)
        patient = next((spelling[name] for name in PATIENT_COLUMNS if name in spelling), None)
        if column is None or patient is None:
            columns = ", ".join(name for name in table.columns if name != "line")
            raise InputError(f"{path} needs the columns file_name and patient (found {columns})")
        rows = list(zip(table[column].tolist(), table[patient].tolist(), strict=True))
    for name, patient in rows:
        try:
            identity(patient)
        except ValueError:
            raise InputError(
                f"{path}: the patient of {shown(name)}, {shown(patient)}, is neither number nor text: correct it"
            ) from None
    patients = one_spelling(patient for _, patient in rows)
    named = zip((name for name, _ in rows), patients, strict=True)
    return [(name, patient) for name, patient in named if name and patient is not None], content
