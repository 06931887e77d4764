"""Masks of files against hand-worked cases, and the search against masks that are drawn."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.alignment import align
from xray.evaluation.masks import cache_probabilities, evaluate_masks, mask_categories, search_masks
from xray.inference.mask_fitting import check_fit, write_fit
from xray.structures.predictions import read_predictions
from xray.structures.probability_maps import MapWriter, read_maps
from xray.structures.triplet import Triplet, apply_triplet

LUNGS = ("Right lung", "Left lung")


def drawn(width: int, height: int, *runs: tuple[int, int, int]) -> np.ndarray:
    """Runs of (row, first column, first column after)."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for row, start, stop in runs:
        mask[row, start:stop] = 1
    return mask


@pytest.fixture
def scored(tmp_path: Path, mask_row: Callable, write_mask_store: Callable[..., Path]) -> Callable:
    """(images, true masks, predicted rows, names) → MaskEvaluation, through files; images of fold 0, by name."""

    def score(images: list, true: list, predicted: list, names: tuple = ("Pneumothorax",), n_resamples: int = 0):
        store = open_store(write_mask_store(tmp_path / "data", images, true, names), pixels=False)
        (tmp_path / "p.json").write_text(json.dumps([mask_row(*row) for row in predicted]))
        return evaluate_masks(align(store, read_predictions(tmp_path / "p.json")), mask_categories(store), n_resamples)

    return score


IMAGES = [("a", 10, 8, 0, "p"), ("b", 6, 6, 0, "p"), ("c", 5, 7, 0, "q"), ("d", 9, 9, 0, None)]


def test_four_radiographs_by_hand(scored: Callable) -> None:
    # a: two components of 4 and 2 pixels; two predicted rows that overlap, 5 pixels together, 2 of them right.
    # b: nothing there, 3 pixels predicted. c: nothing there and no row. d: 3 pixels there and no row.
    true = [(0, 1, drawn(10, 8, (0, 0, 4))), (0, 1, drawn(10, 8, (5, 0, 2))), (3, 1, drawn(9, 9, (4, 3, 6)))]
    found = [
        ("b", 1, drawn(6, 6, (1, 1, 4)), 0.9),
        ("a", 1, drawn(10, 8, (0, 2, 6)), 0.8),
        ("a", 1, drawn(10, 8, (0, 4, 7)), 0.1),
    ]
    masks = scored(IMAGES, true, found, n_resamples=20)
    assert masks.intersections.tolist() == [[2], [0], [0], [0]]
    assert masks.predicted.tolist() == [[5], [3], [0], [0]]
    assert masks.true.tolist() == [[6], [0], [0], [3]]
    assert masks.dice[:, 0].tolist() == pytest.approx([4 / 11, 0, 1, 0])
    expected = {
        "dice": (4 / 11 + 1) / 4,
        "dice_positive": 4 / 11 / 2,
        "sensitivity": 1 / 2,
        "false_positive_rate": 1 / 2,
        "iou": (2 / 9 + 1) / 4,
        "n_images": 4,
    }
    assert {name: masks.metrics[name] for name in expected} == pytest.approx(expected)
    assert "dice_by_category" not in masks.metrics
    intervals = {name for name in masks.metrics if name.endswith("_ci95")}
    assert intervals == {f"{name}_ci95" for name in expected if name != "n_images"}
    low, high = masks.metrics["dice_ci95"]
    assert 0 <= low < masks.metrics["dice"] < high <= 1


