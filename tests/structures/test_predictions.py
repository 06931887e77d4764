"""Predictions as COCO results JSON: there and back, and rows that are none."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray.errors import InputError
from xray.structures.boxes import BoxTable
from xray.structures.predictions import (
    NO_FINDING_CATEGORY,
    Predictions,
    read_predictions,
    with_no_finding_after,
    write_predictions,
)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_is_what_coco_says(tmp_path):
    table = BoxTable.of([1, 0], [3, NO_FINDING_CATEGORY], [[10, 20, 30, 60], [0, 0, 1, 1]], [0.25, 0.875])
    mask = {"size": [100, 100], "counts": "abc"}
    write_predictions(tmp_path / "p.json", Predictions(("a", "b"), table, {0: mask}))
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"image_id": "b", "category_id": 3, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.25, "segmentation": mask},
        {"image_id": "a", "category_id": 15, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.875},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


boxes = st.tuples(st.floats(0, 3000), st.floats(0, 3000), st.floats(0, 3000), st.floats(0, 3000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 15), boxes, st.floats(0, 1)), max_size=12))
def test_round_trip(tmp_path, rows):
    corners = [(x, y, x + width, y + height) for _, _, (x, y, width, height), _ in rows]
    table = BoxTable.of([row[0] for row in rows], [row[1] for row in rows], corners, [row[3] for row in rows])
    names = ("w", "x", "y", "z")
    write_predictions(tmp_path / "p.json", Predictions(names, table))
    back = read_predictions(tmp_path / "p.json")
    assert [back.image_ids[image] for image in back.table.images] == [names[image] for image in table.images]
    np.testing.assert_array_equal(back.table.labels, table.labels)
    np.testing.assert_allclose(back.table.boxes, table.boxes, atol=0.011)
    np.testing.assert_allclose(back.table.scores, table.scores, atol=1e-6)


def test_other_programs_files_have_numbers_as_ids(tmp_path):
    row = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1, "area": 25}
    back = read_predictions(write(tmp_path / "p.json", [row, row | {"image_id": 3}, row]))
    assert back.image_ids == (7, 3)
    assert back.is_foreign
    np.testing.assert_array_equal(back.table.images, [0, 1, 0])


def test_numbers_in_any_spelling(tmp_path):
    row = {"image_id": 7.0, "category_id": "1", "bbox": ["0", 0.0, "5.5", 5], "score": "0.5"}
    back = read_predictions(write(tmp_path / "p.json", [row, {**row, "image_id": 7, "category_id": 1.0}]))
    assert back.image_ids == (7,)
    assert back.table.labels.tolist() == [1, 1]
    assert back.table.boxes.tolist() == [[0, 0, 5.5, 5]] * 2
    assert back.table.scores.tolist() == [0.5, 0.5]
    # A text stays one: it is a name, and only what it is held against can say more.
    assert read_predictions(write(tmp_path / "p.json", [{**row, "image_id": "7"}])).image_ids == ("7",)


def test_rows_say_by_name_what_they_found(tmp_path):
    table = BoxTable.of([0, 0], [2, 15], [[0, 0, 5, 5], [0, 0, 1, 1]], [0.5, 0.25])
    write_predictions(tmp_path / "p.json", Predictions(("a",), table), {1: "Nodule", 2: "Mass"})
    assert [row["category_name"] for row in json.loads((tmp_path / "p.json").read_text())] == ["Mass", "No finding"]
    assert read_predictions(tmp_path / "p.json").names == {2: "Mass", 15: "No finding"}


def test_one_category_with_two_names_is_two_models(tmp_path):
    rows = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1, "category_name": n} for n in "ab"]
    with pytest.raises(InputError, match=r"p\.json, row 1 calls category 1 'b', an earlier row 'a'"):
        read_predictions(write(tmp_path / "p.json", rows))


def test_no_predictions_are_predictions(tmp_path):
    back = read_predictions(write(tmp_path / "p.json", []))
    assert back.image_ids == ()
    assert back.table.boxes.shape == (0, 4)


GOOD = {"image_id": "a", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ({"images": []}, "holds a dict, not a list"),
        ([GOOD, {**GOOD, "bbox": [0, 0, 5]}], "row 1 is not a COCO result"),
        ([{**GOOD, "bbox": None}], "row 0 is not a COCO result"),
        ([{key: GOOD[key] for key in ("image_id", "bbox", "score")}], "row 0 .*category_id"),
        ([{**GOOD, "score": "high"}], "row 0 is not a COCO result"),
        ([GOOD, "a"], "row 1 is not a COCO result"),
        ([{**GOOD, "bbox": [0, 0, -1, 5]}], "row 0 has bbox"),
        ('[{"image_id": "a", "category_id": 1, "bbox": [0, 0, NaN, 5], "score": 0.5}]', "row 0 has bbox"),
        ([{**GOOD, "score": 1.01}], "row 0 has score 1.01"),
        ('[{"image_id": "a", "category_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}]', "row 0 has score nan"),
    ],
)
def test_bad_files_are_named_with_their_row(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_predictions(write(tmp_path / "p.json", content))


def test_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"no predictions at .*give a predictions\.json"):
        read_predictions(tmp_path / "p.json")


def test_rows_that_loadres_has_given_their_boxes_as_masks_are_boxes(tmp_path):
    """pycocotools changes the rows that it is given; who saves them afterwards saves outlines of boxes."""
    from pycocotools.coco import COCO

    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [10.25, 20.5, 30.125, 40.75], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [1 / 3, 2 / 3, 0.1, 7.7], "score": 0.5},
    ]
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}, {"id": 2}]}
    truth.createIndex()
    truth.loadRes(rows)
    assert all("segmentation" in row for row in rows)
    path = tmp_path / "scored.json"
    path.write_text(json.dumps(rows))
    read = read_predictions(path)
    assert read.masks == {}
    assert len(read.table) == 2
    # A rectangle that somebody drew is a mask, as it has no other traces of loadRes.
    drawn = [{key: row[key] for key in ("image_id", "category_id", "bbox", "score", "segmentation")} for row in rows]
    path.write_text(json.dumps(drawn))
    assert sorted(read_predictions(path).masks) == [0, 1]
    # Where one is no outline, all are masks.
    rows[1]["segmentation"] = [[0, 0, 5, 0, 5, 5]]
    path.write_text(json.dumps(rows))
    assert sorted(read_predictions(path).masks) == [0, 1]


def test_no_finding_follows_the_boxes_where_it_did_before():
    unit, box = [0, 0, 1, 1], [10, 10, 20, 20]
    before = BoxTable.of(
        [0, 0, 1, 2, 2, 3], [13, 15, 15, 13, 15, 15], [box, unit, unit, box, unit, unit],
        [0.8, 0.19997, 1.0, 0.8, 0.6, 0.7],
    )  # fmt: skip
    # The box of 0 loses half of its score; 1 and 3, without a box, get one; the row of 2 and 3 is somebody else's.
    scores = [0.4, 0.19997, 1.0, 0.4, 0.6, 0.7, 0.9, 0.9]
    after = BoxTable.of(
        [*before.images, 1, 3], [*before.labels, 13, 13], [*before.boxes, box, box], scores
    )  # fmt: skip
    found = with_no_finding_after(before, after)
    np.testing.assert_allclose(found.scores, [0.4, 0.6, 0.1, 0.4, 0.6, 0.7, 0.9, 0.9])
    assert after.scores.tolist() == scores
    assert len(with_no_finding_after(BoxTable.empty(), BoxTable.empty())) == 0
