"""What is scored as boxes, its baseline and its intervals."""

from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation_cases import BOXES, IMAGES, SQUARE, predicted

from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.alignment import align
from xray.evaluation.boxes import has_boxes
from xray.evaluation.evaluate import evaluate


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    return open_store(write_table_store(tmp_path / "data", IMAGES, BOXES), pixels=False)


def test_boxes_that_are_scored(store: Store) -> None:
    # One image of fold 1 is predicted; the other one's box counts as missed: one of two found.
    result = evaluate(store, predicted(("c", 4, SQUARE, 0.9)))
    assert result.metrics["map40"] == 0.5
    assert result.metrics["n_images"] == 2
    # e's box is right, f's is wrong with a lower score: AP 1 for cardiomegaly, 0 for the aorta.
    result = evaluate(store, predicted(("f", 4, SQUARE, 0.1), ("e", 4, SQUARE, 0.8)))
    assert result.metrics["ap40"] == {"Aortic enlargement": 0.0, "Cardiomegaly": 1.0}


def test_labels_of_whole_radiographs_are_no_boxes(store: Store) -> None:
    whole, unit = (0, 0, 1000, 2000), (0, 0, 1, 1)
    labels = [("e", 4, whole, 0.9), ("e", 1, (0, 0, 999.996, 2000), 0.2), ("f", 15, unit, 0.7)]
    assert not has_boxes(align(store, predicted(*labels)))
    assert evaluate(store, predicted(*labels)).boxes is None
    assert has_boxes(align(store, predicted(*labels, ("f", 4, SQUARE, 0.1))))
    with pytest.raises(InputError, match="--baseline"):
        evaluate(store, predicted(*labels), baseline=True)
    # Where nothing else is defined either (both of fold 0 show something), the boxes are at least counted.
    only = evaluate(store, predicted(("d", 15, unit, 0.7), ("c", 15, unit, 0.7)))
    assert only.labels is None
    assert only.metrics["n_truth"]["Cardiomegaly"] == 2


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