def test_two_categories_by_hand(scored: Callable) -> None:
    images = [("x", 6, 4, 0, None), ("y", 4, 6, 0, None)]
    true = [(0, 1, drawn(6, 4, (0, 0, 4))), (0, 2, drawn(6, 4, (2, 0, 2))), (1, 2, drawn(4, 6, (3, 0, 3)))]
    found = [("x", 1, drawn(6, 4, (0, 0, 4)), 0.5), ("y", 2, drawn(4, 6, (3, 2, 4), (4, 0, 1)), 0.5)]
    masks = scored(images, true, found, LUNGS, n_resamples=10)
    # Right: 4 of 4 pixels, and two empty masks. Left: missed, and 1 pixel of 3 and 3.
    assert masks.dice.tolist() == [[1, 0], [1, pytest.approx(1 / 3)]]
    assert masks.metrics["dice"] == pytest.approx((1 + 0 + 1 + 1 / 3) / 4)
    assert masks.metrics["dice_by_category"] == {"Right lung": 1.0, "Left lung": pytest.approx(1 / 6)}
    # Joined: 4 of 4 and 6 pixels, and 1 of 3 and 3.
    assert masks.joined.tolist() == [[4, 4, 6], [1, 3, 3]]
    assert masks.metrics["dice_union"] == pytest.approx((8 / 10 + 2 / 6) / 2)
    # One mask of four is empty, and stays empty.
    assert masks.metrics["false_positive_rate"] == 0
    assert masks.metrics["sensitivity"] == pytest.approx(2 / 3)
    assert set(masks.metrics["dice_by_category_ci95"]) == set(LUNGS)


def test_masks_of_both_categories_that_lie_on_each_other_are_joined_once(scored: Callable) -> None:
    images = [("x", 6, 4, 0, None), ("y", 6, 4, 0, None)]
    both = drawn(6, 4, (0, 0, 4))
    masks = scored(images, [(0, 1, both), (0, 2, both)], [("x", 1, both, 0.5)], LUNGS)
    assert masks.joined.tolist() == [[4, 4, 4], [0, 0, 0]]
    assert masks.metrics["dice_union"] == 1
    assert masks.metrics["dice"] == 3 / 4


def test_only_categories_with_masks_are_scored(tmp_path: Path, write_mask_store: Callable[..., Path]) -> None:
    store = open_store(write_mask_store(tmp_path / "d", IMAGES, [(1, 2, drawn(6, 6, (1, 1, 2)))], LUNGS), pixels=False)
    assert mask_categories(store) == {2: "Left lung"}


def test_a_mask_of_another_size_is_named(scored: Callable) -> None:
    with pytest.raises(InputError, match=r"row 0: no mask of b .*\[8, 10\].*\[6, 6\]"):
        scored(IMAGES, [(0, 1, drawn(10, 8, (0, 0, 4)))], [("b", 1, drawn(10, 8, (0, 0, 4)), 0.9)])


def test_a_true_mask_of_another_size_is_named(scored: Callable) -> None:
    with pytest.raises(InputError, match="a true mask of a cannot be scored"):
        scored(IMAGES, [(0, 1, drawn(6, 6, (0, 0, 4)))], [("b", 1, drawn(6, 6, (0, 0, 4)), 0.9)])


@pytest.fixture
def mapped(tmp_path: Path, write_mask_store: Callable[..., Path]) -> tuple[Store, Path]:
    """Eight radiographs of other sizes than their maps' canvas, and one without a map."""
    rng = np.random.default_rng(4)
    images, true = [], []
    writer_ids, canvases = [], []
    for number in range(9):
        width, height = (40 + 6 * (number % 3), 50 - 5 * (number % 2))
        images.append((f"i{number}", width, height, 0, None))
        canvas = rng.normal(-2.5, 1, (2, 32, 32))
        for k in range(2):
            if number % 3:
                mask = np.zeros((height, width), dtype=np.uint8)
                mask[10:30, 5 + 18 * k : 16 + 18 * k] = 1
                true.append((number, k + 1, mask))
                canvas[k, 8:20, 8 + 10 * k : 14 + 10 * k] += rng.uniform(1, 6)
        if number != 8:
            writer_ids.append(f"i{number}")
            canvases.append((width, height, 1 / (1 + np.exp(-canvas))))
    store = open_store(write_mask_store(tmp_path / "data", images, true, LUNGS), pixels=False)
    writer = MapWriter(tmp_path, writer_ids, {1: LUNGS[0], 2: LUNGS[1]}, 32)
    for index, (width, height, canvas) in enumerate(canvases):
        writer.add(index, width, height, canvas, {})
    writer.close()
    return store, tmp_path


