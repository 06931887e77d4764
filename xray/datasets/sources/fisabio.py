"""SIIM-FISABIO-RSNA COVID-19 Detection (Kaggle, 2021): boxes of opacities, and a class for each study.

train_image_level.csv has a row a radiograph: id (with _image behind it), boxes (a list of {'x', 'y', 'width',
'height'}), label ("opacity 1 x1 y1 x2 y2 …" with the same boxes, or "none 1 0 0 1 1") and StudyInstanceUID.
train_study_level.csv has a row a study: id (with _study behind it) and four columns of which one is 1. Boxes are in
pixels of the DICOM files, train/<study>/<series>/<id>.dcm; for pictures made of them, a meta.csv (image_id, dim0, dim1)
tells the original sizes, or columns such as width and height of train_image_level.csv itself.

What becomes of them: "Typical", "Indeterminate" and "Atypical Appearance" are findings of the whole radiograph, without
boxes; one of a study that is "Negative for Pneumonia" has none of them. A study is taken for a patient. Of a study with
several radiographs often only one was given its boxes: "none" of another one then means that opacities are unknown.
Files of the test set have no public truth; they are left out, and named.
"""

import ast
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.sizes import size_table
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    REPEATED,
    as_number,
    check_ids,
    check_units,
    give_sizes,
    one_table,
    rows_once,
)
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.structures.fisabio import APPEARANCES, IMAGE_SUFFIX, NEGATIVE, OPACITY, STUDY_SUFFIX
from xray.structures.values import flag_of, is_missing, shown

if TYPE_CHECKING:
    import pandas as pd

CATEGORIES = (OPACITY, *APPEARANCES)
CLASS_UNKNOWN = "classes of the study are unknown"
UNREADABLE_BOXES = "boxes that cannot be read"
DISAGREE = "boxes and label disagree"
NO_LABEL = "row without boxes and label"

AGREEMENT = 0.1
"""Pixels by which a box may differ in the two columns, which both are rounded."""
_SIDES = ("x", "y", "width", "height")
_NUMBERS_OF_BOX = 6
Box = list[float]
"""x1, y1, x2, y2 in pixels; NaN for what is no number."""


@dataclasses.dataclass
class _Row:
    """A row of the table of images: its boxes, or what is wrong with them."""

    image: str
    study: str
    line: int
    boxes: list[Box]
    fault: str = ""


def read_fisabio(data_path: Path | str) -> Source:
    """Reads the tables of the COVID-19 challenge; looks at no pixel.

    Raises InputError where the table of images is missing, one lacks a column or has boxes in other units, and where
    pictures have replaced the DICOM files and no table tells the original sizes; columns such as width and height of
    train_image_level.csv itself do, too.
    """
    root = data_root(
        data_path,
        "put train_image_level.csv, train_study_level.csv and train/ there (kaggle competitions download -c "
        "siim-covid19-detection)",
    )
    path = one_table(root, "train_image_level*.csv", "*image_level*.csv")
    if path is None:
        raise InputError(f"{root} has no train_image_level.csv: put the tables of the COVID-19 challenge there")
    collector = Collector("fisabio", root, CATEGORIES)
    classes = _read_studies(collector, root)
    table, content = read_table(path, ["id"], ["boxes", "label", "StudyInstanceUID"])
    collector.read(content)
    table = rows_once(path, table, collector)
    rows = _rows(path, table)
    by_name: dict[str, _Row] = {}
    for row in rows:
        place = f"{path.name} line {row.line}"
        name = collector.file_of(row.image, place, near=row.study.casefold()) if row.image else None
        if name is None:
            continue
        if name in by_name:
            collector.lose(name, place, REPEATED)
            continue
        by_name[name] = row
        if row.fault:
            collector.lose(name, place, row.fault)
        for box in row.boxes:
            collector.box(name, 1, box, place)
        if classes and row.study not in classes:
            collector.leave_out(place, CLASS_UNKNOWN, row.study, "kept without them")
    boxed = {row.study for row in rows if row.study and row.boxes}
    for name, row in by_name.items():
        said = classes.get(row.study)
        unknown = [] if said is not None else list(range(2, len(CATEGORIES) + 1))
        if row.study in boxed and not row.boxes:
            unknown = [1, *unknown]
        labels = [said] if said else []
        collector.describe(name, patient=row.study or None, labels=labels, unlocated=labels, unknown=unknown)
    # Tables that went through somebody's program may have the originals' sizes.
    own = size_table(path, table.assign(id=table["id"].str.removesuffix(IMAGE_SUFFIX)), content)
    return collector.source(squashed=give_sizes(collector, sorted(by_name), ["train"], own))


