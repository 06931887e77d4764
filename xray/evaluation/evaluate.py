"""Predictions compared with a dataset's truth: boxes, masks and labels of whole radiographs, as far as they are
defined."""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.alignment import Alignment, align, with_known_masks
from xray.evaluation.boxes import BoxEvaluation, evaluate_boxes, has_boxes
from xray.evaluation.labels import LabelEvaluation, LabelScores, evaluate_labels
from xray.evaluation.masks import MaskEvaluation, cache_probabilities, evaluate_masks, mask_categories, search_masks
from xray.evaluation.threshold_search import ProbabilityCache
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions
from xray.structures.probability_maps import ProbabilityMaps
from xray.structures.triplet import LEVELS, Triplet, first_level_over

ABNORMAL = "abnormal"
"""The label of radiographs that have any label."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The radiographs that are scored, and the numbers of their boxes, masks and labels as far as they are defined.

    unused_maps: names of categories in the probability maps of which the dataset has no truth.
    cache, mapped: where there are maps, what is counted in them, an entry for each radiograph and, fastest, category,
    and these categories, id → name.
    not_predicted: names of categories that the scored radiographs show, and of which there is neither a row, nor a map,
    nor a classifier's probability. They count as found nowhere: whether the model does not know them, or found none,
    the predictions do not say.
    """

    alignment: Alignment
    boxes: BoxEvaluation | None
    masks: MaskEvaluation | None
    labels: LabelEvaluation | None
    unused_maps: tuple[str, ...] = ()
    cache: ProbabilityCache | None = None
    mapped: dict[int, str] = dataclasses.field(default_factory=dict)
    not_predicted: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; NaN where a number is not defined."""
        parts = [part.metrics for part in (self.boxes, self.masks, self.labels) if part]
        metrics = {"n_images": len(self.alignment)} | {name: value for part in parts for name, value in part.items()}
        return metrics | ({"not_predicted": list(self.not_predicted)} if self.not_predicted else {})


def evaluate(
    store: Store,
    predictions: Predictions,
    maps: ProbabilityMaps | None = None,
    split: str | None = None,
    fold: int | None = None,
    baseline: bool = False,
    n_resamples: int = 0,
    threshold: float = 0.5,
    triplet: Triplet | None = None,
    with_coco: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Scores predictions against the truth of a dataset.

    - Boxes: where the truth has boxes and the predictions are not labels of whole radiographs alone.
    - Masks: where the dataset has masks, and the predictions have, or there are probability maps. Radiographs with a
      true box that has no mask are then left out of everything: their true mask is not empty, but unknown. With maps
      the best triplet is searched, and with a classifier's probabilities among them the best gate.
    - Labels: each category that some of the radiographs have and some have not. The score of a radiograph is the
      highest of the category's rows, 0 without one. With a probability map the score is instead the probability that
      `min_area` of its pixels reach: this score is above `top` exactly if the triplet rule calls the radiograph
      positive, so that the point of the ROC curve at `top` is that of the rule. A classifier's probability in the maps
      is a second curve. Where there are "No finding" rows, "abnormal" is 1 − their score, against whether a radiograph
      has any label.
    - Unknown truth is not scored: labels where they are unknown, boxes and masks where their category is not located,
      and "abnormal" where a label is unknown and none is positive.

    maps: `read_maps` of the predictions' folder. split, fold: as for `align`. baseline: as for `evaluate_boxes`.
    n_resamples: of the patients, for the …_ci95 intervals; 0 leaves them out.
    threshold: the score from which rows and classifiers call a radiograph positive; with maps `top` takes its place.
    triplet: the setting to mark; None for the best of the search or, without masks in the truth, Triplet's defaults.
    progress: called with a text before each part that takes time.

    Raises InputError if predictions and truth have nothing in common, files do not belong together, a mask does not fit
    its radiograph, or there is nothing to make a baseline of.
    """
    alignment = align(store, predictions, split, fold, maps.image_ids if maps else ())
    categories = mask_categories(store)
    # By name: a pneumothorax segmenter numbers its only category 1, and category 1 of VinBig is another.
    known = set(maps.categories.values()) if maps else set()
    mapped = {label: name for label, name in (categories or store.categories).items() if name in known}
    masks = None
    if categories and (alignment.masks or mapped) and (with_masks := with_known_masks(alignment, categories)):
        counted = ~store.unlocated[with_masks.rows][:, np.isin(list(store.categories), list(categories))]
        if counted.any():
            alignment = with_masks
            masks = evaluate_masks(alignment, categories, n_resamples, counted)

    # Number of each radiograph's map; -1 where there is none.
    number = {name: number for number, name in enumerate(maps.image_ids)} if maps else {}
    place = np.array([number.get(record["source_id"], -1) for record in alignment.records], dtype=np.int64)
    cache = None
    if maps and mapped:
        cache = cache_probabilities(alignment, maps, place, mapped, progress)
        if masks:
            counted = masks.counted[:, np.isin(list(categories), list(mapped))].ravel()
            gates = _gates(maps, place, mapped)
            search = search_masks(cache.of(counted), None if gates is None else gates[counted], triplet)
            best = {"best_triplet": search.triplet.best} | ({"best_gate": search.gate.best} if search.gate else {})
            masks = dataclasses.replace(masks, search=search, metrics={**masks.metrics, **best})
            triplet = search.setting
    if progress:
        progress("scoring")
    scored = _from_rows(store, alignment, threshold)
    if cache:
        scored = _from_maps(scored, list(mapped.values()), cache, triplet or Triplet())
    if maps:
        scored = _with_classifiers(scored, maps, place, threshold)
    labels = evaluate_labels(alignment, scored, n_resamples)
    boxes = None
    if has_boxes(alignment) or not (masks or labels):
        boxes = evaluate_boxes(store, alignment, baseline, n_resamples, with_coco)
    elif baseline:
        raise InputError("--baseline is the AP of mean boxes, and these predictions are no boxes: leave it out")
    not_predicted = _not_predicted(store, alignment, {*known, *(maps.labels if maps else ())})
    unused = tuple(sorted(known - set(mapped.values())))
    return Evaluation(alignment, boxes, masks, labels, unused, cache, mapped, not_predicted)


