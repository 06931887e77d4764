"""Boxes that a table writes behind their labels in one cell, as Kaggle's challenges do: "opacity 1 x1 y1 x2 y2 …".

Of SIIM-FISABIO, VinBigData and tables made of them: a label and five numbers a box, the first of which is a score, 1 in
a truth. Labels are one word there, or a number; of several words ("Lung Opacity") in tables that people make of them. A
box of 0 0 1 1 stands for that nothing was found, whatever its label is called ("none", VinBigData's 14).
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.table_answers import is_unsaid
from xray.datasets.sources.table_names import LABELS
from xray.datasets.sources.tables import factorize, spellings
from xray.errors import InputError, spelled
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.values import is_missing

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = ("predictionstring", "predictionstrings", "predictions")
"""Columns that hold such cells and are no labels otherwise."""
SIDES = ("x1", "y1", "x2", "y2")

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_LABEL = re.compile(r"[^|;,\[\]{}]+")
_WORDS, _WORDS_OF_SCORED = 6, 5
"""Of a box with its label; and without, as submissions of RSNA's challenge are: a score, x, y, width and height."""
_Box = tuple[str, float, tuple[str, ...]]
"""Label, score and corners, which are blank where it says that nothing was found."""
_NO_CORNERS = ("",) * len(SIDES)


def unfolded(cells: "pd.DataFrame", name: str, chosen: str = "") -> "tuple[pd.DataFrame, str]":
    """The table with a row a box in place of a row a cell of several, and the column that held them; "" for none.

    The label stays in that column, as "No finding" where nothing was found, and the corners are in `box_columns`.
    name: of the file. chosen: the column that the user says is of labels, "" for the usual ones.
    Raises InputError for predictions, and where some cells are boxes with labels and others are something else.
    """
    plain = spellings(cells.columns)
    usual = (column for key in (*LABELS, *PREDICTIONS) if (column := plain.get(key)) is not None)
    column = chosen if chosen in cells.columns else next(usual, None)
    if column is None or chosen == "none":
        return cells, ""
    texts, code_of = factorize(cells[column])
    filled = [text for text in texts if not is_missing(text) and not is_unsaid(text)]
    spelt = {text: found for text in filled if (found := _boxes(text))}
    if filled and not spelt and all(map(_is_scored, filled)):
        raise InputError(_of_predictions(name, column, "boxes with scores, and no labels"))
    if 2 * len(spelt) <= len(filled):
        if 2 * len(unread := [text for text in filled if _ends_in_numbers(text)]) > len(filled):
            raise InputError(
                f"{name}: {column} holds numbers and not labels alone, such as {unread[0][:60]!r}: write each box as "
                "LABEL 1 X1 Y1 X2 Y2, or as a row with columns for its sides, or name another column with --label"
            )
        return cells, ""
    if other := next((text for text in filled if text not in spelt), ""):
        example = next(iter(spelt))[:60]
        raise InputError(
            f"{name}: {column} holds labels with boxes, such as {example!r}, and {other[:60]!r}: correct it, or name "
            "another column with --label"
        )
    boxes: list[list[_Box]] = [spelt.get(text) or [(text, 1.0, _NO_CORNERS)] for text in texts]
    scores = (score for of_cell in boxes for _, score, _ in of_cell)
    if (other_score := next((score for score in scores if score != 1), None)) is not None:
        raise InputError(_of_predictions(name, column, f"boxes with scores, such as {other_score:g}"))
    counts = np.array([len(of_cell) for of_cell in boxes])[code_of]
    table = cells.loc[np.repeat(np.arange(len(cells)), counts)].reset_index(drop=True)
    rows = [box for code in code_of.tolist() for box in boxes[code]]
    table[column] = [label for label, _, _ in rows]
    for place, side in enumerate(box_columns(column)):
        table[side] = [corners[place] for _, _, corners in rows]
    return table, column


def box_columns(column: str) -> tuple[str, ...]:
    """The columns of corners that `unfolded` makes of a column."""
    return tuple(f"{column}:{side}" for side in SIDES)


def _boxes(text: str) -> list[_Box] | None:
    """The boxes of a cell; None for one that does not consist of them."""
    boxes = []
    for part in _parts(text.split()):
        if len(part) != _WORDS or not _LABEL.fullmatch(part[0]) or not all(map(_NUMBER.fullmatch, part[1:])):
            return None
        corners = tuple(part[2:])
        is_none = tuple(map(float, corners)) == NO_FINDING_BOX
        boxes.append((NO_FINDING_NAME if is_none else part[0], float(part[1]), _NO_CORNERS if is_none else corners))
    return boxes or None


def _parts(words: list[str]) -> list[list[str]]:
    """The words of each box. A label of several, such as "Lung Opacity", becomes one; it has no number among them."""
    if words and _NUMBER.fullmatch(words[0]):
        return [words[start : start + _WORDS] for start in range(0, len(words), _WORDS)]
    parts: list[list[str]] = []
    is_label = False
    for word in words:
        if _NUMBER.fullmatch(word):
            parts[-1].append(word)
            is_label = False
        elif is_label:
            parts[-1][0] += f" {word}"
        else:
            parts.append([word])
            is_label = True
    return parts


def _ends_in_numbers(text: str) -> bool:
    words = text.split()[-len(SIDES) :]
    return len(words) == len(SIDES) and all(map(_NUMBER.fullmatch, words))


def _is_scored(text: str) -> bool:
    words = text.split()
    return bool(words) and len(words) % _WORDS_OF_SCORED == 0 and all(map(_NUMBER.fullmatch, words))


def _of_predictions(name: str, column: str, what: str) -> str:
    return (
        f"{name}: {column} holds {what}: these are predictions and no truth, which {spelled('evaluate')} takes with "
        "--predictions; where they are a truth, give a column of labels and four of boxes"
    )
