"""What the labels of anybody's table say of each row: names in a cell, or columns of 0, 1, -1 and blank cells."""

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.review_words import COUNTS, PENDING, REJECTED
from xray.datasets.sources.table_answers import answer, is_unsaid, is_unsure
from xray.datasets.sources.table_beside import is_denying
from xray.datasets.sources.table_columns import Columns
from xray.datasets.sources.table_review import states_of
from xray.datasets.sources.table_typed import text as cell_text
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.structures.values import is_missing, shown

if TYPE_CHECKING:
    import pandas as pd

BLANK, NEGATIVE, UNCERTAIN, POSITIVE, BAD = 0, 1, 2, 3, -1
"""What a row says of a category: of several rows of a radiograph the largest counts."""
ONLY = "Finding"
"""The category of boxes in a table without labels."""
ABSENT = "labels that seem to say that another is absent, which are findings like any unless --map drops them"
SEVERAL = "labels that may be several in one, which are findings of their own: | parts labels"
_ABSENT = re.compile(r"(?:no|not|without|negative for) (.+)|(.+) (?:absent|negative)")
UNSURE = "labels that seem to say that another is doubtful, which are findings of their own unless --map says otherwise"
_UNSURE = re.compile(
    r"(?:possible|probable|suspected|questionable|uncertain) (.+)|(.+?)\s*\(?(?:\?+|\buncertain|\bunsure)\)?"
)
_BRACKETS = ("[]", "()", "{}")
_SEVERAL = re.compile(r"\s*[/+&]\s*|\s+and\s+")
_MOST_LABELS, _MOST_OF_ROWS = 200, 0.25
"""More distinct labels than this, and than this share of the rows, are no labels but text."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """categories: names, in the order of their ids. codes: (N, K) int8, of BLANK … POSITIVE, what each row says of
    each; BAD where a cell is neither. normal: (N,) bool, the row says that nothing was found. at_odds: (N,) bool, of
    several columns that would say so one does and another does not. normal_names: the labels that say so. unsaid:
    (N, 1) or (N, K) bool, the row, or its cell of a category, says that nobody has said anything, such as "todo";
    unsaid_names: these words. states: (N,) int8, what a review made of each row, see `table_review`. rejected: (N, K)
    bool, a row that was rejected names the category."""

    categories: tuple[str, ...]
    codes: np.ndarray
    normal: np.ndarray
    at_odds: np.ndarray
    normal_names: tuple[str, ...] = ()
    unsaid: np.ndarray | None = None
    unsaid_names: tuple[str, ...] = ()
    states: np.ndarray | None = None
    rejected: np.ndarray | None = None


def read_labels(table: "pd.DataFrame", columns: Columns, name: str, normal: NormalNames) -> Labels:
    """The labels of all rows. normal: which of them mean that nothing was found.

    Raises InputError where `normal` names a label that does not occur, and where there is no other.
    """
    if columns.labels:
        labels = (_wide if columns.is_wide else _named)(table, columns.labels, name, normal)
    else:
        nowhere = np.zeros(len(table), dtype=bool)
        labels = Labels((ONLY,), np.full((len(table), 1), POSITIVE, dtype=np.int8), nowhere, nowhere)
    if columns.said is not None:
        labels = _where_said(table, columns.said, labels)
    return _reviewed(labels, states_of(table, columns.reviews, name)) if columns.reviews else labels


def doubtful(categories: Sequence[str]) -> dict[str, list[str]]:
    """What is said of categories whose names are made of others → these.

    "No Mass", "Mass?" and "Mass/Nodule" beside "Mass".
    """
    said: dict[str, list[str]] = {}
    plain = {category.casefold() for category in categories}
    for category in categories:
        name = category.casefold()
        if (without := _ABSENT.fullmatch(name)) and (without[1] or without[2]) in plain:
            said.setdefault(ABSENT, []).append(category)
        elif (doubt := _UNSURE.fullmatch(name)) and (doubt[1] or doubt[2]) in plain:
            said.setdefault(UNSURE, []).append(category)
        elif len(parts := _SEVERAL.split(name)) > 1 and all(part in plain for part in parts):
            said.setdefault(SEVERAL, []).append(category)
    return said


def _where_said(table: "pd.DataFrame", column: str, labels: Labels) -> Labels:
    """The labels of rows that name one each and say in another column whether it is there; of others they say nothing.

    A row that says that nothing was found speaks of all of them, and one that says that this is not so of none.
    """
    distinct, code_of = factorize(table[column])
    said = np.array([*map(_code, distinct), BLANK], dtype=np.int8)[code_of][:, None]
    if is_denying(column, distinct):
        said = np.select([said == POSITIVE, said == NEGATIVE], [NEGATIVE, POSITIVE], said)
    codes = np.where(labels.codes == POSITIVE, said, BLANK).astype(np.int8)
    is_normal = labels.normal & (said[:, 0] == POSITIVE)
    codes[is_normal] = labels.codes[is_normal]
    codes[said[:, 0] == BAD] = BAD
    unsaid, words = _unsaid(distinct, code_of)
    of_labels = np.zeros((len(table), 1), dtype=bool) if labels.unsaid is None else labels.unsaid
    return dataclasses.replace(
        labels,
        codes=codes,
        normal=is_normal,
        unsaid=of_labels | (unsaid[:, None] & (labels.codes == POSITIVE)),
        unsaid_names=tuple(dict.fromkeys((*labels.unsaid_names, *words))),
    )


def _reviewed(labels: Labels, states: np.ndarray) -> Labels:
    """The labels of rows that count. What others name is uncertain where they are pending; else they say nothing."""
    counts, is_pending = states == COUNTS, states == PENDING
    is_named = (labels.codes == POSITIVE) | (labels.codes == UNCERTAIN)
    withheld = np.where(is_named & is_pending[:, None], UNCERTAIN, BLANK)
    return dataclasses.replace(
        labels,
        codes=np.where(counts[:, None], labels.codes, withheld).astype(np.int8),
        normal=labels.normal & counts,
        at_odds=labels.at_odds & counts,
        unsaid=None if labels.unsaid is None else labels.unsaid & counts[:, None],
        states=states,
        rejected=is_named & (states == REJECTED)[:, None],
    )


def _unsaid(distinct: Sequence[str], code_of: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which cells of a column of answers say that nobody has said anything, (N,) bool; and the words for it."""
    is_word = [is_unsaid(text) for text in distinct]
    words = [text for text, is_one in zip(distinct, is_word, strict=True) if is_one]
    return np.array([*is_word, False])[code_of], words


