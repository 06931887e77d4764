"""Overlaps, tables of boxes, and weighted boxes fusion held against the ensemble-boxes package."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion as reference_fusion
from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.errors import InputError
from xray.structures.boxes import BoxTable, box_iou, xywh_to_xyxy, xyxy_to_xywh
from xray.structures.fusion import FUSED_SCORES, soft_nms, weighted_boxes_fusion

THEIR_SCORES = [name for name in FUSED_SCORES if name != "sum"]


def test_rows_with_their_masks():
    table = BoxTable.of([0, 0, 1, 2], [1, 2, 1, 1], np.arange(16).reshape(4, 4))
    masks = {0: "a", 2: "c", 3: "d"}
    for rows in (np.array([3, 1, 0]), np.array([True, True, False, True])):
        chosen, of_chosen = table.select_masked(rows, masks)
        assert chosen.boxes.tolist() == table.boxes[rows].tolist()
        numbers = np.arange(4)[rows].tolist()
        assert of_chosen == {new: masks[old] for new, old in enumerate(numbers) if old in masks}


def test_iou_by_hand():
    first = [[0, 0, 10, 10], [5, 5, 5, 9]]
    second = [[5, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [2, 2, 4, 4], [5, 5, 5, 9]]
    # 50 of 150 pixels shared; the same; touching; 4 within 100; a box without area shares nothing, itself included.
    np.testing.assert_allclose(box_iou(first, second), [[1 / 3, 1, 0, 0.04, 0], [0, 0, 0, 0, 0]])


def test_iou_of_nothing_has_the_right_shape():
    assert box_iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert box_iou([[0, 0, 1, 1]], []).shape == (1, 0)


def test_xywh_is_not_xyxy():
    np.testing.assert_array_equal(xywh_to_xyxy([[10, 20, 5, 6]]), [[10, 20, 15, 26]])
    np.testing.assert_array_equal(xyxy_to_xywh([[10, 20, 15, 26]]), [[10, 20, 5, 6]])
    assert xywh_to_xyxy([]).shape == (0, 4)


def test_table_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="columns differ in length: 2, 1, 1, 2"):
        BoxTable.of([0, 1], [1], [[0, 0, 1, 1]])


def test_tables_concatenate_and_select():
    first = BoxTable.of([0, 1], [1, 2], [[0, 0, 1, 1], [0, 0, 2, 2]], [0.1, 0.2])
    both = BoxTable.concatenate([first, BoxTable.empty(), first])
    assert len(both) == 4
    chosen = both.select(both.labels == 2)
    np.testing.assert_array_equal(chosen.scores, [0.2, 0.2])
    assert len(BoxTable.concatenate([])) == 0


def test_best_per_image_keeps_the_highest_scores_of_each():
    images, scores = [1, 0, 1, 1, 0], [0.1, 0.5, 0.9, 0.3, 0.7]
    table = BoxTable.of(images, [1] * 5, [[0, 0, row + 1, 1] for row in range(5)], scores)
    best = table.best_per_image(2)
    np.testing.assert_array_equal(best.images, [0, 0, 1, 1])
    np.testing.assert_array_equal(best.scores, [0.7, 0.5, 0.9, 0.3])


def test_fusion_by_hand():
    # IoU 80 / 120; the fused box leans towards the score of 0.6: x1 = (0.6 * 0 + 0.3 * 2) / 0.9.
    table = BoxTable.of([0, 0, 0], [1, 1, 2], [[0, 0, 10, 10], [2, 0, 12, 10], [0, 0, 10, 10]], [0.6, 0.3, 0.5])
    fused = weighted_boxes_fusion(table, [0, 1, 1], [1, 1], iou_threshold=0.5)
    np.testing.assert_array_equal(fused.table.labels, [1, 2])
    np.testing.assert_allclose(fused.table.boxes, [[2 / 3, 0, 32 / 3, 10], [0, 0, 10, 10]])
    # Two models agree on the first: its mean score stands; one of two saw the second: its score is halved.
    np.testing.assert_allclose(fused.table.scores, [0.45, 0.25])
    np.testing.assert_array_equal(fused.counts, [2, 1])
    np.testing.assert_array_equal(fused.cluster, [0, 0, 1])


def test_summed_scores_by_hand():
    # Two models agree on the first box; of the two boxes of model 0 only the stronger, 0.4, counts. With equal weights
    # (0.4 + 0.3) / 2, with weights 1 and 2 (0.4 + 0.6) / 3; the last box is of one model alone.
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [50, 0, 60, 10], [50, 0, 60, 10], [90, 0, 99, 9]]
    table, models = BoxTable.of([0] * 6, [1] * 6, boxes, [0.4, 0.2, 0.3, 0.8, 0.7, 0.25]), [0, 0, 1, 0, 1, 0]
    for weights, expected in (
        ((1, 1), [0.75, 0.35, 0.125]),
        ((3, 3), [0.75, 0.35, 0.125]),
        ((1, 2), [2.2 / 3, 1 / 3, 0.25 / 3]),
    ):
        fused = weighted_boxes_fusion(table, models, weights, 0.5, score="sum")
        np.testing.assert_allclose(fused.table.scores, expected)
    # The fainter box of model 0 goes into the first cluster without moving it: the mean is that of the two that count.
    fused = weighted_boxes_fusion(table, models, (1, 1), 0.5, score="sum")
    assert fused.cluster.tolist() == [1, 1, 1, 0, 0, 2]
    assert fused.counts.tolist() == [2, 3, 1]
    np.testing.assert_allclose(fused.table.boxes[1], [0, 0, (0.4 * 10 + 0.3 * 9) / 0.7, 10])


def test_by_sums_faint_boxes_of_a_model_take_nothing_from_a_sure_one():
    # A detector leaves boxes that overlap by less than 0.5; two of them lie beside the sure one at more than 0.4.
    sure, beside = [0, 0, 100, 100], [[0, 30, 100, 105], [0, -5, 100, 60]]
    table = BoxTable.of([0] * 4, [1] * 4, [sure, sure, *beside], [0.9, 0.9, 0.01, 0.01])
    by_sum, by_average = (
        weighted_boxes_fusion(table, [0, 1, 0, 1], (1, 1), 0.4, score=name) for name in ("sum", "avg")
    )
    np.testing.assert_allclose(by_sum.table.scores, [0.9])
    np.testing.assert_array_equal(by_sum.table.boxes, [sure])
    assert by_average.table.scores[0] < 0.5


def test_soft_suppression_by_hand():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [0, 2.5, 10, 5], [0, 0, 10, 10]]
    table = BoxTable.of([0, 0, 0, 1], [1] * 4, boxes, [0.5, 0.8, 0.6, 0.3])
    # 0.8 is taken first, and shares 0.5 with each of the other two; then the third, which shares 0.25 with the first.
    strip = 0.6 * np.exp(-(0.5**2) / 0.5)
    whole = 0.5 * np.exp(-(0.5**2) / 0.5) * np.exp(-(0.25**2) / 0.5)
    np.testing.assert_allclose(soft_nms(table, 0.5), [whole, 0.8, strip, 0.3])


def test_fusion_never_crosses_images():
    box = [[0.0, 0, 10, 10]]
    fused = weighted_boxes_fusion(BoxTable.of([0, 1], [1, 1], box * 2, [0.5, 0.5]), [0, 1], [1, 1])
    np.testing.assert_array_equal(fused.table.images, [0, 1])


def test_boxes_below_the_threshold_or_without_area_belong_to_no_cluster():
    table = BoxTable.of([0] * 3, [1] * 3, [[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 9]], [0.5, 0.01, 0.9])
    fused = weighted_boxes_fusion(table, [0, 0, 0], [1], skip_threshold=0.05)
    np.testing.assert_array_equal(fused.cluster, [0, -1, -1])
    assert len(fused.table) == 1


@st.composite
def detections(draw):
    """Boxes of 1–3 models on up to three images, crowded enough that most of them overlap."""
    n_models = draw(st.integers(1, 3))
    n = draw(st.integers(1, 24))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner = random.uniform(0, 0.5, (n, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.5, (n, 2))], axis=1)
    # Distinct scores, so that the order in which boxes join clusters is the same in both programs.
    scores = (random.permutation(n) + random.uniform(0.2, 0.8, n)) / (n + 1)
    table = BoxTable.of(random.integers(0, 3, n), random.integers(1, 4, n), boxes, scores)
    weights = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=n_models, max_size=n_models))
    return table, random.integers(0, n_models, n), weights


@settings(max_examples=150, deadline=None)
@given(detections(), st.sampled_from(THEIR_SCORES), st.sampled_from([0.33, 0.4, 0.55]), st.sampled_from([0.0, 0.3]))
def test_fusion_agrees_with_ensemble_boxes(case, score, iou_threshold, skip_threshold):
    table, models, weights = case
    ours = weighted_boxes_fusion(table, models, weights, iou_threshold, skip_threshold, score).table
    for image in range(3):
        rows = [np.flatnonzero((table.images == image) & (models == model)) for model in range(len(weights))]
        boxes, scores, labels = reference_fusion(
            [table.boxes[of_model] for of_model in rows],
            [table.scores[of_model] for of_model in rows],
            [table.labels[of_model] for of_model in rows],
            weights=weights,
            iou_thr=iou_threshold,
            skip_box_thr=skip_threshold,
            conf_type=score,
        )
        mine = ours.select(ours.images == image)
        assert len(mine) == len(boxes)
        found = np.column_stack([mine.labels, mine.boxes, mine.scores])
        expected = np.column_stack([labels, boxes, scores]).reshape(-1, 6)
        by_place = [np.lexsort((rows_of[:, 1], rows_of[:, 2], rows_of[:, 0])) for rows_of in (found, expected)]
        np.testing.assert_allclose(found[by_place[0]], expected[by_place[1]], atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(detections(), st.sampled_from(THEIR_SCORES), st.sampled_from([0.33, 0.55]))
def test_of_equal_scores_the_first_row_joins_first(case, score, iou_threshold):
    # Scores in steps of 1/8, half the boxes drawn twice. ensemble-boxes takes equal scores in whatever order its sort
    # leaves them, so it is given ones that differ by too little to matter in what comes out.
    table, models, weights = case
    table, models = BoxTable.concatenate([table, table.select(slice(None, None, 2))]), np.append(models, models[::2])
    table = BoxTable(table.images, table.labels, table.boxes, np.ceil(8 * table.scores) / 8)
    apart = table.scores * (1 - 1e-12 * np.arange(len(table)))
    ours = weighted_boxes_fusion(table, models, weights, iou_threshold, score=score).table
    for image in range(3):
        rows = [np.flatnonzero((table.images == image) & (models == model)) for model in range(len(weights))]
        boxes, scores, labels = reference_fusion(
            [table.boxes[of_model] for of_model in rows],
            [apart[of_model] for of_model in rows],
            [table.labels[of_model] for of_model in rows],
            weights=weights,
            iou_thr=iou_threshold,
            conf_type=score,
        )
        mine = ours.select(ours.images == image)
        found = np.column_stack([mine.labels, mine.boxes, mine.scores])
        expected = np.column_stack([labels, boxes, scores]).reshape(-1, 6)
        assert_same_rows(found, expected, 1e-6)


@settings(max_examples=60, deadline=None)
@given(detections(), st.sampled_from([0.1, 0.5]))
def test_soft_suppression_agrees_with_ensemble_boxes(case, sigma):
    table, *_ = case
    lowered = {}
    for name, limit in (("python", 2**40), ("compiled", -1)):
        with mock.patch("xray.structures.fusion.UNCOMPILED", limit):
            lowered[name] = soft_nms(table, sigma)
    assert lowered["python"].tobytes() == lowered["compiled"].tobytes()
    for image, label in {*zip(table.images.tolist(), table.labels.tolist(), strict=True)}:
        rows = np.flatnonzero((table.images == image) & (table.labels == label))
        # The package lowers the scores that it is given in place, in the order that it returns.
        scores = table.scores[rows].copy()
        order = cpu_soft_nms_float(table.boxes[rows], scores, Nt=0.0, sigma=sigma, thresh=-1.0, method=2)
        np.testing.assert_allclose(lowered["python"][rows[order]], scores, rtol=1e-12)


def assert_same_rows(found, expected, tolerance):
    """Both have the same rows, in any order."""
    assert found.shape == expected.shape
    if len(found):
        distances = np.abs(found[:, None] - expected[None]).max(axis=2)
        assert distances.min(axis=1).max() <= tolerance
        assert distances.min(axis=0).max() <= tolerance


@settings(max_examples=50, deadline=None)
@given(detections(), st.sampled_from(FUSED_SCORES))
def test_python_fuses_to_the_last_bit_as_the_compiled_kernel(case, score):
    table, models, weights = case
    fused = {}
    for name, limit in (("python", 2**40), ("compiled", -1)):
        with mock.patch("xray.structures.fusion.UNCOMPILED", limit):
            fused[name] = weighted_boxes_fusion(table, models, weights, 0.4, score=score)
    for field in ("images", "labels", "boxes", "scores"):
        values = [getattr(fused[name].table, field) for name in fused]
        assert values[0].tobytes() == values[1].tobytes()
    assert fused["python"].counts.tolist() == fused["compiled"].counts.tolist()
    assert fused["python"].cluster.tolist() == fused["compiled"].cluster.tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FUSED_SCORES), st.integers(1, 30))
def test_parts_fused_apart_are_the_whole(seed, score, rows_a_part):
    # On a small grid, equal scores, overlaps of exactly the threshold, boxes without area and zero scores abound.
    random = np.random.default_rng(seed)
    n = random.integers(0, 60)
    corner = random.integers(0, 8, (n, 2))
    boxes = np.concatenate([corner, corner + random.integers(0, 6, (n, 2))], axis=1)
    table = BoxTable.of(random.integers(0, 5, n), random.integers(1, 3, n), boxes, random.integers(0, 5, n) / 4)
    models, weights = random.integers(0, 3, n), [1.0, 0.5, 2.0]
    with mock.patch("xray.structures.fusion.ROWS_A_PART", rows_a_part):
        in_parts = weighted_boxes_fusion(table, models, weights, 0.4, 0.1, score)
    expected = plain_fusion(table, models, weights, 0.4, 0.1, score)
    found = [
        *zip(in_parts.table.images, in_parts.table.labels, in_parts.table.boxes, in_parts.table.scores, strict=True)
    ]
    assert len(found) == len(expected)
    for row, (image, label, box, fused_score, members) in enumerate(expected):
        assert (found[row][0], found[row][1]) == (image, label)
        np.testing.assert_allclose(found[row][2], box, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[row][3], fused_score, rtol=0, atol=1e-12)
        assert np.flatnonzero(in_parts.cluster == row).tolist() == members
        assert in_parts.counts[row] == len(members)


def plain_fusion(table, models, weights, iou_threshold, skip_threshold, score):
    """Weighted boxes fusion as slowly as it reads → (image, label, box, score, rows) of each, in the order of Fused."""
    fused = []
    for image, label in sorted({*zip(table.images.tolist(), table.labels.tolist(), strict=True)}):
        mine = np.flatnonzero((table.images == image) & (table.labels == label)).tolist()
        mine = [row for row in mine if table.scores[row] >= skip_threshold and has_area(table.boxes[row])]
        clusters = []
        for row in sorted(mine, key=lambda row: -table.scores[row] * weights[models[row]]):
            overlaps = [
                box_iou([mean_box(table, models, weights, counted(rows, models, score))], [table.boxes[row]])[0, 0]
                for rows in clusters
            ]
            best = int(np.argmax(overlaps)) if overlaps else 0
            if overlaps and overlaps[best] > iou_threshold:
                clusters[best].append(row)
            else:
                clusters.append([row])
        for members in clusters:
            rows = counted(members, models, score)
            of = [weights[models[row]] for row in rows]
            weighted = [table.scores[row] * weights[models[row]] for row in rows]
            seen = sum(weights[model] for model in {*models[rows].tolist()})
            value = {
                "avg": sum(weighted) / len(rows) * min(len(weights), len(rows)) / sum(weights),
                "max": max(weighted) / max(weights),
                "box_and_model_avg": sum(weighted) / sum(of) * seen / sum(weights),
                "absent_model_aware_avg": sum(weighted) / (sum(of) + sum(weights) - seen),
                "sum": sum(weighted) / sum(weights),
            }[score]
            fused.append((image, label, mean_box(table, models, weights, rows), value, sorted(members)))
    return sorted(fused, key=lambda entry: (entry[0], -entry[3]))


def counted(rows, models, score):
    """The rows of a cluster that count: by "sum" the first, and strongest, of each model."""
    if score != "sum":
        return rows
    return [row for place, row in enumerate(rows) if models[row] not in [models[other] for other in rows[:place]]]


def has_area(box):
    return box[2] > box[0] and box[3] > box[1]


def mean_box(table, models, weights, rows):
    weighted = [table.scores[row] * weights[models[row]] for row in rows]
    if len(rows) == 1 or sum(weighted) == 0:
        return table.boxes[rows[0]]
    return sum(value * table.boxes[row] for value, row in zip(weighted, rows, strict=True)) / sum(weighted)


@pytest.mark.slow
def test_a_whole_test_set_takes_little_memory():
    # 3,000 radiographs, five models with mirrored views, 100 boxes each.
    random = np.random.default_rng(0)
    n, n_models = 300_000, 10
    corner = random.uniform(0, 2000, (n, 2))
    boxes = np.concatenate([corner, corner + random.uniform(60, 700, (n, 2))], axis=1)
    images, labels = np.repeat(np.arange(3000), 100), random.integers(1, 15, n)
    tables = [
        BoxTable.of(images, labels, boxes + random.uniform(0, 30, boxes.shape), random.random(n))
        for _ in range(n_models)
    ]
    table, models = BoxTable.concatenate(tables), np.repeat(np.arange(n_models), n)
    weighted_boxes_fusion(table.select([0]), [0], [1.0])  # compiles, or loads the compiled kernel
    tracemalloc.start()
    fused = weighted_boxes_fusion(table, models, [1.0] * n_models, 0.4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * 2**20  # the table itself takes 160
    assert fused.counts.sum() == len(table)
    # Each image by itself gives what it gives among the others.
    some = np.flatnonzero(table.images == 1234)
    alone = weighted_boxes_fusion(table.select(some), models[some], [1.0] * n_models, 0.4).table
    within = fused.table.select(fused.table.images == 1234)
    np.testing.assert_array_equal(alone.boxes, within.boxes)
    np.testing.assert_array_equal(alone.scores, within.scores)


@settings(max_examples=50, deadline=None)
@given(detections())
def test_a_fused_box_lies_within_the_hull_of_its_boxes(case):
    table, models, weights = case
    fused = weighted_boxes_fusion(table, models, weights, 0.4)
    np.testing.assert_array_equal(np.bincount(fused.cluster), fused.counts)
    for row in range(len(fused.table)):
        members = table.select(fused.cluster == row)
        assert set(members.labels) == {fused.table.labels[row]}
        assert set(members.images) == {fused.table.images[row]}
        assert (fused.table.boxes[row] >= members.boxes.min(axis=0) - 1e-9).all()
        assert (fused.table.boxes[row] <= members.boxes.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"weights": []}, "weights must be positive"),
        ({"weights": [1.0]}, "only 1 weights"),
        ({"models": [0]}, "2 boxes but 1 model numbers"),
        ({"score": "mean"}, "unknown fused score 'mean'"),
        ({"boxes": [[0, 0, np.nan, 1], [0, 0, 1, 1]]}, "finite"),
        ({"boxes": [[2, 0, 1, 1], [0, 0, 1, 1]]}, "finite"),
        ({"scores": [1.5, 0.5]}, "between 0 and 1"),
    ],
)
def test_unusable_input_is_refused(change, message):
    given_ = {"boxes": [[0, 0, 1, 1], [0, 0, 1, 1]], "scores": [0.5, 0.5], "models": [0, 1], "weights": [1.0, 1.0]}
    given_ |= {"score": "avg"} | change
    table = BoxTable.of([0, 0], [1, 1], given_["boxes"], given_["scores"])
    with pytest.raises(InputError, match=message):
        weighted_boxes_fusion(table, given_["models"], given_["weights"], score=given_["score"])
