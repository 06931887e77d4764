"""Refinement of pneumothorax boxes by masks, against cases worked by hand and against plain loops."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.evaluation.box_matching import match_boxes
from xray.evaluation.box_metrics import average_precision
from xray.inference.refine import PNEUMOTHORAX_CATEGORY, Refinement, refine
from xray.inference.refine_fit import GRID, INDIFFERENT, cross_validate, fit_refinement
from xray.structures.boxes import BoxTable

PTX = PNEUMOTHORAX_CATEGORY


def table(*rows):
    """Rows of (image, label, box, score)."""
    images, labels, boxes, scores = zip(*rows, strict=True)
    return BoxTable.of(images, labels, boxes, scores)


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def filled(x1, y1, x2, y2, size=100):
    mask = np.zeros((size, size), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


BOXES = table(
    (0, PTX, (0, 0, 40, 40), 0.8),
    (0, 4, (10, 10, 50, 50), 0.9),
    (1, PTX, (0, 0, 10, 10), 0.6),
)
COMPONENTS = table((0, 1, (10, 10, 30, 50), 0.9), (1, 1, (60, 60, 80, 80), 0.5))
MASKS = {0: rle(filled(10, 10, 30, 50)), 1: rle(filled(60, 60, 80, 80))}


def test_the_default_changes_nothing_but_attaches_masks():
    refined, masks = refine(BOXES, COMPONENTS, MASKS, Refinement())
    np.testing.assert_array_equal(refined.boxes, BOXES.boxes)
    np.testing.assert_array_equal(refined.scores, BOXES.scores)
    assert masks == {0: MASKS[0]}


@pytest.mark.parametrize("masks", [{}, MASKS])
def test_a_box_moves_and_keeps_its_score_as_far_as_the_evidence_goes(masks):
    refined, _ = refine(BOXES, COMPONENTS, masks, Refinement(dilation=0, shift=0.5, penalty=0.4))
    # Of the component's 40 rows 30 lie inside: the evidence is 0.9 × 0.75 = 0.675. The box goes 0.3375 of the way from
    # (0, 0, 40, 40) to (10, 10, 30, 50), the score becomes 0.8 × (1 − 0.4 × 0.325) = 0.696.
    np.testing.assert_allclose(refined.boxes[0], (3.375, 3.375, 36.625, 43.375))
    assert refined.scores[0] == pytest.approx(0.696)
    # Nothing near the box of radiograph 1: it stays where it is, 0.6 × (1 − 0.4) = 0.36.
    np.testing.assert_allclose(refined.boxes[2], (0, 0, 10, 10))
    assert refined.scores[2] == pytest.approx(0.36)
    # Other findings are none of its business.
    np.testing.assert_array_equal(refined.boxes[1], BOXES.boxes[1])
    assert refined.scores[1] == 0.9


def test_the_mask_counts_and_not_its_box():
    # An L: 80 pixels down from (10, 10), 36 along the bottom. Its box is that of COMPONENTS' first.
    ell = {0: rle(filled(10, 10, 12, 50) | filled(12, 48, 30, 50))}
    boxes = table((0, PTX, (0, 0, 40, 40), 0.8), (0, PTX, (14, 14, 28, 44), 0.8))
    refined, attached = refine(boxes, COMPONENTS.select([0]), ell, Refinement(dilation=0, shift=1, penalty=1))
    assert refined.scores[0] == pytest.approx(0.8 * 0.9 * 60 / 116)
    # The second box lies in the component's box, where the mask is not: no evidence, no mask.
    assert refined.scores[1] == 0
    np.testing.assert_array_equal(refined.boxes[1], boxes.boxes[1])
    assert set(attached) == {0}


def test_the_dilated_box_reaches_a_component_beside_it():
    beside = table((0, 1, (41, 0, 60, 40), 0.9))
    alone = BOXES.select(np.array([0]))
    assert refine(alone, beside, {}, Refinement(dilation=0.0, penalty=1.0))[0].scores[0] == 0
    # Grown by 4 pixels, the box covers 3 of the component's 19 columns.
    grown = refine(alone, beside, {0: rle(filled(41, 0, 60, 40))}, Refinement(dilation=0.1, penalty=1.0))[0]
    assert grown.scores[0] == pytest.approx(0.8 * 0.9 * 3 / 19)


def test_of_two_components_a_box_follows_the_one_that_it_overlaps_more():
    speck, own = (1, 1, 5, 5), (5, 5, 45, 35)
    two = table((0, 1, speck, 0.99), (0, 1, own, 0.6))
    refined, attached = refine(
        BOXES.select([0]), two, {0: rle(filled(*speck)), 1: rle(filled(*own))}, Refinement(dilation=0.25, shift=1.0)
    )
    # All of it lies inside: 0.6 of the way from (0, 0, 40, 40).
    np.testing.assert_allclose(refined.boxes[0], (3, 3, 43, 37))
    assert attached[0]["counts"] == rle(filled(*own))["counts"]


def test_a_component_without_a_box_becomes_a_low_scored_box_with_its_mask():
    refined, masks = refine(BOXES, COMPONENTS, MASKS, Refinement(unmatched=0.2))
    assert len(refined) == 4
    np.testing.assert_array_equal(refined.boxes[3], (60, 60, 80, 80))
    assert (refined.images[3], refined.labels[3]) == (1, PTX)
    assert refined.scores[3] == pytest.approx(0.1)
    assert masks == {0: MASKS[0], 3: MASKS[1]}


def test_a_box_on_a_component_that_is_surer_takes_its_score_and_is_not_doubled():
    # The component's own box would have 0.2 × 0.5 = 0.1.
    on, wide, far = (60, 60, 80, 80), (60, 60, 80, 95), (50, 50, 95, 95)
    for scores, expected in (((0.3, 0.01, 0.01), (0.3, 0.01, 0.01)), ((0.01, 0.02, 0.05), (0.01, 0.1, 0.05))):
        boxes = table(*((1, PTX, box, score) for box, score in zip((on, wide, far), scores, strict=True)))
        refined, attached = refine(boxes, COMPONENTS.select([1]), {0: MASKS[1]}, Refinement(unmatched=0.2))
        # Of two that overlap it by half (20 / 35 the second) the surer one, and never the third (400 / 2025).
        np.testing.assert_allclose(refined.scores, expected)
        np.testing.assert_array_equal(refined.boxes, boxes.boxes)
        assert set(attached) == {0, 1, 2}
    # It alone follows, and overlaps too little: the component has a box of its own.
    refined, _ = refine(table((1, PTX, far, 0.05)), COMPONENTS.select([1]), {}, Refinement(unmatched=0.2))
    np.testing.assert_allclose(refined.scores, (0.05, 0.1))


def test_boxes_have_moved_before_they_lie_on_a_component():
    boxes = table((1, PTX, (50, 60, 70, 80), 0.3))  # shares a third with the component
    setting = Refinement(dilation=0, shift=1, unmatched=1)
    refined, _ = refine(boxes, table((1, 1, (60, 60, 80, 80), 0.9)), {}, setting)
    # Half of the component lies inside, so that the box goes 0.45 of the way: to (54.5, 60, 74.5, 80), and to 29 / 51.
    np.testing.assert_allclose(refined.boxes, [(54.5, 60, 74.5, 80)])
    np.testing.assert_allclose(refined.scores, [0.9])


def test_a_sure_box_that_holds_little_of_a_component_does_not_stand_for_it():
    # 2 of 20 columns: 0.1 of the component × 0.8 is less than 0.2 × 0.5.
    boxes = table((1, PTX, (42, 60, 62, 80), 0.8))
    refined, _ = refine(boxes, COMPONENTS.select([1]), {}, Refinement(dilation=0, unmatched=0.2))
    np.testing.assert_array_equal(refined.boxes, [(42, 60, 62, 80), (60, 60, 80, 80)])


def test_any_category_can_be_refined():
    boxes = table((0, 1, (0, 0, 40, 40), 0.8), (0, PTX, (0, 0, 40, 40), 0.8))
    refined, _ = refine(boxes, COMPONENTS.select([0]), {}, Refinement(dilation=0, penalty=1), category=1)
    np.testing.assert_allclose(refined.scores, [0.8 * 0.675, 0.8])


@pytest.mark.parametrize("named", [{}, {"pull": 0.5, "doubt": 1, "orphan": 0}, {"intercept": -40, "of_boxes": 3.5}])
def test_a_setting_of_any_version_is_read(named):
    names = {"pull": "shift", "doubt": "penalty", "orphan": "unmatched"}
    expected = Refinement(**{names.get(name, name): value for name, value in named.items()})
    assert Refinement.of(named) == expected
    assert Refinement.of(dataclasses.asdict(expected)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Refinement)])
def test_a_setting_that_no_fit_gives_is_damaged(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        Refinement.of({name: value})


@pytest.mark.parametrize("damaged", [{"shift": 1.1}, {"of_mask": -1}, {"other": 1}, {"shift": None}, [], None, "x"])
def test_a_damaged_setting(damaged):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        Refinement.of(damaged)


def test_without_components_and_without_boxes():
    refined, masks = refine(BOXES, BoxTable.empty(), {}, Refinement(shift=1, penalty=0.5, unmatched=1))
    np.testing.assert_allclose(refined.scores, [0.4, 0.9, 0.3])
    assert masks == {}
    refined, _ = refine(BoxTable.empty(), COMPONENTS, {}, Refinement(unmatched=1.0))
    np.testing.assert_array_equal(refined.boxes, COMPONENTS.boxes)
    assert refined.labels.tolist() == [PTX, PTX]


SIDE = st.integers(0, 12)


@given(
    st.lists(st.booleans(), min_size=120, max_size=120).filter(any),
    st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), min_size=1, max_size=6),
)
def test_the_evidence_is_the_share_of_pixels_inside(pixels, corners):
    mask = np.array(pixels).reshape(10, 12)
    x, y, width, height = coco_mask.toBbox(rle(mask)).astype(int)
    component = table((0, 1, (x, y, x + width, y + height), 1.0))
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    refined, _ = refine(
        table(*((0, PTX, box, 1.0) for box in boxes)), component, {0: rle(mask)}, Refinement(dilation=0, penalty=1)
    )
    expected = [mask[y1:y2, x1:x2].sum() / mask.sum() for x1, y1, x2, y2 in boxes]
    np.testing.assert_allclose(refined.scores, expected, atol=1e-12)


def shifted(images, dx, mask_dx, p):
    """True boxes of 30 pixels, found `dx` to the right, and components `mask_dx` to the right."""
    rng = np.random.default_rng(0)
    truths, found, components = [], [], []
    for image in images:
        x, y = rng.uniform(0, 50, 2)
        box = np.array([x, y, x + 30, y + 30])
        truths.append((image, PTX, box, 1.0))
        found.append((image, PTX, box + np.array([dx, 0, dx, 0]), rng.uniform(0.2, 0.9)))
        components.append((image, 1, box + np.array([mask_dx, 0, mask_dx, 0]), p))
    return table(*truths), table(*found), table(*components)


def test_fitting_finds_what_helps_and_never_ends_below_the_start():
    # The detector's boxes are shifted by half a side (IoU 1 / 3), the masks by a pixel.
    setting, before, after = fit_refinement(*shifted(range(10), 15, 1, 0.95))
    assert (before, after) == (0, 1)
    assert setting.shift > 0
    # With masks that only mislead, the best is to leave everything as it is.
    setting, before, after = fit_refinement(*shifted(range(10), 0, 20, 0.3))
    assert (before, after) == (1, 1)
    assert setting == GRID[0]


def test_fitting_agrees_with_a_plain_search():
    rng = np.random.default_rng(1)
    xy, sides = rng.uniform(0, 70, (400, 2)), rng.uniform(10, 40, (400, 2))
    boxes = np.hstack([xy, xy + sides])
    images = rng.integers(0, 30, 400)
    truth = BoxTable.of(images[:20], [PTX] * 20, boxes[:20])
    components = BoxTable.of(images[:25], [1] * 25, boxes[:25] + rng.normal(0, 3, (25, 4)), rng.uniform(0.5, 1, 25))
    noisy = boxes + np.where(np.arange(400) < 40, rng.normal(0, 6, (4, 400)), 0).T
    found = BoxTable.of(images, [PTX] * 400, np.sort(noisy.reshape(400, 2, 2), axis=1).reshape(400, 4), rng.random(400))
    settings = GRID[::7]
    plain = []
    for setting in settings:
        refined, _ = refine(found, components, {}, setting)
        matches = match_boxes(truth, refined)
        plain.append(average_precision(matches.is_true[matches.order], len(truth)))
    best = next(n for n, ap in enumerate(plain) if ap >= max(plain) - INDIFFERENT / 20)
    assert best > 0
    assert fit_refinement(truth, found, components, settings=settings, confidence=False) == (
        settings[best],
        plain[0],
        plain[best],
    )


def test_fitting_without_truth_changes_nothing():
    setting, before, after = fit_refinement(BoxTable.empty(), BOXES, COMPONENTS)
    assert setting == GRID[0]
    assert np.isnan(before)
    assert np.isnan(after)


def test_cross_validation_scores_patients_that_were_not_fitted_on():
    helpful, misleading = shifted(range(10), 15, 1, 0.95), shifted(range(10, 20), 0, 20, 0.95)
    parts = [BoxTable.concatenate(pair) for pair in zip(helpful, misleading, strict=True)]
    assert fit_refinement(*parts)[2] == 1
    # One patient alone learns to follow the masks, the other not to: what either learnt is of no use to the other.
    assert cross_validate(*parts, {}, np.repeat([0, 1], 10)) == (0.5, 0.5)
    # Patients of both kinds in both halves are alike.
    before, after = cross_validate(*helpful, {}, np.arange(10))
    assert (before, after) == (0, 1)
    assert np.isnan(cross_validate(*helpful, {}, np.zeros(10, dtype=int))[1])


def test_a_component_alone_gets_its_confidence_and_not_its_score():
    # logit(0.5) = 0, and the best box of radiograph 1 has 0.6: σ(−2 + 2 × 0 + ln 1.5) = 1 / (1 + e² / 1.5).
    setting = Refinement(unmatched=0.5, intercept=-2, of_mask=2, of_boxes=1)
    refined, masks = refine(BOXES, COMPONENTS.select([1]), {0: MASKS[1]}, setting)
    assert refined.scores[3] == pytest.approx(0.5 / (1 + np.exp(2) / 1.5))
    assert set(masks) == {3}
    # Boxes of another finding are no evidence: there is none, which counts as 0.001.
    others = BOXES.select([1])
    refined, _ = refine(others, COMPONENTS.select([0]), {}, Refinement(unmatched=1, of_mask=0, of_boxes=1))
    assert refined.scores[1] == pytest.approx(0.001)


def mixed(n, share, rng):
    """Truth, boxes and components of n radiographs: the detector misplaces each finding, and masks show one in every
    radiograph, whether there is one or not."""
    corners = rng.uniform(0, 50, (n, 2))
    boxes = np.hstack([corners, corners + 30])
    is_ill = rng.random(n) < share
    images, labels = np.arange(n), np.full(n, PTX)
    truth = BoxTable.of(images[is_ill], labels[is_ill], boxes[is_ill])
    seen = np.where(is_ill, rng.beta(4, 6, n), rng.beta(1, 20, n))
    found = BoxTable.of(images, labels, boxes + np.array([25, 0, 25, 0]), seen)
    score = np.where(is_ill, rng.uniform(0.6, 0.95, n), rng.uniform(0.55, 0.9, n))
    return truth, found, BoxTable.of(images, np.ones(n), boxes, score)


def test_healthy_radiographs_get_no_sure_box_of_a_mask_that_is_always_sure():
    rng = np.random.default_rng(4)
    case = mixed(120, 0.12, rng)
    setting, before, after = fit_refinement(*case)
    plain, _, plain_after = fit_refinement(*case, confidence=False)
    assert before == 0
    assert setting.unmatched > 0
    # Of further radiographs.
    truth, found, components = mixed(1000, 0.12, rng)
    sure, ap = {}, {}
    for name, each in (("confidence", setting), ("score", plain)):
        refined, _ = refine(found, components, {}, each)
        matches = match_boxes(truth, refined)
        ap[name] = average_precision(matches.is_true[matches.order], len(truth))
        sure[name] = (~matches.is_true & (refined.scores >= 0.5)).sum()
        if name == "confidence":
            added = refined.scores[len(found) :] / setting.unmatched
            assert added.mean() == pytest.approx(matches.is_true[len(found) :].mean(), abs=0.04)
    assert after >= plain_after
    assert ap["confidence"] > ap["score"]
    assert sure["score"] > 300 * plain.unmatched
    assert sure["confidence"] < 30
