"""Predictions beside a dataset's truth: which radiographs are scored, with the true and predicted rows of each."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from xray.datasets.prediction_ids import resolve
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.located import nothing_located
from xray.structures.boxes import BoxTable
from xray.structures.masks import MaskError, encode_mask
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions

Rle = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Alignment:
    """n radiographs that are scored, their truth and their predictions.

    rows: (n,) int64, their rows in the store. records: their n entries in annotations.json.
    truth, predictions: `images` in [0, n).
    truth_masks, masks: row of `truth` and of `predictions` → COCO RLE of the radiograph's size, for the rows that have
        a mask.
    categories: category id → name; "No finding" (15) may occur in `predictions` only.
    is_predicted: (n,) bool, whether the predictions have a row of the radiograph, or a map.
    unknown_ids: radiographs in the predictions that the dataset does not have.
    n_left_out: radiographs in the predictions that are not in the split and fold to score.
    n_unmasked: radiographs left out by `with_known_masks`.
    n_unlocated: radiographs left out where no split or fold is given, since nothing is located in them and nothing
        predicted: a detector neither trains nor is validated on them.
    """

    rows: np.ndarray
    records: list[dict[str, Any]]
    truth: BoxTable
    predictions: BoxTable
    truth_masks: dict[int, Rle]
    masks: dict[int, Rle]
    categories: dict[int, str]
    is_predicted: np.ndarray
    unknown_ids: tuple[str, ...]
    n_left_out: int
    n_unmasked: int = 0
    n_unlocated: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_without_prediction(self) -> int:
        """Of the n radiographs, those without any row in the predictions (and without a map)."""
        return int((~self.is_predicted).sum())

    @property
    def sizes(self) -> np.ndarray:
        """(n, 2) int64, width and height of each radiograph in pixels."""
        sizes = [(record["width"], record["height"]) for record in self.records]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    @functools.cached_property
    def true_masks(self) -> dict[int, Rle]:
        """`truth_masks`, checked, since the file may have been edited. Raises InputError that names the radiograph. The
        masks of predictions were checked when they were read.
        """
        checked = {}
        for row, mask in self.truth_masks.items():
            record = self.records[self.truth.images[row]]
            try:
                checked[row], _ = encode_mask(mask, record["width"], record["height"], may_be_empty=True)
            except MaskError as error:
                raise InputError(
                    f"a true mask of {record['source_id']} cannot be scored ({error}): it must be a COCO segmentation "
                    f"at the radiograph's original size, {record['width']} x {record['height']}"
                ) from None
        return checked

    @property
    def patients(self) -> np.ndarray:
        """(n,) int64, the patient of each radiograph, by `patient_numbers`."""
        return patient_numbers(self.records)


def align(
    store: Store,
    predictions: Predictions,
    split: str | None = None,
    fold: int | None = None,
    mapped_ids: Sequence[str] = (),
) -> Alignment:
    """Finds the radiographs to score and numbers truth and predictions alike.

    split, fold: the radiographs to score. Where neither is given, these are all radiographs of every split and fold
        that the predictions touch, so that a radiograph without a prediction counts, too. Only radiographs in which
        nothing is located either do not count, as no detector is validated on them.
    mapped_ids: radiographs with a probability map beside the predictions: a model has seen them, even if they have no
    row.
    predictions: where they are foreign, their ids and masks are read as `xray.datasets.prediction_ids.resolve` does by
        default.

    Raises InputError if the predictions have no radiograph in common with those to score, or name categories that the
    dataset does not have, and for masks that do not fit their radiographs.
    """
    predictions = resolve(store, predictions)
    check_categories(store, predictions)
    ids = tuple(dict.fromkeys([*map(str, predictions.image_ids), *mapped_ids]))
    if not ids and split is None and fold is None:
        raise InputError("the predictions hold no row: give --split or --fold to name the radiographs they are of")
    store_rows = np.asarray(store.resolve(ids), dtype=np.int64)
    known = store_rows[store_rows >= 0]
    if len(known) == 0 and ids:
        examples = ", ".join(repr(name) for name in ids[:2])
        raise InputError(
            f"none of the {len(ids)} images in the predictions (such as {examples}) is in {store.path}, whose images "
            f"are named like {store.records[0]['source_id']!r}: give the dataset they are of"
        )
    n_unlocated = 0
    if split is None and fold is None:
        rows = whole_groups(store, known)
        # Without any box in the dataset, predictions are labels, and a radiograph without a row has score 0.
        unused = nothing_located(store)[rows] & ~np.isin(rows, known) & bool(len(store.boxes))
        rows, n_unlocated = rows[~unused], int(unused.sum())
    else:
        rows = store.rows(split=split, fold=fold)
    position = positions(rows, len(store))
    place = np.where(store_rows >= 0, position[store_rows], -1)
    if ids and not (place >= 0).any():
        where = " ".join(f"{name} {value}" for name, value in (("split", split), ("fold", fold)) if value is not None)
        raise InputError(
            f"no prediction is of an image of {where}: leave out --split and --fold, or predict those images"
        )
    records = [store.records[row] for row in rows.tolist()]
    truth, truth_masks = renumbered(store.boxes, position, store.masks)
    table, masks = renumbered(predictions.table, place, predictions.masks)
    for mask, record in ((mask, records[table.images[row]]) for row, mask in masks.items()):
        if mask["size"] != [record["height"], record["width"]]:
            raise InputError(f"no mask of {record['source_id']}: {mask['size']} is not the size of the radiograph")
    mapped = set(mapped_ids)
    touched = np.append(table.images, [spot for name, spot in zip(ids, place.tolist(), strict=True) if name in mapped])
    return Alignment(
        rows=rows,
        records=records,
        truth=truth,
        predictions=table,
        truth_masks=truth_masks,
        masks=masks,
        categories=store.categories,
        is_predicted=np.isin(np.arange(len(rows)), touched),
        unknown_ids=tuple(name for name, row in zip(ids, store_rows.tolist(), strict=True) if row < 0),
        n_left_out=int(((store_rows >= 0) & (place < 0)).sum()),
        n_unlocated=n_unlocated,
    )


def with_known_masks(alignment: Alignment, categories: Collection[int]) -> Alignment | None:
    """The radiographs whose true masks are all known. (A box of these categories without a mask does not mean an empty
    mask.)

    None if there is none.
    """
    truth = alignment.truth
    boxed = np.isin(truth.labels, list(categories))
    boxed[list(alignment.truth_masks)] = False
    unknown = np.unique(truth.images[boxed])
    if not len(unknown):
        return alignment
    places = np.setdiff1d(np.arange(len(alignment)), unknown)
    if not len(places):
        return None
    position = positions(places, len(alignment))
    truth, truth_masks = renumbered(truth, position, alignment.truth_masks)
    predictions, masks = renumbered(alignment.predictions, position, alignment.masks)
    return dataclasses.replace(
        alignment,
        rows=alignment.rows[places],
        records=[alignment.records[place] for place in places.tolist()],
        truth=truth,
        predictions=predictions,
        truth_masks=truth_masks,
        masks=masks,
        is_predicted=alignment.is_predicted[places],
        n_unmasked=len(unknown),
    )


def whole_groups(store: Store, rows: np.ndarray) -> np.ndarray:
    """All rows, ascending, of every (split, fold) of the store that `rows` touch."""
    groups = list(zip(store.splits.tolist(), store.folds.tolist(), strict=True))
    touched = {groups[row] for row in np.asarray(rows).tolist()}
    return np.array([row for row, group in enumerate(groups) if group in touched], dtype=np.int64)


def patient_numbers(records: list[dict[str, Any]]) -> np.ndarray:
    """(n,) int64, a number for each patient, from 0; a radiograph whose patient is not known counts as a patient of its
    own."""
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


def positions(rows: np.ndarray, n: int) -> np.ndarray:
    """(n,) int64, the position of each of n numbers in `rows`; -1 for those that `rows` lacks."""
    position = np.full(n, -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    return position


def renumbered(table: BoxTable, position: np.ndarray, masks: Mapping[int, Rle]) -> tuple[BoxTable, dict[int, Rle]]:
    """The rows of a table, with their masks, whose image has a position of at least 0, renumbered to it."""
    images = position[table.images]
    return dataclasses.replace(table, images=images).select_masked(np.flatnonzero(images >= 0), masks)
