"""Classes of others that mean that nothing was found, in predictions."""

import json

import numpy as np
import pytest

from xray.datasets.normal_rows import with_named_normal, with_one_row
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.evaluation.external import read_common
from xray.findings import CATEGORIES
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions

UNIT, BOX, WHOLE = [0, 0, 1, 1], [10, 10, 90, 90], [0, 0, 400, 400]


def predictions(names, masks=None):
    table = BoxTable.of([0, 0, 0, 1, 1], [7, 8, 8, 8, 9], [BOX, WHOLE, BOX, WHOLE, UNIT], [0.9, 0.3, 0.6, 0.4, 0.8])
    return Predictions(("a", "b"), table, masks or {}, is_foreign=True, names=names)


def test_rows_of_normal_are_one_a_radiograph():
    found = with_named_normal(predictions({7: "Mass", 8: "Normal", 9: "No finding"}, {0: "kept", 1: "gone"}), ["Mass"])
    assert found.names == {7: "Mass", 8: "No finding"}
    assert found.table.labels.tolist() == [7, 8, 8]
    assert found.table.boxes.tolist() == [BOX, UNIT, UNIT]
    np.testing.assert_allclose(found.table.scores, [0.9, 0.6, 0.8])
    assert found.masks == {0: "kept"}


@pytest.mark.parametrize("categories", [["Mass", "normal"], ["NORMAL"]])
def test_a_category_of_the_dataset_keeps_its_meaning(categories):
    given = predictions({7: "Mass", 8: "Normal", 9: "x"})
    assert with_named_normal(given, categories) is given


def test_two_such_classes_with_the_box_of_no_finding_are_one_row():
    table = BoxTable.of([0, 0, 1], [8, 9, 8], [UNIT] * 3, [0.3, 0.6, 0.2])
    given = Predictions(("a", "b"), table, {}, is_foreign=True, names={8: "Normal", 9: "No finding"})
    found = with_named_normal(given, ["Mass"]).table
    assert (found.images.tolist(), found.boxes.tolist()) == ([0, 1], [UNIT] * 2)
    np.testing.assert_allclose(found.scores, [0.6, 0.2])


def test_what_is_so_already_stays():
    given = predictions({})
    assert with_one_row(given, given.table.labels == 9) is given
    assert with_named_normal(given, ["Mass"]) is given


@pytest.mark.parametrize("name", ["No finding", "Normal", "NORMAL", "healthy", None])
@pytest.mark.parametrize("box", [UNIT, [0, 0, 1000, 1000], [0, 0, 0, 0]])
def test_files_of_others_say_what_infer_says(tmp_path, write_table_store, name, box):
    """By name, and by VinBigData's number for it."""
    images = [("a", "test", -1, None), ("b", "test", -1, None)]
    store = open_store(write_table_store(tmp_path / "data", images, [(0, 1, (9, 9, 90, 90))], CATEGORIES), pixels=False)
    rows = [
        {
            "image_id": "a",
            "category_id": 1,
            "bbox": [9, 9, 81, 81],
            "score": 0.9,
            "category_name": CATEGORIES[0]["name"],
        },
        {"image_id": "a", "category_id": 15, "bbox": box, "score": 0.25, "category_name": name},
        {"image_id": "b", "category_id": 15, "bbox": box, "score": 0.75, "category_name": name},
    ]
    if name is None:
        for row in rows:
            del row["category_name"]
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows))
    for found in (read_any_predictions(path, store), read_common(store, path)[1]):
        assert found.table.labels.tolist() == [1, NO_FINDING_CATEGORY, NO_FINDING_CATEGORY]
        assert found.table.boxes[1:].tolist() == [UNIT, UNIT]
        np.testing.assert_allclose(found.table.scores, [0.9, 0.25, 0.75])
    # All categories are scored: "Normal" makes no model of others of it.
    assert read_common(store, path)[2] is None


def test_a_line_of_a_map_goes_before_what_a_name_sounds_like(tmp_path, write_table_store):
    store = open_store(write_table_store(tmp_path / "data", [("a", "test", -1, None)], [], CATEGORIES), pixels=False)
    row = {"image_id": "a", "category_id": 1, "bbox": [9, 9, 81, 81], "score": 0.9, "category_name": "Control"}
    path, mapping = tmp_path / "p.json", tmp_path / "map.yaml"
    path.write_text(json.dumps([row]))
    mapping.write_text(f"Control: {CATEGORIES[0]['name']}\n")
    found = read_common(store, path, str(mapping))[1]
    assert (found.table.labels.tolist(), found.table.boxes.tolist()) == ([1], [[9, 9, 90, 90]])


def test_the_number_15_of_another_model_is_no_normal_radiograph(tmp_path, write_table_store):
    """Its boxes are findings that a dataset of three categories does not know, but for the box of "No finding"."""
    images = [("a", "test", -1, None)]
    store = open_store(write_table_store(tmp_path / "data", images, [], CATEGORIES[:3]), pixels=False)
    path = tmp_path / "p.json"
    row = {"image_id": "a", "category_id": 1, "bbox": [9, 9, 81, 81], "score": 0.9}
    path.write_text(json.dumps([row, row | {"category_id": 15, "bbox": [20, 20, 10, 10]}]))
    with pytest.raises(InputError, match=r"has boxes of category 15, .* knows 1, 2, 3"):
        read_any_predictions(path, store)
    path.write_text(json.dumps([row, row | {"category_id": 15, "bbox": [0, 0, 1, 1]}]))
    assert read_any_predictions(path, store).table.labels.tolist() == [1, NO_FINDING_CATEGORY]
