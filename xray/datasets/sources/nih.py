"""NIH ChestX-ray14: labels of 112,120 radiographs, mined from their reports, and boxes for 880 of them.

Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv, or sample_labels.csv of the set's small edition) has a row a
radiograph, its findings joined by |. BBox_List_2017.csv has a row a box, x, y, width and height in pixels of the PNG
files of 1024 x 1024 that the set consists of, whatever size a copy of them has. train_val_list.txt and test_list.txt
are the official split. Radiographs lie anywhere below the folder: images_001/images/, images/, or right there.

What becomes of them: a label without a box is a finding that lies somewhere (`unlocated`); one that neither table
mentions is a finding that the radiograph does not show, unless only the table of boxes names the radiograph: of such a
one, the other findings are unknown. Infiltrate in the table of boxes is Infiltration in that of labels.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    FAR_BEYOND,
    UNKNOWN_FINDING,
    as_numbers,
    attributes_of,
    check_ids,
    check_units,
    is_far_beyond,
    one_table,
)
from xray.datasets.sources.tables import plain_name, read_table
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.values import is_missing, one_spelling

if TYPE_CHECKING:
    import pandas as pd

CATEGORIES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
SIDE = 1024
"""Pixels of a side of the set's pictures, in which the boxes are."""
IN_NO_LIST = "radiograph that neither list of the official split names"
ALL_BOXES_IN_TEST = (
    "every box is of a radiograph of test_list.txt, so no detector can learn from them: take train_val_list.txt and "
    "test_list.txt away, or deal other splits, to train one"
)

IMAGE, LABELS, LABEL = "Image Index", "Finding Labels", "Finding Label"
ABOUT = {
    "view": ("View Position",),
    "sex": ("Patient Sex", "Patient Gender"),
    "age": ("Patient Age",),
}
_ALIASES = {"infiltrate": "Infiltration"}
_NAMES = {plain_name(name): number for number, name in enumerate(CATEGORIES, 1)}
_NAMES |= {alias: _NAMES[plain_name(name)] for alias, name in _ALIASES.items()}
_NORMAL = plain_name("No Finding")
_BOX_HEADERS = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("xywh", "", "", ""))
"""What stands behind the label, without "Bbox" before each or the first of them."""


def read_nih(data_path: Path | str) -> Source:
    """Reads the tables of NIH ChestX-ray14; looks at no pixel.

    Raises InputError where there is no table, one lacks a column or has boxes in other units, and where the lists of
    the official split contradict each other.
    """
    root = data_root(data_path, "put Data_Entry_2017_v2020.csv, BBox_List_2017.csv and the folders of PNG files there")
    labels = one_table(root, "Data_Entry_2017_v2020*.csv", "Data_Entry*.csv", "sample_labels.csv")
    boxes = one_table(root, "BBox_List*.csv")
    if labels is None and boxes is None:
        raise InputError(
            f"{root} holds neither Data_Entry_2017_v2020.csv nor BBox_List_2017.csv: put the tables of NIH "
            "ChestX-ray14 there"
        )
    collector = Collector("nih", root, CATEGORIES)
    described = _read_labels(collector, labels) if labels is not None else set()
    boxed = _read_boxes(collector, boxes) if boxes is not None else set()
    for name in boxed - described:
        # Of the other findings nobody says anything.
        collector.describe(name, unknown=range(1, len(CATEGORIES) + 1), patient=_patient_of(name))
    splits = {name: split for name, split in _splits(collector, root).items() if name in described or name in boxed}
    for name, split in splits.items():
        collector.describe(name, split=split)
    for name in sorted((described | boxed) - set(splits)) if splits else ():
        # A list that is cut off must not make a test set's radiographs train.
        collector.set_aside(name, IN_NO_LIST)
    if boxed and all(splits.get(name) == TEST for name in boxed):
        collector.warnings.append(FileWarning(ALL_BOXES_IN_TEST, f"{len(boxed)} radiographs"))
    return collector.source()


