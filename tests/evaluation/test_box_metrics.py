"""The metric against cases worked by hand, a plain-Python reference, and pycocotools used as everyone uses it."""

import contextlib
import io
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from xray.evaluation.baseline import mean_box_baseline
from xray.evaluation.box_intervals import bootstrap_intervals
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.box_metrics import (
    average_precision,
    detection_metrics,
    froc_curve,
    has_vinbig_categories,
    precision_recall,
    sensitivity_at,
)
from xray.evaluation.coco_metrics import coco_metrics, coco_precision
from xray.findings import CATEGORIES, NO_FINDING_BOX
from xray.structures.boxes import BoxTable, box_iou, xywh_to_xyxy, xyxy_to_xywh

LUNG = {1: "lung"}
VINBIG = {category["id"]: category["name"] for category in CATEGORIES}
SQUARE = (0, 0, 100, 100)
FAR = (500, 500, 600, 600)


def table(*rows: tuple) -> BoxTable:
    """Rows of (image, category, (x1, y1, x2, y2)[, score])."""
    return BoxTable.of(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] if len(row) > 3 else 1.0 for row in rows],
    )


def ap40(truth: BoxTable, predictions: BoxTable, n_images: int = 10) -> float:
    return detection_metrics(truth, predictions, n_images, LUNG, with_coco=False)["ap40"]["lung"]


def test_simple_case() -> None:
    # Three truth boxes. From the highest score down: right, wrong, right, wrong.
    # Precision 1/1, 1/2, 2/3, 2/4. Recall rises by 1/3 at the first and third, where the highest precision from
    # there on is 1 and 2/3: AP = (1 + 2/3) / 3 = 5/9.
    truth = table((0, 1, SQUARE), (1, 1, SQUARE), (2, 1, SQUARE))
    predictions = table((0, 1, FAR, 0.8), (0, 1, SQUARE, 0.9), (1, 1, SQUARE, 0.7), (2, 1, FAR, 0.6))
    assert ap40(truth, predictions) == pytest.approx(5 / 9, abs=1e-15)


