"""Fusion of several models' predictions, against cases worked by hand and the ensemble-boxes package."""

import dataclasses
import math

import ensemble_boxes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.errors import FlagError
from xray.inference.ensemble import METHODS, ByCategory, Settings, fuse, fuse_alike, fuse_by_category, weigh
from xray.structures.boxes import BoxTable, box_iou
from xray.structures.fusion import FUSED_SCORES
from xray.structures.predictions import Predictions

UNIT = (0, 0, 1, 1)


def model(*rows: tuple, masks: dict | None = None) -> Predictions:
    """Rows of (image_id, category, box, score)."""
    names = list(dict.fromkeys(row[0] for row in rows))
    table = BoxTable.of(
        [names.index(r[0]) for r in rows], [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows]
    )
    return Predictions(tuple(names), table, masks or {})


def rows_of(predictions: Predictions) -> list[tuple]:
    table = predictions.table
    return [
        (predictions.image_ids[image], label, tuple(np.round(box, 6).tolist()), round(score, 6))
        for image, label, box, score in zip(
            table.images.tolist(), table.labels.tolist(), table.boxes, table.scores.tolist(), strict=True
        )
    ]


def test_wbf_averages_by_score_and_counts_the_models() -> None:
    # Widths 100 and 110, scores 0.6 and 0.2: the mean is (0.6 · 100 + 0.2 · 110) / 0.8 = 102.5 wide, its score
    # (0.6 + 0.2) / 2 = 0.4. A box that only one model of two has keeps its place and half its score.
    a = model(("x", 1, (0, 0, 100, 100), 0.6), ("x", 2, (0, 0, 50, 50), 0.8))
    b = model(("x", 1, (0, 0, 110, 100), 0.2))
    expected = [("x", 1, (0.0, 0.0, 102.5, 100.0), 0.4), ("x", 2, (0.0, 0.0, 50.0, 50.0), 0.4)]
    assert sorted(rows_of(fuse([a, b]))) == expected


def test_weights_shift_the_mean() -> None:
    # Weights 3 and 1: (3 · 0.5 · 100 + 1 · 0.5 · 120) / (3 · 0.5 + 0.5) = 105.
    a, b = model(("x", 1, (0, 0, 100, 100), 0.5)), model(("x", 1, (0, 0, 120, 100), 0.5))
    fused = fuse([a, b], weights=[3, 1])
    assert rows_of(fused) == [("x", 1, (0.0, 0.0, 105.0, 100.0), 0.5)]


