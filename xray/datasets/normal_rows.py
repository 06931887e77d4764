"""Predictions of a class that means that nothing was found, such as "Normal", as the "No finding" rows that xray has.

Detectors of others are trained with such a class, mostly with a box of the whole radiograph. Its score is how sure they
are that the radiograph is normal, and its box says nothing: it is no box to be matched with those of findings.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from xray.datasets.normal_words import sounds_normal
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.predictions import Predictions, is_unit_box
from xray.structures.values import caseless


def with_named_normal(predictions: Predictions, categories: Iterable[str]) -> Predictions:
    """Predictions in which each class that is called as if nothing was found is called "No finding".

    categories: names that keep their meaning, whatever they sound like: those of the dataset, and of a map's findings.
    Its rows get the box of "No finding", one a radiograph, see `with_one_row`.
    """
    known = {caseless(name) for name in categories}
    normal = [label for label, name in predictions.names.items() if caseless(name) not in known and sounds_normal(name)]
    if not normal:
        return predictions
    rows = np.isin(predictions.table.labels, normal)
    # Of two such classes, "Normal" and "No finding", one number is enough.
    labels = np.where(rows, normal[0], predictions.table.labels)
    names = {label: name for label, name in predictions.names.items() if label not in normal}
    named = dataclasses.replace(
        predictions,
        table=dataclasses.replace(predictions.table, labels=labels),
        names={**names, normal[0]: NO_FINDING_NAME},
    )
    return with_one_row(named, rows)


def with_one_row(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Predictions with the box of "No finding" in these rows (N,) bool, of which a radiograph keeps the surest.

    Where all have that box already, and are of a radiograph each, nothing changes.
    """
    table = predictions.table
    if (is_unit_box(table) | ~rows).all() and len(np.unique(table.images[rows])) == rows.sum():
        return predictions
    surest: dict[int, int] = {}
    for row in np.flatnonzero(rows).tolist():
        best = surest.setdefault(int(table.images[row]), row)
        if table.scores[row] > table.scores[best]:
            surest[int(table.images[row])] = row
    boxes = np.where(rows[:, None], np.array(NO_FINDING_BOX), table.boxes)
    kept = ~rows
    kept[list(surest.values())] = True
    masks = {row: mask for row, mask in predictions.masks.items() if not rows[row]}
    table, masks = dataclasses.replace(table, boxes=boxes).select_masked(np.flatnonzero(kept), masks)
    return dataclasses.replace(predictions, table=table, masks=masks)
