"""Predictions of models, from files or results in memory: scored against a dataset, and fused."""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from xray.api.finder import Finder
from xray.api.made_by import made_by_fused
from xray.api.result import Result
from xray.api.results import Results
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.findings import NO_FINDING_NAME
from xray.outputs.pictures.findings import rows_of
from xray.structures.made_by import MadeBy
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, read_predictions

Given = str | os.PathLike[str] | Results | Result | Predictions
"""A predictions.json (COCO results of any detector), a submission.csv, or results in memory."""


def evaluate(
    predictions: Given | Iterable[Result],
    dataset: str | os.PathLike[str] | Store,
    *,
    split: Literal["train", "val", "test"] | None = None,
    fold: int | None = None,
    resamples: int = 0,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Scores predictions by whatever their truth allows: boxes by mAP and COCO AP, masks by Dice, labels by ROC.

    predictions: a file, whose probability maps beside it are used, too, or results. dataset: the dataset directory with
    the truth, or what `open_dataset` returned.
    split, fold: the radiographs to score; by default all of each split and fold that the predictions touch.
    resamples: of the patients, for the 95 % intervals, which then stand under …_ci95; 0 leaves them out.
    threshold: score in [0, 1] from which a radiograph is called positive.

    Returns what the command `xray evaluate` writes into metrics.json, but for calibration, confusion and groups; None
    stands for a number that is not defined. Raises InputError if they have nothing in common, or do not fit.
    """
    from xray.evaluation.evaluate import evaluate as score
    from xray.evaluation.evaluate import plain_numbers
    from xray.structures.probability_maps import read_maps

    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}: it must lie between 0 and 1")
    if resamples < 0:
        raise InputError(f"resamples is {resamples}: it must be 0 or more")
    store = _store_of(dataset)
    maps = read_maps(Path(predictions).parent) if isinstance(predictions, (str, os.PathLike)) else None
    scored = _predictions_of(predictions, store)
    return plain_numbers(score(store, scored, maps, split, fold, n_resamples=resamples, threshold=threshold).metrics)


def fuse(
    predictions: Sequence[Given],
    weights: Sequence[float] | None = None,
    *,
    iou: float = 0.4,
    skip: float = 0.0,
    method: Literal["wbf", "nms", "soft_nms", "nmw", "none"] = "wbf",
    score: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg", "sum"] = "sum",
    sigma: float = 0.5,
    scale: float = 1.0,
    dataset: str | os.PathLike[str] | Store | None = None,
) -> Results:
    """Fuses several models' predictions of the same radiographs, as the command `xray fuse` does.

    predictions: files or results, one a model. weights: a positive number each; equal by default.
    iou: in (0, 1); boxes of one finding that overlap by more are taken for one. skip: in [0, 1]; boxes with a lower
    score are left out. method, score, sigma, scale: as the flags of the same name of the command.
    dataset: what the ids of foreign files are those of; not needed for results, nor for files of `xray infer`.

    A model has no vote on a radiograph that it was not run on: the others' weights count alone there, and a warning
    says on how many. Results are of all radiographs in them. A file is of those in it where each has a "No finding"
    row, and otherwise of each split and fold of `dataset` that it touches, or of all without that: a radiograph in
    which nothing was found has no row.

    The results know the radiographs as far as some of the given results do; of files alone they know names and rows.
    What `save` writes names the models that made each of them, where all are known: results of models, files that have
    a made_by.json beside them, and files in run directories.
    Probabilities of classifiers are not fused. Raises InputError for values out of range, and models whose categories
    differ.
    """
    from xray.inference.coverage import Coverage
    from xray.inference.ensemble import fuse as fuse_predictions

    if isinstance(predictions, (str, os.PathLike, Results, Result, Predictions)):
        raise InputError("fuse() takes a list: give the predictions of each model as one entry")
    store = None if dataset is None else _store_of(dataset)
    models = [_predictions_of(one, store) for one in predictions]
    categories: dict[int, str] = {} if store is None else dict(store.categories)
    known: dict[str, Result] = {}
    for given, model in zip(predictions, models, strict=True):
        results = _results_in(given)
        known |= {result.id: result for result in results}
        for number, name in [*model.names.items(), *(pair for one in results for pair in one.categories.items())]:
            if categories.setdefault(number, name) != name:
                raise InputError(
                    f"category {number} is {categories[number]} to one model and {name} to another: models that are "
                    "fused must agree on them"
                )
    is_whole = [not isinstance(one, (str, os.PathLike, Predictions)) for one in predictions]
    coverage = Coverage.of(models, store, is_whole)
    for line in coverage.gaps([_name_of(one, number) for number, one in enumerate(predictions)]):
        warnings.warn(line, stacklevel=2)
    fused = fuse_predictions(models, weights, iou, skip, method, score, sigma, scale, coverage.covered)
    settings = {"weights": list(weights or ()), "iou": iou, "skip": skip, "method": method, "score": score}
    settings |= {"sigma": sigma, "scale": scale, "labels_sha256": []}
    return _results_of(fused, categories, known, made_by_fused(predictions, models, store, settings))


def _name_of(given: Any, number: int) -> str:
    return str(given) if isinstance(given, (str, os.PathLike)) else f"model {number} of those given"


def _results_in(given: Any) -> list[Result]:
    if isinstance(given, Result):
        return [given]
    return [] if isinstance(given, (str, os.PathLike, Predictions)) else list(given)


def _store_of(dataset: Any) -> Store:
    return dataset if isinstance(dataset, Store) else open_store(dataset, pixels=False)


def _predictions_of(given: Any, store: Store | None) -> Predictions:
    if isinstance(given, Predictions):
        return given
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if store is not None:
            return read_any_predictions(path, store)
        predictions = read_predictions(path) if path.suffix.lower() != ".csv" else None
        if predictions is None or not all(isinstance(name, str) for name in predictions.image_ids):
            raise InputError(f"the ids in {path.name} are those of a dataset: give that, too, as dataset=")
        return predictions
    results = _results_in(given)
    if not all(isinstance(result, Result) for result in results):
        raise InputError("predictions are none: give a file, or what a model returned")
    return Results(results).to_predictions()


def _results_of(
    predictions: Predictions, categories: Mapping[int, str], known: Mapping[str, Result], made_by: MadeBy | None
) -> Results:
    """Predictions whose ids mean the same as those of `known`, results of the same radiographs, as far as there are."""
    names = {number: name for number, name in categories.items() if number != NO_FINDING_CATEGORY}
    if categories.get(NO_FINDING_CATEGORY, NO_FINDING_NAME) != NO_FINDING_NAME:
        names = dict(categories)
    has_masks = bool(predictions.masks) or any(result.finder.has_masks for result in known.values())
    finder = Finder(names, has_masks, fused=made_by)
    results = []
    for number, name in enumerate(map(str, predictions.image_ids)):
        result = Result(name, None, *rows_of(predictions.table, predictions.masks, number), {}, finder)
        if (same := known.get(name)) is not None:
            result = dataclasses.replace(result, size=same.size, origin=same.origin, warnings=same.warnings)
        results.append(result)
    return Results(results)
