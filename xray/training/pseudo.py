"""Pseudo-labels in training: which models may give them for a fold, and the radiographs that they add to a dataset.

The one rule: while fold k is held back, nothing that trains may know it. A box comes from models that did not see fold
k either, and a radiograph whose patient is in fold k does not train.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from xray.datasets.fingerprint import split_sha256
from xray.datasets.source import VAL
from xray.datasets.sources.unlabelled import NOT_FOR_FOLDS, partition_of
from xray.datasets.store import ALL_FOLDS, Store, fold_in_words, open_store
from xray.errors import InputError, spelled
from xray.file_names import CONFIG_FILE, VALIDATED
from xray.storage.places import as_given
from xray.structures.boxes import BoxTable
from xray.structures.predictions import read_predictions
from xray.training.config import DetectionConfig
from xray.training.readers import Readings
from xray.training.recipes import read_yaml
from xray.training.trained_on import TRAINED_ON

ADDED = "pseudo"
"""Split of the radiographs that pseudo-labels add: they are in no fold and in neither of the dataset's splits."""


def held_back(run: Path, store: Store) -> tuple[int | Literal["val"] | None, str]:
    """The fold of a dataset that a run did not train on, or "val" for its validation split; None, and why in words,
    where there is neither.

    Decided by the run's config.yaml. The radiographs that the run validated must lie in that fold. The dataset counts
    as the one it was trained on where the path or trained_on.json says so, or where at least half of the radiographs
    there were validated: folders get moved.
    """
    if not (run / CONFIG_FILE).is_file():
        return None, f"it has no {CONFIG_FILE} that says which fold it held back"
    config = read_yaml(run / CONFIG_FILE)
    fold = config.get("fold")
    if fold == ALL_FOLDS:
        return None, "it was trained on every fold"
    if fold == VAL and VAL not in store.splits:
        return None, f"it held back a validation split, which {store.path} does not have"
    if fold != VAL and (type(fold) is not int or fold < 0 or fold not in store.folds):
        return None, f"it held back fold {fold}, which {store.path} does not have"
    rows = store.rows(split=VAL) if fold == VAL else store.rows(fold=fold)
    inside = {store.records[row]["source_id"] for row in rows.tolist()}
    file = run / VALIDATED
    validated = set(read_predictions(file).image_ids) if file.is_file() else set()
    if not validated <= inside:
        return None, f"it validated radiographs that are not in {fold_in_words(fold)} of {store.path}"
    given = str(config.get("data_path"))
    if is_dataset_of(run, given, store) or 2 * len(validated) >= len(inside):
        return fold, ""
    return None, f"it was trained on {given}"


def is_dataset_of(run: Path, given: str, store: Store) -> bool:
    """Whether a run was trained on a dataset: by its path, or by the radiographs, splits and folds that it was begun
    with, wherever they lie now. given: data_path of its config.yaml."""
    # A raw directory was converted into the run.
    places = {Path(given).absolute().resolve(), (run / "dataset").resolve()}
    if store.path.resolve() in places or as_given(store.path) == given:
        return True
    try:
        begun = json.loads((run / TRAINED_ON).read_bytes())
        return bool(begun["split_sha256"] == split_sha256(store.records))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


@dataclasses.dataclass(frozen=True)
class JoinedStore(Store):
    """A dataset with the radiographs of a directory of pseudo-labels after its own, in the split `ADDED`.

    for_fold: the fold that is held back, "val" for the validation split, or "all". n_labelled: radiographs of the
    dataset itself.
    """

    pseudo_path: Path = Path()
    for_fold: int | str = ALL_FOLDS
    n_labelled: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _join, (self.path.absolute(), self.pseudo_path.absolute(), self.for_fold)

    @property
    def added(self) -> np.ndarray:
        """Rows of the radiographs that may train: not those of patients in the fold that is held back."""
        records = enumerate(self.records[self.n_labelled :], self.n_labelled)
        return np.array(
            [row for row, record in records if self.for_fold not in record.get(NOT_FOR_FOLDS, ())], dtype=np.int64
        )