def _read_labels(collector: Collector, path: Path) -> set[str]:
    """Enters the radiographs of the table of labels; returns the names of their files."""
    table, content = read_table(
        path, [IMAGE, LABELS], ["Patient ID", *(name for names in ABOUT.values() for name in names)]
    )
    collector.read(content)
    check_ids(path, table, IMAGE, (text not in ("", "No Finding") for text in table[LABELS]))
    patients = one_spelling(table["Patient ID"]) if "Patient ID" in table else [None] * len(table)
    attributes = attributes_of(table, ABOUT)
    everything = range(1, len(CATEGORIES) + 1)
    said: dict[str, str] = {}
    rows = zip(table[IMAGE].tolist(), table[LABELS].tolist(), table["line"].tolist(), patients, strict=True)
    for row, (image, text, line, patient) in enumerate(rows):
        place = f"{path.name} line {line}"
        if not image or (name := collector.file_of(image, place)) is None:
            continue
        if name in said:
            if said[name] == text:
                collector.leave_out(place, reasons.DUPLICATE)
            else:
                collector.lose(name, place, reasons.CONTRADICTORY, f"it is {text} here, and {said[name]} before")
            continue
        said[name] = text
        about: dict[str, Any] = {"size": (SIDE, SIDE), "patient": patient or _patient_of(name), **attributes(row)}
        words = [word.strip() for word in text.split("|") if word.strip()]
        found = [_NAMES.get(plain_name(word)) for word in words if plain_name(word) != _NORMAL]
        if is_missing(text):
            collector.describe(name, unknown=everything, **about)
        elif None in found:
            collector.lose(name, place, UNKNOWN_FINDING, text)
        elif found and len(found) < len(words):
            collector.lose(name, place, reasons.CONTRADICTORY, text)
        else:
            ids = [number for number in found if number is not None]
            collector.describe(name, labels=ids, unlocated=ids, **about)
    return set(said)


def _read_boxes(collector: Collector, path: Path) -> set[str]:
    """Enters the boxes; returns the names of the files that have one."""
    table, content = read_table(path, [IMAGE, LABEL])
    collector.read(content)
    corners = _corners(path, table)
    check_ids(path, table, IMAGE, (text != "" for text in table[LABEL]))
    check_units(path, corners, (SIDE, SIDE), f"x, y, width and height in pixels of the pictures of {SIDE} x {SIDE}")
    far = is_far_beyond(corners, (SIDE, SIDE))
    boxed = set()
    rows = zip(table[IMAGE].tolist(), table[LABEL].tolist(), table["line"].tolist(), strict=True)
    for row, (image, text, line) in enumerate(rows):
        place = f"{path.name} line {line}"
        if not image or (name := collector.file_of(image, place)) is None:
            continue
        boxed.add(name)
        collector.describe(name, size=(SIDE, SIDE))
        category = _NAMES.get(plain_name(text))
        if category is None:
            collector.lose(name, place, UNKNOWN_FINDING, text)
        elif far[row]:
            collector.lose(name, place, FAR_BEYOND, f"{corners[row].tolist()} in {SIDE} x {SIDE}")
        else:
            collector.box(name, category, corners[row].tolist(), place)
    return boxed


def _corners(path: Path, table: "pd.DataFrame") -> np.ndarray:
    """(N, 4) xyxy. The header calls one column "Bbox [x,y,w,h]", whose commas make four names of it."""
    columns = [name for name in table.columns if name != "line"]
    columns = columns[columns.index(LABEL) + 1 :][:4]
    plain = tuple("" if name.startswith("Unnamed") else plain_name(name).removeprefix("bbox") for name in columns)
    if plain not in _BOX_HEADERS:
        raise InputError(
            f"{path} has the columns {', '.join(columns) or 'none'} after {LABEL}: it needs Bbox [x,y,w,h], as in "
            "BBox_List_2017.csv"
        )
    x, y, width, height = as_numbers(table, columns).T
    return np.stack([x, y, x + width, y + height], axis=1)


def _patient_of(name: str) -> str | None:
    """The patient of 00000013_005.png, "13" as in the table of labels; None for a file of another name."""
    number, _, visit = Path(name).stem.partition("_")
    return str(int(number)) if number.isdecimal() and visit.isdecimal() else None


def _splits(collector: Collector, root: Path) -> dict[str, str]:
    """File → split, of those in the official lists; beside one list alone, all others are of the other split."""
    lists: dict[str, set[str]] = {}
    for split, pattern in ((TRAIN, "train_val_list*.txt"), (TEST, "test_list*.txt")):
        if (path := one_table(root, pattern)) is not None:
            content = path.read_bytes()
            collector.read(content)
            lines = content.decode("utf-8-sig", "replace").splitlines()
            meant = (collector.files.meant_by(line.strip()) for line in lines if line.strip())
            lists[split] = {names[0] for names in meant if len(names) == 1}
    if both := sorted(lists.get(TRAIN, set()) & lists.get(TEST, set())):
        raise InputError(f"{both[0]} stands in train_val_list.txt and in test_list.txt: download both again")
    if len(lists) == 1:
        (split, listed), other = *lists.items(), TEST if TRAIN in lists else TRAIN
        return {name: split if name in listed else other for name in collector.files.names}
    return {name: split for split, names in lists.items() for name in names}
