"""Where boxes can be scored: hand-worked numbers, LVIS' own, and the part of a dataset that says everything."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.datasets.store import open_store
from xray.evaluation.alignment import align
from xray.evaluation.baseline import mean_box_baseline
from xray.evaluation.box_intervals import bootstrap_intervals, resample_findings
from xray.evaluation.box_metrics import by_category, detection_metrics, froc_curve
from xray.evaluation.coco_metrics import coco_precision
from xray.evaluation.located import Located, located_in, nothing_located
from xray.evaluation.resampling import draw_patients
from xray.findings import CATEGORIES
from xray.structures.boxes import BoxTable, xywh_to_xyxy
from xray.structures.predictions import Predictions

NAMES = {1: "A", 2: "B"}
A, B = (0, 0, 100, 100), (300, 300, 400, 400)


def located(everywhere, normal=None, abnormal=None, names=NAMES):
    everywhere = np.array(everywhere, dtype=bool)
    nobody = np.zeros(len(everywhere), dtype=bool)
    return Located(names, everywhere, nobody if normal is None else normal, nobody if abnormal is None else abnormal)


def table(*rows):
    """Rows of (image, label, box, score)."""
    return BoxTable.of(*(list(column) for column in zip(*rows, strict=True)))


def test_a_prediction_of_what_is_not_located_is_neither_right_nor_wrong():
    truth = table((0, 1, A, 1.0), (0, 2, B, 1.0))
    predictions = table((0, 1, A, 0.8), (1, 1, A, 0.9), (2, 1, A, 0.95), (0, 2, B, 0.7), (2, 2, B, 0.9))
    where = located([(True, True), (True, True), (False, True)])
    metrics = detection_metrics(truth, predictions, 3, NAMES, located=where)
    # A: a false one at 0.9 and the true one at 0.8, so precision is 1/2 there; the surest, at 0.95, is dropped.
    assert metrics["ap40"] == {"A": 0.5, "B": 0.5}
    # The false one of A is 1/2 an image, as A is scored on two; that of B 1/3.
    assert metrics["sensitivity_at_fp"]["A"]["0.25"] == 0
    assert metrics["sensitivity_at_fp"]["A"]["0.5"] == 1
    assert (metrics["n_unlocated"], metrics["n_unlocated_boxes"]) == ({"A": 1}, 1)
    everything = detection_metrics(truth, predictions, 3, NAMES)
    assert everything["ap40"]["A"] == pytest.approx(1 / 3)
    assert "n_unlocated" not in everything


def test_the_same_as_lvis_scores():
    """lvis-api 0.5.3 on the same boxes, where `neg_category_ids` are the known categories without a box: AP 0.662376,
    AP50 and AP75 0.834571, of the two categories 0.722772 and 0.601980. (Without what is known: 0.329208.)"""
    truth = [
        (1, 1, 0, 0, 100, 100), (2, 1, 0, 0, 50, 50), (2, 1, 200, 0, 50, 50), (1, 2, 300, 300, 80, 80),
        (4, 2, 10, 10, 40, 60),
    ]  # fmt: skip
    found = [
        (1, 1, 0, 0, 100, 90, 0.9), (4, 1, 0, 0, 30, 30, 0.95), (3, 1, 0, 0, 30, 30, 0.85), (2, 1, 0, 0, 50, 45, 0.8),
        (4, 1, 5, 5, 30, 30, 0.75), (2, 1, 203, 0, 50, 50, 0.6), (5, 1, 9, 9, 30, 30, 0.5),
        (1, 2, 300, 300, 80, 70, 0.7), (2, 2, 10, 10, 40, 60, 0.9), (3, 2, 10, 10, 40, 60, 0.8),
        (4, 2, 10, 10, 40, 45, 0.4), (5, 2, 0, 0, 9, 9, 0.99), (1, 2, 0, 0, 9, 9, 0.55),
    ]  # fmt: skip
    known = [(1, 1), (1, 0), (1, 0), (0, 1), (1, 0)]
    tables = []
    for rows in (np.array(truth), np.array(found)):
        columns = (rows[:, 0].astype(int) - 1, rows[:, 1].astype(int), xywh_to_xyxy(rows[:, 2:6]))
        tables.append(BoxTable.of(*columns, *([rows[:, 6]] if rows.shape[1] == 7 else [])))
    where = located(known)
    metrics = detection_metrics(*tables, 5, NAMES, located=where)
    assert metrics["coco_ap"] == pytest.approx(0.662376, abs=1e-6)
    assert [metrics[name] for name in ("coco_ap50", "coco_ap75")] == pytest.approx([0.834571] * 2, abs=1e-6)
    precision = coco_precision(*(where.of(one) for one in tables), [1, 2])
    assert precision.mean(axis=(0, 1)) == pytest.approx([0.722772, 0.601980], abs=1e-6)


@st.composite
def scored(draw):
    n = draw(st.integers(1, 6))
    everywhere = np.array(draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=n, max_size=n)))
    places = st.tuples(st.integers(0, n - 1), st.sampled_from([1, 2]), st.integers(0, 3), st.integers(1, 9))
    parts = []
    for least in (1, 0):
        rows = draw(st.lists(places, min_size=least, max_size=14))
        boxes = [(10 * x, 0, 10 * x + 20, 20) for _, _, x, _ in rows]
        parts.append(BoxTable.of([r[0] for r in rows], [r[1] for r in rows], boxes, [r[3] / 10 for r in rows]))
    return everywhere, *parts


@given(scored())
def test_each_category_is_scored_on_the_radiographs_on_which_it_is_located(case):
    everywhere, truth, predictions = case
    n = len(everywhere)
    metrics = detection_metrics(truth, predictions, n, NAMES, located=located(everywhere))
    for k, (label, name) in enumerate(NAMES.items()):
        inside = np.flatnonzero(everywhere[:, k])
        place = np.full(n, -1)
        place[inside] = np.arange(len(inside))
        alone = []
        for one in (truth, predictions):
            one = one.select((place[one.images] >= 0) & (one.labels == label))
            alone.append(BoxTable.of(place[one.images], one.labels, one.boxes, one.scores))
        expected = detection_metrics(*alone, len(inside), {label: name})
        for key in ("ap40", "sensitivity_at_fp"):
            assert metrics[key].get(name) == expected[key].get(name)
        assert metrics["n_truth"][name] == expected["n_truth"][name]


@given(scored(), st.integers(0, 3))
def test_intervals_are_those_without_what_is_not_located(case, seed):
    everywhere, truth, predictions = case
    where, patients = located(everywhere), np.arange(len(everywhere))
    times = draw_patients(patients, 7, seed)
    if times is None:
        return
    samples = resample_findings(truth, predictions, patients, NAMES, times, where)
    expected = resample_findings(where.of(truth), where.of(predictions), patients, NAMES, times)
    assert samples.keys() == expected.keys()
    for label, sample in samples.items():
        np.testing.assert_array_equal(sample, expected[label])
    tables = (where.of(truth), where.of(predictions))
    whole = bootstrap_intervals(truth, predictions, patients, NAMES, 7, with_coco=True, located=where)
    np.testing.assert_equal(whole, bootstrap_intervals(*tables, patients, NAMES, 7, with_coco=True))


def test_no_finding_is_scored_where_it_is_known():
    """Of five radiographs with VinBig's categories: a box; nothing; nodules unknown; an effusion without a box, which
    is abnormal all the same; and one that says nothing of aortas, but has a box."""
    names = {category["id"]: category["name"] for category in CATEGORIES}
    everywhere = np.ones((5, 14), dtype=bool)
    everywhere[2, 8] = everywhere[3, 10] = everywhere[4, 0] = False
    where = located(everywhere, np.array([0, 1, 0, 0, 0], bool), np.array([1, 0, 0, 1, 1], bool), names)
    truth = table((0, 4, A, 1.0), (4, 4, A, 1.0))
    unit = (0, 0, 1, 1)
    predictions = table(*((image, 15, unit, score) for image, score in enumerate((0.2, 0.6, 0.9, 0.8, 0.1))))
    metrics = detection_metrics(truth, predictions, 5, names, located=where)
    # That of the third radiograph is dropped. The fourth is wrong, and before the second, which is right.
    assert metrics["ap40_no_finding"] == 0.5
    (normal,) = [one for one in by_category(truth, predictions, 5, names, where) if one.label == 15]
    assert (normal.n_truth, normal.n_images) == (1, 4)
    assert detection_metrics(truth, predictions, 5, names)["ap40_no_finding"] == 1


def test_pooled_rates_of_false_positives_add_up():
    # True, false of A (scored on 2 radiographs), false of B (on 4).
    curve = froc_curve(np.array([True, False, False]), np.array([0.9, 0.8, 0.7]), 2, np.array([4, 2, 4]))
    assert curve.fp_per_image.tolist() == [0, 0.5, 0.75]
    assert curve.sensitivity.tolist() == [0.5, 0.5, 0.5]


def test_shares_of_the_mean_boxes_are_of_what_is_located():
    truth = table((0, 1, A, 1.0), (1, 1, A, 1.0), (2, 2, B, 1.0))
    sizes = np.full((4, 2), 1000)
    where = located([(True, True)] * 2 + [(False, True), (True, False)], normal=np.array([0, 0, 0, 0], bool))
    boxes = mean_box_baseline(truth, sizes, sizes[:1], located=where)
    assert dict(zip(boxes.labels.tolist(), boxes.scores.tolist(), strict=True)) == {1: 2 / 3, 2: 1 / 3}


@pytest.fixture
def store(tmp_path, write_table_store):
    """Five test radiographs: a box of A; A without a box; B unknown; both; and nothing at all is said of the last."""
    images = [(name, "test", -1, None) for name in "abcde"]
    categories = [{"id": label, "name": name} for label, name in NAMES.items()]
    folder = write_table_store(tmp_path / "d", images, [(0, 1, A), (3, 1, A), (3, 2, B)], categories)
    content = json.loads((folder / "annotations.json").read_text())
    content["images"][1] |= {"labels": [1], "unlocated": [1]}
    content["images"][2] |= {"unknown": [2]}
    content["images"][4] |= {"unknown": [1, 2]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_store(folder, pixels=False)


def test_what_a_dataset_says(store):
    where = located_in(store, np.arange(5))
    assert where.everywhere.tolist() == [[1, 1], [0, 1], [1, 0], [1, 1], [0, 0]]
    assert where.normal.tolist() == [0, 0, 0, 0, 0]
    assert where.abnormal.tolist() == [1, 1, 0, 1, 0]
    assert where.n_left_out == {"A": 2, "B": 2}
    assert (where.n_images(1), where.n_images(15), where.n_images(99)) == (3, 3, 5)
    assert nothing_located(store).tolist() == [0, 0, 0, 0, 1]
    assert [part.tolist() for part in store.abnormal] == [[1, 1, 0, 1, 0], [1, 1, 0, 1, 0]]


def test_a_radiograph_that_no_detector_is_validated_on_is_not_missed(store):
    predictions = Predictions(("a", "d"), table((0, 1, A, 0.9), (1, 1, A, 0.8)))
    alignment = align(store, predictions)
    assert [record["source_id"] for record in alignment.records] == ["a", "b", "c", "d"]
    assert (alignment.n_unlocated, alignment.n_without_prediction) == (1, 2)
    # Who asks for the split gets all of it.
    assert (len(align(store, predictions, split="test")), align(store, predictions, split="test").n_unlocated) == (5, 0)
