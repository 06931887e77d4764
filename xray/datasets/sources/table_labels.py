"""What the labels of anybody's table say of each row: names in a cell, or columns of 0, 1, -1 and blank cells."""

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.table_answers import answer
from xray.datasets.sources.table_columns import Columns
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.structures.values import is_missing

if TYPE_CHECKING:
    import pandas as pd

BLANK, NEGATIVE, UNCERTAIN, POSITIVE, BAD = 0, 1, 2, 3, -1
"""What a row says of a category: of several rows of a radiograph the largest counts."""
ONLY = "Finding"
"""The category of boxes in a table without labels."""

_NORMAL = {
    "normal", "normals", "healthy", "negative", "control", "nofinding", "nofindings", "noabnormality", "clear",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Labels:
    """categories: names, in the order of their ids. codes: (N, K) int8, of BLANK … POSITIVE, what each row says of
    each; BAD where a cell is neither. normal: (N,) bool, the row says that nothing was found."""

    categories: tuple[str, ...]
    codes: np.ndarray
    normal: np.ndarray


def read_labels(table: "pd.DataFrame", columns: Columns, name: str, normal: Sequence[str] = ()) -> Labels:
    """The labels of all rows. normal: the labels that mean that nothing was found; by default those called so.

    Raises InputError where `normal` names a label that does not occur, or which one is meant is not clear.
    """
    if not columns.labels:
        codes = np.full((len(table), 1), POSITIVE, dtype=np.int8)
        return Labels((ONLY,), codes, np.zeros(len(table), dtype=bool))
    return (_wide if columns.is_wide else _named)(table, columns.labels, name, normal)


def _wide(table: "pd.DataFrame", columns: Sequence[str], name: str, normal: Sequence[str]) -> Labels:
    codes = np.zeros((len(table), len(columns)), dtype=np.int8)
    for place, column in enumerate(columns):
        distinct, code_of = factorize(table[column])
        codes[:, place] = np.array([*map(_code, distinct), BLANK], dtype=np.int8)[code_of]
    without = _normal_labels(columns, name, normal) if len(columns) > 1 or normal else ()
    kept = [place for place, column in enumerate(columns) if column not in without]
    if not kept:
        raise InputError(f"{name} has no label besides {', '.join(without)}: name the columns of others with --label")
    is_normal = (codes[:, [place for place in range(len(columns)) if place not in kept]] == POSITIVE).any(axis=1)
    codes = codes[:, kept]
    codes[is_normal[:, None] & (codes == BLANK)] = NEGATIVE
    return Labels(tuple(columns[place] for place in kept), codes, is_normal)


def _code(text: str) -> int:
    try:
        return {None: BLANK, 1: POSITIVE, 0: NEGATIVE, -1: UNCERTAIN}[answer(text)]
    except ValueError:
        return BAD


def _named(table: "pd.DataFrame", columns: Sequence[str], name: str, normal: Sequence[str]) -> Labels:
    distinct, code_of = factorize(table[columns[0]])
    # "None" is how tools write what is missing, unless it is said to be a label.
    said = {text.casefold() for text in normal}
    names = [[text] if text.casefold() in said else label_names(text) for text in distinct]
    names = _split_at_commas(names, f"{name}, column {columns[0]}")
    spelt: dict[str, str] = {}
    for label in (label for several in names for label in several):
        # The order of the rows does not matter.
        spelt[label.casefold()] = min(label, spelt.get(label.casefold(), label))
    without = _normal_labels(list(spelt.values()), name, normal)
    gone = {label.casefold() for label in without}
    categories = sorted((label for key, label in spelt.items() if key not in gone), key=str.casefold)
    if not categories:
        raise InputError(f"{name}, column {columns[0]}, has no label besides {', '.join(without) or 'blank ones'}")
    column_of = {label.casefold(): place for place, label in enumerate(categories)}
    of_text = np.zeros((len(distinct) + 1, len(categories)), dtype=np.int8)
    is_normal = np.zeros(len(distinct) + 1, dtype=bool)
    for place, several in enumerate(names):
        of_text[place] = NEGATIVE if several else BLANK
        for label in several:
            if label.casefold() in gone:
                is_normal[place] = True
            else:
                of_text[place, column_of[label.casefold()]] = POSITIVE
    return Labels(tuple(categories), of_text[code_of], is_normal[code_of])


def _split_at_commas(names: Sequence[list[str]], name: str) -> list[list[str]]:
    """Labels of cells, where one such as "Mass, Nodule" is two if both are labels elsewhere: names may hold commas.

    A label is one that stands alone somewhere, or both first and behind a comma. Raises InputError for other labels
    with a comma behind which there is what elsewhere stands alone or first: a radiograph with "Effusion, Mass" would
    be one without Mass.
    """
    parts = {label: [part.strip() for part in label.split(",")] for several in names for label in several}
    alone = {label.casefold() for label in parts if "," not in label}
    first = {several[0].casefold() for several in parts.values()}
    behind: set[str] = set()
    for several in parts.values():
        behind.update(part.casefold() for part in several[1:])
    labels = alone | first & behind
    for label, several in parts.items():
        if any(part.casefold() in first for part in several[1:]) and not all(
            part.casefold() in labels for part in several
        ):
            raise InputError(
                f"{name}: is {label!r} one label, or {len(several)}? Write | between labels, and "
                "no comma in the name of one"
            )
    is_list = {label: all(part.casefold() in labels for part in several) for label, several in parts.items()}
    return [[one for label in several for one in (parts[label] if is_list[label] else [label])] for several in names]


def label_names(text: str) -> list[str]:
    """The labels of a cell, each once: one, or several joined by | or ;, or written as a list."""
    return list(dict.fromkeys(label_list(text)))


def label_list(text: str) -> list[str]:
    """The labels of a cell as they stand there, repeated ones too."""
    text = text.strip()
    if is_missing(text):
        return []
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                several = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(several, list) and all(isinstance(one, str | int) for one in several):
                return _filled(map(str, several))
        return _filled(text[1:-1].split(","))
    return _filled(re.split(r"[|;]", text))


def _filled(names: Iterable[str]) -> list[str]:
    stripped = (name.strip(" \t'\"") for name in names)
    return [name for name in stripped if not is_missing(name)]


def _normal_labels(labels: Sequence[str], name: str, chosen: Sequence[str]) -> tuple[str, ...]:
    """The labels that mean that nothing was found, as they are spelt."""
    if chosen:
        by_name = {label.casefold(): label for label in labels}
        if missing := [text for text in chosen if text and text.casefold() not in by_name]:
            raise InputError(
                f"--normal {missing[0]}: {name} has no such label (its labels are {', '.join(labels[:30])})"
            )
        return tuple(by_name[text.casefold()] for text in chosen if text)
    found = [label for label in labels if "".join(filter(str.isalnum, label.casefold())) in _NORMAL]
    if len(found) > 1:
        raise InputError(
            f"{name} has the labels {' and '.join(found)}: say with --normal which mean that nothing was found"
        )
    return tuple(found)
