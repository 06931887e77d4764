"""Of the benchmark `recipe`: predictions of several files together, and what a row differs from the default by."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.errors import InputError

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.structures.predictions import Predictions


def predictions_on(store: "Store", rows: np.ndarray, files: Iterable[Path]) -> "Predictions":
    """The predictions of several files for the radiographs `rows`, those in which nothing was found among them."""
    from xray.datasets.prediction_ids import read_any_predictions
    from xray.evaluation.alignment import positions
    from xray.structures.boxes import concatenate_with_masks
    from xray.structures.predictions import Predictions

    place, parts = positions(rows, len(store)), []
    for path in files:
        predictions = read_any_predictions(path, store)
        images = place[store.resolve(predictions.image_ids)][predictions.table.images]
        if (images < 0).any():
            raise InputError(f"{path} has predictions of radiographs that are not in the chosen folds")
        parts.append((dataclasses.replace(predictions.table, images=images), predictions.masks))
    table, masks = concatenate_with_masks(parts)
    table, masks = table.select_masked(np.argsort(table.images, kind="stable"), masks)
    return Predictions(tuple(store.records[row]["source_id"] for row in rows.tolist()), table, masks)


def main_metric(store: "Store", metrics: Mapping[str, Any]) -> str:
    """What the rows are compared by."""
    from xray.evaluation.box_metrics import has_vinbig_categories

    if "coco_ap" not in metrics:
        return "dice"
    return "map40" if has_vinbig_categories(store.categories) else "coco_ap"


def summary(values: Mapping[str, float], gains: Sequence[float], samples: Sequence[Any]) -> dict[str, Any]:
    """What numbers.json says of a row: means over the seeds, and the interval of the difference."""
    return {
        "values": dict(values),
        "difference": float(np.mean(gains)),
        "ci95": interval(samples),
        "cpu_seconds": None,
    }


def interval(samples: Sequence[Any]) -> list[float] | None:
    """95 % interval of the mean of a difference over seeds; None without resamples.

    samples: for each seed (n_resamples,) differences in the same resamples of the patients. Each resample draws the
    seeds with replacement, too.
    """
    from xray.evaluation.resampling import percentile_interval

    if any(sample is None for sample in samples):
        return None
    of_seeds = np.array(samples, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(of_seeds), of_seeds.T.shape)
    return percentile_interval(np.take_along_axis(of_seeds.T, drawn, axis=1).mean(axis=1))
