"""Which radiographs of a dataset are scored against which predictions."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import BOXES, IMAGES, OTHER, SQUARE, predicted

from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.alignment import align, patient_numbers, whole_groups, with_known_masks
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    return open_store(write_table_store(tmp_path / "data", IMAGES, BOXES), pixels=False)


def test_whole_groups_are_scored_by_default(store: Store) -> None:
    aligned = align(store, predicted(("c", 4, SQUARE, 0.9)))
    np.testing.assert_array_equal(aligned.rows, [2, 3])
    assert len(aligned) == 2
    assert aligned.n_without_prediction == 1
    assert aligned.sizes.tolist() == [[1000, 2000], [1000, 2000]]
    np.testing.assert_array_equal(whole_groups(store, np.array([5, 0])), [0, 1, 4, 5])


def test_split_and_fold_narrow_what_is_scored(store: Store) -> None:
    predictions = predicted(("a", 4, SQUARE, 0.9), ("e", 4, SQUARE, 0.8), ("zz", 4, SQUARE, 0.7))
    everything = align(store, predictions)
    np.testing.assert_array_equal(everything.rows, [0, 1, 4, 5])
    assert everything.unknown_ids == ("zz",)
    assert everything.n_left_out == 0
    fold = align(store, predictions, fold=0)
    np.testing.assert_array_equal(fold.rows, [0, 1])
    assert fold.n_left_out == 1
    assert len(fold.predictions) == 1
    np.testing.assert_array_equal(align(store, predictions, split="train").rows, [0, 1, 2, 3])


def test_predictions_may_come_in_any_order(store: Store) -> None:
    mask = {"size": [2000, 1000], "counts": "x"}
    mixed = predicted(("zz", 1, OTHER, 0.3), ("f", 4, SQUARE, 0.1), ("e", 4, SQUARE, 0.8))
    aligned = align(store, Predictions(mixed.image_ids, mixed.table, {1: mask}))
    np.testing.assert_array_equal(aligned.predictions.images, [1, 0])
    # The mask stays with f's box, which is the first that is left.
    assert aligned.masks == {0: mask}
    assert [record["source_id"] for record in aligned.records] == ["e", "f"]


def test_a_true_box_without_a_mask_is_not_an_empty_mask(store: Store) -> None:
    mask = {"size": [2000, 1000], "counts": "x"}
    # Of the masked category 4, "a" has a mask and "c" has none; "d" is not among the predictions.
    store = dataclasses.replace(store, masks={0: mask})
    mixed = predicted(("a", 4, SQUARE, 0.9), ("c", 4, SQUARE, 0.8))
    predictions = Predictions(mixed.image_ids, mixed.table, {0: mask, 1: mask})
    aligned = align(store, predictions)
    assert [record["source_id"] for record in aligned.records] == ["a", "b", "c", "d"]
    known = with_known_masks(aligned, [4])
    assert [record["source_id"] for record in known.records] == ["a", "b"]
    assert (known.n_unmasked, known.n_without_prediction) == (2, 1)
    assert (known.masks, known.truth_masks) == ({0: mask}, {0: mask})
    np.testing.assert_array_equal(known.rows, [0, 1])
    # A category that is only ever boxed takes nothing away; and where nothing is known, nothing is scored.
    assert with_known_masks(aligned, [1]) is aligned
    assert with_known_masks(align(store, predictions, fold=1), [4]) is None


def test_a_radiograph_with_a_map_was_seen(store: Store) -> None:
    # A segmenter that finds nothing leaves no row; its map says that it has looked.
    aligned = align(store, predicted(("c", 4, SQUARE, 0.9)), mapped_ids=["c", "d", "e"])
    np.testing.assert_array_equal(aligned.rows, [2, 3, 4, 5])
    assert aligned.n_without_prediction == 1
    nothing = align(store, Predictions((), BoxTable.empty()), mapped_ids=["e"])
    np.testing.assert_array_equal(nothing.rows, [4, 5])


def test_no_image_in_common(store: Store) -> None:
    with pytest.raises(InputError, match=r"none of the 1 images.*'zz'.*named like 'a'"):
        align(store, predicted(("zz", 4, SQUARE, 0.9)))
    with pytest.raises(InputError, match="hold no row: give --split or --fold"):
        align(store, Predictions((), BoxTable.empty()))
    with pytest.raises(InputError, match="split test"):
        align(store, predicted(("a", 4, SQUARE, 0.9)), split="test")
    with pytest.raises(InputError, match="no fold 7"):
        align(store, predicted(("a", 4, SQUARE, 0.9)), fold=7)


def test_unknown_categories(store: Store) -> None:
    with pytest.raises(InputError, match=r"category 16, 90, .* has 1 to 14"):
        align(store, predicted(("a", 90, SQUARE, 0.9), ("a", 16, SQUARE, 0.9), ("a", 15, (0, 0, 1, 1), 0.5)))


def test_patients_are_numbered(store: Store) -> None:
    np.testing.assert_array_equal(patient_numbers(store.records), [0, 0, 1, 2, 3, 4])
