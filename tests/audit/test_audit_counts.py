"""Counts, shared patients and boxes on the wrong side, of tables written by hand."""

import dataclasses
import json

import numpy as np
import pytest

from xray.audit.counts import PLACES, count, shared_patients
from xray.audit.opposites import on_the_wrong_side
from xray.datasets.store import open_store

CATEGORIES = [{"id": 1, "name": "Nodule"}, {"id": 2, "name": "Effusion"}]


@pytest.fixture
def store(tmp_path, write_table_store):
    images = [("a", "train", 0, "P"), ("b", "train", 1, "P"), ("c", "test", -1, "P"), ("d", "train", 1, "Q")]
    # 1000 x 2000 pixels on a canvas of 64: a pixel of the canvas is 31.25 of the radiograph.
    boxes = [(0, 1, (0, 0, 500, 1000)), (0, 1, (0, 0, 200, 200)), (2, 2, (500, 1000, 1000, 2000))]
    folder = write_table_store(tmp_path / "data", images, boxes, CATEGORIES)
    content = json.loads((folder / "annotations.json").read_text())
    content["images"][3] |= {"labels": [2], "unknown": [1], "view": "PA"}
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_store(folder, pixels=False)


def test_counts(store):
    counts = count(store)
    assert counts.groups["train, fold 1"] == {
        "images": 2, "patients": 2, "without_patient": 0, "without_findings": 1, "boxes": 0,
    }  # fmt: skip
    assert list(counts.groups) == ["test", "train, fold 0", "train, fold 1"]
    nodule, effusion = counts.categories["Nodule"], counts.categories["Effusion"]
    assert (nodule["images"], nodule["boxes"], nodule["unknown"], nodule["under_8_pixels"]) == (1, 2, 1, 1)
    assert (effusion["images_train"], effusion["images_test"], effusion["without_box"]) == (1, 1, 1)
    assert effusion["area"] == [0.25, 0.25, 0.25]
    assert effusion["middle"] == [0.75, 0.75]
    assert counts.headers == {"view": {"not known": 3, "PA": 1}}
    assert counts.sizes == {"1000 x 2000": 4}
    covered = counts.places["Effusion"]
    half = PLACES // 2
    assert covered[half:, half:].min() == 1
    assert covered.sum() == half * half
    # The smaller of the two nodules lies within the larger one.
    assert counts.places["Nodule"][0, 0] == 1
    assert counts.places["Nodule"][half - 1, half - 1] == 0.5


def test_patients_in_two_places(store):
    found = shared_patients(store)
    assert [(one.row, one.other, one.detail) for one in found] == [
        (0, 1, "2 radiographs of one patient in train, fold 0 and in train, fold 1"),
        (0, 2, "2 radiographs of one patient in train, fold 0 and in test"),
    ]


def test_sizes_need_not_be_known(store):
    records = [
        {key: value for key, value in record.items() if key not in ("width", "height")} for record in store.records
    ]
    counts = count(dataclasses.replace(store, records=records))
    assert "area" not in counts.categories["Nodule"]
    assert counts.sizes == {"not known": 4}
    assert counts.places == {}


def test_boxes_on_the_wrong_side(tmp_path, write_table_store):
    random = np.random.default_rng(0)
    images = [(f"i{row}", "train", 0, None) for row in range(60)]
    boxes = []
    for row in range(60):
        # The patient's left is on the right of the picture.
        for label, x in ((1, 600), (2, 100)):
            shift = random.normal(0, 20, 4)
            corners = (x + shift[0], 300 + shift[1], x + 300 + shift[2], 1500 + shift[3])
            boxes.append((row, 3 - label if row in (7, 31) else label, corners))
    names = [{"id": 1, "name": "Left lung"}, {"id": 2, "name": "Right lung"}]
    store = open_store(write_table_store(tmp_path / "lungs", images, boxes, names), pixels=False)
    found = on_the_wrong_side(store)
    assert sorted(one.row for one in found) == [7, 7, 31, 31]
    assert {one.category for one in found} == {"Left lung", "Right lung"}
    # Categories that are no opposites may lie wherever they like.
    plain = dataclasses.replace(store, categories={1: "Nodule", 2: "Effusion"})
    assert on_the_wrong_side(plain) == []
