"""Refinement of pneumothorax boxes by masks, against cases worked by hand."""

import numpy as np
import pytest

from xray.data.boxes import BoxTable
from xray.refine import GRID, PNEUMOTHORAX_CATEGORY, Refinement, fit_refinement, refine

RLE = {"size": [100, 100], "counts": "x"}


def table(*rows):
    """Rows of (image, label, box, score)."""
    images, labels, boxes, scores = zip(*rows, strict=True)
    return BoxTable.of(images, labels, boxes, scores)


BOXES = table(
    (0, PNEUMOTHORAX_CATEGORY, (0, 0, 40, 40), 0.8),
    (0, 4, (10, 10, 50, 50), 0.9),
    (1, PNEUMOTHORAX_CATEGORY, (0, 0, 10, 10), 0.6),
)
COMPONENTS = table((0, 1, (10, 10, 30, 50), 0.9), (1, 1, (60, 60, 80, 80), 0.5))


def test_the_default_changes_nothing_but_attaches_masks():
    refined, masks = refine(BOXES, COMPONENTS, {0: RLE}, Refinement())
    np.testing.assert_array_equal(refined.boxes, BOXES.boxes)
    np.testing.assert_array_equal(refined.scores, BOXES.scores)
    assert masks == {0: RLE}


def test_a_box_moves_its_share_towards_its_component_and_its_score_follows_the_evidence():
    refined, _ = refine(BOXES, COMPONENTS, {}, Refinement(pull=0.5, doubt=0.4))
    # Half way from (0, 0, 40, 40) to (10, 10, 30, 50); evidence 0.9: 0.8 × (1 − 0.4 × 0.1) = 0.768.
    np.testing.assert_allclose(refined.boxes[0], (5, 5, 35, 45))
    assert refined.scores[0] == pytest.approx(0.768)
    # Nothing near the box of radiograph 1: it stays where it is, 0.6 × (1 − 0.4) = 0.36.
    np.testing.assert_allclose(refined.boxes[2], (0, 0, 10, 10))
    assert refined.scores[2] == pytest.approx(0.36)
    # Other findings are none of its business.
    np.testing.assert_array_equal(refined.boxes[1], BOXES.boxes[1])
    assert refined.scores[1] == 0.9


def test_a_component_without_a_box_becomes_a_low_scored_box_with_its_mask():
    refined, masks = refine(BOXES, COMPONENTS, {0: RLE, 1: RLE}, Refinement(orphan=0.2))
    assert len(refined) == 4
    np.testing.assert_array_equal(refined.boxes[3], (60, 60, 80, 80))
    assert (refined.images[3], refined.labels[3]) == (1, PNEUMOTHORAX_CATEGORY)
    assert refined.scores[3] == pytest.approx(0.1)
    assert masks == {0: RLE, 3: RLE}


def test_the_dilated_box_reaches_a_component_beside_it():
    beside = table((0, 1, (41, 0, 60, 40), 0.9))
    alone = BOXES.select(np.array([0]))
    assert refine(alone, beside, {}, Refinement(dilation=0.0, doubt=1.0))[0].scores[0] == 0
    assert refine(alone, beside, {}, Refinement(dilation=0.1, doubt=1.0))[0].scores[0] == pytest.approx(0.72)


def test_without_components_and_without_boxes():
    refined, masks = refine(BOXES, BoxTable.empty(), {}, Refinement(pull=1, doubt=0.5, orphan=1))
    np.testing.assert_allclose(refined.scores, [0.4, 0.9, 0.3])
    assert masks == {}
    refined, _ = refine(BoxTable.empty(), COMPONENTS, {}, Refinement(orphan=1.0))
    np.testing.assert_array_equal(refined.boxes, COMPONENTS.boxes)


def test_fitting_finds_what_helps_and_never_ends_below_the_start():
    rng = np.random.default_rng(0)
    truths, found, components = [], [], []
    for image in range(10):
        x, y = rng.uniform(0, 50, 2)
        box = np.array([x, y, x + 30, y + 30])
        truths.append((image, PNEUMOTHORAX_CATEGORY, box, 1.0))
        # The detector's boxes are shifted by half a side (IoU about 0.33), the masks by a pixel.
        found.append((image, PNEUMOTHORAX_CATEGORY, box + np.array([15, 0, 15, 0]), rng.uniform(0.2, 0.9)))
        components.append((image, 1, box + 1, 0.95))
    setting, before, after = fit_refinement(table(*truths), table(*found), table(*components))
    assert before == 0
    assert after == 1
    assert setting.pull > 0
    # With masks that only mislead, the best is to leave everything as it is.
    good = table(*[(image, label, box, 0.9) for image, label, box, _ in truths])
    misleading = table(*[(image, 1, box + np.array([20, 0, 20, 0]), 0.3) for image, _, box, _ in truths])
    setting, before, after = fit_refinement(table(*truths), good, misleading)
    assert (before, after) == (1, 1)
    assert setting == GRID[0]


def test_fitting_without_truth_changes_nothing():
    setting, before, after = fit_refinement(BoxTable.empty(), BOXES, COMPONENTS)
    assert setting == GRID[0]
    assert np.isnan(before)
    assert np.isnan(after)
