"""Out-of-fold predictions: each radiograph from the model of its fold, and the numbers over folds, worked by hand."""

import math

import numpy as np
import pytest

from xray.datasets.store import open_store
from xray.errors import InputError
from xray.evaluation.cross_validation import cross_validate, out_of_fold, spread
from xray.evaluation.evaluate import evaluate
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions

IMAGES = [
    ("a", "train", 1, "p"), ("b", "train", 0, "q"), ("t", "test", -1, "r"), ("c", "train", 1, "s"),
    ("d", "train", 0, "u"),
]  # fmt: skip
BOX = (100, 100, 300, 300)


@pytest.fixture
def store(write_table_store, tmp_path):
    boxes = [(row, 4, BOX) for row in (0, 1, 2, 3, 4)]
    return open_store(write_table_store(tmp_path / "data", IMAGES, boxes), pixels=False)


def found(names, *rows):
    """Predictions with rows of (name, box, score), all of category 4."""
    images, boxes, scores = [names.index(name) for name, *_ in rows], [row[1] for row in rows], [row[2] for row in rows]
    return Predictions(tuple(names), BoxTable.of(images, [4] * len(rows), boxes, scores))


def test_each_radiograph_comes_from_its_fold_in_the_order_of_the_dataset(store):
    by_fold = {
        0: found(["d", "b"], ("d", BOX, 0.5), ("b", BOX, 0.9)),
        1: found(["c"], ("c", BOX, 0.7), ("c", BOX, 0.4)),
    }
    together = out_of_fold(store, by_fold)
    # In a nothing was found.
    assert together.image_ids == ("a", "b", "c", "d")
    names = [together.image_ids[image] for image in together.table.images]
    assert names == ["b", "c", "c", "d"]
    assert together.table.scores.tolist() == [0.9, 0.7, 0.4, 0.5]
    some = out_of_fold(store, {1: by_fold[1]})
    assert some.image_ids == ("a", "c")
    assert some.table.images.tolist() == [1, 1]


def test_masks_stay_with_their_rows(store):
    first, second = ({"size": [2000, 1000], "counts": text} for text in ("one", "two"))
    two = found(["d", "b"], ("d", BOX, 0.5), ("b", BOX, 0.9))
    one = found(["c"], ("c", BOX, 1.0))
    by_fold = {0: Predictions(two.image_ids, two.table, {0: first}), 1: Predictions(("c",), one.table, {0: second})}
    together = out_of_fold(store, by_fold)
    named = {together.image_ids[together.table.images[row]]: mask["counts"] for row, mask in together.masks.items()}
    assert named == {"d": "one", "c": "two"}


@pytest.mark.parametrize("name", ["a", "t", "nobody"])
def test_a_radiograph_of_another_fold_is_refused(store, name):
    with pytest.raises(InputError, match=f"the predictions of fold 0 hold '{name}', which is not a radiograph of it"):
        out_of_fold(store, {0: found([name], (name, BOX, 0.5))})


def test_numbers_worked_by_hand(store):
    """Fold 0 finds one of its two boxes, and ranks it first; fold 1 finds both of its own.

    COCO AP of recall 1/2 at precision 1: precision is 1 at the recalls 0 … 0.50, 51 of 101.
    """
    away = (700, 1500, 800, 1600)
    by_fold = {
        0: found(["b", "d"], ("b", BOX, 0.9), ("d", away, 0.2)),
        1: found(["a", "c"], ("a", BOX, 0.8), ("c", BOX, 0.7)),
    }
    metrics = cross_validate(store, by_fold, n_resamples=50)
    half = 51 / 101
    assert [(fold["fold"], fold["n_images"], fold["coco_ap"]) for fold in metrics["folds"]] == [
        (0, 2, pytest.approx(half)),
        (1, 2, pytest.approx(1.0)),
    ]
    assert metrics["mean"]["coco_ap"] == pytest.approx((half + 1) / 2)
    # Of two numbers the sample's deviation is their distance by the square root of 2.
    assert metrics["standard_deviation"]["coco_ap"] == pytest.approx((1 - half) / math.sqrt(2))
    # All together: three of four boxes before the false one, precision 1 at the recalls 0 … 0.75.
    assert metrics["coco_ap"] == pytest.approx(76 / 101)
    low, high = metrics["coco_ap_ci95"]
    assert 0 <= low <= metrics["coco_ap"] <= high <= 1
    assert metrics["mean"]["ap40"].keys() == {"Cardiomegaly"}
    assert metrics["n_images"] == 4
    pooled = evaluate(store, out_of_fold(store, by_fold), split="train").metrics
    np.testing.assert_equal({name: metrics[name] for name in pooled}, pooled)


def test_a_fold_without_any_row_counts(store):
    """Its radiographs are looked at, and nothing is found in them."""
    by_fold = {0: found(["b", "d"], ("b", BOX, 0.9), ("d", BOX, 0.8)), 1: Predictions((), BoxTable.empty())}
    metrics = cross_validate(store, by_fold)
    assert [fold["coco_ap"] for fold in metrics["folds"]] == [pytest.approx(1.0), 0.0]
    assert metrics["n_images"] == 4
    # Precision 1 at the recalls 0 … 0.50.
    assert metrics["coco_ap"] == pytest.approx(51 / 101)


def test_a_single_fold_has_no_spread():
    folds = [{"fold": 0, "n_images": 3, "dice": 0.5, "by": {"left": 0.25}, "ends": [0, 1]}]
    assert spread(folds, np.mean) == {"dice": 0.5, "by": {"left": 0.25}}


def test_what_a_fold_lacks_is_left_out_of_the_mean():
    folds = [{"dice": 0.5, "ap": {"a": 0.25, "b": math.nan}}, {"dice": 1.0, "ap": {"b": 0.5}}, {"dice": 0.75, "ap": {}}]
    assert spread(folds, np.mean) == {"dice": 0.75, "ap": {"a": 0.25, "b": 0.5}}