def test_images_that_one_model_does_not_know_come_along() -> None:
    a = model(("x", 1, (0, 0, 10, 10), 0.6))
    b = model(("y", 1, (0, 0, 10, 10), 0.8), ("x", 1, (0, 0, 10, 10), 0.4))
    fused = fuse([a, b])
    assert fused.image_ids == ("x", "y")
    assert rows_of(fused) == [("x", 1, (0.0, 0.0, 10.0, 10.0), 0.5), ("y", 1, (0.0, 0.0, 10.0, 10.0), 0.4)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("score", FUSED_SCORES)
def test_a_model_has_no_vote_where_it_was_not_run(method: str, score: str) -> None:
    """Each radiograph is as if only the models that were run on it had been given."""
    rng = np.random.default_rng(3)
    run_on = ["xyz", "xy", "xz"]
    models = []
    for names in run_on:
        corner = rng.uniform(0, 200, (60, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(50, 300, (60, 2))], axis=1)
        table = BoxTable.of(np.arange(60) % len(names), rng.integers(1, 3, 60), boxes, rng.uniform(0, 1, 60))
        models.append(Predictions(tuple(names), table))
    settings_ = Settings((3, 1, 2), method, score)
    one_kept = {2: Settings((0, 1, 0), "none")}
    fused = rows_of(fuse_by_category(models, ByCategory(settings_, one_kept), list(map(set, run_on))))
    for name, chosen in (("x", [0, 1, 2]), ("y", [0, 1]), ("z", [0, 2])):
        alone = [_of_image(models[number], name) for number in chosen]
        weights = tuple((3, 1, 2)[number] for number in chosen)
        # Where the only model that counts was not run, the others do.
        own = one_kept[2].of_models(np.array(chosen)) if 1 in chosen else Settings()
        expected = rows_of(fuse_by_category(alone, ByCategory(Settings(weights, method, score), {2: own})))
        assert [row for row in fused if row[0] == name] == expected
        assert {row[1] for row in expected} == {1, 2}


def _of_image(predictions: Predictions, name: str) -> Predictions:
    rows = predictions.table.images == predictions.image_ids.index(name)
    table = predictions.table.select(rows)
    return Predictions((name,), dataclasses.replace(table, images=np.zeros(len(table), dtype=np.int64)))


def test_a_model_that_was_run_and_found_nothing_counts() -> None:
    a, b = model(("x", 1, (0, 0, 10, 10), 0.6)), model(("y", 1, (0, 0, 10, 10), 0.8))
    for covered, scores in (
        ([{"x"}, {"y"}], [0.6, 0.8]),
        ([{"x", "y"}, {"y"}], [0.6, 0.4]),
        ([{"x"}, None], [0.3, 0.8]),
        ([{"x", "y"}, {"x", "y"}], [0.3, 0.4]),
    ):
        assert [row[3] for row in rows_of(fuse([a, b], covered=covered))] == scores


@pytest.mark.parametrize("method", METHODS)
def test_no_finding_is_a_probability_not_a_box(method: str) -> None:
    # x: (1 · 0.9 + 3 · 0.5) / 4 = 0.6. y: only the second model says. A box of another category at the same place,
    # and a low skip threshold's victim, change nothing about it.
    a = model(("x", 15, UNIT, 0.9), ("x", 1, UNIT, 0.3))
    b = model(("x", 15, UNIT, 0.5), ("y", 15, UNIT, 0.2))
    fused = fuse([a, b], weights=[1, 3], method=method, skip_threshold=0.31)
    assert rows_of(fused) == [("x", 15, (0.0, 0.0, 1.0, 1.0), 0.6), ("y", 15, (0.0, 0.0, 1.0, 1.0), 0.2)]


@pytest.mark.parametrize("score", FUSED_SCORES)
def test_only_the_ratios_of_weights_count(score: str) -> None:
    a = model(("x", 15, UNIT, 0.9), ("x", 1, (0, 0, 100, 100), 0.7), ("x", 1, (0, 0, 90, 100), 0.3))
    b = model(("x", 15, UNIT, 0.5), ("x", 1, (0, 0, 110, 100), 0.6))
    expected = rows_of(fuse([a, b], weights=[1, 3], score=score))
    for scale in (2.0**1020, 2.0**-1060):
        assert rows_of(fuse([a, b], weights=[scale, 3 * scale], score=score)) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("score", FUSED_SCORES)
def test_weights_that_vanish_beside_others_still_divide(score: str, method: str) -> None:
    """1e-300 is 0 beside 1e300; a box that only its model has keeps a score that is a number."""
    a, b = model(("x", 1, (0, 0, 100, 100), 0.5)), model(("x", 1, (500, 500, 600, 600), 0.5))
    rows = rows_of(fuse([a, b], weights=[1e-300, 1e300], score=score, method=method))
    # "nmw" computes in float32.
    assert [tuple(np.round(row[2], 3)) for row in rows] == [(500.0, 500.0, 600.0, 600.0), (0.0, 0.0, 100.0, 100.0)]
    assert all(0 <= row[3] <= 0.5 for row in rows)


def test_by_sum_a_box_keeps_the_mask_of_the_strongest_box_that_counts() -> None:
    masks = [{"size": [1, 1], "counts": name} for name in ("sure", "faint", "other")]
    boxes = (("x", 1, (0, 0, 100, 90), 0.5), ("x", 1, (0, 0, 100, 100), 0.8))
    a, b = model(*boxes, masks={0: masks[1], 1: masks[0]}), model(("x", 1, (0, 0, 100, 100), 0.6), masks={0: masks[2]})
    fused = fuse([a, b])
    assert rows_of(fused) == [("x", 1, (0.0, 0.0, 100.0, 100.0), pytest.approx(0.7))]
    assert fused.masks == {0: masks[0]}


def test_a_mask_follows_its_box() -> None:
    weak, strong = {"size": [1, 1], "counts": "weak"}, {"size": [1, 1], "counts": "strong"}
    a = model(("x", 13, (0, 0, 100, 100), 0.6), ("x", 1, (0, 0, 9, 9), 0.9), masks={0: weak})
    b = model(("x", 13, (0, 0, 105, 100), 0.8), masks={0: strong})
    c = model(("x", 13, (0, 0, 100, 105), 0.95))
    for method in ("wbf", "nmw"):
        fused = fuse([a, b, c], method=method)
        row = fused.table.labels.tolist().index(13)
        assert fused.masks == {row: strong}, method
    assert fuse([a, c], method="nms").masks == {}  # the strongest box has none
    soft = fuse([a, b], method="soft_nms")
    assert [soft.masks.get(row, {}).get("counts") for row in np.flatnonzero(soft.table.labels == 13)] == [
        "strong",
        "weak",
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_masks_follow_the_strongest_member_that_has_one(seed: int) -> None:
    # Masks are named after the row they come from; a box is told by its width, which no other has.
    rng = np.random.default_rng(seed)
    models, rows = [], []
    for _ in range(3):
        some = []
        for _ in range(rng.integers(0, 15)):
            width = 100 + len(rows)
            box, score = (0, 0, width, 100), rng.integers(1, 5) / 4
            some.append((str(rng.integers(2)), 1 + 14 * int(rng.integers(2)), box, score))
            rows.append((*some[-1][:2], score, bool(rng.integers(2))))
        first = len(rows) - len(some)
        models.append(model(*some, masks={k: {"row": first + k} for k in range(len(some)) if rows[first + k][3]}))
    # Widths of 100 to 145 overlap by more than 0.6: one box an image and category.
    fused = fuse(models, iou_threshold=0.5)
    expected = {}
    for row, (image, label, score, has_mask) in enumerate(rows):
        if has_mask and ((image, label) not in expected or score > rows[expected[image, label]][2]):
            expected[image, label] = row
    table = fused.table
    found = {(fused.image_ids[table.images[k]], int(table.labels[k])): mask["row"] for k, mask in fused.masks.items()}
    assert found == expected
    assert list(fused.masks) == sorted(fused.masks)


def test_nms_keeps_the_strongest() -> None:
    # IoU 100 / 110 = 0.91 of the first two; the third lies apart. Model weights 1 and 2 make the second 0.35 of 0.7.
    a = model(("x", 1, (0, 0, 100, 100), 0.7))
    b = model(("x", 1, (0, 0, 110, 100), 0.6), ("x", 1, (500, 0, 600, 100), 0.1))
    apart = ("x", 1, (500.0, 0.0, 600.0, 100.0), 0.1)
    assert rows_of(fuse([a, b], method="nms")) == [("x", 1, (0.0, 0.0, 100.0, 100.0), 0.7), apart]
    assert rows_of(fuse([a, b], [1, 2], method="nms")) == [("x", 1, (0.0, 0.0, 110.0, 100.0), 0.6), apart]


def test_soft_nms_lowers_the_weaker() -> None:
    # IoU 100 / 125 = 0.8: the weaker score becomes 0.6 · exp(-0.8² / 0.5).
    a, b = model(("x", 1, (0, 0, 100, 100), 0.9)), model(("x", 1, (0, 0, 125, 100), 0.6))
    fused = rows_of(fuse([a, b], method="soft_nms"))
    lowered = round(0.6 * math.exp(-(0.8**2) / 0.5), 6)
    assert fused == [("x", 1, (0.0, 0.0, 100.0, 100.0), 0.9), ("x", 1, (0.0, 0.0, 125.0, 100.0), lowered)]


def test_nmw_averages_by_overlap() -> None:
    # Weights score × IoU with the strongest: 0.8 · 1 and 0.5 · 0.8 = 0.4: width (0.8 · 100 + 0.4 · 125) / 1.2.
    a, b = model(("x", 1, (0, 0, 100, 100), 0.8)), model(("x", 1, (0, 0, 125, 100), 0.5))
    (image, label, box, score), *others = rows_of(fuse([a, b], method="nmw"))
    assert (image, label, score, others) == ("x", 1, 0.8, [])
    np.testing.assert_allclose(box, (0, 0, (80 + 50) / 1.2, 100), atol=1e-3)


def test_none_keeps_all_and_sigma_says_how_soft() -> None:
    a, b = model(("x", 1, (0, 0, 100, 100), 0.9)), model(("x", 1, (0, 0, 125, 100), 0.6))
    kept = rows_of(fuse([a, b], [1, 2], method="none"))
    assert kept == [("x", 1, (0.0, 0.0, 125.0, 100.0), 0.6), ("x", 1, (0.0, 0.0, 100.0, 100.0), 0.45)]
    lowered = rows_of(fuse([a, b], method="soft_nms", sigma=0.1))[1]
    assert lowered[3] == round(0.6 * math.exp(-(0.8**2) / 0.1), 6)


def test_boxes_are_scaled_about_their_middle_but_for_those_with_a_mask() -> None:
    mask = {"size": [1, 1], "counts": "mask"}
    a = model(("x", 13, (10, 10, 50, 90), 0.9), ("x", 1, (100, 100, 200, 300), 0.8), masks={0: mask})
    for method in METHODS:
        fused = fuse([a, a], method=method, scale=0.875)
        boxes = {label: tuple(box) for label, box in zip(fused.table.labels, fused.table.boxes.tolist(), strict=True)}
        np.testing.assert_allclose(boxes[13], (10, 10, 50, 90), atol=1e-4)
        # 100 x 200 becomes 87.5 x 175 about (150, 200).
        np.testing.assert_allclose(boxes[1], (106.25, 112.5, 193.75, 287.5), atol=1e-3)


def test_each_category_by_its_own_settings() -> None:
    a = model(("x", 1, (0, 0, 100, 100), 0.6), ("x", 2, (0, 0, 50, 50), 0.8), ("y", 3, (0, 0, 9, 9), 0.5))
    b = model(("x", 1, (0, 0, 110, 100), 0.2), ("x", 2, (0, 0, 50, 40), 0.4), ("x", 15, UNIT, 0.5))
    own = {1: Settings(score="sum"), 2: Settings(weights=(0, 2)), 4: Settings(method="nms")}
    fused = fuse_by_category([a, b], ByCategory(Settings(score="max"), own))
    assert sorted(rows_of(fused)) == [
        ("x", 1, (0.0, 0.0, 102.5, 100.0), 0.4),
        ("x", 2, (0.0, 0.0, 50.0, 40.0), 0.4),  # the second model alone, as if there were no other
        ("x", 15, (0.0, 0.0, 1.0, 1.0), 0.5),
        ("y", 3, (0.0, 0.0, 9.0, 9.0), 0.5),
    ]
    # With the same settings for all it does not matter how they are grouped.
    same = fuse_by_category([a, b], ByCategory(Settings(), {2: Settings()}))
    assert rows_of(same) == rows_of(fuse([a, b]))
    with pytest.raises(FlagError, match="3 weights for 2"):
        fuse_by_category([a, b], ByCategory(Settings(), {1: Settings(weights=(1, 1, 1))}))


def test_probabilities_weigh_scores_and_cut_nothing() -> None:
    a = model(
        ("x", 1, (0, 0, 9, 9), 0.5), ("x", 2, (0, 0, 9, 9), 0.4), ("y", 1, (0, 0, 9, 9), 0.3), ("x", 15, UNIT, 0.7)
    )
    by = ByCategory(Settings(), {2: Settings(exponents=(2, 1))})
    weighed = weigh(a, {1: {"x": 0.25}, 2: {"x": 0.5, "y": 0.1}, 15: {"x": 0.1}}, by)
    assert rows_of(weighed) == [
        ("x", 15, (0.0, 0.0, 1.0, 1.0), 0.7),  # no box
        ("x", 1, (0.0, 0.0, 9.0, 9.0), 0.25),  # 0.5 · √0.25
        ("x", 2, (0.0, 0.0, 9.0, 9.0), 0.08),  # 0.4² · 0.5
        ("y", 1, (0.0, 0.0, 9.0, 9.0), 0.3),  # not known
    ]


box = st.tuples(*[st.integers(0, 20)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
row = st.tuples(st.sampled_from("xy"), st.integers(1, 2), box, st.integers(0, 100).map(lambda n: n / 100))
files = st.lists(st.lists(row, max_size=12), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(files, st.sampled_from(METHODS), st.data())
def test_any_input_gives_sound_output(rows: list, method: str, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(rows), max_size=len(rows)))
    fused = fuse([model(*some) for some in rows], weights, method=method)
    table = fused.table
    assert set(fused.image_ids) == {entry[0] for some in rows for entry in some}
    assert np.isfinite(table.boxes).all()
    assert (table.boxes[:, 2:] >= table.boxes[:, :2]).all()
    assert ((table.scores >= 0) & (table.scores <= 1)).all()
    assert (np.diff(table.images) >= 0).all()
    same = np.diff(table.images) == 0
    assert (np.diff(table.scores)[same] <= 0).all()


@pytest.mark.parametrize("method", ["wbf", "nms", "nmw"])
def test_agrees_with_the_package_on_one_image(method: str) -> None:
    rng = np.random.default_rng(4)
    models, boxes, scores, labels = [], [], [], []
    scores_left = rng.permutation(np.arange(1, 41)) / 41  # all different, for their order to be determined
    for number in range(2):
        corner = rng.uniform(0, 700, (20, 2))
        some = np.concatenate([corner, corner + rng.uniform(50, 300, (20, 2))], axis=1)
        kinds, mine = rng.integers(1, 4, 20), scores_left[20 * number : 20 * number + 20]
        models.append(Predictions(("x",), BoxTable.of(np.zeros(20), kinds, some, mine)))
        boxes.append(some / 1000)
        scores.append(mine)
        labels.append(kinds)
    call = {
        "wbf": ensemble_boxes.weighted_boxes_fusion,
        "nms": ensemble_boxes.nms,
        "nmw": ensemble_boxes.non_maximum_weighted,
    }[method]
    theirs, their_scores, their_labels = call(boxes, scores, labels, iou_thr=0.4)
    ours = fuse(models, iou_threshold=0.4, method=method, score="avg").table
    order = np.argsort(-np.asarray(their_scores), kind="stable")
    np.testing.assert_allclose(ours.scores, np.asarray(their_scores)[order], atol=1e-6)
    np.testing.assert_array_equal(ours.labels, np.asarray(their_labels)[order])
    np.testing.assert_allclose(ours.boxes / 1000, np.asarray(theirs)[order], atol=1e-5)


def test_wrong_settings_are_refused() -> None:
    a = model(("x", 1, (0, 0, 10, 10), 0.6))
    for settings_, words in (
        ({"weights": [1]}, "1 weights for 2"),
        ({"weights": [1, 0]}, "positive"),
        ({"weights": [1, math.nan]}, "positive"),
        ({"iou_threshold": 1.0}, "IoU threshold"),
        ({"skip_threshold": -0.1}, "skip threshold"),
        ({"method": "mean"}, "mean"),
        ({"score": "total"}, "total"),
        ({"sigma": 0}, "sigma"),
        ({"scale": 1.2}, "scale"),
    ):
        with pytest.raises(FlagError, match=words):
            fuse([a, a], **settings_)
    with pytest.raises(FlagError, match="nothing"):
        fuse([])


def test_a_faint_box_beside_a_sure_one_moves_no_edge_and_takes_no_score():
    """Both are of one view, which keeps boxes that overlap by less than 0.5."""
    sure, faint = [10.0, 10, 30, 30], [18.0, 10, 38, 30]
    assert box_iou(np.array([sure]), np.array([faint])).item() == pytest.approx(240 / 560)
    table = BoxTable.of([0, 0, 0], [1, 1, 1], [sure, faint, sure], [0.9, 0.3, 0.9])
    fused = fuse_alike(table, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(fused.boxes, [sure])
    np.testing.assert_allclose(fused.scores, [0.9])
    # Only one view has this one.
    alone = fuse_alike(BoxTable.of([0], [1], [faint], [0.3]), np.array([0]), 2)
    np.testing.assert_allclose(alone.scores, [0.15])
