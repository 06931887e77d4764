"""Which radiographs of a dataset are scored against which predictions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.command import InputError
from xray.data.boxes import BoxTable
from xray.data.predictions import Predictions
from xray.data.store import Store, open_store
from xray.detection.evaluation import evaluate, patient_numbers, plain_numbers, whole_groups

SQUARE, OTHER = (100, 100, 500, 500), (500, 1000, 900, 1800)
IMAGES = [
    ("a", "train", 0, "p"),
    ("b", "train", 0, "p"),
    ("c", "train", 1, "q"),
    ("d", "train", 1, None),
    ("e", "test", -1, None),
    ("f", "test", -1, None),
]
BOXES = [(0, 4, SQUARE), (2, 4, SQUARE), (3, 4, OTHER), (4, 4, SQUARE), (4, 1, OTHER)]


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    return open_store(write_table_store(tmp_path / "data", IMAGES, BOXES), pixels=False)


def predicted(*rows: tuple) -> Predictions:
    """Rows of (image_id, category, box, score)."""
    names = list(dict.fromkeys(row[0] for row in rows))
    columns = list(zip(*rows, strict=True))
    return Predictions(
        tuple(names), BoxTable.of([names.index(row[0]) for row in rows], columns[1], columns[2], columns[3])
    )


def test_whole_groups_are_scored_by_default(store: Store) -> None:
    # One image of fold 1 is predicted; the other one's box counts as missed: one of two found.
    result = evaluate(store, predicted(("c", 4, SQUARE, 0.9)))
    np.testing.assert_array_equal(result.rows, [2, 3])
    assert result.metrics["map40"] == 0.5
    assert result.metrics["n_images"] == 2
    assert result.n_without_prediction == 1
    np.testing.assert_array_equal(whole_groups(store, np.array([5, 0])), [0, 1, 4, 5])


def test_split_and_fold_narrow_what_is_scored(store: Store) -> None:
    predictions = predicted(("a", 4, SQUARE, 0.9), ("e", 4, SQUARE, 0.8), ("zz", 4, SQUARE, 0.7))
    everything = evaluate(store, predictions)
    np.testing.assert_array_equal(everything.rows, [0, 1, 4, 5])
    assert everything.unknown_ids == ("zz",)
    assert everything.n_left_out == 0
    fold = evaluate(store, predictions, fold=0)
    np.testing.assert_array_equal(fold.rows, [0, 1])
    assert fold.n_left_out == 1
    assert fold.metrics["map40"] == 1.0
    # Of the test split's two findings, cardiomegaly is found and the aorta is not.
    assert evaluate(store, predictions, split="test").metrics["map40"] == 0.5
    np.testing.assert_array_equal(evaluate(store, predictions, split="train").rows, [0, 1, 2, 3])


def test_predictions_may_come_in_any_order(store: Store) -> None:
    # e's box is right, f's is wrong with a lower score: AP 1 for cardiomegaly, 0 for the aorta.
    result = evaluate(store, predicted(("f", 4, SQUARE, 0.1), ("e", 4, SQUARE, 0.8)))
    assert result.metrics["ap40"] == {"Aortic enlargement": 0.0, "Cardiomegaly": 1.0}
    np.testing.assert_array_equal(result.predictions.images, [1, 0])
    assert [record["source_id"] for record in result.records] == ["e", "f"]


def test_no_image_in_common(store: Store) -> None:
    with pytest.raises(InputError, match=r"none of the 1 images.*'zz'.*named like 'a'"):
        evaluate(store, predicted(("zz", 4, SQUARE, 0.9)))
    with pytest.raises(InputError, match="none of the 0 images"):
        evaluate(store, Predictions((), BoxTable.empty()))
    with pytest.raises(InputError, match="split test"):
        evaluate(store, predicted(("a", 4, SQUARE, 0.9)), split="test")
    with pytest.raises(InputError, match="no fold 7"):
        evaluate(store, predicted(("a", 4, SQUARE, 0.9)), fold=7)


def test_unknown_categories(store: Store) -> None:
    with pytest.raises(InputError, match=r"category 16, 90, .* has 1 to 14"):
        evaluate(store, predicted(("a", 90, SQUARE, 0.9), ("a", 16, SQUARE, 0.9), ("a", 15, (0, 0, 1, 1), 0.5)))


def test_baseline_is_drawn_from_what_is_not_scored(store: Store) -> None:
    # Scored: fold 1, with cardiomegaly at SQUARE in c and at OTHER in d. The only other training box is SQUARE in a,
    # one of two images: the baseline finds c's, misses d's, and d's false positive comes after it (equal scores keep
    # their order): AP = 1/2. Test boxes play no part, or the mean box would lie elsewhere.
    metrics = evaluate(store, predicted(("c", 4, SQUARE, 0.9)), baseline=True).metrics
    assert metrics["baseline_ap40"] == {"Cardiomegaly": 0.5}
    assert metrics["baseline_map40"] == 0.5
    # Kaggle's classes: fold 1 has no normal image, so cardiomegaly is alone there too.
    assert metrics["baseline_map40_kaggle"] == 0.5
    with pytest.raises(InputError, match="no training image"):
        evaluate(store, predicted(("c", 4, SQUARE, 0.9)), split="train", baseline=True)


def test_intervals_are_left_out_unless_asked_for(store: Store) -> None:
    predictions = predicted(("a", 4, SQUARE, 0.9), ("c", 4, SQUARE, 0.9))
    assert not any("ci95" in name for name in evaluate(store, predictions).metrics)
    assert len(evaluate(store, predictions, n_resamples=50).metrics["map40_ci95"]) == 2


def test_patients_are_numbered(store: Store) -> None:
    np.testing.assert_array_equal(patient_numbers(store.records), [0, 0, 1, 2, 3, 4])


def test_plain_numbers() -> None:
    nan = float("nan")
    assert plain_numbers({"a": nan, "b": {"c": [nan, 1.0]}, "n": 3}) == {"a": None, "b": {"c": [None, 1.0]}, "n": 3}
