"""What the image and category ids of a predictions file mean beside a dataset: decided once for a file, never guessed.

Whole numbers as image ids are those of the source's own COCO file, and so then are the category ids: Detectron2,
MMDetection, RF-DETR, torchvision's reference and pycocotools write what they read. Texts are source ids, as infer
writes them, or file names. A row that names its file or its category is believed. What could be read in two ways that
differ, or in none, is refused; --ids and --category-ids say what is meant, of files that do not say so themselves.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xray.datasets.normal_rows import with_named_normal, with_one_row
from xray.datasets.predicted_categories import CategoryIds, find_categories
from xray.datasets.predicted_images import ImageIds, find_images
from xray.datasets.store import Store
from xray.errors import FlagError, InputError
from xray.findings import NO_FINDING_NAME
from xray.structures.masks import MaskError, encode_mask, resized_mask
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, is_no_finding, read_predictions
from xray.structures.submission import read_submission
from xray.structures.values import caseless

_T = TypeVar("_T")


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
        is_normal = is_no_finding(table)
        table = dataclasses.replace(table, labels=np.where(is_normal, table.labels, table.labels - 1))
        return resolve(store, dataclasses.replace(submission, table=table), path.name, ids, "source")
    return resolve(store, submission, path.name, ids, "dataset")


def read_all_predictions(
    paths: Sequence[Path], store: Store, ids: Sequence[ImageIds], category_ids: Sequence[CategoryIds]
) -> list[Predictions]:
    """`read_any_predictions` of several files. ids, category_ids: one for all, or one for each. Raises FlagError."""
    flags = zip(one_each(ids, len(paths), "ids"), one_each(category_ids, len(paths), "category-ids"), strict=True)
    return [read_any_predictions(path, store, *flag) for path, flag in zip(paths, flags, strict=True)]


def one_each(values: Sequence[_T], n: int, flag: str) -> list[_T]:
    """The value of a flag for each of n files. Raises FlagError unless it has one, or as many."""
    if len(values) not in (1, n):
        raise FlagError(f"--{flag} has {len(values)} values for {n} files: give one for all, or one for each")
    return list(values) * (n if len(values) == 1 else 1)


def resolve(
    store: Store,
    predictions: Predictions,
    name: str = "the predictions",
    ids: ImageIds = "auto",
    category_ids: CategoryIds = "auto",
) -> Predictions:
    """Predictions of a file with the ids of a dataset: image ids are source ids, labels its category ids.

    name: of the file, for messages. ids, category_ids: what its ids mean, as the flags --ids and --category-ids say it.
    Images that the dataset does not have keep their id, as text. Predictions that are not foreign stay as they are.
    Rows of "No finding" are left out where the dataset has a category of that id, for which they would be taken. A
    class that is called Normal or the like, and is none of the dataset's, is "No finding", whatever its boxes.

    Raises InputError where ids could be read in two ways that differ, or in none, and where no row is left.
    """
    if not predictions.is_foreign or not predictions.image_ids:
        return predictions
    predictions = with_named_normal(predictions, store.categories.values())
    if _is_own(store, predictions):
        ids = category_ids = "auto"
    renamed, meaning = _renamed(store, predictions, name, ids)
    labels = find_categories(store, renamed, name, category_ids, meaning)
    resolved = dataclasses.replace(renamed, table=dataclasses.replace(renamed.table, labels=labels), names={})
    if NO_FINDING_CATEGORY not in store.categories:
        return with_one_row(resolved, labels == NO_FINDING_CATEGORY)
    is_other = caseless(store.categories.get(NO_FINDING_CATEGORY, NO_FINDING_NAME)) != caseless(NO_FINDING_NAME)
    return _without_normal(resolved, name, store) if is_other else resolved


def _without_normal(predictions: Predictions, name: str, store: Store) -> Predictions:
    """Without the rows of "No finding", whose id is another category's. Raises InputError where there are no others."""
    table = predictions.table
    is_normal = is_no_finding(table)
    if not is_normal.any():
        return predictions
    if is_normal.all():
        raise InputError(
            f"{name} has rows of {NO_FINDING_NAME} alone, which cannot be used beside {store.path}: category "
            f"{NO_FINDING_CATEGORY} is {store.categories[NO_FINDING_CATEGORY]} there"
        )
    kept, masks = table.select_masked(np.flatnonzero(~is_normal), predictions.masks)
    return dataclasses.replace(predictions, table=kept, masks=masks)


