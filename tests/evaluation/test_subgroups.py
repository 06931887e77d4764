"""Groups of radiographs against the same radiographs scored alone; box sizes by hand."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.datasets.store import Store, open_store
from xray.evaluation.assess import assess
from xray.evaluation.calibration import Calibration
from xray.evaluation.evaluate import evaluate
from xray.evaluation.subgroups import BOX_SIZE, Group, subgroups
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions
from xray.structures.probability_maps import MapWriter, read_maps

SEXES, AGES = ("F", "M", "F", None), ("40-49", "90+", 8, "unclear")


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    rng = np.random.default_rng(2)
    images = [(f"i{number:02d}", "train", number % 2, f"p{number // 2}") for number in range(40)]
    boxes = []
    for row in range(40):
        for label in (1, 4):
            if rng.random() < 0.6:
                x, y, width, height = (*rng.integers(0, 400, 2).tolist(), *rng.integers(40, 600, 2).tolist())
                boxes.append((row, label, (x, y, x + width, y + height)))
    folder = write_table_store(tmp_path / "data", images, boxes)
    content = json.loads((folder / "annotations.json").read_text())
    for number, record in enumerate(content["images"]):
        if SEXES[number % 4]:
            record["sex"] = SEXES[number % 4]
        record["age"] = AGES[number % 4]
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_store(folder, pixels=False)


def predicted(store: Store, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    near = store.boxes.boxes + rng.normal(0, 40, store.boxes.boxes.shape)
    n = len(near)
    boxes = np.concatenate([near, rng.permutation(near)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    images = np.concatenate([store.boxes.images, rng.integers(0, 40, n)])
    labels = np.tile(store.boxes.labels, 2)
    ids = tuple(record["source_id"] for record in store.records)
    return Predictions(ids, BoxTable.of(images, labels, boxes, rng.random(2 * n)))


def named(groups: list[Group]) -> dict[tuple[str, str], dict]:
    return {(group.attribute, group.name): group.numbers for group in groups}


def test_a_group_is_what_it_would_be_alone(store: Store, tmp_path: Path) -> None:
    predictions = predicted(store)
    result = evaluate(store, predictions, n_resamples=30)
    found = named(subgroups(result, 30))
    sexes = [(record.get("sex"), row) for row, record in enumerate(store.records)]
    for sex, key in (("F", "F"), ("M", "M"), (None, "not known")):
        rows = np.array([row for other, row in sexes if other == sex])
        # A dataset of the group alone, written out.
        content = json.loads((store.path / "annotations.json").read_text())
        position = {row: place for place, row in enumerate(rows.tolist())}
        content["images"] = [content["images"][row] | {"id": place} for row, place in position.items()]
        own = [row for row in content["annotations"] if row["image_id"] in position]
        content["annotations"] = [row | {"image_id": position[row["image_id"]]} for row in own]
        folder = tmp_path / f"alone{key}"
        folder.mkdir()
        (folder / "annotations.json").write_text(json.dumps(content))
        (folder / "conversion.json").write_text((store.path / "conversion.json").read_text())
        kept = predictions.table.select(np.isin(predictions.table.images, rows))
        alone = evaluate(
            open_store(folder, pixels=False), Predictions(predictions.image_ids, kept), n_resamples=30
        ).metrics
        numbers = found["Sex", key]
        assert numbers["n_images"] == len(rows)
        assert numbers["n_boxes"] == sum(alone["n_truth"].values())
        assert numbers["n_patients"] == len({store.records[row]["patient"] for row in rows.tolist()})
        assert numbers["map40"] == pytest.approx(alone["map40"], abs=1e-12)
        np.testing.assert_allclose(numbers["map40_ci95"], alone["map40_ci95"], atol=1e-12)
        assert numbers["mean_auroc"] == pytest.approx(alone["mean_auroc"], abs=1e-12)


def test_ages_are_bands_in_their_order(store: Store) -> None:
    groups = subgroups(evaluate(store, predicted(store)))
    assert [group.name for group in groups if group.attribute == "Age"] == ["0-9", "40-49", "90+", "not known"]
    assert [group.name for group in groups if group.attribute == "Sex"] == ["F", "M", "not known"]
    assert not {"View", "Manufacturer"} & {group.attribute for group in groups}
    assert all("map40_ci95" not in group.numbers for group in groups)


def test_box_sizes_by_hand(tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    # Of 1000 x 2000 pixels: 0.8 %, 2 % and 10 %.
    small, middle, large = (0, 0, 100, 160), (200, 0, 400, 200), (0, 1000, 400, 1500)
    nowhere, nowhere_large = (800, 1700, 900, 1850), (500, 1000, 990, 1500)
    images = [("a", "test", -1, "p"), ("b", "test", -1, "q")]
    boxes = [(0, 4, small), (0, 4, middle), (1, 4, large)]
    store = open_store(write_table_store(tmp_path / "d", images, boxes), pixels=False)
    rows = [
        (0, middle, 0.9), (0, middle, 0.85), (0, nowhere, 0.8), (0, small, 0.7), (1, nowhere_large, 0.6),
        (1, (0, 1000, 330, 1300), 0.5), (1, large, 0.3),
    ]  # fmt: skip
    table = BoxTable.of([row[0] for row in rows], [4] * 7, [row[1] for row in rows], [row[2] for row in rows])
    found = named(subgroups(evaluate(store, Predictions(("a", "b"), table)), 20))
    sizes = {name: numbers for (attribute, name), numbers in found.items() if attribute == BOX_SIZE}
    # Small: the false one at 0.8 is small (0.75 %) and comes first: 1/2. Middle: right, and its double after it: 1.
    # Large: a large false one at 0.6; at 0.5 an IoU of 0.495 is right; at 0.3 its double: 1/2.
    assert {name: numbers["map40"] for name, numbers in sizes.items()} == {
        "under 1 %": 0.5, "1 to 5 %": 1.0, "over 5 %": 0.5,
    }  # fmt: skip
    assert [numbers["n_boxes"] for numbers in sizes.values()] == [1, 1, 1]
    assert [numbers["n_images"] for numbers in sizes.values()] == [1, 1, 1]


def test_pixels_are_calibrated_by_their_maps(tmp_path: Path, write_mask_store: Callable[..., Path]) -> None:
    # Three radiographs at the canvas's own size: a quarter of the pixels says 0.8 and half of these are in the mask,
    # the others say 0.2 and none is.
    images = [(f"i{number}", 20, 20, 0, f"p{number}") for number in range(3)]
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[:5, :10] = 1
    store = open_store(write_mask_store(tmp_path / "d", images, [(n, 1, mask) for n in range(2)]), pixels=False)
    writer = MapWriter(tmp_path, [name for name, *_ in images], {1: "Pneumothorax"}, 20)
    canvas = np.full((1, 20, 20), 0.2)
    canvas[0, :5] = 0.8
    for number in range(3):
        writer.add(number, 20, 20, canvas, {})
    writer.close()
    result = evaluate(store, Predictions((), BoxTable.empty()), read_maps(tmp_path))
    assessment = assess(store, result, 20)
    (found,) = assessment.pixels
    assert found.name == "Pneumothorax"
    # In two of three radiographs half of the quarter is right: a share of 1/3 of what says 0.8.
    filled = found.before.weights > 0
    np.testing.assert_allclose(found.before.weights[filled] / 3, [0.75, 0.25])
    np.testing.assert_allclose(found.before.frequency[filled], [0, 1 / 3])
    assert found.before.ece == pytest.approx(0.75 * 0.2 + 0.25 * (0.8 - 1 / 3))
    assert found.before.brier == pytest.approx(0.75 * 0.04 + 0.25 * (0.04 / 3 + 0.64 * 2 / 3))
    assert assessment.confusion is None
    assert set(assessment.metrics["calibration"]) == {"labels", "pixels"}


def test_what_an_assessment_says_of_boxes(store: Store) -> None:
    result = evaluate(store, predicted(store), n_resamples=10)
    assessment = assess(store, result, 10, box_threshold=0.2)
    every, *each = assessment.boxes
    assert every.name == "All findings"
    assert every.n == sum(one.n for one in each) == len(result.alignment.predictions)
    assert every.share * every.n == pytest.approx(sum(one.share * one.n for one in each))
    metrics = assessment.metrics
    assert set(metrics) == {"fingerprint", "calibration", "confusion", "subgroups"}
    assert metrics["confusion"]["threshold"] == 0.2
    assert sum(map(sum, metrics["confusion"]["counts"])) >= len(store.boxes)
    assert [one.name for one in assessment.labels] == ["Aortic enlargement", "Cardiomegaly"]


def test_calibration_in_words(store: Store) -> None:
    result = evaluate(store, predicted(store))
    assessment = assess(store, result)
    of_boxes, of_labels = assessment.calibration_lines()
    every = assessment.boxes[0]
    assert of_boxes.startswith(f"expected calibration error (ECE) of boxes, All findings: {every.before.ece:.4f}")
    errors = {one.name: one.before.ece for one in assessment.labels}
    worst = max(errors, key=errors.__getitem__)
    # No label is named as if it stood for all.
    mean = f"mean of {len(errors)}: {np.mean(list(errors.values())):.4f}"
    assert of_labels.startswith(
        f"expected calibration error (ECE) of labels, {mean}, largest {max(errors.values()):.4f}"
    )
    assert f"({worst})" in of_labels
    fit = every.before
    one = Calibration("Pneumothorax", 4, 0.5, fit, 1.0, (1.0, 1.0), fit)
    (line,) = dataclasses.replace(assessment, boxes=(), labels=(one,)).calibration_lines()
    assert line == (
        f"expected calibration error (ECE) of labels, Pneumothorax: {fit.ece:.4f}; {fit.ece:.4f} calibrated "
        "as --fit does (cross-fitted by patient)"
    )
    assert list(dataclasses.replace(assessment, boxes=(), labels=()).calibration_lines()) == []