def _wide(table: "pd.DataFrame", columns: Sequence[str], name: str, normal: NormalNames) -> Labels:
    codes = np.zeros((len(table), len(columns)), dtype=np.int8)
    unsaid, unsaid_words = np.zeros(codes.shape, dtype=bool), dict[str, None]()
    for place, column in enumerate(columns):
        distinct, code_of = factorize(table[column])
        codes[:, place] = np.array([*map(_code, distinct), BLANK], dtype=np.int8)[code_of]
        unsaid[:, place], words = _unsaid(distinct, code_of)
        unsaid_words |= dict.fromkeys(words)
    without = normal.among(columns, name) if len(columns) > 1 or normal.chosen else ()
    kept = [place for place, column in enumerate(columns) if column not in without]
    if not kept:
        raise InputError(f"{name} has no label besides {', '.join(without)}: name the columns of others with --label")
    of_normal = codes[:, [place for place in range(len(columns)) if place not in kept]]
    is_normal = (of_normal == POSITIVE).any(axis=1)
    at_odds = is_normal & (of_normal == NEGATIVE).any(axis=1)
    codes, unsaid = codes[:, kept], unsaid[:, kept]
    codes[is_normal[:, None] & (codes == BLANK) & ~unsaid] = NEGATIVE
    categories = tuple(columns[place] for place in kept)
    return Labels(categories, codes, is_normal, at_odds, without, unsaid, tuple(unsaid_words))


def _code(text: str) -> int:
    try:
        return {None: BLANK, 1: POSITIVE, 0: NEGATIVE, -1: UNCERTAIN}[answer(text)]
    except ValueError:
        return BAD


