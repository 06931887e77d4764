"""What findings look like on phantoms, measured on the same patient with and without them, in cm of water and mm."""

import cv2
import numpy as np
import pytest

from xray.findings import FINDINGS
from xray.phantoms.drawing import FINDING_RATES
from xray.phantoms.patient import LEFT, RIGHT
from xray.phantoms.shapes import bounding_box
from xray.phantoms.vinbig import draw_phantom, plan_findings

ATELECTASIS, CALCIFICATION, CONSOLIDATION, INFILTRATION, LUNG_OPACITY = map(
    FINDINGS.index, ("Atelectasis", "Calcification", "Consolidation", "Infiltration", "Lung Opacity")
)
SEEDS = range(10)


def drawn(class_id, seed):
    """A phantom without and with a finding, and what it added to the X-rays' path, cm of water on the drawing grid."""
    healthy, ill = (draw_phantom([31, seed], 448, 512, findings) for findings in ((), (class_id,)))
    return healthy, ill, ill.chest.project() - healthy.chest.project()


def thickness_mm(mask, scale):
    """Diameter of the largest circle that fits into a mask on a grid of `scale` pixels per cm."""
    return 20 * cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max() / scale


def border_mm(change, mark, scale):
    """Over what distance a change falls from four fifths of its usual height to one fifth at the mark's edge."""
    height = np.median(change[mark])
    near = cv2.dilate(mark.astype(np.uint8), np.ones((31, 31))) > 0
    high, low = (near & (change > share * height) for share in (0.8, 0.2))
    contours, _ = cv2.findContours(mark.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return 10 * (low.sum() - high.sum()) / sum(cv2.arcLength(contour, True) for contour in contours) / scale


@pytest.mark.parametrize("seed", SEEDS)
def test_calcifications_are_small_and_denser_than_the_ribs(seed):
    healthy, ill, added = drawn(CALCIFICATION, seed)
    assert 1 <= len(ill.marks) <= 3
    assert np.sum([mark.mask for mark in ill.marks], axis=0).max() == 1  # places apart
    ribs = healthy.chest.bone[healthy.chest.lungs[LEFT] | healthy.chest.lungs[RIGHT]]
    for mark in ill.marks:
        # Nodes of 12 mm may touch; grains, rims and plaques are thinner.
        assert 1 < thickness_mm(mark.mask, ill.chest.view.scale) < 16
        assert np.median(added[mark.mask]) > np.percentile(ribs, 97)
        assert np.ptp(bounding_box(mark.mask).reshape(2, 2), axis=0).max() / ill.chest.view.scale < 7
    # Sharp: a millimetre or two outside the boxes, nothing is added.
    marked = np.any([mark.mask for mark in ill.marks], axis=0)
    beyond = cv2.dilate(marked.astype(np.uint8), np.ones((9, 9))) == 0
    assert np.abs(added[beyond]).max() < 0.05


@pytest.mark.parametrize(
    "class_id", [ATELECTASIS, CALCIFICATION, INFILTRATION], ids=lambda class_id: FINDINGS[class_id]
)
@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_are_tight_around_what_was_added(class_id, seed):
    healthy, ill, _ = drawn(class_id, seed)
    # The raised diaphragm is a sign beside atelectasis, not the airless lung that is boxed.
    healthy.chest.abdomen = ill.chest.abdomen
    added = ill.chest.project() - healthy.chest.project()
    assert len(ill.boxes) == len(ill.marks)
    boxed = np.zeros(added.shape, bool)
    rim = round(0.4 * ill.chest.view.scale)
    for mark, box in zip(ill.marks, ill.boxes, strict=True):
        x1, y1, x2, y2 = bounding_box(mark.mask).astype(int)
        np.testing.assert_allclose(box, np.array([x1, y1, x2, y2]) * 512 / ill.chest.view.height, atol=1e-6)
        boxed[y1:y2, x1:x2] = True
        inside = added[y1:y2, x1:x2]
        for edge in (inside[:rim], inside[-rim:], inside[:, :rim], inside[:, -rim:]):
            assert edge.max() > 0.1 * inside.max()
    assert added[boxed].sum() > 0.8 * added.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_atelectasis_has_a_sharp_edge_and_takes_volume_from_its_lung_alone(seed):
    healthy, ill, _ = drawn(ATELECTASIS, seed)
    (mark,) = ill.marks
    side = RIGHT if mark.mask[healthy.chest.cavities[RIGHT]].any() else LEFT
    assert ill.chest.lungs[side].sum() < 0.995 * healthy.chest.lungs[side].sum()
    np.testing.assert_array_equal(ill.chest.lungs[-side], healthy.chest.lungs[-side])
    assert not (ill.chest.lungs[side] & ~healthy.chest.lungs[side]).any()
    assert border_mm(ill.chest.filling, mark.mask, ill.chest.view.scale) < 3.5


def test_infiltration_is_patchy_without_a_border_and_thinner_than_consolidation():
    filled, uneven, borders = {}, {}, {}
    for class_id in (CONSOLIDATION, INFILTRATION, LUNG_OPACITY):
        phantoms = [drawn(class_id, seed)[1] for seed in SEEDS]
        pairs = [(phantom, phantom.marks[0].mask) for phantom in phantoms]
        filled[class_id] = [np.median(phantom.chest.filling[mask]) for phantom, mask in pairs]
        uneven[class_id] = [np.std(p.chest.filling[mask]) / np.mean(p.chest.filling[mask]) for p, mask in pairs]
        borders[class_id] = [border_mm(p.chest.filling, mask, p.chest.view.scale) for p, mask in pairs]
    assert max(filled[INFILTRATION]) < min(filled[CONSOLIDATION])
    assert min(uneven[INFILTRATION]) > max(uneven[LUNG_OPACITY])
    assert min(borders[INFILTRATION]) > 5


def test_every_finding_has_examples_in_a_set_of_some_hundred():
    # The demo's numbers; its detector trains on four fifths of the first.
    counts = {}
    for n in (500, 100):
        plan = plan_findings(n, 0.2, np.random.default_rng(0), 0.1)
        counts[n] = np.bincount([class_id for ids in plan for class_id in ids], minlength=14)
    assert counts[500].min() >= 50
    assert counts[100].min() >= 10
    np.testing.assert_allclose(FINDING_RATES.sum(), 3.6)
    assert FINDING_RATES.max() < 2.4 * FINDING_RATES.min()
    # As in VinBigData, the aortic arch leads and pneumothorax comes last.
    assert FINDINGS[FINDING_RATES.argmax()] == "Aortic enlargement"
    assert FINDINGS[FINDING_RATES.argmin()] == "Pneumothorax"