def test_the_search_gives_the_dice_of_the_masks_that_it_draws(mapped: tuple, mask_row: Callable) -> None:
    store, folder = mapped
    maps = read_maps(folder)
    place = np.array([*range(8), -1])
    said = []
    table = read_predictions_of(folder, [])
    alignment = align(store, table, mapped_ids=maps.image_ids)
    cache = cache_probabilities(alignment, maps, place, mask_categories(store), said.append)
    assert len(cache.counts) == 18
    assert said[-1] == "probability maps: 9 of 9"
    asked = Triplet(0.6, 0.01, 0.35)
    search = search_masks(cache, None, asked)
    assert search.setting == asked
    assert search.triplet.best["dice"] >= search.scores["dice"]
    for setting in (asked, Triplet(*(search.triplet.best[name] for name in ("top", "min_area", "bottom")))):
        rows = [
            mask_row(maps.image_ids[number], k + 1, mask)
            for number in range(8)
            for k in range(2)
            if (mask := apply_triplet(maps.original(number, k), setting)).any()
        ]
        drawn_masks = align(store, read_predictions_of(folder, rows), mapped_ids=maps.image_ids)
        scores = evaluate_masks(drawn_masks, mask_categories(store)).metrics
        row = search.scores if setting == asked else search.triplet.best
        for name in ("dice", "dice_positive", "sensitivity", "false_positive_rate"):
            assert row[name] == pytest.approx(scores[name], abs=1e-12), name


def read_predictions_of(folder: Path, rows: list):
    (folder / "p.json").write_text(json.dumps(rows))
    return read_predictions(folder / "p.json")


def test_a_map_of_another_size_is_named(mapped: tuple) -> None:
    store, folder = mapped
    writer = MapWriter(folder, ["i0"], {1: LUNGS[0]}, 32)
    writer.add(0, 32, 32, np.zeros((1, 32, 32)), {})
    writer.close()
    maps = read_maps(folder)
    alignment = align(store, read_predictions_of(folder, []), mapped_ids=maps.image_ids)
    place = np.array([0] + [-1] * 8)
    with pytest.raises(InputError, match=r"map of i0 is of \[32, 32\] pixels, the radiograph has \[40, 50\]"):
        cache_probabilities(alignment, maps, place, {1: LUNGS[0]})


def write_model(run: Path, **changes: object) -> Path:
    run.mkdir()
    description = {"task": "segmentation", "categories": {"1": "Pneumothorax"}, "thresholds": {"mask": 0.4}, "kept": 1}
    (run / "model.json").write_text(json.dumps({**description, **changes}))
    return run


def test_a_fit_is_written_beside_the_mask_threshold(tmp_path: Path) -> None:
    run = write_model(tmp_path / "run")
    write_fit(run, Triplet(0.7, 0.002, 0.3), 0.25)
    description = json.loads((run / "model.json").read_text())
    assert description["thresholds"] == {"mask": 0.4, "top": 0.7, "min_area": 0.002, "bottom": 0.3, "gate": 0.25}
    assert description["kept"] == 1
    # Without a classifier the gate of an earlier fit stays what it was.
    write_fit(run, Triplet(0.8, 0.0, 0.2), None)
    thresholds = json.loads((run / "model.json").read_text())["thresholds"]
    assert thresholds == {"mask": 0.4, "top": 0.8, "min_area": 0.0, "bottom": 0.2, "gate": 0.25}
    assert [path.name for path in run.iterdir()] == ["model.json"]


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no trained run \(no model.json\)"):
        check_fit(tmp_path / "nowhere")
    with pytest.raises(InputError, match="the task detection, which has no masks"):
        check_fit(write_model(tmp_path / "detection", task="detection"))
    with pytest.raises(InputError, match="damaged"):
        check_fit(write_model(tmp_path / "bare", thresholds=None))
    with pytest.raises(InputError, match="finds Pneumothorax, the probability maps are of Right lung"):
        check_fit(write_model(tmp_path / "other"), ["Right lung"])
    (tmp_path / "other" / "model.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        check_fit(tmp_path / "other")
