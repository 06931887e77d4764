"""Which parts of an evaluation are defined, and where the scores of whole radiographs come from."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import predicted

from xray.datasets.store import Store, open_store
from xray.evaluation.evaluate import Evaluation, evaluate, plain_numbers
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions, read_predictions
from xray.structures.probability_maps import MapWriter, read_maps
from xray.structures.triplet import Triplet, apply_triplet

SQUARE, UNIT, WHOLE = (100, 100, 500, 500), (0, 0, 1, 1), (0, 0, 1000, 2000)


def scores_of(result: Evaluation, name: str, origin: str) -> list[float]:
    (found,) = [c.label for c in result.labels.curves if (c.label.name, c.label.origin) == (name, origin)]
    return found.scores.tolist()


def test_scores_of_rows_and_of_no_finding(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    images = [(name, "test", -1, None) for name in "abcd"]
    store = open_store(write_table_store(tmp_path / "d", images, [(0, 4, SQUARE), (1, 1, SQUARE)]), pixels=False)
    result = evaluate(
        store,
        predicted(
            ("a", 4, SQUARE, 0.3), ("a", 4, (0, 0, 9, 9), 0.7), ("a", 15, UNIT, 0.1),
            ("b", 1, SQUARE, 0.6), ("b", 4, SQUARE, 0.2), ("c", 15, UNIT, 0.8), ("c", 1, SQUARE, 0.1),
        ),
        threshold=0.65,
    )  # fmt: skip
    assert scores_of(result, "Cardiomegaly", "rows") == [0.7, 0.2, 0, 0]
    # b has rows and none of "No finding": surely abnormal. d has no row at all: score 0, as everywhere.
    assert scores_of(result, "abnormal", "no finding") == [0.9, 1.0, pytest.approx(0.2), 0]
    assert result.metrics["auroc"] == {"Aortic enlargement": 1.0, "Cardiomegaly": 1.0, "abnormal": 1.0}
    assert result.metrics["operating_points"]["Aortic enlargement"]["sensitivity"] == 0.0
    assert result.metrics["operating_points"]["Cardiomegaly"]["threshold"] == 0.65
    assert result.boxes is not None
    assert result.masks is None
    assert result.metrics["n_images"] == 4


def test_a_classifier_has_labels_alone(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    images = [("a", "test", -1, None), ("b", "test", -1, None)]
    store = open_store(write_table_store(tmp_path / "d", images, [(0, 4, SQUARE)]), pixels=False)
    result = evaluate(store, predicted(("a", 4, WHOLE, 0.9), ("b", 4, WHOLE, 0.2), ("b", 1, WHOLE, 0.2)), n_resamples=9)
    assert (result.boxes, result.masks) == (None, None)
    assert result.metrics["auroc"] == {"Cardiomegaly": 1.0}
    assert "map40" not in result.metrics


@pytest.fixture
def mapped(tmp_path: Path, write_mask_store: Callable[..., Path], mask_row: Callable) -> tuple[Store, Path]:
    """Twelve radiographs of pneumothorax with maps of another size, classifier's probabilities, and predictions."""
    rng = np.random.default_rng(7)
    images, true, rows = [], [], []
    writer = MapWriter(tmp_path, [f"i{number}" for number in range(12)], {1: "Pneumothorax"}, 24)
    for number in range(12):
        width, height = 60, 48 + number
        images.append((f"i{number}", width, height, number % 2, f"p{number // 2}"))
        canvas = rng.normal(-2, 1.3, (1, 24, 24)) + rng.normal(0, 0.7)
        if number % 3 == 0:
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[8:30, 10:25] = 1
            true.append((number, 1, mask))
            canvas[0, 6:14, 4:10] += 3
            rows.append(mask_row(f"i{number}", 1, mask[:, ::-1] if number == 3 else mask, 0.8))
        label = {"Pneumothorax": 0.9 - 0.05 * number if number % 3 == 0 else 0.3 + 0.02 * number}
        writer.add(number, width, height, 1 / (1 + np.exp(-canvas)), label)
    writer.close()
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    return open_store(write_mask_store(tmp_path / "data", images, true), pixels=False), tmp_path


