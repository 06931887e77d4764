"""Bootstrap intervals against resamples that are written out and scored by the metric itself."""

import numpy as np

from xray.evaluation.box_intervals import bootstrap_intervals, resample_ap
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.box_metrics import detection_metrics
from xray.findings import CATEGORIES, NO_FINDING_BOX
from xray.structures.boxes import BoxTable

VINBIG = {category["id"]: category["name"] for category in CATEGORIES}
LUNG = {1: "lung"}


def tables(seed: int, n_images: int = 12) -> tuple[BoxTable, BoxTable]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (20, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(30, 200, (20, 2))], axis=1)
    images = rng.integers(0, n_images, 20)
    predicted = np.concatenate([boxes + rng.normal(0, 15, boxes.shape), rng.permutation(boxes)])
    truth = BoxTable.of(images, np.ones(20), boxes)
    return truth, BoxTable.of(np.tile(images, 2), np.ones(40), predicted, rng.permutation(40) / 40)


def test_a_resample_equals_scoring_the_copies() -> None:
    # Draw patients, copy each of their radiographs as often as they were drawn, give the copies ids of their own, and
    # score that dataset in the plain way. Copies of a prediction have the same score and stand side by side.
    rng = np.random.default_rng(1)
    for seed in range(10):
        truth, predictions = tables(seed)
        patients = np.arange(12) // 2
        times = np.bincount(rng.integers(0, 6, 6), minlength=6)
        matches = match_boxes(truth, predictions)
        order = matches.order
        patient_of_box = patients[predictions.images[order]]
        ours = resample_ap(matches.is_true[order], patient_of_box, patients[truth.images], times[None])[0]

        copies = np.repeat(np.arange(12), times[patients])
        rows_of = [np.flatnonzero(truth.images == image) for image in copies]
        boxes_of = [np.flatnonzero(predictions.images == image) for image in copies]
        copied_truth = truth.select(np.concatenate(rows_of))
        copied = predictions.select(np.concatenate(boxes_of))
        numbers = [np.repeat(np.arange(len(copies)), [len(rows) for rows in group]) for group in (rows_of, boxes_of)]
        copied_truth = BoxTable(numbers[0], copied_truth.labels, copied_truth.boxes, copied_truth.scores)
        copied = BoxTable(numbers[1], copied.labels, copied.boxes, copied.scores)
        expected = detection_metrics(copied_truth, copied, len(copies), LUNG, with_coco=False)["map40"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_intervals_hold_the_estimate_and_repeat() -> None:
    truth, predictions = tables(3)
    estimate = detection_metrics(truth, predictions, 12, LUNG, with_coco=False)
    first = bootstrap_intervals(truth, predictions, np.arange(12), LUNG, 300)
    low, high = first["map40_ci95"]
    assert 0 <= low < estimate["map40"] < high <= 1
    assert first["ap40_ci95"] == {"lung": [low, high]}
    assert first == bootstrap_intervals(truth, predictions, np.arange(12), LUNG, 300)
    assert "map40_kaggle_ci95" not in first


def test_radiographs_of_a_patient_go_together() -> None:
    # Ten radiographs, found in the first five and missed in the others. Of ten patients, the share found varies; of
    # two patients with five each, a resample has one, the other, or both: AP 1, 0 or 1/2.
    square = (0, 0, 10, 10)
    truth = BoxTable.of(np.arange(10), np.ones(10), [square] * 10)
    predictions = BoxTable.of(np.arange(5), np.ones(5), [square] * 5, np.full(5, 0.9))
    apart = bootstrap_intervals(truth, predictions, np.arange(10), LUNG, 500)["map40_ci95"]
    together = bootstrap_intervals(truth, predictions, np.arange(10) // 5, LUNG, 500)["map40_ci95"]
    assert together == [0.0, 1.0]
    assert 0.1 <= apart[0] < 0.5 < apart[1] <= 0.9


def test_no_finding_and_single_patients() -> None:
    # Cardiomegaly is one patient's alone, so nothing says how it varies; "No finding" is always found.
    truth = BoxTable.of([0], [4], [(0, 0, 10, 10)])
    normal = np.arange(1, 6)
    predictions = BoxTable.of(normal, np.full(5, 15), [NO_FINDING_BOX] * 5, np.full(5, 0.9))
    intervals = bootstrap_intervals(truth, predictions, np.arange(6), VINBIG, 200)
    assert intervals["ap40_ci95"] == {}
    assert intervals["ap40_no_finding_ci95"] == [1.0, 1.0]
    assert intervals["map40_kaggle_ci95"] == [0.5, 1.0]
    assert bootstrap_intervals(truth, predictions, np.zeros(6, dtype=int), VINBIG) == {}
