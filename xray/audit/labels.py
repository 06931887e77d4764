"""Labels that predictions contradict, after confident learning (Northcutt, Jiang and Chuang 2021): what counts as sure
is measured for each category by itself, as the mean probability of those that have its label.

Predictions must be out of fold: a model repeats the labels that it was trained on, wrong ones among them. Where it
contradicts many labels of a category, the model does not know the category, and none of them is named.
"""

import dataclasses
from typing import Any

import numpy as np

from xray.audit.box_labels import FEWEST, BoxLabels
from xray.audit.named import CATEGORY, LABEL, MISSING, SPURIOUS, Named
from xray.datasets.store import Store
from xray.evaluation.alignment import Alignment
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.probability_maps import ProbabilityMaps

MOST_CONTRADICTED = {LABEL: 0.2, CATEGORY: 0.5, SPURIOUS: 0.02, MISSING: 0.1}
"""Share of a category's labels, boxes or sure predictions, beyond which contradictions say more of the model than of
the labels. A detector that passes over a box is common, one that surely sees something else in its place is not."""
FEW = 1
"""Contradictions that are named whatever their share."""
GOOD, MOST_OF_OTHERS = 0.8, 0.005
"""Share of the boxes that a detector must see for all that it contradicts to be named; of others it is the surest
only, in this share of the radiographs for each reason."""
LEAST_TOLD_APART = 0.4
"""By how much the mean probability of those with a label must exceed that of those without it."""


@dataclasses.dataclass(frozen=True)
class Contradictions:
    """named: the surest first. counts: reason → category → (contradicted, of how many, whether they are named).
    notes: categories that cannot be judged, and why."""

    named: list[Named]
    counts: dict[str, dict[str, tuple[int, int, bool]]]
    notes: list[str]

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of audit.json about it."""
        return {
            why: {
                name: {"contradicted": contradicted, "of": of, "named": named}
                for name, (contradicted, of, named) in by_category.items()
            }
            for why, by_category in self.counts.items()
        }


def confident_errors(probabilities: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Which labels of one category are confidently contradicted, and how strongly.

    probabilities: (n,) in [0, 1], that a radiograph shows it. positive: (n,) bool, whether its label says so.
    Thresholds are the mean probability among the positive, and the mean of its complement among the negative; a label
    is contradicted if the other class reaches its threshold and its own does not, or is the less likely of the two.
    Returns (n,) bool and (n,) float64, how much likelier the other class is; None where either class has fewer than
    FEWEST labels, or the positive are not likelier by LEAST_TOLD_APART.
    """
    if positive.sum() < FEWEST or (~positive).sum() < FEWEST:
        return None
    for_positive = float(probabilities[positive].mean())
    for_negative = float((1 - probabilities[~positive]).mean())
    if for_positive + for_negative < 1 + LEAST_TOLD_APART:
        return None
    reaches = np.stack([1 - probabilities >= for_negative, probabilities >= for_positive])
    own, other = np.where(positive, reaches[::-1], reaches)
    strength = np.where(positive, 1 - 2 * probabilities, 2 * probabilities - 1)
    return other & (~own | (strength > 0)), strength


def contradictions(store: Store, alignment: Alignment, maps: ProbabilityMaps | None = None) -> Contradictions:
    """What predictions contradict of a dataset's labels and boxes.

    alignment: of the predictions. maps: beside them, for a classifier's probabilities.
    What is not known of a radiograph is not contradicted, nor is a detection where a box may be missing.
    """
    result = Contradictions([], {}, [])
    _judge_labels(store, alignment, maps, result)
    if len(alignment.truth) and _has_boxes(alignment):
        boxes = BoxLabels(store, alignment)
        most = None
        if (seen := boxes.share_seen()) < GOOD:
            most = max(1, round(MOST_OF_OTHERS * len(alignment)))
            result.notes.append(
                f"the predictions see {100 * seen:.0f} % of the boxes: of what they contradict only the surest is named"
            )
        swapped = boxes.of_another_category()
        _enter(result, CATEGORY, boxes.by_truth(swapped), boxes.n_truth(), most)
        unseen = boxes.not_seen({number for number, _ in swapped})
        _enter(result, SPURIOUS, boxes.by_truth(unseen), boxes.n_truth(), most)
        new = boxes.without_box({boxes.seen_by[number] for number, _ in swapped})
        _enter(result, MISSING, boxes.by_prediction(new), boxes.n_sure(), most)
        if boxes.too_few:
            result.notes.append(f"boxes of {', '.join(boxes.too_few)}: fewer than {FEWEST} are found, not judged")
    result.named.sort(key=lambda one: (list(result.counts).index(one.why), -one.score, one.row))
    return result


