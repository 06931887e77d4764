"""Predictions held against a dataset's truth: which radiographs are scored, and what comes out."""

import dataclasses
import math
from typing import Any

import numpy as np

from xray.command import InputError
from xray.data.boxes import BoxTable
from xray.data.predictions import NO_FINDING_CATEGORY, Predictions
from xray.data.store import Store
from xray.detection.bootstrap import bootstrap_intervals
from xray.detection.metrics import detection_metrics, has_vinbig_categories, mean_box_baseline
from xray.findings import NO_FINDING_NAME


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is scored: n radiographs, their truth and their predictions, and the resulting numbers.

    rows: (n,) int64, the radiographs' rows in the store.
    records: their n entries in annotations.json.
    truth, predictions: `images` in [0, n).
    categories: category id → name; with VinBig's, "No finding" (15) may occur in `predictions` only.
    metrics: the content of metrics.json; NaN where a number is not defined.
    n_without_prediction: of the n radiographs, those without any row in the predictions.
    unknown_ids: radiographs in the predictions that the dataset does not have.
    n_left_out: radiographs in the predictions that were not asked for.
    """

    rows: np.ndarray
    records: list[dict[str, Any]]
    truth: BoxTable
    predictions: BoxTable
    categories: dict[int, str]
    metrics: dict[str, Any]
    n_without_prediction: int
    unknown_ids: tuple[str, ...]
    n_left_out: int

    def names(self) -> dict[int, str]:
        """Category id → name of all that is scored, "No finding" among them for VinBig."""
        extra = {NO_FINDING_CATEGORY: NO_FINDING_NAME} if has_vinbig_categories(self.categories) else {}
        return {**self.categories, **extra}


def evaluate(
    store: Store,
    predictions: Predictions,
    split: str | None = None,
    fold: int | None = None,
    baseline: bool = False,
    n_resamples: int = 0,
    with_coco: bool = True,
) -> Evaluation:
    """Scores predictions against the truth of a dataset.

    split, fold: the radiographs to score. Where neither is given, these are all radiographs of every split and fold
        that the predictions touch, so that a radiograph without a prediction counts too.
    baseline: also baseline_map40 and baseline_ap40 of `mean_box_baseline` (with VinBig's categories
        baseline_map40_kaggle), from the radiographs of the train split that are not scored.
    n_resamples: of the patients, for the …_ci95 intervals; 0 leaves them out.

    Raises InputError if the predictions have no radiograph in common with those to score, name categories that the
    dataset does not have, or no radiograph is left for the baseline.
    """
    check_categories(store, predictions)
    found = np.asarray(store.resolve(predictions.image_ids), dtype=np.int64)
    known = found[found >= 0]
    if len(known) == 0:
        examples = ", ".join(repr(name) for name in predictions.image_ids[:2]) or "none"
        raise InputError(
            f"none of the {len(predictions.image_ids)} images in the predictions (such as {examples}) is in "
            f"{store.path}, whose images are named like {store.records[0]['source_id']!r}: give the dataset they are of"
        )
    rows = whole_groups(store, known) if split is None and fold is None else store.rows(split=split, fold=fold)
    position = np.full(len(store), -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    place = np.where(found >= 0, position[found], -1)
    if not (place >= 0).any():
        where = " ".join(f"{name} {value}" for name, value in (("split", split), ("fold", fold)) if value is not None)
        raise InputError(
            f"no prediction is of an image of {where}: leave out --split and --fold, or predict those images"
        )

    truth = _in_order(store.boxes, position)
    table = _in_order(predictions.table, place)
    metrics = detection_metrics(truth, table, len(rows), store.categories, with_coco)
    records = [store.records[row] for row in rows.tolist()]
    if baseline:
        metrics.update(_baseline(store, rows, truth))
    if n_resamples:
        metrics.update(bootstrap_intervals(truth, table, patient_numbers(records), store.categories, n_resamples))
    return Evaluation(
        rows=rows,
        records=records,
        truth=truth,
        predictions=table,
        categories=store.categories,
        metrics=metrics,
        n_without_prediction=len(rows) - len(np.unique(table.images)),
        unknown_ids=tuple(np.array(predictions.image_ids, dtype=object)[found < 0]),
        n_left_out=int(((found >= 0) & (place < 0)).sum()),
    )


def whole_groups(store: Store, rows: np.ndarray) -> np.ndarray:
    """All rows, ascending, of every (split, fold) of the store that `rows` touch."""
    groups = list(zip(store.splits.tolist(), store.folds.tolist(), strict=True))
    touched = {groups[row] for row in np.asarray(rows).tolist()}
    return np.array([row for row, group in enumerate(groups) if group in touched], dtype=np.int64)


def patient_numbers(records: list[dict[str, Any]]) -> np.ndarray:
    """(n,) int64, a number for each patient from 0; a radiograph whose patient is not known has one of its own."""
    index: dict[tuple[str, object], int] = {}
    keys = [
        ("patient", record["patient"]) if record.get("patient") is not None else ("image", number)
        for number, record in enumerate(records)
    ]
    return np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.int64)


def check_categories(store: Store, predictions: Predictions, name: str = "the predictions") -> None:
    """Raises InputError if predictions, called `name`, are of categories that the dataset does not have."""
    labels = set(np.unique(predictions.table.labels).tolist())
    unknown = sorted(labels - store.categories.keys() - {NO_FINDING_CATEGORY})
    if unknown:
        ids = sorted(store.categories)
        raise InputError(
            f"{name} has boxes of category {', '.join(map(str, unknown))}, {store.path} has {ids[0]} to {ids[-1]}: "
            "give the dataset that the model was trained for (a category id is Kaggle's class id + 1)"
        )


def plain_numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics with None in place of NaN, which JSON does not have."""
    if isinstance(metrics, dict):
        return {name: plain_numbers(value) for name, value in metrics.items()}
    if isinstance(metrics, list):
        return [plain_numbers(value) for value in metrics]
    return None if isinstance(metrics, float) and math.isnan(metrics) else metrics


def _in_order(table: BoxTable, position: np.ndarray) -> BoxTable:
    """The rows of a table whose image has a position, renumbered to it."""
    images = position[table.images]
    kept = images >= 0
    return BoxTable(images[kept], table.labels[kept], table.boxes[kept], table.scores[kept])


def _baseline(store: Store, rows: np.ndarray, truth: BoxTable) -> dict[str, Any]:
    others = np.setdiff1d(np.flatnonzero(store.splits == "train"), rows)
    if len(others) == 0:
        raise InputError(
            f"no training image of {store.path} is left for the baseline, since all are scored: "
            "narrow them with --fold, or leave out --baseline"
        )
    position = np.full(len(store), -1, dtype=np.int64)
    position[others] = np.arange(len(others))
    sizes = np.array([(record["width"], record["height"]) for record in store.records], dtype=np.float64)
    is_vinbig = has_vinbig_categories(store.categories)
    boxes = mean_box_baseline(_in_order(store.boxes, position), sizes[others], sizes[rows], no_finding=is_vinbig)
    metrics = detection_metrics(truth, boxes, len(rows), store.categories, with_coco=False)
    return {f"baseline_{name}": metrics[name] for name in ("map40", "ap40", "map40_kaggle") if name in metrics}
