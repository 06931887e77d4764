"""ChestX-Det: 3,578 radiographs of NIH's set with boxes and outlines of 13 findings by three radiologists.

ChestX_Det_train.json and ChestX_Det_test.json are lists of {file_name, syms, boxes, polygons}: the three lists go
together, a box is x1, y1, x2, y2, and its polygon [[x, y], …], all in pixels of the 1024 x 1024 PNG files in
train_data/ and test_data/. ChestX-Det10's files, train.json and test.json, have no polygons and ten findings; they are
read too.

What becomes of them: a radiograph without boxes is normal in the sense of the set, as all 13 findings were looked for.
In ChestX-Det10 (Liu et al., arXiv:2006.10550) three were not: Cardiomegaly, Diffuse Nodule and Pleural Thickening are
unknown on all of its radiographs.
Polygons become masks. Files are renumbered, so that neither NIH's names nor patients are known; two radiographs of one
patient may be in different folds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.source import DUPLICATE, TEST, TRAIN, Source, data_root
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    FAR_BEYOND,
    UNKNOWN_FINDING,
    as_number,
    check_units,
    is_far_beyond,
    one_table,
    read_json,
)
from xray.datasets.sources.tables import plain_name
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.values import shown

CATEGORIES = (
    "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse Nodule", "Effusion", "Emphysema",
    "Fibrosis", "Fracture", "Mass", "Nodule", "Pleural Thickening", "Pneumothorax",
)  # fmt: skip
ADDED = ("Cardiomegaly", "Diffuse Nodule", "Pleural Thickening")
"""Findings that ChestX-Det10 does not have."""
SIDE = 1024
TEN_FINDINGS = "ChestX-Det10: the findings that it was not read for are unknown"
MALFORMED = "entry of another form"
REPEATED = "radiograph with two entries"
MISMATCHED_MASK = "polygon that does not fit its box"

_IDS = {plain_name(name): number for number, name in enumerate(CATEGORIES, 1)}
_ADVICE = (
    "put ChestX_Det_train.json, ChestX_Det_test.json, train_data/ and test_data/ of "
    "https://github.com/Deepwise-AILab/ChestX-Det-Dataset there"
)


def read_chestxdet(data_path: Path | str) -> Source:
    """Reads the annotations of ChestX-Det; looks at no pixel.

    Raises InputError where there are none, a file is of another form, or boxes are in other units.
    """
    root = data_root(data_path, _ADVICE)
    patterns = ("ChestX_Det_{}*.json", "*chest*det*{}*.json", "{}.json")
    paths = {split: one_table(root, *(each.format(split) for each in patterns)) for split in (TRAIN, TEST)}
    if not any(paths.values()):
        raise InputError(f"{root} has no ChestX_Det_train.json: {_ADVICE}")
    collector = Collector("chestxdet", root, CATEGORIES)
    for split, path in paths.items():
        if path is not None:
            _read(collector, path, split)
    return collector.source()


def _read(collector: Collector, path: Path, split: str) -> None:
    entries, content = read_json(path, list, "ChestX-Det")
    collector.read(content)
    corners = [_corners(box) for entry in entries for box in _lists(entry)[1]]
    table = np.array(corners, dtype=np.float64).reshape(-1, 4)
    check_units(path, table, (SIDE, SIDE), f"x1, y1, x2, y2 in pixels of the pictures of {SIDE} x {SIDE}")
    unknown = _not_read_for(entries)
    if unknown:
        collector.warnings.append(FileWarning(TEN_FINDINGS, path.name, ", ".join(ADDED)))
    seen: dict[str, Any] = {}
    for number, entry in enumerate(entries):
        place = f"{path.name} entry {number}"
        file_name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(file_name, str):
            raise InputError(f"{path} entry {number} names no file: download it again")
        name = collector.file_of(file_name, place, near=split)
        if name is None:
            continue
        collector.describe(name, split=split, size=(SIDE, SIDE), unknown=unknown)
        if seen.setdefault(name, entry) is not entry:
            if seen[name] == entry:
                collector.leave_out(place, DUPLICATE)
            else:
                collector.lose(name, place, REPEATED)
            continue
        symptoms, boxes, polygons = _lists(entry)
        if not _has_lists(entry) or len(symptoms) != len(boxes):
            collector.lose(name, place, MALFORMED, f"{len(symptoms)} findings and {len(boxes)} boxes")
            continue
        if polygons and len(polygons) != len(boxes):
            collector.lose(name, place, MALFORMED, f"{len(polygons)} polygons and {len(boxes)} boxes")
            continue
        for position, (symptom, box) in enumerate(zip(symptoms, map(_corners, boxes), strict=True)):
            where = f"{place} box {position}"
            category = _IDS.get(plain_name(symptom))
            if category is None:
                collector.lose(name, where, UNKNOWN_FINDING, shown(symptom))
            elif is_far_beyond(np.array([box]), (SIDE, SIDE))[0]:
                collector.lose(name, where, FAR_BEYOND, f"{box} in {SIDE} x {SIDE}")
            else:
                mask = _mask(polygons[position], box) if polygons else None
                if polygons and mask is None:
                    collector.leave_out(where, MISMATCHED_MASK, action="mask left out, box kept")
                collector.box(name, category, box, where, mask=mask)


def _not_read_for(entries: list[Any]) -> list[int]:
    """The ids of ADDED where a file is of ChestX-Det10: no entry has polygons, none of these findings occurs."""
    names = {plain_name(symptom) for entry in entries for symptom in _lists(entry)[0]}
    has_polygons = any(isinstance(entry, dict) and "polygons" in entry for entry in entries)
    return [] if has_polygons or names & set(map(plain_name, ADDED)) else [_IDS[plain_name(name)] for name in ADDED]


def _lists(entry: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The three lists of an entry; empty where it has none."""
    values = [entry.get(key) if isinstance(entry, dict) else None for key in ("syms", "boxes", "polygons")]
    symptoms, boxes, polygons = (value if isinstance(value, list) else [] for value in values)
    return symptoms, boxes, polygons


def _has_lists(entry: dict[str, Any]) -> bool:
    """Whether findings and boxes are there, as lists: a text or null is not the same as an empty one."""
    return isinstance(entry.get("syms"), list) and isinstance(entry.get("boxes"), list)


def _corners(box: Any) -> list[float]:
    """x1, y1, x2, y2; NaN for what is no number."""
    if not isinstance(box, list) or len(box) != 4:
        return [float("nan")] * 4
    return [as_number(value) for value in box]


def _mask(polygon: Any, box: list[float]) -> list[list[float]] | None:
    """[[x, y], …] → COCO's polygons; None for what is none, or lies elsewhere than its box."""
    try:
        points = np.array([[as_number(x), as_number(y)] for x, y in polygon], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    common = (min(right, box[2]) - max(left, box[0])), (min(bottom, box[3]) - max(top, box[1]))
    if min(common) < 0 or max(right - left, bottom - top) > 2 * max(box[2] - box[0], box[3] - box[1]) + 4:
        return None
    return [points.ravel().tolist()]
