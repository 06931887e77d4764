"""Resamples of COCO's AP against datasets that are written out and scored by the metric itself."""

import numpy as np

from xray.evaluation.box_intervals import bootstrap_intervals, resample_coco
from xray.evaluation.coco_metrics import coco_precision
from xray.evaluation.resampling import draw_patients
from xray.structures.boxes import BoxTable


def tables(seed: int, n_images: int = 10) -> tuple[BoxTable, BoxTable]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (25, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(30, 200, (25, 2))], axis=1)
    images, labels = rng.integers(0, n_images, 25), rng.integers(1, 3, 25)
    near = boxes + rng.normal(0, 6, boxes.shape)
    predicted = np.concatenate([near, near + rng.normal(0, 9, boxes.shape), rng.permutation(boxes)])
    truth = BoxTable.of(images, labels, boxes)
    return truth, BoxTable.of(np.tile(images, 3), np.tile(labels, 3), predicted, rng.permutation(75) / 75)


def copied(table: BoxTable, copies: np.ndarray) -> BoxTable:
    """The rows of each image in `copies`, each copy being an image of its own."""
    rows = [np.flatnonzero(table.images == image) for image in copies]
    numbers = np.repeat(np.arange(len(copies)), [len(own) for own in rows])
    chosen = table.select(np.concatenate(rows))
    return BoxTable(numbers, chosen.labels, chosen.boxes, chosen.scores)


def test_a_resample_equals_scoring_the_copies() -> None:
    patients = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])
    for seed in range(6):
        truth, predictions = tables(seed)
        times = draw_patients(patients, 12, seed)
        found = resample_coco(truth, predictions, patients, [1, 2, 3], times)
        assert set(found) == {1, 2}
        for number, drawn in enumerate(times):
            copies = np.repeat(np.arange(10), drawn[patients])
            precision = coco_precision(copied(truth, copies), copied(predictions, copies), [1, 2])
            expected = [np.nan if (part == -1).all() else part.mean() for part in np.moveaxis(precision, 2, 0)]
            np.testing.assert_allclose([found[1][number], found[2][number]], expected, rtol=0, atol=1e-12)


def test_each_drawn_once_is_the_metric() -> None:
    truth, predictions = tables(9)
    found = resample_coco(truth, predictions, np.arange(10), [1, 2], np.ones((1, 10), dtype=np.int64))
    precision = coco_precision(truth, predictions, [1, 2])
    np.testing.assert_allclose([found[1][0], found[2][0]], precision.mean(axis=(0, 1)), atol=1e-12)


def test_the_interval_is_that_of_the_mean() -> None:
    truth, predictions = tables(4)
    patients = np.arange(10) // 2
    times = draw_patients(patients, 100)
    found = resample_coco(truth, predictions, patients, [1, 2], times)
    expected = np.nanquantile(np.nanmean(np.stack([found[1], found[2]]), axis=0), [0.025, 0.975])
    names = {1: "one", 2: "two", 3: "three"}
    intervals = bootstrap_intervals(truth, predictions, patients, names, 100, with_coco=True)
    np.testing.assert_allclose(intervals["coco_ap_ci95"], expected)
    assert "coco_ap_ci95" not in bootstrap_intervals(truth, predictions, patients, names, 100)


def test_without_right_ones_and_without_truth() -> None:
    truth = BoxTable.of([0, 1], [1, 1], [(0, 0, 9, 9)] * 2)
    found = resample_coco(truth, BoxTable.empty(), np.arange(2), [1], np.array([[1, 1], [0, 0]]))[1]
    assert found[0] == 0
    assert np.isnan(found[1])