def resolve_images(store: Store, predictions: Predictions, name: str, ids: ImageIds = "auto") -> Predictions:
    """`resolve` of the image ids alone, for a model whose categories are not the dataset's."""
    if not predictions.is_foreign:
        return predictions
    return _renamed(store, predictions, name, "auto" if _is_own(store, predictions) else ids)[0]


def _is_own(store: Store, predictions: Predictions) -> bool:
    """Whether a file says itself what it means, as infer writes: texts that are source ids, categories by name."""
    used = set(np.unique(predictions.table.labels).tolist())
    return used <= predictions.names.keys() and all(name in store.index_of for name in predictions.image_ids)


def _renamed(store: Store, predictions: Predictions, name: str, ids: ImageIds) -> tuple[Predictions, str]:
    """Predictions with source ids in place of the file's own, and what those were: "source", "coco" or "rows"."""
    rows, of_files, meaning = find_images(store, predictions, name, ids)
    predictions = _in_original_pixels(store, predictions, rows, of_files)
    number: dict[str, int] = {}
    places = [
        number.setdefault(store.records[row]["source_id"] if row >= 0 else str(image_id), len(number))
        for image_id, row in zip(predictions.image_ids, rows, strict=True)
    ]
    images = np.array(places, dtype=np.int64)[predictions.table.images]
    table = dataclasses.replace(predictions.table, images=images)
    masks = _checked_masks(store, predictions, rows, name)
    renamed = dataclasses.replace(
        predictions, image_ids=tuple(number), table=table, masks=masks, is_foreign=False, files={}
    )
    return (renamed if len(number) == len(rows) else _without_repeats(renamed)), meaning


def _checked_masks(store: Store, predictions: Predictions, rows: list[int], name: str) -> dict[int, dict[str, Any]]:
    """The masks as compressed run lengths of their radiographs' sizes; they may be empty. Raises InputError."""
    masks: dict[int, dict[str, Any]] = {}
    for number, mask in predictions.masks.items():
        row = rows[predictions.table.images[number]]
        if row < 0:
            masks |= {number: mask} if isinstance(mask, dict) else {}
            continue
        record = store.records[row]
        try:
            masks[number], _ = encode_mask(mask, record["width"], record["height"], may_be_empty=True)
        except MaskError as error:
            raise InputError(f"{name}, row {number}: no mask of {record['source_id']} ({error})") from None
    return masks


def _without_repeats(predictions: Predictions) -> Predictions:
    """Without the rows that stand there twice, once for each of two ids of one radiograph."""
    table = predictions.table
    seen: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(
        zip(table.images.tolist(), table.labels.tolist(), *table.boxes.T.tolist(), table.scores.tolist(), strict=True)
    ):
        seen.setdefault((*key, str(predictions.masks.get(row))), row)
    distinct, masks = table.select_masked(np.array(list(seen.values()), dtype=np.int64), predictions.masks)
    return dataclasses.replace(predictions, table=distinct, masks=masks)


def _in_original_pixels(
    store: Store, predictions: Predictions, rows: list[int], of_files: Sequence[bool]
) -> Predictions:
    """Predictions in the pixels of the dataset's radiographs.

    of_files: whether an image is named as the source's own COCO file, or by its file: such predictions come from a tool
    that has read these, and count in their pixels. Only a source that says itself how large its originals were, as
    `xray export` does, has others: `file_width` and `file_height` in its records.
    """
    scales = np.ones((len(rows), 4))
    for image, (row, is_of_file) in enumerate(zip(rows, of_files, strict=True)):
        record = store.records[row] if row >= 0 and is_of_file else {}
        if "file_width" in record and "file_height" in record:
            scales[image] = np.tile([record[side] / record[f"file_{side}"] for side in ("width", "height")], 2)
    if (scales == 1).all():
        return predictions
    table = predictions.table
    masks = dict(predictions.masks)
    for number, mask in predictions.masks.items():
        x, y = scales[table.images[number]][:2].tolist()
        if (x, y) != (1, 1):
            record = store.records[rows[table.images[number]]]
            masks[number] = resized_mask(
                mask, record["file_width"], record["file_height"], record["width"], record["height"]
            )
    table = dataclasses.replace(table, boxes=table.boxes * scales[table.images])
    return dataclasses.replace(predictions, table=table, masks=masks)
