"""What a model's numbers do not say, and what its data lack: sentences, each from a fact of its files."""

import math
from collections.abc import Iterator

import numpy as np

from xray.outputs.card.data import FEW, NOT_KNOWN, counts_of, lacks, part_scored, parts_of, rare_findings
from xray.outputs.card.facts import Facts, dict_in, interval_in, value_in
from xray.outputs.card.numbers import MAIN
from xray.structures.thresholds import ABNORMAL


def limits(facts: Facts) -> list[str]:
    """A sentence each, those about the data first."""
    return [*_of_training(facts), *_of_evaluation(facts), *_of_thresholds(facts)]


def _of_training(facts: Facts) -> Iterator[str]:
    store = facts.store
    if store is None:
        yield (
            "What the training data lack is not known, as they were not at hand when this card was written (xray card "
            "--data-path)."
        )
        return
    parts = parts_of(store, facts.held, facts.models[0].config)
    if not parts.is_known:
        yield (
            "Which radiographs of the train split the model held back is not known: all of the train split count as "
            "what it learned from."
        )
    if rare := rare_findings(store, parts.trained, facts.categories):
        few = ", ".join(f"{name} ({n:,})" for name, n in rare.items())
        yield f"It learned these findings from fewer than {FEW} radiographs each: {few}."
    if strange := [name for name in facts.categories if name not in (*store.categories.values(), ABNORMAL)]:
        yield f"The dataset says nothing of {', '.join(strange)}."
    for sentence in lacks(counts_of(store, parts.trained)):
        yield f"Training data: {sentence}"
    n_unknown = sum(store.records[row].get("patient") is None for row in parts.trained.tolist())
    if n_unknown:
        who = "no radiograph" if n_unknown == len(parts.trained) else "some radiographs only"
        yield (
            f"Training data: the patient is known of {who}, so that radiographs of one may be among those learned from "
            "and those scored."
        )


def _of_evaluation(facts: Facts) -> Iterator[str]:
    metrics = facts.metrics
    if not metrics:
        yield "No evaluation was given: what the model is worth on radiographs that it never met is not known."
        return
    yield (
        "metrics.json does not name the weights that it is of: that this evaluation is of this model is the word of "
        "who wrote this card."
    )
    dataset = dict_in(dict_in(metrics, "fingerprint"), "dataset")
    if facts.store is not None:
        yield from _of_overlap(facts)
    if all(interval_in(metrics, name) is None for name in MAIN if not math.isnan(value_in(metrics, name))):
        yield "The metrics have no intervals (xray evaluate --resamples)."
    truth = {name: n for name, n in dict_in(metrics, "n_truth").items() if isinstance(n, int)}
    if few := ", ".join(f"{name} ({n:,})" for name, n in truth.items() if n < FEW):
        yield f"These findings were scored on fewer than {FEW} true boxes each, and their numbers say little: {few}."
    if absent := [name for name in facts.categories if truth and not truth.get(name)]:
        yield f"Not scored, as the evaluation's truth has none of them: {', '.join(absent)}."
    if dict_in(dict_in(metrics, "fingerprint"), "scored").get("n_patients") is None:
        yield "The evaluation's patients are not known: its intervals are over radiographs, and may be too narrow."
    groups = dict_in(metrics, "subgroups")
    if missing := [name for name in ("View", "Sex", "Age", "Manufacturer") if name not in groups]:
        yield f"Not scored by {', '.join(missing).lower()}: the evaluation's data do not say it."
    small = [
        f"{attribute.lower()} {name} ({n:,})"
        for attribute in groups
        for name in dict_in(groups, attribute)
        if isinstance(n := dict_in(dict_in(groups, attribute), name).get("n_images"), int) and n < FEW
    ]
    if small:
        yield f"These groups were scored on fewer than {FEW} radiographs each: {', '.join(small)}."
    if not dict_in(metrics, "calibration"):
        yield "Calibration was not measured."
    if not dataset:
        yield f"The dataset of the evaluation is {NOT_KNOWN}."


def _of_overlap(facts: Facts) -> Iterator[str]:
    """Whether what was scored is of the training data's own source, or among it."""
    store = facts.store
    assert store is not None  # the caller has looked
    found = part_scored(store, dict_in(dict_in(facts.metrics, "fingerprint"), "scored"))
    parts = parts_of(store, facts.held, facts.models[0].config)
    if found is None:
        yield (
            "What was scored is no split or fold of the training dataset as it is: whether the model learned from any "
            "of it is not known."
        )
        return
    rows, words = found
    n = len(np.intersect1d(rows, parts.trained))
    if n and parts.is_known:
        yield f"It was scored on {words} of the training dataset, and learned from {n:,} of these {len(rows):,}."
    elif n:
        yield f"It was scored on {words} of the training dataset, of which it may have learned from {n:,} radiographs."
    if len(np.intersect1d(rows, parts.held)):
        yield (
            f"It was scored on {words} of the training dataset, by which its weights were chosen: the numbers are "
            "flattered."
        )
    yield "It was scored on data of the source that it learned from: there was no external test, on other data."


def _of_thresholds(facts: Facts) -> Iterator[str]:
    if facts.thresholds is None:
        return
    if missing := [name for name, point in facts.thresholds.of.items() if point.threshold is None]:
        yield (
            "No threshold could be fitted, for want of examples or as none reaches the sensitivity, of "
            f"{', '.join(missing)}."
        )
