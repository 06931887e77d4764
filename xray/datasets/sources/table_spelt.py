"""Boxes that a table writes behind their labels in one cell, as Kaggle's challenges do: "opacity 1 x1 y1 x2 y2 …".

Of SIIM-FISABIO, VinBigData and tables made of them: six words a box, of which the second is a score, 1 in a truth. A
box of 0 0 1 1 stands for that nothing was found, whatever its label is called ("none", VinBigData's 14).
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.table_columns import LABELS
from xray.datasets.sources.table_labels import is_unsaid
from xray.datasets.sources.tables import factorize, spellings
from xray.errors import InputError, spelled
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.values import is_missing

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = ("predictionstring", "predictionstrings", "predictions")
"""Columns that hold such cells and are no labels otherwise."""
SIDES = ("x1", "y1", "x2", "y2")

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_BOX = re.compile(rf"([^\s|;,\[\]]+)\s+({_NUMBER})((?:\s+{_NUMBER}){{4}})")
_CELL = re.compile(rf"{_BOX.pattern}(?:\s+{_BOX.pattern})*")
_SCORED = re.compile(rf"{_NUMBER}(?:\s+{_NUMBER}){{4}}(?:\s+{_NUMBER}(?:\s+{_NUMBER}){{4}})*")
"""A score, x, y, width and height each, as submissions of RSNA's challenge are."""


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
    spelt = {text: _CELL.fullmatch(text) is not None for text in filled}
    if filled and all(_SCORED.fullmatch(text) for text in filled):
        raise InputError(_of_predictions(name, column, "boxes with scores, and no labels"))
    if 2 * sum(spelt.values()) <= len(filled):
        return cells, ""
    if other := next((text for text in filled if not spelt[text]), ""):
        raise InputError(
            f"{name}: {column} holds labels with boxes, such as {filled[0][:60]!r}, and {other[:60]!r}: correct it, or "
            "name another column with --label"
        )
    boxes = [_boxes(text) if spelt.get(text) else [(text, 1.0, ("",) * 4)] for text in texts]
    boxes.append([("", 1.0, ("",) * 4)])
    if scored := next((score for of_cell in boxes for _, score, _ in of_cell if score != 1), None):
        raise InputError(_of_predictions(name, column, f"boxes with scores, such as {scored:g}"))
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


def _boxes(text: str) -> list[tuple[str, float, tuple[str, ...]]]:
    """Label, score and corners of each box of a cell; no corners where it says that nothing was found."""
    boxes = []
    for label, score, numbers in _BOX.findall(text):
        corners = tuple(numbers.split())
        is_none = tuple(map(float, corners)) == NO_FINDING_BOX
        boxes.append((NO_FINDING_NAME, float(score), ("",) * 4) if is_none else (label, float(score), corners))
    return boxes


def _of_predictions(name: str, column: str, what: str) -> str:
    return (
        f"{name}: {column} holds {what}: these are predictions and no truth, which {spelled('evaluate')} takes with "
        "--predictions; where they are a truth, give a column of labels and four of boxes"
    )
