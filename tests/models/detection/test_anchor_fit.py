"""Anchors for a dataset's boxes: overlaps against torchvision's own anchors, and recall on boxes of many shapes."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from xray.models.detection.anchor_fit import best_overlaps, fit_anchors, recall_of, size_weights, standard_anchors
from xray.models.detection.detector import build_detector


def random_boxes(count, size, smallest, largest, ratio, seed=0):
    """Boxes of some shape anywhere on the canvas. ratio: height ÷ width, one for each box, spread a little."""
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(smallest * size), np.log(largest * size), count))
    ratios = rng.choice(ratio, count) * np.exp(rng.normal(0, 0.1, count))
    extent = np.minimum(np.stack([side / np.sqrt(ratios), side * np.sqrt(ratios)], 1), 0.98 * size)
    corner = rng.uniform(0, 1, (count, 2)) * (size - extent)
    return np.concatenate([corner, corner + extent], 1)


@pytest.mark.parametrize("fitted", [False, True])
def test_overlaps_are_those_of_torchvisions_anchors(fitted):
    boxes = random_boxes(40, 256, 0.05, 0.8, [0.4, 1.0, 3.0])
    fit = fit_anchors(boxes, 256) if fitted else None
    anchors = fit.anchors if fit else standard_anchors(256)
    options = {"anchor_sides": anchors.sides, "anchor_ratios": anchors.ratios} if fit else {}
    detector = build_detector(2, 256, "mobilenet_v2", fpn_channels=8, **options)
    pyramid = [torch.zeros(1, 8, side, side) for side in (64, 32, 16, 8, 4)]
    layout = detector.rpn.layout(pyramid, 256)
    expected = box_iou(torch.from_numpy(boxes).float(), layout.anchors).amax(1).numpy()
    # torchvision rounds the sides of its anchors to whole pixels, and the nearest cell may lie beyond the edge.
    assert np.abs(best_overlaps(anchors, boxes) - expected).mean() < 0.02
    assert fit is None or not fit.is_standard


SHAPES = {
    "a tenth of the canvas": (256, 0.08, 0.12, [1.0]),
    "nine tenths": (256, 0.85, 0.95, [1.0]),
    "1 to 6, both ways": (512, 0.15, 0.4, [6.0, 1 / 6]),
    "all sizes": (512, 0.04, 0.9, [0.6, 1.0, 1.6]),
    "tall lungs": (160, 0.5, 0.6, [1.7]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_of_any_shape_get_anchors(name):
    size, smallest, largest, ratio = SHAPES[name]
    boxes = random_boxes(400, size, smallest, largest, ratio)
    fit = fit_anchors(boxes, size)
    assert fit.recall[0.5] >= 0.95
    assert fit.recall[0.5] >= fit.standard[0.5]
    # On others of that shape too.
    assert recall_of(fit.anchors, random_boxes(400, size, smallest, largest, ratio, seed=1))[0.5] >= 0.95
    assert fit == fit_anchors(boxes, size)


def test_the_published_layout_stays_where_it_fits():
    fit = fit_anchors(random_boxes(500, 1024, 0.05, 0.5, [0.6, 1.0, 1.6]), 1024)
    assert fit.is_standard
    assert fit.anchors == standard_anchors(1024)
    assert fit.anchors.sides == ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))


def test_a_standard_layout_that_leaves_out_boxes_goes_however_little_is_gained():
    # Where few boxes have an anchor, no layout of a cell's may change that: these are smaller than the cells.
    boxes = random_boxes(400, 1024, 0.004, 0.02, [1.0])
    fit = fit_anchors(boxes, 1024)
    assert fit.standard[0.5] < 0.95
    assert not fit.is_standard
    assert fit.recall[0.5] > fit.standard[0.5]


@pytest.mark.parametrize("extent", [(1, 1), (500, 2)])
@pytest.mark.parametrize("family", ["faster_rcnn", "retinanet"])
def test_it_stays_where_no_layout_reaches_the_boxes(family, extent):
    # Points, and lines: fitted ratios would leave no anchors for any other box.
    fit = fit_anchors(np.tile([5, 5, 5 + extent[0], 5 + extent[1]], (50, 1)), 512, family)
    assert fit.is_standard
    assert fit.recall == fit.standard == {0.5: 0, 0.7: 0}


def test_without_a_box_it_stays_too():
    fit = fit_anchors(np.zeros((0, 4)), 256)
    assert fit.is_standard
    assert np.isnan(fit.recall[0.5])


def test_few_small_boxes_among_many_large_ones_get_anchors_too():
    large = random_boxes(488, 256, 0.12, 0.5, [0.6, 1.0, 1.6])
    small = random_boxes(12, 256, 0.03, 0.045, [1.0])  # 8 to 12 pixels
    fit = fit_anchors(np.concatenate([large, small]), 256)
    assert not fit.is_standard
    # With the plain mean of the overlaps the smallest anchors are 38 pixels wide, and none of the small has one.
    assert recall_of(fit.anchors, small)[0.5] >= 0.9
    assert recall_of(fit.anchors, random_boxes(200, 256, 0.03, 0.045, [1.0], seed=1))[0.5] >= 0.8
    assert recall_of(fit.anchors, large)[0.5] >= 0.97


def test_boxes_count_more_the_fewer_are_of_their_size():
    sides = np.array([16.0, 16.0, 16.0, 20.0, 64.0])
    boxes = np.stack([np.zeros(5), np.zeros(5), sides, sides], 1)
    # 20 is a third of an octave above 16, and so of its size.
    expected = np.array([0.8**-0.5] * 4 + [0.2**-0.5])
    np.testing.assert_allclose(size_weights(boxes), expected / expected.sum())
    # Of 999 equal boxes and an odd one, that one counts as if it were of 2 in 100, and not of 1 in 1,000.
    many = np.concatenate([np.tile([[0.0, 0.0, 16.0, 16.0]], (999, 1)), [[0.0, 0.0, 200.0, 200.0]]])
    weights = size_weights(many)
    np.testing.assert_allclose(weights[-1] / weights[0], (0.999 / 0.02) ** 0.5)


def test_recall_counts_boxes():
    anchors = standard_anchors(1024)
    boxes = np.array([[496.0, 496.0, 528.0, 528.0], [0.0, 0.0, 4.0, 4.0]])
    assert recall_of(anchors, boxes) == {0.5: 0.5, 0.7: 0.5}