def test_a_later_higher_precision_counts_for_the_recall_before_it() -> None:
    # Wrong, right, right; two truth boxes. Precision 0, 1/2, 2/3: the envelope at both is 2/3, so AP = 2/3, not
    # (1/2 + 2/3) / 2.
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3, abs=1e-15)
    precision, recall = precision_recall(np.array([False, True, True]), 2)
    np.testing.assert_allclose(precision, [0, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [0, 1 / 2, 1])


def test_corners_are_not_read_as_x_y_width_height() -> None:
    # Two boxes that touch in one corner: their IoU is 0.
    # Corners read as x, y, width, height would make squares of 500–1100 and 600–1300: intersection 500² = 250,000,
    # union 600² + 700² − 500² = 600,000, IoU 5/12 = 0.417 — a match at 0.4.
    right, wrong = (500, 500, 600, 600), (600, 600, 700, 700)
    assert box_iou([right], [wrong])[0, 0] == 0.0
    assert ap40(table((0, 1, right)), table((0, 1, wrong, 0.9))) == 0.0
    misread = xywh_to_xyxy(np.array([right, wrong]))
    assert box_iou(misread[:1], misread[1:])[0, 0] == pytest.approx(5 / 12)
    assert ap40(table((0, 1, misread[0])), table((0, 1, misread[1], 0.9))) == 1.0
    # And apart by a gap of 20 pixels: 400–900 and 520–1160, intersection 380², union 500² + 640² − 380² = 515,200.
    apart = xywh_to_xyxy(np.array([(400, 400, 500, 500), (520, 520, 640, 640)]))
    assert box_iou([(400, 400, 500, 500)], [(520, 520, 640, 640)])[0, 0] == 0.0
    assert box_iou(apart[:1], apart[1:])[0, 0] == pytest.approx(144_400 / 515_200)  # 0.28


def test_an_overlap_of_exactly_the_threshold_is_no_match() -> None:
    # 40 × 100 inside 100 × 100: 4,000 / 10,000 is 0.4 exactly; 41 × 100 gives 0.41.
    assert ap40(table((0, 1, SQUARE)), table((0, 1, (0, 0, 40, 100), 0.9))) == 0.0
    assert ap40(table((0, 1, SQUARE)), table((0, 1, (0, 0, 41, 100), 0.9))) == 1.0


def test_equal_scores_keep_the_order_of_the_table() -> None:
    # Wrong before right: precision 0, 1/2. Right before wrong: 1, 1/2.
    truth = table((0, 1, SQUARE))
    assert ap40(truth, table((1, 1, SQUARE, 0.5), (0, 1, SQUARE, 0.5))) == 0.5
    assert ap40(truth, table((0, 1, SQUARE, 0.5), (1, 1, SQUARE, 0.5))) == 1.0


def test_a_detection_on_an_empty_image_is_false() -> None:
    # Precision 0, 1/2: AP = 1/2. The same with a lower score would cost nothing.
    truth = table((0, 1, SQUARE))
    assert ap40(truth, table((7, 1, SQUARE, 0.9), (0, 1, SQUARE, 0.8))) == 0.5
    assert ap40(truth, table((7, 1, SQUARE, 0.7), (0, 1, SQUARE, 0.8))) == 1.0


def test_images_without_truth_and_detections_change_fp_per_image_only() -> None:
    truth, predictions = table((0, 1, SQUARE)), table((0, 1, FAR, 0.9), (0, 1, SQUARE, 0.8))
    few = detection_metrics(truth, predictions, 1, LUNG)
    many = detection_metrics(truth, predictions, 4, LUNG)
    assert few["map40"] == many["map40"] == 0.5
    assert few["coco_ap"] == many["coco_ap"] == pytest.approx(0.5)
    # One false positive stands before the true one: 1 an image, or 0.25 of four images.
    assert few["sensitivity_at_fp"]["lung"] == {
        **dict.fromkeys(["0.125", "0.25", "0.5"], 0),
        **dict.fromkeys("1248", 1),
    }
    assert many["sensitivity_at_fp"]["lung"]["0.125"] == 0
    assert many["sensitivity_at_fp"]["lung"]["0.25"] == 1


def test_no_detections_at_all() -> None:
    metrics = detection_metrics(table((0, 1, SQUARE)), BoxTable.empty(), 2, LUNG)
    assert metrics["map40"] == metrics["coco_ap"] == metrics["coco_ap50"] == metrics["coco_ap75"] == 0.0
    assert set(metrics["sensitivity_at_fp"]["lung"].values()) == {0.0}


def test_no_truth_at_all() -> None:
    metrics = detection_metrics(BoxTable.empty(), table((0, 1, SQUARE, 0.9)), 2, LUNG)
    assert math.isnan(metrics["map40"])
    assert math.isnan(metrics["coco_ap"])
    assert metrics["ap40"] == {}
    assert metrics["n_truth"] == {"lung": 0}
    # Kaggle's classes still have something to find: two normal images, both found.
    normal = table((0, 15, NO_FINDING_BOX, 0.9), (1, 15, NO_FINDING_BOX, 0.8))
    metrics = detection_metrics(BoxTable.empty(), normal, 2, VINBIG)
    assert math.isnan(metrics["map40"])
    assert metrics["map40_kaggle"] == metrics["ap40_no_finding"] == 1.0


def test_more_than_100_boxes_in_an_image_all_count() -> None:
    # 149 wrong boxes, then the right one: precision 1/150 at recall 1. COCO's usual 100 would give 0.
    wrong = [(0, 1, FAR, 0.9 - row / 1000) for row in range(149)]
    metrics = detection_metrics(table((0, 1, SQUARE)), table(*wrong, (0, 1, SQUARE, 0.1)), 1, LUNG)
    assert metrics["map40"] == pytest.approx(1 / 150, abs=1e-15)
    assert [metrics["coco_ap"], metrics["coco_ap50"]] == pytest.approx([1 / 150] * 2, abs=1e-12)


def test_a_taken_truth_box_makes_a_false_positive_without_second_choice() -> None:
    # Truth A is 0–100 and B 30–130 wide. The second detection, 10–110, overlaps A by 90/110 = 0.82 and B by
    # 80/120 = 0.67: it is held against A, which is taken, although B is free and overlaps it by more than 0.4.
    a, b = (0, 0, 100, 100), (30, 0, 130, 100)
    truth = table((0, 1, a), (0, 1, b))
    predictions = table((0, 1, a, 0.9), (0, 1, (10, 0, 110, 100), 0.8))
    matches = match_boxes(truth, predictions)
    np.testing.assert_array_equal(matches.is_true, [True, False])
    np.testing.assert_array_equal(matches.truth, [0, 0])
    np.testing.assert_array_equal(matches.found_by, [0, -1])
    np.testing.assert_allclose(matches.iou, [1, 90 / 110])
    # One of two found, at precision 1: AP = 1/2. With a second choice it would be 1.
    assert ap40(truth, predictions) == 0.5


def test_categories_and_images_are_kept_apart() -> None:
    truth = table((0, 1, SQUARE), (1, 2, SQUARE))
    predictions = table((0, 2, SQUARE, 0.9), (1, 1, SQUARE, 0.8), (1, 2, SQUARE, 0.7))
    np.testing.assert_array_equal(match_boxes(truth, predictions).is_true, [False, False, True])


def test_kaggles_fifteen_classes() -> None:
    # Image 0 has cardiomegaly and an enlarged aorta; images 1 and 2 are normal, so "No finding" has two unit boxes.
    # Cardiomegaly (4): found at once, AP 1. Aortic enlargement (1): not predicted, AP 0. Nodule/Mass (9): predicted
    # but nowhere in the truth, no AP. No finding (15): image 1 right, image 0 wrong, image 2 right; precision 1,
    # 1/2, 2/3: AP = (1 + 2/3) / 2 = 5/6.
    # Over findings (1 + 0) / 2; over Kaggle's classes (1 + 0 + 5/6) / 3 = 11/18.
    truth = table((0, 4, SQUARE), (0, 1, FAR))
    predictions = table(
        (0, 4, SQUARE, 0.9),
        (2, 9, SQUARE, 0.9),
        (1, 15, NO_FINDING_BOX, 0.8),
        (0, 15, NO_FINDING_BOX, 0.6),
        (2, 15, NO_FINDING_BOX, 0.3),
    )
    metrics = detection_metrics(truth, predictions, 3, VINBIG)
    assert metrics["ap40"] == {"Aortic enlargement": 0.0, "Cardiomegaly": 1.0}
    assert metrics["map40"] == 0.5
    assert metrics["ap40_no_finding"] == pytest.approx(5 / 6, abs=1e-15)
    assert metrics["map40_kaggle"] == pytest.approx(11 / 18, abs=1e-15)
    assert metrics["coco_ap"] == pytest.approx(0.5)


def test_kaggles_score_is_for_vinbigs_categories_only() -> None:
    assert has_vinbig_categories(VINBIG)
    assert not has_vinbig_categories({**VINBIG, 1: "aorta"})
    metrics = detection_metrics(table((0, 1, SQUARE)), table((1, 15, NO_FINDING_BOX, 0.9)), 2, LUNG)
    assert "map40_kaggle" not in metrics
    assert metrics["map40"] == 0.0


def test_froc_curve() -> None:
    # Four images, two truth boxes. 0.9 right; then 0.8 wrong and 0.8 right, which no threshold parts; 0.5 wrong.
    is_true, scores = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.8, 0.5])
    curve = froc_curve(is_true, scores, n_truth=2, n_images=4)
    np.testing.assert_array_equal(curve.thresholds, [0.9, 0.8, 0.5])
    np.testing.assert_array_equal(curve.fp_per_image, [0, 1 / 4, 2 / 4])
    np.testing.assert_array_equal(curve.sensitivity, [1 / 2, 1, 1])
    assert [sensitivity_at(curve, rate) for rate in (0, 0.125, 0.25, 8)] == [0.5, 0.5, 1, 1]
    empty = froc_curve(np.zeros(0, dtype=bool), np.zeros(0), n_truth=2, n_images=4)
    assert len(empty.thresholds) == 0
    assert sensitivity_at(empty, 8) == 0


