"""Predictions of any detector beside a dataset: submissions and COCO results, by whatever ids."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from xray.datasets.prediction_ids import CategoryIds, ImageIds, resolve
from xray.datasets.store import Store
from xray.errors import FlagError
from xray.findings import NO_FINDING_BOX
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, read_predictions
from xray.structures.submission import read_submission

T = TypeVar("T")


def read_any_predictions(
    path: Path, store: Store, ids: ImageIds = "auto", category_ids: CategoryIds = "auto"
) -> Predictions:
    """A submission.csv, or COCO results of any detector, with the ids of a dataset.

    ids, category_ids: what the file's ids mean, see `resolve`; a submission has Kaggle's class ids, category ids - 1,
    or with "source" the source's own.
    Raises InputError as `read_submission`, `read_predictions` and `resolve` do.
    """
    if path.suffix.lower() != ".csv":
        return resolve(store, read_predictions(path), path.name, ids, category_ids)
    submission = dataclasses.replace(read_submission(path), is_foreign=True)
    if ids == "auto" and all(name in store.index_of for name in submission.image_ids):
        ids = "source"
    if category_ids == "source":
        table = submission.table
        is_normal = (table.labels == NO_FINDING_CATEGORY) & (table.boxes == NO_FINDING_BOX).all(axis=1)
        table = dataclasses.replace(table, labels=np.where(is_normal, table.labels, table.labels - 1))
        return resolve(store, dataclasses.replace(submission, table=table), path.name, ids, "source")
    return resolve(store, submission, path.name, ids, "dataset")


def read_all_predictions(
    paths: Sequence[Path], store: Store, ids: Sequence[ImageIds], category_ids: Sequence[CategoryIds]
) -> list[Predictions]:
    """`read_any_predictions` of several files. ids, category_ids: one for all, or one for each. Raises FlagError."""
    flags = zip(one_each(ids, len(paths), "ids"), one_each(category_ids, len(paths), "category-ids"), strict=True)
    return [read_any_predictions(path, store, *flag) for path, flag in zip(paths, flags, strict=True)]


def one_each(values: Sequence[T], n: int, flag: str) -> list[T]:
    """The value of a flag for each of n files. Raises FlagError unless it has one, or as many."""
    if len(values) not in (1, n):
        raise FlagError(f"--{flag} has {len(values)} values for {n} files: give one for all, or one for each")
    return list(values) * (n if len(values) == 1 else 1)