class _JoinedImages:
    """The canvases of two datasets, one after the other, by row."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, row: int) -> np.ndarray:
        canvas: np.ndarray = self._first[row] if row < len(self._first) else self._second[row - len(self._first)]
        return canvas


def join(labelled: Store, pseudo_path: Path, for_fold: int | str) -> JoinedStore:
    """A dataset, opened with its pixels, and the pseudo-labels for a training that holds back a fold of it, its
    validation split ("val"), or nothing ("all").

    Raises InputError where they were not made for this dataset, or no model may give any for this fold.
    """
    pseudo = open_store(pseudo_path, pseudo_for=for_fold)
    made = pseudo.pseudo
    if made is None:
        raise InputError(f"{pseudo_path} holds no pseudo-labels: give --pseudo what {spelled('pseudo')} wrote")
    if pseudo.categories != labelled.categories:
        raise InputError(f"{pseudo_path} has other categories than {labelled.path}: label with models trained on it")
    if pseudo.canvas_size != labelled.canvas_size:
        raise InputError(
            f"{pseudo_path} has canvases of {pseudo.canvas_size} pixels, {labelled.path} of {labelled.canvas_size}: "
            "label again with --data-path the dataset that is to be trained on"
        )
    if pseudo.bits != labelled.bits:
        raise InputError(
            f"{pseudo_path} has canvases of {pseudo.bits} bits, {labelled.path} of {labelled.bits}: label again with "
            "--data-path the dataset that is to be trained on"
        )
    if made.get("partition") != partition_of(labelled):
        raise InputError(
            f"{pseudo_path} was made for a dataset with other folds than {labelled.path}, which might leak what is "
            "held back: label again with --data-path the dataset that is to be trained on"
        )
    folds = list(made.get("models", ()))
    if str(for_fold) not in folds:
        raise InputError(
            f"{pseudo_path} has no labels for --fold {for_fold} ({', '.join(folds)}): they must come from models that "
            f"did not see {fold_in_words(for_fold)} either, so label again with --weights that name a run of --fold "
            f"{for_fold}"
        )
    n = len(labelled)
    records = [{**record, "id": n + row, "fold": -1, "split": ADDED} for row, record in enumerate(pseudo.records)]
    moved = dataclasses.replace(pseudo.boxes, images=pseudo.boxes.images + n)
    return JoinedStore(
        path=labelled.path,
        # What reads canvases asks for one row after the other.
        images=cast(np.ndarray, _JoinedImages(cast(np.ndarray, labelled.images), cast(np.ndarray, pseudo.images))),
        records=[*labelled.records, *records],
        boxes=BoxTable.concatenate([labelled.boxes, moved]),
        readers=[*labelled.readers, *([] for _ in range(len(moved)))],
        masks=labelled.masks,
        categories=labelled.categories,
        conversion=labelled.conversion,
        source_category_ids=labelled.source_category_ids,
        pseudo_path=pseudo_path,
        for_fold=for_fold,
        n_labelled=n,
    )


def _join(path: Path, pseudo_path: Path, for_fold: int | str) -> JoinedStore:
    return join(open_store(path), pseudo_path, for_fold)


def with_pseudo(store: JoinedStore, used: Readings, config: DetectionConfig) -> Readings:
    """Radiographs and boxes that train, with those of the pseudo-labels; the share of such a box is its score."""
    first = int(np.count_nonzero(store.boxes.images < store.n_labelled))
    added = np.arange(first, len(store.boxes))
    added = added[np.isin(store.boxes.images[added], store.added)]
    shares = np.ones(len(store.boxes)) if config.agreement == "none" else used.shares.copy()
    shares[first:] = store.boxes.scores[first:]
    return Readings(
        np.concatenate([used.rows, store.added]), np.concatenate([used.boxes[used.boxes < first], added]), shares
    )


def in_words(store: JoinedStore, used: Readings, config: DetectionConfig) -> str:
    """What the pseudo-labels add, for the log."""
    n_held, n_boxes = len(store) - store.n_labelled, int(np.isin(store.boxes.images[used.boxes], store.added).sum())
    left_out = n_held - len(store.added)
    return (
        f"{len(store.added)} of the training radiographs are pseudo-labelled, with {n_boxes} boxes that count by their "
        f"scores: each is shown {config.pseudo_share:g} times as often as a labelled one"
        + (f"; {left_out} are left out, as their patients are in {fold_in_words(store.for_fold)}" if left_out else "")
    )