def test_masks_boxes_and_labels_of_one_file(mapped: tuple) -> None:
    store, folder = mapped
    result = evaluate(store, read_predictions(folder / "predictions.json"), split="train", n_resamples=20)
    # Three of the four masks are right, one is elsewhere; the eight others are empty and stay so.
    assert result.metrics["dice"] == pytest.approx(11 / 12)
    assert result.metrics["dice_positive"] == pytest.approx(3 / 4)
    assert result.metrics["false_positive_rate"] == 0
    # Three of four boxes, one false with an equal score.
    assert 0.5 < result.metrics["map40"] < 0.8
    assert result.metrics["auroc"] == {"Pneumothorax": 1.0}
    assert result.masks.search is None
    assert result.alignment.n_without_prediction == 8
    assert {"dice_ci95", "map40_ci95", "auroc_ci95"} <= result.metrics.keys()


@pytest.mark.parametrize(
    "triplet", [Triplet(0.75, 0.02, 0.3), Triplet(0.9, 0.001, 0.5), Triplet(0.8, 0.0, 0.4), Triplet(1.0, 0.1, 0.2)]
)
def test_the_point_at_top_is_what_the_triplet_decides(mapped: tuple, triplet: Triplet) -> None:
    store, folder = mapped
    maps = read_maps(folder)
    result = evaluate(store, read_predictions(folder / "predictions.json"), maps, triplet=triplet)
    called = np.array([apply_triplet(maps.original(number, 0), triplet).any() for number in range(12)])
    truth = store.labels[:, 0]
    point = result.metrics["operating_points"]["Pneumothorax"]
    assert point["sensitivity"] == called[truth].mean()
    assert point["specificity"] == 1 - called[~truth].mean()
    assert point["threshold"] == (triplet.top if triplet.min_area else triplet.bottom)
    # The classifier's own curve is marked at its own threshold.
    assert scores_of(result, "Pneumothorax", "classifier")[:2] == [0.9, 0.32]
    assert result.metrics["operating_points_classifier"]["Pneumothorax"]["threshold"] == 0.5


def test_the_search_and_its_gate(mapped: tuple) -> None:
    store, folder = mapped
    said = []
    result = evaluate(store, read_predictions(folder / "predictions.json"), read_maps(folder), progress=said.append)
    search = result.masks.search
    assert len(search.triplet.table) == 1000
    assert len(search.gate.table) == 101
    assert result.metrics["best_triplet"] == search.triplet.best == search.scores
    # A gate of 0 lets everything through.
    assert search.gate.table["dice"][0] == pytest.approx(search.triplet.best["dice"])
    assert search.gate.best["dice"] >= search.triplet.best["dice"]
    # The predictions' own Dice is as without maps.
    assert result.metrics["dice"] == pytest.approx(11 / 12)
    assert said[-2:] == ["probability maps: 12 of 12", "scoring"]
    assert result.alignment.n_without_prediction == 0
    assert result.unused_maps == ()


def test_a_segmenter_that_draws_nothing_is_scored_by_its_maps(mapped: tuple) -> None:
    store, folder = mapped
    result = evaluate(store, Predictions((), BoxTable.empty()), read_maps(folder))
    assert result.metrics["dice"] == pytest.approx(8 / 12)
    assert result.metrics["sensitivity"] == 0


def test_maps_of_other_categories_are_left_alone(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    # The lungs' category 1 is not VinBig's.
    images = [("a", "test", -1, None), ("b", "test", -1, None)]
    store = open_store(write_table_store(tmp_path / "d", images, [(0, 1, SQUARE)]), pixels=False)
    writer = MapWriter(tmp_path, ["a", "b"], {1: "Right lung"}, 16)
    for number in range(2):
        writer.add(number, 1000, 2000, np.full((1, 16, 16), 0.9 * number), {"Aortic enlargement": 0.9 - 0.5 * number})
    writer.close()
    result = evaluate(store, predicted(("a", 1, SQUARE, 0.4)), read_maps(tmp_path))
    assert result.unused_maps == ("Right lung",)
    assert scores_of(result, "Aortic enlargement", "rows") == [0.4, 0]
    assert scores_of(result, "Aortic enlargement", "classifier") == [0.9, 0.4]


def test_plain_numbers() -> None:
    nan = float("nan")
    assert plain_numbers({"a": nan, "b": {"c": [nan, 1.0]}, "n": 3}) == {"a": None, "b": {"c": [None, 1.0]}, "n": 3}
