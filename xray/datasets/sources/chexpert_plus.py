"""CheXpert Plus (Stanford, 2024): CheXpert's radiographs as PNG or DICOM with their reports, and labels of the reports.

df_chexpert_plus_240401.csv has a row a radiograph: path_to_image (train/patient00001/study1/view1_frontal.jpg, also
where the file is a PNG), split (train or valid), frontal_lateral, ap_pa, age, sex, and the reports, which are not read.
chexbert_labels/impression_fixed.json has a line a radiograph: {"path_to_image": …, "Edema": 1.0, "Fracture": null, …},
with 1, 0, -1 and null as CheXpert has them, by a program from the report's impression. findings_fixed.json and
report_fixed.json are the same of other parts of the reports; where a part is missing nothing is mentioned.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.datasets.source import TEST, TRAIN, VAL
from xray.datasets.sources.chexpert_labels import LATERAL_VIEW, LabelledFiles, Stated, Views
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import one_table
from xray.datasets.sources.table_typed import text
from xray.datasets.sources.tables import read_table
from xray.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from xray.datasets.sources.chexpert import ViewFiles

TABLE = "df_chexpert_plus*.csv"
LABELS = "impression_fixed.json"
KEY = "path_to_image"
ABOUT = ("frontal_lateral", "ap_pa", "age", "sex")
SPLITS = {"train": TRAIN, "valid": VAL, "val": VAL, "validate": VAL, "test": TEST}

UNLABELLED = "radiograph without a line of labels"
UNKNOWN_SPLIT = "split other than train, valid and test"


def labels_of_plus(root: Path, chosen: str | None) -> Path:
    """The file of labels. chosen: relative to `root`. Raises InputError where there is none."""
    path = root / chosen if chosen is not None else one_table(root, LABELS)
    if path is None:
        raise InputError(
            f"{root} has no chexbert_labels/{LABELS}, which has the labels of CheXpert Plus: put it there, or name "
            "another one with --table"
        )
    return path


def add_plus(
    collector: Collector,
    files: "ViewFiles",
    rows: LabelledFiles,
    path: Path,
    labels_path: Path,
    views: Views,
    read: "Callable[[pd.DataFrame, Path], list[Stated | str]]",
    about: Callable[[str, str, str, bool], dict[str, Any]],
    patient_of: Callable[[str], str | None],
) -> None:
    """Enters the radiographs of CheXpert Plus. path: its table. read: labels of a table, see `read_labels`.

    about: sex, age, projection and whether it is lateral → what is kept. patient_of: path → patient.
    """
    stated = _stated(collector, labels_path, read)
    table, content = read_table(path, (KEY, "split"), ABOUT, only=True)
    collector.read(content)
    empty = [""] * len(table)
    known = (table[column].tolist() if column in table.columns else empty for column in ABOUT)
    columns = (table[KEY].tolist(), table["split"].tolist(), *known, table["line"].tolist())
    for image, split, side, projection, age, sex, line in zip(*columns, strict=True):
        # Reports have several lines, so that rows are no lines of the file.
        place = f"{path.name} row {line - 1}"
        name = files.meant_by(image, place)
        if name is None:
            continue
        is_lateral = (side or image.rpartition("_")[2].partition(".")[0]).casefold() == "lateral"
        if is_lateral and views == "frontal":
            collector.set_aside(name, LATERAL_VIEW)
        elif image not in stated:
            collector.set_aside(name, UNLABELLED, image[:200])
        elif split.casefold() not in SPLITS:
            collector.lose(name, place, UNKNOWN_SPLIT, split[:40])
        else:
            attributes = about(sex, age, projection, is_lateral)
            split = SPLITS[split.casefold()]
            rows.add(name, place, stated[image], split=split, patient=patient_of(image), **attributes)


def _stated(
    collector: Collector, path: Path, read: "Callable[[pd.DataFrame, Path], list[Stated | str]]"
) -> dict[str, Stated | str]:
    """path_to_image → what its labels say. Raises InputError for a file that is not as described."""
    import pandas as pd

    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): download it again") from None
    collector.read(content)
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get(KEY), str):
            raise InputError(f"{path} line {number} is no JSON object with {KEY}: give a file of chexbert_labels/")
        records.append({name: text(value) for name, value in record.items()})
    # A line may lack a label, or be the only one to have it.
    names = dict.fromkeys(name for record in records for name in record)
    table = pd.DataFrame.from_records(records, columns=list(names) or [KEY]).fillna("")
    stated: dict[str, Stated | str] = {}
    for image, of_line in zip(table[KEY].tolist(), read(table, path), strict=True):
        if stated.setdefault(image, of_line) != of_line:
            stated[image] = f"two lines of {image[:200]} in {path.name} differ"
    return stated
