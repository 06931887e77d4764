"""CheXpert (Stanford, 2019): labels of whole radiographs, none with a box → a source to convert.

`train.csv` and `valid.csv`, also `test.csv` or CheXlocalize's `test_labels.csv`, whose column `Path` ends in
`patient00001/study1/view1_frontal.jpg`. What stands in front of that may differ from where the files are: editions call
their folders CheXpert-v1.0, CheXpert-v1.0-small or CheXpert-v1.0 batch 2 (train 1).

The files of CheXpert Plus are read where there is no train.csv, see `chexpert_plus`.

1 is present, 0 absent, -1 uncertain, an empty cell not mentioned; see `chexpert_labels`. The labels of train.csv come
from reports by a program, those of valid.csv and test.csv from radiologists, without -1 and empty cells.
"""

import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, VAL, Source, data_root
from xray.datasets.sources.chexpert_labels import (
    FINDINGS,
    LATERAL_VIEW,
    LabelledFiles,
    Stated,
    Uncertain,
    Unmentioned,
    Views,
    read_labels,
)
from xray.datasets.sources.chexpert_plus import TABLE as PLUS
from xray.datasets.sources.chexpert_plus import add_plus, labels_of_plus
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import one_table
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.radiographs.attributes import FRONTAL, LATERAL, plain_attributes

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    TRAIN: ("train.csv",),
    VAL: ("valid.csv", "val_labels.csv", "val.csv"),
    TEST: ("test.csv", "test_labels.csv"),
}
"""Split → names that its table may have."""
ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
"""Columns that the test set's table does not have, so that nobody is known by them."""


def read_chexpert(
    data_path: Path | str,
    *,
    views: Views = "frontal",
    uncertain: Uncertain = "unknown",
    unmentioned: Unmentioned = "unknown",
    table: str | None = None,
) -> Source:
    """Reads the tables of CheXpert; looks at no pixel.

    views: "frontal" leaves lateral radiographs out, which are named; "all" keeps them, with the view "LATERAL".
    uncertain, unmentioned: what -1 and an empty cell mean.
    table: of the training radiographs' labels, relative to `data_path`, in place of train.csv, such as
        train_visualCheXbert.csv; of CheXpert Plus chexbert_labels/report_fixed.json in place of impression_fixed.json.

    A positive label has no box: where the finding is stays unknown. Raises InputError for a missing directory, table or
    column.
    """
    root = data_root(data_path, "put CheXpert's train.csv, valid.csv and its folders of radiographs there")
    if table is not None and not (root / table).is_file():
        raise InputError(f"there is no {table} in {root}: give --table relative to --data-path")
    found = {split: one_table(root, *names) for split, names in TABLES.items()}
    plus = one_table(root, PLUS)
    is_plus = plus is not None and (found[TRAIN] is None if table is None else table.endswith(".json"))
    found |= {} if table is None or is_plus else {TRAIN: root / table}
    if is_plus:
        # It has those of valid.csv, too; test.csv beside it is another set's.
        found = {TEST: found[TEST]}
    paths = {split: path for split, path in found.items() if path is not None}
    if not paths and not is_plus:
        raise InputError(f"{root} has no train.csv and no valid.csv: give the directory of CheXpert that holds them")
    collector = Collector("chexpert", root, FINDINGS, layout="labels")
    files = ViewFiles(collector)
    read = functools.partial(read_labels, uncertain=uncertain, unmentioned=unmentioned)
    rows = LabelledFiles(collector)
    if plus is not None and is_plus:
        labels = labels_of_plus(root, table)
        add_plus(collector, files, rows, plus, labels, views, read, attributes_of, patient_of)
    for split, path in paths.items():
        add_table(collector, files, rows, split, path, views, read)
    return collector.source()


def add_table(
    collector: Collector,
    files: "ViewFiles",
    rows: LabelledFiles,
    split: str,
    path: Path,
    views: Views,
    read: "Callable[[pd.DataFrame, Path], list[Stated | str]]" = read_labels,
) -> None:
    """Enters a table with the columns Path and FINDINGS, and ABOUT where it has them. read: its labels."""
    table, content = read_table(path, ("Path",), ABOUT)
    collector.read(content)
    empty = [""] * len(table)
    about = (table[column].tolist() if column in table.columns else empty for column in ABOUT)
    columns = (table["Path"].tolist(), read(table, path), *about, table["line"].tolist())
    for text, stated, sex, age, side, projection, line in zip(*columns, strict=True):
        place = f"{path.name} line {line}"
        name = files.meant_by(text, place)
        if name is None:
            continue
        is_lateral = (side or view_id(text).rpartition("_")[2]).casefold() == "lateral"
        if is_lateral and views == "frontal":
            collector.set_aside(name, LATERAL_VIEW)
        else:
            attributes = attributes_of(sex, age, projection, is_lateral)
            rows.add(name, place, stated, split=split, patient=patient_of(text), **attributes)


@functools.lru_cache(maxsize=4096)
def attributes_of(sex: str, age: str, projection: str, is_lateral: bool) -> dict[str, Any]:
    """What is kept of the cells of ABOUT. An age of 0 is missing, and so is a projection that contradicts the view."""
    view = LATERAL if is_lateral else projection if projection in FRONTAL else None
    return dict(plain_attributes({"view": view, "sex": sex, "age": None if age in ("0", "0.0") else age}))


class ViewFiles:
    """A collector's files by the end of their names: `patient00001/study1/view1_frontal`, in whatever folders."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._names: dict[str, list[str]] = defaultdict(list)
        for name in collector.files.names:
            self._names[view_id(name)].append(name)

    def meant_by(self, text: str, place: str) -> str | None:
        """The file that a path or an id means; None where there is none, or are several, which is said."""
        names = self._names.get(view_id(text), ())
        if len(names) == 1:
            return names[0]
        if not names:
            self._collector.leave_out(place, reasons.MISSING_FILE, text[:200])
        for name in names:
            self._collector.lose(name, place, reasons.REPEATED_NAME, f"{text[:200]} may be {' or '.join(names[:5])}")
        return None


def view_id(path: str) -> str:
    """The id of a radiograph, patient00001_study1_view1_frontal, of its path or of the id itself."""
    parts = path.replace("\\", "/").split("/")[-3:]
    return "_".join((*parts[:-1], parts[-1].partition(".")[0]))


def patient_of(path: str) -> str | None:
    """The patient that the path or id of a radiograph names, such as patient00001."""
    patient, _, study = view_id(path).partition("_")
    return patient if study else None