def test_mean_box_baseline() -> None:
    # Category 1 on two of four training images: (0, 0)–(½, ½) of 100 × 200 and (½, ½)–(1, 1) of 200 × 100; the mean
    # is (¼, ¼)–(¾, ¾), which on 40 × 80 is (10, 20)–(30, 60). Category 2 on one image. Two images have no box.
    truth = table((0, 1, (0, 0, 50, 100)), (1, 1, (100, 50, 200, 100)), (1, 2, (0, 0, 200, 100)))
    sizes = np.array([(100, 200), (200, 100), (10, 10), (10, 10)])
    baseline = mean_box_baseline(truth, sizes, np.array([(40, 80), (4, 4)]), no_finding=True)
    np.testing.assert_array_equal(baseline.images, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(baseline.labels, [1, 1, 2, 2, 15, 15])
    np.testing.assert_array_equal(baseline.scores, [0.5, 0.5, 0.25, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(
        baseline.boxes,
        [(10, 20, 30, 60), (1, 1, 3, 3), (0, 0, 40, 80), (0, 0, 4, 4), NO_FINDING_BOX, NO_FINDING_BOX],
    )
    assert len(mean_box_baseline(BoxTable.empty(), sizes, sizes)) == 0


# A small grid makes equal overlaps, overlaps of exactly 2/5, empty boxes and equal scores common.
corners = st.tuples(*[st.integers(0, 10)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
rows = st.tuples(st.integers(0, 3), st.integers(1, 2), corners, st.sampled_from([0.0, 0.2, 0.5, 0.5, 0.9, 1.0]))


@settings(max_examples=300, deadline=None)
@given(st.lists(rows, max_size=12), st.lists(rows, max_size=25))
def test_equals_a_plain_reference(truth_rows: list, prediction_rows: list) -> None:
    metrics = detection_metrics(table(*truth_rows), table(*prediction_rows), 4, {1: "one", 2: "two"}, with_coco=False)
    expected = {}
    for label, name in ((1, "one"), (2, "two")):
        ap = reference_ap([r for r in truth_rows if r[1] == label], [r for r in prediction_rows if r[1] == label])
        if ap is not None:
            expected[name] = ap
    assert metrics["ap40"] == expected


def reference_ap(truth: list, predictions: list) -> float | None:
    """VOC 2010 AP of one category, written as slowly and plainly as it reads."""
    if not truth:
        return None
    taken, outcomes = set(), []
    for image, _, box, _ in sorted(predictions, key=lambda row: -row[3]):
        best, best_iou = None, 0.0
        for number, (truth_image, _, truth_box, _) in enumerate(truth):
            iou = reference_iou(box, truth_box)
            if truth_image == image and iou > best_iou:
                best, best_iou = number, iou
        right = best is not None and best_iou > 0.4 and best not in taken
        if right:
            taken.add(best)
        outcomes.append(right)
    precision = [sum(outcomes[: k + 1]) / (k + 1) for k in range(len(outcomes))]
    return math.fsum(max(precision[k:]) for k in range(len(outcomes)) if outcomes[k]) / len(truth)


def reference_iou(a: tuple, b: tuple) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def random_tables(seed: int, n_images: int = 20, n_categories: int = 3) -> tuple[BoxTable, BoxTable]:
    """Truth, and predictions that are jittered truth among random boxes."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 400, (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 200, (60, 2))], axis=1)
    images, labels = rng.integers(0, n_images, 60), rng.integers(1, n_categories + 1, 60)
    jittered = boxes + rng.normal(0, 8, boxes.shape)
    other = rng.permutation(boxes)
    predictions = BoxTable.of(
        np.concatenate([images, rng.integers(0, n_images, 60)]),
        np.tile(labels, 2),
        np.concatenate([jittered, other]),
        np.concatenate([rng.uniform(0.2, 1, 60), rng.uniform(0, 0.8, 60)]).round(1),
    )
    return BoxTable.of(images, labels, boxes), predictions


@pytest.mark.parametrize("seed", range(5))
def test_coco_ap_equals_cocoeval_as_everyone_runs_it(seed: int) -> None:
    truth, predictions = random_tables(seed)
    evaluation = cocoeval(truth, predictions, 20, {1: "a", 2: "b", 3: "c"})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    ours = coco_metrics(truth, predictions, {1: "a", 2: "b", 3: "c"})
    assert [ours["coco_ap"], ours["coco_ap50"], ours["coco_ap75"]] == pytest.approx(evaluation.stats[:3], abs=1e-12)
    assert 0.2 < ours["coco_ap"] < 0.9


def cocoeval(truth: BoxTable, predictions: BoxTable, n_images: int, categories: dict[int, str]) -> COCOeval:
    """pycocotools' default evaluation, accumulated. It wants at least one prediction."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        boxes = xyxy_to_xywh(truth.boxes)
        coco.dataset = {
            "images": [{"id": image} for image in range(n_images)],
            "categories": [{"id": label} for label in categories],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": int(truth.images[row]),
                    "category_id": int(truth.labels[row]),
                    "bbox": boxes[row].tolist(),
                    "area": float(boxes[row, 2:].prod()),
                    "iscrowd": 0,
                }
                for row in range(len(truth))
            ],
        }
        coco.createIndex()
        results = [
            {"image_id": int(image), "category_id": int(label), "bbox": box.tolist(), "score": float(score)}
            for image, label, box, score in zip(
                predictions.images, predictions.labels, xyxy_to_xywh(predictions.boxes), predictions.scores, strict=True
            )
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def assert_equals_cocoeval(truth: BoxTable, predictions: BoxTable, n_images: int, categories: dict[int, str]) -> None:
    # The first area is "all", the last limit 100 boxes of an image and category.
    expected = cocoeval(truth, predictions, n_images, categories).eval["precision"][..., 0, -1]
    found = coco_precision(truth, predictions, sorted(categories))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    means = [part[part > -1].mean() if (part > -1).any() else math.nan for part in (expected, expected[0], expected[5])]
    metrics = coco_metrics(truth, predictions, categories)
    np.testing.assert_allclose(list(metrics.values()), means, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n_images", "n_truth", "n_predictions"), [(1, 5, 100), (40, 30, 900), (300, 500, 4000)])
def test_coco_precision_equals_cocoeval(n_images: int, n_truth: int, n_predictions: int) -> None:
    # As a detector's: several boxes around each true one, most of them weak, others anywhere; scores of two decimals.
    # Category 4 has no truth, 5 no prediction, 6 neither.
    rng = np.random.default_rng(n_images)
    corner = rng.uniform(0, 400, (n_truth, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 200, (n_truth, 2))], axis=1).round()
    truth = BoxTable.of(rng.integers(0, n_images, n_truth), rng.choice([1, 2, 3, 5], n_truth), boxes)
    near = rng.integers(0, n_truth, n_predictions)
    images, labels = truth.images[near], np.where(truth.labels[near] == 5, 4, truth.labels[near])
    found = boxes[near] + rng.normal(0, 12, (n_predictions, 4)) * (rng.random((n_predictions, 1)) < 0.9)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
    scores = rng.beta(0.7, 3, n_predictions).round(2)
    predictions = BoxTable.of(images, labels, found, scores)
    assert_equals_cocoeval(truth, predictions, n_images, {number: str(number) for number in range(1, 7)})


def test_coco_counts_the_first_box() -> None:
    assert coco_metrics(table((0, 1, SQUARE)), table((0, 1, SQUARE, 0.9)), LUNG)["coco_ap"] == pytest.approx(1)


def test_coco_precision_takes_the_last_of_equal_overlaps() -> None:
    # The first detection overlaps both by 90/110 and takes the second one up to IoU 0.80, which leaves the other one
    # to the second detection; had it taken the first one, that would be left with an IoU of 80/120.
    a, b = (0, 0, 100, 100), (20, 0, 120, 100)
    truth, predictions = table((0, 1, a), (0, 1, b)), table((0, 1, (10, 0, 110, 100), 0.9), (0, 1, a, 0.8))
    precision = coco_precision(truth, predictions, [1])
    np.testing.assert_allclose(precision[:7], 1)
    assert_equals_cocoeval(truth, predictions, 1, LUNG)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, max_size=12), st.lists(rows, min_size=1, max_size=25))
def test_coco_precision_equals_cocoeval_on_a_grid(truth_rows: list, prediction_rows: list) -> None:
    assert_equals_cocoeval(table(*truth_rows), table(*prediction_rows), 4, {1: "one", 2: "two", 3: "three"})


def many_boxes() -> tuple[BoxTable, BoxTable]:
    """9,000 true and 300,000 predicted boxes on 3,000 images."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> BoxTable:
        corner = rng.uniform(0, 2000, (count, 2))
        sides = np.concatenate([corner, corner + rng.uniform(50, 600, (count, 2))], axis=1)
        return BoxTable.of(rng.integers(0, 3000, count), rng.integers(1, 15, count), sides, rng.random(count))

    return boxes(9000), boxes(300_000)


def test_300_000_detections_take_little_memory() -> None:
    truth, predictions = many_boxes()
    few = predictions.select(np.arange(10))
    detection_metrics(truth, few, 3000, VINBIG)  # compiles, or loads the compiled kernels
    bootstrap_intervals(truth, few, np.arange(3000), VINBIG, 10)
    tracemalloc.start()
    detection_metrics(truth, predictions, 3000, VINBIG)
    bootstrap_intervals(truth, predictions, np.arange(3000), VINBIG, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 2**20  # 48 are the draws of the patients


def test_300_000_detections_equal_the_plain_reference() -> None:
    truth, predictions = many_boxes()
    truth = truth.select(truth.labels <= 2)
    predictions = predictions.select(predictions.labels <= 2)
    metrics = detection_metrics(truth, predictions, 3000, {1: "one", 2: "two"}, with_coco=False)
    expected = {}
    for label, name in ((1, "one"), (2, "two")):
        expected[name] = plain_ap(truth.select(truth.labels == label), predictions.select(predictions.labels == label))
    assert metrics["ap40"] == expected
    assert metrics["map40"] == math.fsum(expected.values()) / 2


def plain_ap(truth: BoxTable, predictions: BoxTable) -> float:
    """VOC 2010 AP of one category, an image at a time."""
    outcomes = []
    for image in range(3000):
        mine = truth.select(truth.images == image).boxes.tolist()
        rows = np.flatnonzero(predictions.images == image)
        taken = set()
        for row in rows[np.argsort(-predictions.scores[rows], kind="stable")].tolist():
            overlaps = [reference_iou(predictions.boxes[row].tolist(), box) for box in mine]
            best = int(np.argmax(overlaps)) if overlaps else -1
            right = best >= 0 and overlaps[best] > 0.4 and best not in taken
            taken.update([best] if right else [])
            outcomes.append((-predictions.scores[row], row, right))
    found, area, precisions = 0, [], []
    for seen, (_, _, right) in enumerate(sorted(outcomes), 1):
        found += right
        precisions.append(found / seen)
    highest = 0.0
    for precision, (_, _, right) in zip(reversed(precisions), sorted(outcomes, reverse=True), strict=True):
        highest = max(highest, precision)
        area += [highest] * right
    return math.fsum(area) / len(truth)