def _not_predicted(store: Store, alignment: Alignment, mapped: Collection[str]) -> tuple[str, ...]:
    predicted = set(alignment.predictions.labels.tolist())
    shown = store.labels[alignment.rows].any(axis=0)
    return tuple(
        name for (label, name), is_shown in zip(store.categories.items(), shown, strict=True)
        if is_shown and label not in predicted and name not in mapped
    )  # fmt: skip


def _probability(maps: ProbabilityMaps, place: np.ndarray, name: str) -> np.ndarray | None:
    """(n,) a classifier's probability of a label, 0 for radiographs that it has not seen; None without one."""
    if name not in maps.labels:
        return None
    probability = np.where(place >= 0, maps.labels[name][place], 0.0)
    return None if np.isnan(probability).any() else probability


def _gates(maps: ProbabilityMaps, place: np.ndarray, categories: dict[int, str]) -> np.ndarray | None:
    """A classifier's probability for each entry of the cache; None unless it knows all categories."""
    columns = [_probability(maps, place, name) for name in categories.values()]
    known = [column for column in columns if column is not None]
    return None if len(known) < len(columns) else np.stack(known, axis=1).ravel()


def _from_rows(store: Store, alignment: Alignment, threshold: float) -> list[LabelScores]:
    """Scores from the predictions' rows."""
    truth, known, table = store.labels[alignment.rows], ~store.unknown[alignment.rows], alignment.predictions
    highest = {label: np.zeros(len(alignment)) for label in [*store.categories, NO_FINDING_CATEGORY]}
    for label, scores in highest.items():
        rows = table.labels == label
        np.maximum.at(scores, table.images[rows], table.scores[rows])
    scored = [
        LabelScores.of_known(name, "rows", highest[label], truth[:, k], known[:, k], threshold, threshold)
        for k, (label, name) in enumerate(store.categories.items())
    ]
    has_no_finding = (table.labels == NO_FINDING_CATEGORY).any() and NO_FINDING_CATEGORY not in store.categories
    if has_no_finding and ABNORMAL not in store.categories.values():
        is_seen = np.isin(np.arange(len(alignment)), table.images)
        abnormal = np.where(is_seen, 1 - highest[NO_FINDING_CATEGORY], 0.0)
        shown, is_known = (part[alignment.rows] for part in store.abnormal)
        scored.append(LabelScores.of_known(ABNORMAL, "no finding", abnormal, shown, is_known, threshold, threshold))
    return scored


def _from_maps(
    scored: list[LabelScores], mapped: list[str], cache: ProbabilityCache, triplet: Triplet
) -> list[LabelScores]:
    """The labels that have a probability map, scored by it."""
    certainty = dict(zip(mapped, cache.certainty(triplet.min_area).reshape(-1, len(mapped)).T, strict=True))
    # Without a least area every mask with a pixel counts, and its pixels are those over `bottom`.
    threshold = triplet.top if triplet.min_area else triplet.bottom
    lowest = float(np.append(LEVELS, math.inf)[first_level_over(threshold)])
    return [
        dataclasses.replace(
            label, origin="maps", scores=certainty[label.name][label.places], threshold=threshold, lowest=lowest
        )
        if label.name in certainty
        else label
        for label in scored
    ]


def _with_classifiers(
    scored: list[LabelScores], maps: ProbabilityMaps, place: np.ndarray, threshold: float
) -> list[LabelScores]:
    """Adds the classifier's curve behind each label that it knows; "abnormal" has one already, from its rows."""
    result = []
    for label in scored:
        result.append(label)
        probability = _probability(maps, place, label.name)
        if probability is not None and label.name != ABNORMAL:
            curve = dataclasses.replace(label, origin="classifier", scores=probability[label.places])
            result.append(dataclasses.replace(curve, threshold=threshold, lowest=threshold))
    return result


def plain_numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics with None in place of NaN, which JSON does not have."""
    if isinstance(metrics, dict):
        return {name: plain_numbers(value) for name, value in metrics.items()}
    if isinstance(metrics, list):
        return [plain_numbers(value) for value in metrics]
    return None if isinstance(metrics, float) and math.isnan(metrics) else metrics