def _named(table: "pd.DataFrame", columns: Sequence[str], name: str, normal: NormalNames) -> Labels:
    distinct, code_of = factorize(table[columns[0]])
    # "None" is how tools write what is missing, unless it is said to be a label.
    said = {text.casefold() for text in normal.chosen}
    first = np.full(len(distinct), -1, dtype=np.int64)
    first[code_of[::-1]] = np.arange(len(table))[::-1]
    places = [f"{name} line {table['line'].iat[row]}, column {columns[0]}" for row in first.tolist()]
    names = [
        [text] if text.casefold() in said else label_names(text, place)
        for text, place in zip(distinct, places, strict=True)
    ]
    names = _split_at_commas(names, f"{name}, column {columns[0]}")
    names, unsaid, unsaid_names = _without_unsaid(names, {*said, *map(str.casefold, normal.kept)})
    spelt: dict[str, str] = {}
    for label in (label for several in names for label in several):
        # The order of the rows does not matter.
        spelt[label.casefold()] = min(label, spelt.get(label.casefold(), label))
    without = normal.among(spelt.values(), name)
    gone = {label.casefold() for label in without}
    categories = sorted((label for key, label in spelt.items() if key not in gone), key=str.casefold)
    if not categories:
        others = (*without, *unsaid_names)
        raise InputError(f"{name}, column {columns[0]}, has no label besides {', '.join(others) or 'blank ones'}")
    if len(categories) > max(_MOST_LABELS, _MOST_OF_ROWS * len(table)):
        longest = max(categories, key=len)[:60]
        raise InputError(
            f"{name}, column {columns[0]}, has {len(categories)} different labels in {len(table)} rows, such as "
            f"{longest!r}, so it may be text: name the column of labels with --label"
        )
    column_of = {label.casefold(): place for place, label in enumerate(categories)}
    of_text = np.zeros((len(distinct) + 1, len(categories)), dtype=np.int8)
    is_normal = np.zeros(len(distinct) + 1, dtype=bool)
    for place, several in enumerate(names):
        of_text[place] = NEGATIVE if several and not unsaid[place] else BLANK
        for label in several:
            if label.casefold() in gone:
                is_normal[place] = True
            else:
                of_text[place, column_of[label.casefold()]] = POSITIVE
    # Two names of it in one cell say the same.
    at_odds = np.zeros(len(table), dtype=bool)
    of_rows = np.array([*unsaid, False])[code_of][:, None]
    return Labels(tuple(categories), of_text[code_of], is_normal[code_of], at_odds, without, of_rows, unsaid_names)


def _without_unsaid(names: Sequence[list[str]], kept: set[str]) -> tuple[list[list[str]], list[bool], tuple[str, ...]]:
    """The labels of each text without those that say nothing, whether it has any, and which there are.

    kept: labels, in lower case, that the user means as such.
    """
    labels = dict.fromkeys(label for several in names for label in several if label.casefold() not in kept)
    gone = {label: None for label in labels if is_unsaid(label) or is_unsure(label) or not any(map(str.isalnum, label))}
    left = [[label for label in several if label not in gone] for several in names]
    return left, [len(a) > len(b) for a, b in zip(names, left, strict=True)], tuple(gone)


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


def label_names(text: str, place: str) -> list[str]:
    """The labels of a cell, each once: one, or several joined by | or ;, or written as a list. See `label_list`."""
    return list(dict.fromkeys(label_list(text, place)))


def label_list(text: str, place: str) -> list[str]:
    """The labels of a cell as they stand there, repeated ones too.

    place: of the cell, for messages. Raises InputError for a list of other things.
    """
    text = text.strip()
    if is_missing(text):
        return []
    if text[0] + text[-1] not in _BRACKETS:
        return _filled(re.split(r"[|;]", text))
    for read in (json.loads, ast.literal_eval):
        try:
            several = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(several, str | int | float) and text[0] == "(":
            break
        several = [one for one in several if not is_missing(one)] if isinstance(several, list | tuple | set) else [None]
        if all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in several):
            return _filled(map(cell_text, several))
        raise InputError(
            f"{place}: {shown(text)} is no list of labels: write their names, or numbers, in it, such as "
            '["Mass", "Nodule"], or name the column of labels with --label'
        )
    # A name may stand in parentheses.
    return _filled([text] if text[0] == "(" else text[1:-1].split(","))


def _filled(names: Iterable[str]) -> list[str]:
    stripped = (name.strip(" \t'\"") for name in names)
    return [name for name in stripped if not is_missing(name)]
