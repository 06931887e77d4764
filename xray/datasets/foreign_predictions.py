"""Predictions of any detector beside a dataset: submissions and COCO results, by whatever ids."""

import dataclasses
from pathlib import Path

from xray.datasets.prediction_ids import CategoryIds, ImageIds, resolve
from xray.datasets.store import Store
from xray.structures.predictions import Predictions, read_predictions
from xray.structures.submission import read_submission


def read_any_predictions(
    path: Path, store: Store, ids: ImageIds = "auto", category_ids: CategoryIds = "auto"
) -> Predictions:
    """A submission.csv, or COCO results of any detector, with the ids of a dataset.

    ids, category_ids: what the file's ids mean, see `resolve`; a submission has Kaggle's class ids.
    Raises InputError as `read_submission`, `read_predictions` and `resolve` do.
    """
    if path.suffix.lower() == ".csv":
        submission = dataclasses.replace(read_submission(path), is_foreign=True)
        return resolve(store, submission, path.name, ids, "dataset")
    return resolve(store, read_predictions(path), path.name, ids, category_ids)