def _rows(path: Path, table: "pd.DataFrame") -> list[_Row]:
    """The rows of the table of images. Raises InputError where it is another table, or its boxes are no pixels."""
    n = len(table)
    columns = {name: table[name].tolist() if name in table.columns else None for name in ("boxes", "label")}
    if columns == {"boxes": None, "label": None}:
        raise InputError(f"{path} has neither the column boxes nor label: download it again")
    boxes, labels = (columns[name] or [None] * n for name in ("boxes", "label"))
    studies = table["StudyInstanceUID"].tolist() if "StudyInstanceUID" in table.columns else [""] * n
    rows = []
    for image, study, line, box, label in zip(table["id"], studies, table["line"], boxes, labels, strict=True):
        found, fault = boxes_of(box, label)
        rows.append(_Row(image.removesuffix(IMAGE_SUFFIX), study.removesuffix(STUDY_SUFFIX), line, found, fault))
    check_ids(path, table.assign(id=[row.image for row in rows]), "id", (bool(row.boxes or row.fault) for row in rows))
    everything = [box for row in rows for box in row.boxes]
    units = "boxes in pixels of the DICOM files"
    check_units(path, np.array(everything, dtype=np.float64).reshape(-1, 4), None, units)
    return rows


def boxes_of(boxes: str | None, label: str | None) -> tuple[list[Box], str]:
    """The boxes of a row, or what is wrong with it; None for a column that the table does not have."""
    if is_missing(boxes) and is_missing(label):
        return [], NO_LABEL
    listed = None if boxes is None else _listed(boxes)
    spelt = None if is_missing(label) or label is None else _spelt(label)
    for text, found in ((boxes, listed), (label, spelt)):
        if not is_missing(text) and found is None:
            return [], UNREADABLE_BOXES
    if listed is None:
        return spelt or [], ""
    if spelt is not None and not _agree(listed, spelt):
        return [], DISAGREE
    return listed, ""


def _listed(text: str) -> list[Box] | None:
    """[{'x': …, 'y': …, 'width': …, 'height': …}, …] as Python writes it; None for what is no such list."""
    if is_missing(text):
        return []
    try:
        entries: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    if any(set(_SIDES) - set(entry) for entry in entries):
        return None
    sides = [[as_number(entry[name]) for name in _SIDES] for entry in entries]
    return [[x, y, x + width, y + height] for x, y, width, height in sides]


def _spelt(text: str) -> list[Box] | None:
    """ "opacity 1 x1 y1 x2 y2 opacity …" or "none 1 0 0 1 1" → boxes; None for what is neither."""
    words = text.split()
    if len(words) % _NUMBERS_OF_BOX:
        return None
    parts = [words[start : start + _NUMBERS_OF_BOX] for start in range(0, len(words), _NUMBERS_OF_BOX)]
    if any(part[0].casefold() not in (OPACITY, "none") for part in parts):
        return None
    return [[as_number(word) for word in part[2:]] for part in parts if part[0].casefold() == OPACITY]


def _agree(listed: Sequence[Box], spelt: Sequence[Box]) -> bool:
    if len(listed) != len(spelt):
        return False
    # What is no number is found where the box is judged.
    difference = np.abs(np.array(sorted(listed)) - np.array(sorted(spelt)))
    return bool((difference[np.isfinite(difference)] <= AGREEMENT).all())


def _read_studies(collector: Collector, root: Path) -> dict[str, int | None]:
    """Study → category id of its class, 0 for a negative one, None where its rows are not of one class."""
    path = one_table(root, "train_study_level*.csv", "*study_level*.csv")
    if path is None:
        return {}
    names = (NEGATIVE, *APPEARANCES)
    table, content = read_table(path, ["id", *names])
    collector.read(content)
    classes: dict[str, int | None] = {}
    for row in table[["id", *names, "line"]].to_dict("records"):
        place, study = f"{path.name} line {row['line']}", row["id"].removesuffix(STUDY_SUFFIX)
        try:
            shows = [number for number, name in enumerate(names) if flag_of(row[name])]
        except ValueError as error:
            shows, fault = [], str(error)
        else:
            fault = f"{len(shows)} of its classes are 1"
        said = (shows[0] + 1 if shows[0] else 0) if len(shows) == 1 else None
        if said is None:
            collector.leave_out(place, CLASS_UNKNOWN, fault)
        elif classes.get(study, said) != said:
            collector.leave_out(place, reasons.CONTRADICTORY, f"{shown(row['id'])} has another class before")
            said = None
        classes[study] = said
    return classes
