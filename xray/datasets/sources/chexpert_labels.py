"""Labels of whole radiographs as the CheXpert labeler writes them, which CheXpert, MIMIC-CXR and others come with.

A report's words become 1 (present), 0 (absent), -1 (uncertain: "may", "cannot exclude") or an empty cell (not
mentioned). What to make of the last two is the user's choice: the CheXpert paper (Irvin et al., AAAI 2019,
arXiv:1901.07031) calls those of -1 U-Ignore, U-Ones and U-Zeros, and many programs take an empty cell for 0. Here both
are unknown unless said otherwise: an unknown label is neither learned nor scored.

"No Finding" 1 means that no other finding but support devices is present or uncertain, so those not mentioned are then
absent, support devices aside.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.datasets.sources.tables import factorize, spellings
from xray.errors import InputError
from xray.structures.values import is_missing, whole_number

if TYPE_CHECKING:
    import pandas as pd

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""Category ids 1 to 13, in the order of CheXpert's columns."""
LUNG_OPACITY = "Lung Opacity"
AIRSPACE_OPACITY = "Airspace Opacity"
"""What some tables and programs call Lung Opacity."""

Uncertain = Literal["unknown", "positive", "negative"]
Unmentioned = Literal["unknown", "negative"]
Views = Literal["frontal", "all"]

UNUSABLE_LABEL = "label other than 1, 0, -1 and empty"
LATERAL_VIEW = "no frontal view"

_NO_FINDING = "nofinding"
_POSITIVE, _NEGATIVE, _UNCERTAIN, _BLANK, _FAULT = 1, 0, -1, 2, 3
_STATES = {"unknown": _UNCERTAIN, "positive": _POSITIVE, "negative": _NEGATIVE}


@dataclasses.dataclass(frozen=True)
class Stated:
    """What a row of labels says: category ids that are present, and ids of which it says nothing that counts."""

    labels: tuple[int, ...]
    unknown: tuple[int, ...]


def read_labels(
    table: "pd.DataFrame", path: Path, uncertain: Uncertain = "unknown", unmentioned: Unmentioned = "unknown"
) -> list[Stated | str]:
    """What each row of a table says of FINDINGS; for a row with a cell that is no label, that cell in words.

    table: as `xray.datasets.sources.tables.read_table` reads it, of the file `path`. Raises InputError where a finding
    has no column.
    """
    columns = spellings(table.columns)
    columns.setdefault("lungopacity", columns.get("airspaceopacity", ""))
    names = [columns.get(finding.replace(" ", "").casefold(), "") for finding in FINDINGS]
    missing = [finding for finding, name in zip(FINDINGS, names, strict=True) if not name]
    if missing:
        raise InputError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: download it again")
    marks = np.stack([_marks(table[name]) for name in names], axis=1)
    faulty = (marks == _FAULT).any(axis=1)
    if _NO_FINDING in columns:
        is_normal = _marks(table[columns[_NO_FINDING]]) == _POSITIVE
        # The labeler gives "No Finding" whatever devices there are.
        of_normal = is_normal[:, None] & (marks == _BLANK) & (np.array(FINDINGS) != "Support Devices")
        marks[of_normal] = _NEGATIVE
    states = np.where(marks == _BLANK, _STATES[unmentioned], np.where(marks == _UNCERTAIN, _STATES[uncertain], marks))
    # Each distinct row once: 224,000 rows have a few thousand.
    distinct, row_of = np.unique(states, axis=0, return_inverse=True)
    stated = [
        Stated(*(tuple((np.flatnonzero(row == state) + 1).tolist()) for state in (_POSITIVE, _UNCERTAIN)))
        for row in distinct
    ]
    result: list[Stated | str] = [stated[row] for row in row_of.ravel().tolist()]
    for row in np.flatnonzero(faulty).tolist():
        column = int(np.argmax(marks[row] == _FAULT))
        result[row] = f"{FINDINGS[column]} is {table[names[column]].iloc[row][:40]!r}"
    return result


class LabelledFiles:
    """Enters rows of labels into a collector: the rows of one radiograph once, and not if they contradict each other.

    A label that is present has no box: where the finding is stays unknown (`unlocated`).
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._stated: dict[str, Stated] = {}
        self._parts: dict[str, tuple[Any, Any]] = {}

    def stated(self, name: str) -> Stated | None:
        """What the rows of a file say; None where it has none that could be read."""
        return self._stated.get(name)

    def add(self, name: str, place: str, stated: Stated | str, **about: Any) -> None:
        """A row about the file `name`; stated: as `read_labels` gave it. about: as for `Collector.describe`."""
        if isinstance(stated, str):
            self._collector.lose(name, place, UNUSABLE_LABEL, stated)
            return
        before, part = self._stated.get(name), (about.get("split"), about.get("patient"))
        if before is None:
            self._stated[name], self._parts[name] = stated, part
            self._collector.describe(
                name, labels=stated.labels, unknown=stated.unknown, unlocated=stated.labels, **about
            )
        elif self._parts[name] != part:
            # Who trains on it, or whose it is, would depend on the order of the rows.
            said = " and ".join(f"{split} of {patient}" for split, patient in (self._parts[name], part))
            self._collector.lose(name, place, CONTRADICTORY, said)
        elif before == stated:
            self._collector.leave_out(place, reasons.DUPLICATE)
        else:
            self._collector.lose(name, place, CONTRADICTORY)


def _marks(column: "pd.Series") -> np.ndarray:
    """(N,) int8 of the marks above."""
    texts, row_of = factorize(column)
    marks: np.ndarray = np.array([*map(_mark, texts), _BLANK], dtype=np.int8)[row_of]
    return marks


def _mark(text: str) -> int:
    if is_missing(text):
        return _BLANK
    try:
        mark = whole_number(text)
    except ValueError:
        return _FAULT
    return mark if mark in (_POSITIVE, _NEGATIVE, _UNCERTAIN) else _FAULT
