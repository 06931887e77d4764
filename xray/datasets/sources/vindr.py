"""VinDr-CXR as PhysioNet publishes it: 15,000 radiographs read by three of 17 radiologists, 3,000 of a consensus test.

annotations/annotations_train.csv and _test.csv have a row a box (image_id, rad_id, class_name, x_min, y_min, x_max,
y_max; the test set has no rad_id), in pixels of the DICOM files; image_labels_train.csv and _test.csv a row a reader
and radiograph with 22 local findings, 5 global ones ("Other diseases", in the test set "Other disease", among them) and
"No finding", each 0 or 1. Kaggle's edition of 14 findings with one train.csv is the source `vinbig`.

What becomes of them: a local finding is one of a radiograph where any reader drew a box of it, or said so without a box
(then it lies somewhere). A global finding never has a box; the radiograph shows it where at least half of its readers
say so, and where fewer do, it is unknown. Without the tables of labels all global findings are unknown. The test set is
the split "test".
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    UNKNOWN_FINDING,
    as_numbers,
    check_ids,
    check_units,
    give_sizes,
    one_table,
)
from xray.datasets.sources.tables import plain_name, read_table
from xray.errors import InputError
from xray.findings import NO_FINDING_BOX
from xray.structures.values import flag_of, one_spelling, shown

if TYPE_CHECKING:
    import pandas as pd

LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
    "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
    "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases")
COORDINATES = ("x_min", "y_min", "x_max", "y_max")
UNKNOWN_COLUMN = "column of an unknown finding"

_IDS = {plain_name(name): number for number, name in enumerate((*LOCAL, *GLOBAL), 1)}
# The tables of the two splits spell it in two ways.
_IDS["otherdisease"] = _IDS["otherdiseases"]
_NORMAL = plain_name("No finding")
_GLOBAL_IDS = tuple(range(len(LOCAL) + 1, len(LOCAL) + len(GLOBAL) + 1))


def read_vindr(data_path: Path | str) -> Source:
    """Reads the tables of VinDr-CXR; looks at no pixel.

    Raises InputError where both tables of boxes are missing, or one lacks a column, and where pictures have replaced
    the DICOM files and no table tells the original sizes.
    """
    root = data_root(data_path, "put annotations/, train/ and test/ of https://physionet.org/content/vindr-cxr there")
    tables = {split: one_table(root, f"annotations_{split}*.csv") for split in (TRAIN, TEST)}
    if not any(tables.values()):
        raise InputError(
            f"{root} has neither annotations_train.csv nor annotations_test.csv: put those of VinDr-CXR there; "
            "Kaggle's train.csv is read by convert vinbig"
        )
    collector = Collector("vindr", root, (*LOCAL, *GLOBAL))
    has_pictures = False
    for split, path in tables.items():
        if path is not None:
            names = _read_boxes(collector, path, split)
            names |= _read_labels(collector, one_table(root, f"image_labels_{split}*.csv"), split, names)
            has_pictures |= give_sizes(collector, sorted(names), [split])
    return collector.source(squashed=has_pictures)


def _read_boxes(collector: Collector, path: Path, split: str) -> set[str]:
    """Enters the boxes and readers of a split; returns the files that the table names."""
    table, content = read_table(path, ["image_id", "class_name", *COORDINATES], ["rad_id"])
    collector.read(content)
    corners = as_numbers(table, COORDINATES)
    is_normal = [plain_name(text) == _NORMAL for text in table["class_name"]]
    check_ids(path, table, "image_id", (not normal for normal in is_normal))
    check_units(path, corners[~np.array(is_normal, dtype=bool)], None, "x_min to y_max in pixels of the DICOM files")
    readers = _readers(table)
    name_of: dict[str, str | None] = {}
    nothing: dict[tuple[str, str], str] = {}
    something = set()
    rows = zip(table["image_id"].tolist(), table["class_name"].tolist(), table["line"].tolist(), strict=True)
    for row, (image, text, line) in enumerate(rows):
        place, reader = f"{path.name} line {line}", readers[row]
        if image and image not in name_of:
            name_of[image] = collector.file_of(image, place, near=split)
        if not image or (name := name_of[image]) is None:
            continue
        collector.describe(name, split=split, reader=reader)
        category, box = _IDS.get(plain_name(text)), corners[row]
        if is_normal[row]:
            nothing.setdefault((name, reader), place)
            if np.isfinite(box).any() and tuple(box) not in (NO_FINDING_BOX, (0, 0, 0, 0)):
                collector.leave_out(place, reasons.BOX_WITHOUT_FINDING, action="box ignored")
            continue
        something.add((name, reader))
        if category is None:
            collector.lose(name, place, UNKNOWN_FINDING, shown(text))
        else:
            collector.box(name, category, box.tolist(), place, reader)
    for key, place in nothing.items():
        if key in something:
            # Readers may disagree with each other, but nobody sees nothing and something in the same radiograph.
            collector.leave_out(place, reasons.CONTRADICTORY, "the same reader has findings there")
    return {name for name in name_of.values() if name is not None}


def _read_labels(collector: Collector, path: Path | None, split: str, boxed: set[str]) -> set[str]:
    """Enters what readers said of whole radiographs; returns the files that the table names.

    boxed: those of the table of boxes. Without a table, or a row in it, their global findings are unknown.
    """
    votes = _votes(collector, path, split) if path is not None else {}
    for name in boxed | set(votes):
        yes, no = votes.get(name, (np.zeros(len(_IDS), int), np.zeros(len(_IDS), int)))
        shown_by_half = {number for number in _GLOBAL_IDS if yes[number] and yes[number] >= no[number]}
        local = {number for number in range(1, len(LOCAL) + 1) if yes[number]}
        said = {number for number in _GLOBAL_IDS if no[number] and not yes[number]}
        labels = sorted(shown_by_half | local)
        unknown = sorted(set(_GLOBAL_IDS) - shown_by_half - said)
        if name not in boxed:
            # Nobody looked for boxes, so that what no reader was asked about is unknown, too.
            unknown += [number for number in range(1, len(LOCAL) + 1) if not yes[number] and not no[number]]
        collector.describe(name, split=split, labels=labels, unlocated=labels, unknown=sorted(unknown))
    return set(votes)


def _votes(collector: Collector, path: Path, split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File → of how many readers each finding has a 1, and of how many a 0; by category id."""
    table, content = read_table(path, ["image_id"], ["rad_id"])
    collector.read(content)
    columns = {}
    for column in table.columns:
        if (category := _IDS.get(plain_name(column))) is not None:
            columns[category] = table[column].tolist()
        elif plain_name(column) not in (_NORMAL, "imageid", "radid", "line"):
            collector.leave_out(path.name, UNKNOWN_COLUMN, column)
    readers = _readers(table)
    name_of: dict[str, str | None] = {}
    votes: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    seen: dict[tuple[str, str], tuple[str, ...]] = {}
    for row, (image, line) in enumerate(zip(table["image_id"].tolist(), table["line"].tolist(), strict=True)):
        place = f"{path.name} line {line}"
        if image not in name_of:
            name_of[image] = collector.file_of(image, place, near=split)
        name = name_of[image]
        if name is None:
            continue
        answers = tuple(cells[row] for cells in columns.values())
        if (name, readers[row]) in seen:
            if seen[name, readers[row]] == answers:
                collector.leave_out(place, reasons.DUPLICATE)
            else:
                collector.lose(name, place, reasons.CONTRADICTORY, "the same reader has other labels before")
            continue
        seen[name, readers[row]] = answers
        collector.describe(name, split=split, reader=readers[row])
        yes, no = votes.setdefault(name, (np.zeros(len(_IDS), int), np.zeros(len(_IDS), int)))
        for category, cells in columns.items():
            try:
                answer = flag_of(cells[row])
            except ValueError:
                collector.lose(
                    name, place, UNKNOWN_FINDING, f"{(*LOCAL, *GLOBAL)[category - 1]} is {shown(cells[row])}"
                )
                continue
            yes[category] += answer is True
            no[category] += answer is False
    return votes


def _readers(table: "pd.DataFrame") -> list[str]:
    """The reader of each row, "" where nobody is named."""
    names = one_spelling(table["rad_id"]) if "rad_id" in table.columns else [None] * len(table)
    return [name or "" for name in names]
