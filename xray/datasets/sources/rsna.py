"""RSNA Pneumonia Detection Challenge (Kaggle, 2018): boxes of lung opacities on 26,684 radiographs of NIH's set.

stage_2_train_labels.csv has a row a box (patientId, x, y, width, height, Target), or one with empty cells and Target 0.
Boxes are in pixels of the DICOM files of 1024 x 1024, whatever size a copy of them has. stage_2_detailed_class_info.csv
says of each radiograph Normal, Lung Opacity, or "No Lung Opacity / Not Normal". patientId is the radiograph's id, not a
patient's; pneumonia-challenge-dataset-mappings_2018.json, which RSNA publishes, tells the radiograph's name in NIH's
set and with it the patient: with that file beside the tables, folds keep a patient's radiographs together.

What becomes of them: "No Lung Opacity / Not Normal" is a category of its own, without boxes: such a radiograph shows no
opacity, and is not normal. Without the table of classes, whether a radiograph without a box shows that is unknown.
Files of the test set have no public labels; they are left out, and named.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    FAR_BEYOND,
    UNKNOWN_FINDING,
    as_numbers,
    check_ids,
    check_units,
    is_far_beyond,
    one_table,
    read_json,
)
from xray.datasets.sources.tables import plain_name, read_table
from xray.errors import InputError
from xray.structures.values import flag_of, identity, is_missing, shown, text_of

OPACITY, NOT_NORMAL, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"
CATEGORIES = (OPACITY, NOT_NORMAL)
SIDE = 1024
"""Pixels of a side of the set's radiographs, in which the boxes are."""
UNKNOWN_TARGET = "Target is neither 0 nor 1"

_CLASSES = {plain_name(name): name for name in (OPACITY, NOT_NORMAL, NORMAL)}
_COORDINATES = ("x", "y", "width", "height")


def read_rsna(data_path: Path | str) -> Source:
    """Reads the tables of RSNA's challenge; looks at no pixel.

    Raises InputError where the table of labels is missing, one lacks a column, or has boxes in other units.
    """
    root = data_root(
        data_path,
        "put stage_2_train_labels.csv, stage_2_detailed_class_info.csv and stage_2_train_images/ there (kaggle "
        "competitions download -c rsna-pneumonia-detection-challenge)",
    )
    path = one_table(root, "stage_2_train_labels*.csv", "stage_1_train_labels*.csv", "*train_labels*.csv")
    if path is None:
        raise InputError(f"{root} has no stage_2_train_labels.csv: put the tables of RSNA's challenge there")
    collector = Collector("rsna", root, CATEGORIES)
    table, content = read_table(path, ["patientId", *_COORDINATES, "Target"])
    collector.read(content)
    xywh = as_numbers(table, _COORDINATES)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    # R and pandas write NA or NaN there.
    cells_of_boxes = table[list(_COORDINATES)].itertuples(index=False)
    is_empty = np.array([all(map(is_missing, cells)) for cells in cells_of_boxes], dtype=bool)
    check_ids(path, table, "patientId", (~is_empty).tolist())
    check_units(path, corners, (SIDE, SIDE), f"x, y, width and height in pixels of the {SIDE} x {SIDE} DICOM files")
    far = is_far_beyond(corners, (SIDE, SIDE))
    name_of: dict[str, str | None] = {}
    targets: dict[str, set[bool]] = defaultdict(set)
    rows = zip(table["patientId"].tolist(), table["Target"].tolist(), table["line"].tolist(), strict=True)
    for row, (image, text, line) in enumerate(rows):
        place = f"{path.name} line {line}"
        if image and image not in name_of:
            name_of[image] = collector.file_of(image, place)
        if not image or (name := name_of[image]) is None:
            continue
        target = _target(text)
        if target is None:
            collector.lose(name, place, UNKNOWN_TARGET, shown(text))
        elif target != (not is_empty[row]):
            collector.lose(name, place, reasons.CONTRADICTORY, f"Target {text} {'without' if target else 'with'} a box")
        elif far[row]:
            collector.lose(name, place, FAR_BEYOND, f"{corners[row].tolist()} in {SIDE} x {SIDE}")
        elif target:
            collector.box(name, 1, corners[row].tolist(), place)
        if target is not None:
            if targets[name] | {target} == {True, False}:
                collector.lose(name, place, reasons.CONTRADICTORY, "Target is 0 in one row and 1 in another")
            targets[name].add(target)
    classes = _read_classes(collector, root, name_of)
    patients = _read_patients(collector, root)
    for image, name in name_of.items():
        if name is not None:
            is_positive = True in targets[name]
            kind = classes.get(name, OPACITY if is_positive else None)
            if kind is not None and (kind == OPACITY) != is_positive and targets[name]:
                collector.lose(name, name, reasons.CONTRADICTORY, f"its class is {kind}, its Target {int(is_positive)}")
            collector.describe(
                name,
                size=(SIDE, SIDE),
                patient=patients.get(image),
                labels=[2] if kind == NOT_NORMAL else [],
                unlocated=[2] if kind == NOT_NORMAL else [],
                unknown=[2] if kind is None else [],
                normal=kind == NORMAL,
            )
    return collector.source()


def _target(text: str) -> bool | None:
    try:
        return flag_of(text)
    except ValueError:
        return None


def _read_classes(collector: Collector, root: Path, name_of: dict[str, str | None]) -> dict[str, str]:
    """File → class, of the table that says which radiographs are normal; it has a row a box, too."""
    path = one_table(root, "stage_2_detailed_class_info*.csv", "*detailed_class_info*.csv")
    if path is None:
        return {}
    table, content = read_table(path, ["patientId", "class"])
    collector.read(content)
    classes: dict[str, str] = {}
    for image, text, line in zip(table["patientId"], table["class"], table["line"], strict=True):
        # Radiographs without a row in the other table have no boxes that one could trust.
        if (name := name_of.get(image)) is None:
            continue
        kind = _CLASSES.get(plain_name(text))
        place = f"{path.name} line {line}"
        if kind is None:
            collector.lose(name, place, UNKNOWN_FINDING, shown(text))
        elif classes.setdefault(name, kind) != kind:
            collector.lose(name, place, reasons.CONTRADICTORY, f"it is {kind} here, and {classes[name]} before")
    return classes


def _read_patients(collector: Collector, root: Path) -> dict[str, str]:
    """patientId → patient, from RSNA's table of the radiographs' names in NIH's set, such as 00000013_005.png."""
    path = one_table(root, "pneumonia-challenge-dataset-mappings*.json", "*dataset-mappings*.json")
    if path is None:
        return {}
    entries, content = read_json(path, list, "RSNA's mapping to NIH's set")
    collector.read(content)
    patients = {}
    for entry in entries:
        try:
            image, name = text_of(entry["subset_img_id"]), text_of(entry["img_id"]) or ""
        except (TypeError, KeyError, ValueError):
            continue
        number = identity(name.partition("_")[0])
        if image and isinstance(number, int):
            patients[image] = str(number)
    if entries and not patients:
        raise InputError(f"{path} names no radiograph: its entries need subset_img_id and img_id; or take it away")
    return patients
