"""Boxes of the truth and predicted boxes held against each other, whatever their categories."""

from collections.abc import Callable

import numpy as np

from xray.audit.named import CATEGORY, MISSING, SPURIOUS, Named
from xray.datasets.store import Store
from xray.evaluation.alignment import Alignment
from xray.structures.boxes import BoxTable, box_iou, overlapping

FEWEST = 5
"""Labels, or found boxes, that a category's own threshold needs."""
SAME_PLACE, TOUCHING = 0.4, 0.1
"""IoU from which two boxes are of one finding, and under which they have nothing to do with each other."""
LIKELY = 0.5
"""Share of a category's usual score from which a prediction speaks against another category in its place."""
UNSEEN = 0.1
"""Share of a category's usual score under which a box is not seen."""


class BoxLabels:
    """What predictions contradict of the boxes. A category's usual score is the mean of the best score in the place of
    each of its boxes that is found."""

    def __init__(self, store: Store, alignment: Alignment) -> None:
        self.names = store.categories
        self.rows = alignment.rows
        self.truth = alignment.truth
        self.readers = _readers_of(store, alignment)
        table = alignment.predictions
        self.predictions = table.select(np.isin(table.labels, list(store.categories)))
        columns = np.array(list(store.categories))
        self.open = store.unlocated[alignment.rows]
        self.column = {label: place for place, label in enumerate(columns.tolist())}
        self.pairs = overlapping(self.truth, self.predictions, TOUCHING)
        truth, predicted, iou = self.pairs
        self.same = self.truth.labels[truth] == self.predictions.labels[predicted]
        # Of each truth box, the best score of its own category in its place, and touching it.
        self.best, self.near = np.zeros(len(self.truth)), np.zeros(len(self.truth))
        np.maximum.at(self.near, truth[self.same], self.predictions.scores[predicted[self.same]])
        chosen = self.same & (iou >= SAME_PLACE)
        np.maximum.at(self.best, truth[chosen], self.predictions.scores[predicted[chosen]])
        # Predictions in whose place the truth has their own category.
        self.explained = np.zeros(len(self.predictions), dtype=bool)
        self.explained[predicted[self.same & (iou >= SAME_PLACE / 2)]] = True
        self.usual: dict[int, float] = {}
        self.too_few: list[str] = []
        for label, name in store.categories.items():
            of = self.truth.labels == label
            scores = self.best[of & (self.best > 0)]
            if len(scores) >= FEWEST:
                self.usual[label] = float(scores.mean())
            elif of.any() or (self.predictions.labels == label).any():
                self.too_few.append(name)
        self.is_sure = self.predictions.scores >= self.usual_of(self.predictions, np.inf)
        self.seen_by: dict[int, int] = {}

    def usual_of(self, table: BoxTable, otherwise: float) -> np.ndarray:
        """(len(table),) the usual score of each box's category, where it has one."""
        return np.array([self.usual.get(label, otherwise) for label in table.labels.tolist()])

    def share_seen(self) -> float:
        """Of the boxes of categories with a usual score, the share with at least LIKELY of it in their place."""
        usual = self.usual_of(self.truth, np.nan)
        judged = np.isfinite(usual)
        return float((self.best[judged] >= LIKELY * usual[judged]).mean()) if judged.any() else 1.0

    def of_another_category(self) -> list[tuple[int, float]]:
        """Truth boxes in whose place another category is surely seen, and their own is not, each with that score."""
        truth, predicted, iou = self.pairs
        may_be = ~self.open[self.predictions.images, [self.column[n] for n in self.predictions.labels.tolist()]]
        likely = self.predictions.scores >= LIKELY * self.usual_of(self.predictions, np.inf)
        sees = ~self.same & (iou >= SAME_PLACE) & (likely & may_be)[predicted]
        # Two findings may share a place, each with its box. A box is contradicted nevertheless where other readers than
        # those who drew it see the other finding there.
        sees &= ~self.explained[predicted] | self._by_others(truth, predicted)
        found: dict[int, tuple[float, int]] = {}
        for pair in np.flatnonzero(sees).tolist():
            number, by = int(truth[pair]), int(predicted[pair])
            score = float(self.predictions.scores[by])
            if self.best[number] < score / 2 and score > found.get(number, (0.0, -1))[0]:
                found[number] = score, by
        self.seen_by = {number: by for number, (_, by) in found.items()}
        return [(number, score) for number, (score, _) in sorted(found.items())]

    def _by_others(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Of pairs, whether all boxes of the prediction's category in its place are by readers who did not draw the
        pair's truth box."""
        drawn_by: dict[int, set[str]] = {}
        pairs = np.flatnonzero(self.same & (self.pairs[2] >= SAME_PLACE / 2))
        for number, by in zip(self.pairs[0][pairs].tolist(), self.pairs[1][pairs].tolist(), strict=True):
            # A box without a reader's name is everybody's.
            drawn_by.setdefault(by, set()).update(self.readers[number] or {""})
        everybody = [set(self.readers[number]) for number in truth.tolist()]
        return np.array(
            [
                bool(ours) and "" not in (theirs := drawn_by.get(by, set())) and ours.isdisjoint(theirs)
                for ours, by in zip(everybody, predicted.tolist(), strict=True)
            ],
            dtype=bool,
        )

    def not_seen(self, but: set[int]) -> list[tuple[int, float]]:
        """Truth boxes in whose place their category has next to no score, each with how little that is."""
        usual = self.usual_of(self.truth, 0.0)
        unseen = np.flatnonzero(self.near < UNSEEN * usual).tolist()
        return [(number, 1 - self.near[number] / usual[number]) for number in unseen if number not in but]

    def without_box(self, but: set[int]) -> list[tuple[int, float]]:
        """Sure predictions where no box of the truth is, the best of each place, with their scores."""
        _, predicted, iou = self.pairs
        touched = np.zeros(len(self.predictions), dtype=bool)
        touched[predicted[(iou >= SAME_PLACE) | (self.same & (iou >= TOUCHING))]] = True
        chosen: list[int] = []
        taken: dict[tuple[int, int], list[int]] = {}
        for number in np.lexsort((np.arange(len(touched)), -self.predictions.scores)).tolist():
            image, label = int(self.predictions.images[number]), int(self.predictions.labels[number])
            if touched[number] or not self.is_sure[number] or self.open[image, self.column[label]] or number in but:
                continue
            others = taken.setdefault((image, label), [])
            boxes = self.predictions.boxes
            if others and box_iou(boxes[number], boxes[others]).max() >= TOUCHING:
                continue
            others.append(number)
            chosen.append(number)
        return [(number, float(self.predictions.scores[number])) for number in chosen]

    def n_truth(self) -> dict[str, int]:
        """Category → boxes of the truth."""
        return {name: int((self.truth.labels == label).sum()) for label, name in self.names.items()}

    def n_sure(self) -> dict[str, int]:
        """Category → predictions that are sure."""
        labels = self.predictions.labels[self.is_sure]
        return {name: int((labels == label).sum()) for label, name in self.names.items()}

    def by_truth(self, found: list[tuple[int, float]]) -> dict[str, list[Named]]:
        """Truth boxes with their scores as reasons to look, by category."""

        def reason(number: int, score: float) -> Named:
            name, by = self.names[int(self.truth.labels[number])], self.seen_by.get(number)
            box, row = tuple(self.truth.boxes[number].tolist()), int(self.rows[self.truth.images[number]])
            if by is None:
                detail = f"{name}, best score there {self.near[number]:.3f}"
                return Named(row, SPURIOUS, score, detail, box=box, category=name)
            seen_as = self.names[int(self.predictions.labels[by])]
            detail = f"{name}, predicted {seen_as} {score:.2f} (as {name} {self.best[number]:.2f})"
            seen = tuple(self.predictions.boxes[by].tolist())
            return Named(row, CATEGORY, score, detail, box=box, category=name, seen=seen, seen_as=seen_as)

        return self._grouped(found, self.truth.labels, reason)

    def by_prediction(self, found: list[tuple[int, float]]) -> dict[str, list[Named]]:
        """Predictions with their scores as reasons to look, by category."""

        def reason(number: int, score: float) -> Named:
            name = self.names[int(self.predictions.labels[number])]
            seen = tuple(self.predictions.boxes[number].tolist())
            row = int(self.rows[self.predictions.images[number]])
            detail = f"predicted {name} {score:.2f}, no box there"
            return Named(row, MISSING, score, detail, category=name, seen=seen, seen_as=name)

        return self._grouped(found, self.predictions.labels, reason)

    def _grouped(
        self, found: list[tuple[int, float]], labels: np.ndarray, reason: Callable[[int, float], Named]
    ) -> dict[str, list[Named]]:
        groups: dict[str, list[Named]] = {}
        for number, score in found:
            groups.setdefault(self.names[int(labels[number])], []).append(reason(number, score))
        return groups


def _readers_of(store: Store, alignment: Alignment) -> list[list[str]]:
    """Who drew each box of the truth; `align` keeps their order."""
    chosen = np.flatnonzero(np.isin(store.boxes.images, alignment.rows)).tolist()
    return [store.readers[box] for box in chosen]
