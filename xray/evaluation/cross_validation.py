"""Cross-validation: every radiograph's predictions from the model that did not train on it, and their numbers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.structures.boxes import concatenate_with_masks
from xray.structures.predictions import Predictions


def out_of_fold(store: Store, by_fold: Mapping[int, Predictions]) -> Predictions:
    """The predictions of several folds as one, in the order of the store's rows; each radiograph comes from its fold.

    by_fold: fold → predictions, ids resolved, of the model that did not train on it. Radiographs in which nothing was
    found are among `image_ids`, too.
    Raises InputError where predictions are of a radiograph of another fold.
    """
    rows = np.flatnonzero((store.splits == "train") & np.isin(store.folds, list(by_fold)))
    place = {int(row): number for number, row in enumerate(rows)}
    parts = []
    for fold, predictions in by_fold.items():
        rows_of_fold = store.resolve(predictions.image_ids)
        for name, row in zip(predictions.image_ids, rows_of_fold.tolist(), strict=True):
            if row not in place or store.folds[row] != fold:
                raise InputError(f"the predictions of fold {fold} hold {name!r}, which is not a radiograph of it")
        places = np.array([place[row] for row in rows_of_fold.tolist()], dtype=np.int64)
        images = places[predictions.table.images]
        parts.append((dataclasses.replace(predictions.table, images=images), predictions.masks))
    table, masks = concatenate_with_masks(parts)
    table, masks = table.select_masked(np.argsort(table.images, kind="stable"), masks)
    return Predictions(tuple(store.records[row]["source_id"] for row in rows.tolist()), table, masks)


def cross_validate(store: Store, by_fold: Mapping[int, Predictions], n_resamples: int = 0) -> dict[str, Any]:
    """The content of a cross-validation's metrics.json.

    The metrics of `evaluate` over all out-of-fold predictions together, with the …_ci95 intervals of `n_resamples` of
    the patients; beside them `folds` [{fold, metrics of that fold alone}], and over the folds `mean` and
    `standard_deviation` of each metric (of a sample: with n - 1; NaN for a single fold).
    """
    folds = [{"fold": fold, **evaluate(store, predictions, fold=fold).metrics} for fold, predictions in by_fold.items()]
    pooled = evaluate(store, out_of_fold(store, by_fold), n_resamples=n_resamples).metrics
    return {**pooled, "folds": folds, "mean": spread(folds, np.mean), "standard_deviation": spread(folds, _deviation)}


def spread(folds: Sequence[Mapping[str, Any]], statistic: Any) -> dict[str, Any]:
    """A statistic of each number over the folds in which the number is defined, also within dicts of numbers."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for fold in folds for name in fold if name not in ("fold", "n_images")):
        values = [fold[name] for fold in folds if name in fold]
        if all(isinstance(value, dict) for value in values):
            result[name] = spread(values, statistic)
        elif all(isinstance(value, int | float) for value in values):
            defined = [float(value) for value in values if not math.isnan(value)]
            result[name] = float(statistic(defined)) if defined else math.nan
    return result


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
