"""Which findings are taken for which: truth boxes against predicted boxes, category against category."""

import dataclasses
from typing import Any

import numpy as np

from xray.structures.boxes import BoxTable, overlapping

CONFUSION_IOU = 0.4
BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often a true finding (rows) is met by a box of each category (columns).

    names: the K categories in order; `counts` has one row and one column more, for the background: the last column
    counts truth boxes that no box meets, the last row boxes that meet no truth. counts: (K + 1, K + 1) int64.
    threshold: the lowest score of a box that counts.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    threshold: float

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json about the confusion."""
        return {
            "threshold": self.threshold,
            "iou": CONFUSION_IOU,
            "names": [*self.names, BACKGROUND],
            "counts": self.counts.tolist(),
        }


def confusion(truth: BoxTable, predictions: BoxTable, categories: dict[int, str], threshold: float) -> Confusion:
    """Pairs truth boxes with predictions of at least a score, of one radiograph and with an IoU of at least 0.4.

    A box is in one pair at most. Pairs of the same category are made first, then those of different ones, each from the
    highest IoU down (equal ones by the prediction's score): where several findings overlap, a box that meets its own
    finding is not counted as a confusion with another one. Boxes of other categories are ignored.
    """
    labels = np.array(sorted(categories), dtype=np.int64)
    truth = truth.select(np.isin(truth.labels, labels))
    predictions = predictions.select(np.isin(predictions.labels, labels) & (predictions.scores >= threshold))
    rows, columns, iou = overlapping(truth, predictions, CONFUSION_IOU)
    differs = truth.labels[rows] != predictions.labels[columns]
    order = np.lexsort((-predictions.scores[columns], -iou, differs))
    k = len(labels)
    counts = np.zeros((k + 1, k + 1), dtype=np.int64)
    met, used = np.zeros(len(truth), dtype=bool), np.zeros(len(predictions), dtype=bool)
    true_places, predicted_places = np.searchsorted(labels, truth.labels), np.searchsorted(labels, predictions.labels)
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if not met[row] and not used[column]:
            met[row] = used[column] = True
            counts[true_places[row], predicted_places[column]] += 1
    counts[:k, k] = np.bincount(true_places[~met], minlength=k)
    counts[k, :k] = np.bincount(predicted_places[~used], minlength=k)
    return Confusion(tuple(categories[label] for label in labels.tolist()), counts, threshold)
