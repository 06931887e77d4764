"""The tables of SIIM-ACR Pneumothorax: which there are, of which kind, and what their rows say of an image."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xray.datasets import source as reasons
from xray.datasets.sizes import header_of
from xray.datasets.source import Dropped
from xray.datasets.sources.named_files import Resolved
from xray.datasets.sources.tables import plain_name, read_table
from xray.errors import InputError
from xray.radiographs.names import check_inside
from xray.structures import rle
from xray.structures.values import flag_of, is_missing

CONTRADICTORY = "contradictory rows"
UNKNOWN_LABEL = "label neither 0 nor 1"

COLUMNS = {
    "runs": ("ImageId", "EncodedPixels"),
    "pictures": ("new_filename", "has_pneumo"),
    "labels": ("ImageId", "Class"),
}
"""Kinds of table, by the columns of the image's id and of what is known about it."""
_TRAIN_TABLES = ("train-rle.csv", "stage_2_train.csv", "stage_1_train.csv", "stage_1_train_images.csv")
_TEST_TABLES = {"runs": "test-rle-truth.csv", "pictures": "stage_1_test_images.csv", "labels": ""}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. split: of its images. content: the bytes of its file."""

    name: str
    split: str
    rows: pd.DataFrame
    content: bytes


def find_tables(root: Path, chosen: str | None) -> tuple[str, list[Table]]:
    """The kind of the training table, itself, and that of the test images where there is one."""
    if chosen is not None and not (root / chosen).is_file():
        raise InputError(f"there is no {chosen} in {root}: give --table relative to --data-path")
    path = check_inside(_search_table(root), root) if chosen is None else root / chosen
    kind = _kind(path)
    if kind is None:
        wanted = " or ".join(",".join(columns) for columns in COLUMNS.values())
        raise InputError(f"{path} is no table of SIIM-ACR Pneumothorax: it needs the columns {wanted}")
    tables = [Table(path.name, "train", *read_table(path, COLUMNS[kind], ("ImageId",)))]
    test = root / _TEST_TABLES[kind]
    if test != path and check_inside(test, root).is_file() and _kind(test) == kind:
        tables.append(Table(test.name, "test", *read_table(test, COLUMNS[kind], ("ImageId",))))
    return kind, tables


def _search_table(root: Path) -> Path:
    known = next((root / name for name in _TRAIN_TABLES if (root / name).is_file()), None)
    if known is not None:
        return known
    usable = [
        path
        for path in sorted(root.glob("*.csv"))
        if path.is_file() and "submission" not in path.name and path.name not in _TEST_TABLES.values() and _kind(path)
    ]
    if len(usable) > 1:
        names = ", ".join(path.name for path in usable[:5])
        raise InputError(f"{root} holds several tables ({names}): choose one with --table")
    if not usable:
        raise InputError(
            f"{root} holds no table of SIIM-ACR Pneumothorax: put train-rle.csv, stage_2_train.csv or "
            "stage_1_train_images.csv there, or a table with the columns ImageId,Class"
        )
    return usable[0]


def _kind(path: Path) -> str | None:
    columns = set(map(plain_name, header_of(path)))
    return next((kind for kind, needed in COLUMNS.items() if set(map(plain_name, needed)) <= columns), None)


def grouped(
    table: Table, kind: str, root: Path, resolved: Resolved, dropped: list[Dropped]
) -> dict[str, tuple[str, list[str]]]:
    """Image id → the place of its first row and the values of all, equal ones once, in the order of the table.

    Raises InputError for a mask without an id: a part of some radiograph's would be missing.
    """
    groups: dict[str, tuple[str, list[str]]] = {}
    columns = (table.rows[name].tolist() for name in (*COLUMNS[kind], "line"))
    for image_name, text, line in zip(*columns, strict=True):
        place = f"{table.name} line {line}"
        value = _value(kind, text)
        if not image_name or (is_missing(image_name) and resolved.ids[image_name] not in resolved.names):
            if kind == "runs" and not rle.is_empty(value):
                raise InputError(
                    f"{root / table.name} line {line} has a mask but no ImageId: write the ImageId, or delete the row"
                )
            if text:
                dropped.append(Dropped(place, reasons.NO_ID))
            continue
        values = groups.setdefault(resolved.ids[image_name], (place, []))[1]
        if value in values:
            dropped.append(Dropped(place, reasons.DUPLICATE))
        else:
            values.append(value)
    return groups


def _value(kind: str, text: str) -> str:
    """A cell in one spelling: "1" or "0" for a label, "-1" for no mask; what is neither stays as it is."""
    if kind == "runs":
        return "-1" if rle.is_empty(text) else text
    try:
        label = flag_of(text)
    except ValueError:
        return text
    return text if label is None else str(int(label))


def fault_of_rows(kind: str, values: Sequence[str]) -> str | None:
    """What is wrong with the rows of one image, taken together."""
    if kind == "runs":
        return CONTRADICTORY if len({rle.is_empty(value) for value in values}) > 1 else None
    if not set(values) <= {"0", "1"}:
        return UNKNOWN_LABEL
    return CONTRADICTORY if len(values) > 1 else None