def _enter(
    result: Contradictions, why: str, found: dict[str, list[Named]], of: dict[str, int], most: int | None = None
) -> None:
    """Adds the contradictions of each category that the model knows well enough. most: how many at most, of all."""
    result.counts[why] = {}
    named: list[Named] = []
    for name, ones in found.items():
        trusted = len(ones) <= max(FEW, MOST_CONTRADICTED[why] * of[name])
        result.counts[why][name] = len(ones), of[name], trusted
        if trusted:
            named += ones
    result.named.extend(sorted(named, key=lambda one: -one.score)[:most])


def _judge_labels(store: Store, alignment: Alignment, maps: ProbabilityMaps | None, result: Contradictions) -> None:
    truth, unknown = store.labels[alignment.rows], store.unknown[alignment.rows]
    boxed = set(alignment.truth.labels.tolist()) if _has_boxes(alignment) else set()
    found: dict[str, list[Named]] = {}
    of: dict[str, int] = {}
    unjudged = []
    for column, (label, name) in enumerate(store.categories.items()):
        if label in boxed:
            # Its boxes are judged one by one.
            continue
        known = ~unknown[:, column]
        probabilities = _probabilities(alignment, maps, label, name)
        errors = confident_errors(probabilities[known], truth[known, column])
        if errors is None:
            unjudged.append(name)
            continue
        rows, of[name] = np.flatnonzero(known), int(known.sum())
        found[name] = []
        for place in np.flatnonzero(errors[0]).tolist():
            row, is_positive = int(rows[place]), bool(truth[rows[place], column])
            detail = f"labelled {name if is_positive else f'without {name}'}, predicted {probabilities[row]:.2f}"
            found[name].append(Named(int(alignment.rows[row]), LABEL, float(errors[1][place]), detail, category=name))
        # Positive labels are few: against all, even a model that finds none of them would look trustworthy.
        of[name] = min(of[name], 2 * int(min(truth[known, column].sum(), (~truth[known, column]).sum())))
    _enter(result, LABEL, found, of)
    if unjudged:
        result.notes.append(
            f"labels of whole radiographs, {', '.join(unjudged)}: fewer than {FEWEST} with or without it, or the "
            "predictions do not tell them apart, not judged"
        )


def _probabilities(alignment: Alignment, maps: ProbabilityMaps | None, label: int, name: str) -> np.ndarray:
    """(n,) the probability that a radiograph shows a category: a classifier's where there is one, or its best row's."""
    best = np.zeros(len(alignment))
    rows = alignment.predictions.labels == label
    np.maximum.at(best, alignment.predictions.images[rows], alignment.predictions.scores[rows])
    if maps is not None and name in maps.labels:
        place = {image_id: number for number, image_id in enumerate(maps.image_ids)}
        for number, record in enumerate(alignment.records):
            if record["source_id"] in place and np.isfinite(maps.labels[name][place[record["source_id"]]]):
                best[number] = maps.labels[name][place[record["source_id"]]]
    return best


def _has_boxes(alignment: Alignment) -> bool:
    """Whether predictions are boxes, and not a classifier's rows, which all cover the whole radiograph."""
    table = alignment.predictions.select(alignment.predictions.labels != NO_FINDING_CATEGORY)
    if any("width" not in record for record in alignment.records):
        return bool(len(table))
    sizes = alignment.sizes[table.images]
    whole = (table.boxes[:, :2] <= 1).all(axis=1) & (table.boxes[:, 2:] >= sizes - 1).all(axis=1)
    return bool(len(table)) and not whole.all()
