"""Boxes of turned, shifted and scaled findings: by hand, and by drawing the findings."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.structures.masks import encode_mask
from xray.training.augment import Augmentation
from xray.training.placement import at_least_a_pixel, hull_of, place_boxes, visible


def turned(degrees, about=(50.0, 50.0)):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = about, np.negative(about)
    return there @ turn @ back


def test_a_circle_keeps_its_box_however_it_is_turned():
    box = np.array([[30.0, 40.0, 50.0, 60.0]])
    for degrees in (3.0, 45.0, 90.0):
        placed = place_boxes(box, turned(degrees, (40.0, 50.0)))
        np.testing.assert_allclose(placed, box, atol=1e-9)


def test_a_quarter_turn_swaps_the_sides():
    placed = place_boxes(np.array([[40.0, 45.0, 60.0, 55.0]]), turned(90))
    np.testing.assert_allclose(placed, [[45, 40, 55, 60]], atol=1e-9)


def test_shift_and_scale_are_exact():
    matrix = np.array([[2.0, 0, 5], [0, 0.5, -1], [0, 0, 1]])
    np.testing.assert_allclose(place_boxes(np.array([[1.0, 2, 3, 6]]), matrix), [[7, 0, 11, 2]])


def test_an_ellipse_drawn_and_turned_has_the_box_that_is_foretold():
    box = np.array([[300.0, 200.0, 420.0, 560.0]])
    points = cv2.ellipse2Poly((360, 380), (60, 180), 0, 0, 360, 1).astype(float)
    for degrees in (-8, 4, 30):
        matrix = turned(degrees, (400.0, 400.0))
        moved = points @ matrix[:2, :2].T + matrix[:2, 2]
        expected = np.concatenate([moved.min(axis=0), moved.max(axis=0)])
        assert np.abs(place_boxes(box, matrix)[0] - expected).max() < 1


def test_a_known_outline_is_followed_exactly():
    outline = np.array([[10.0, 10], [50, 10], [50, 90], [10, 90]])
    matrix = turned(10)
    moved = outline @ matrix[:2, :2].T + matrix[:2, 2]
    placed = place_boxes(np.array([[10.0, 10, 50, 90], [10, 10, 50, 90]]), matrix, [outline, None])
    np.testing.assert_allclose(placed[0], [*moved.min(axis=0), *moved.max(axis=0)])
    # The rectangle's corners reach farther than the ellipse in it.
    assert (placed[0, 2:] - placed[0, :2] > placed[1, 2:] - placed[1, :2] + 3).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 24),
    st.integers(3, 24),
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), min_size=1, max_size=30),
)
def test_the_hull_of_run_lengths_is_that_of_the_pixels(height, width, inked):
    mask = np.zeros((height, width), dtype=np.uint8)
    for x, y in inked:
        mask[y % height, x % width] = 1
    ys, xs = np.nonzero(mask)
    corners = (np.stack([xs, ys], 1)[:, None] + np.array([[0, 0], [1, 0], [0, 1], [1, 1]])).reshape(-1, 2)
    expected = cv2.convexHull(corners.astype(np.float32))[:, 0]
    hull = hull_of(coco_mask.encode(np.asfortranarray(mask))["counts"].decode(), height)
    assert {tuple(point) for point in hull.tolist()} == {tuple(point) for point in expected.tolist()}


def test_an_empty_mask_has_no_hull():
    counts = encode_mask({"size": [4, 5], "counts": [20]}, 5, 4, may_be_empty=True)[0]["counts"]
    assert hull_of(counts, 4).shape == (0, 2)


def test_what_is_mostly_out_of_view_is_gone():
    boxes = np.array([[-10.0, 0, 10, 20], [-20.0, 0, 5, 20], [90, 90, 110, 110], [200, 200, 210, 210]])
    within, is_visible = visible(boxes, 100)
    assert is_visible.tolist() == [True, False, False, False]
    assert within.tolist() == [[0, 0, 10, 20], [0, 0, 5, 20], [90, 90, 100, 100], [100, 100, 100, 100]]


def test_boxes_below_a_pixel_are_widened_where_they_lie():
    boxes = np.array([[10.0, 10.0, 10.2, 30.0], [0.0, 99.9, 0.1, 100.0], [5, 5, 8, 8]])
    expected = [[9.6, 10, 10.6, 30], [0, 99, 1, 100], [5, 5, 8, 8]]
    np.testing.assert_allclose(at_least_a_pixel(boxes, 100), expected)


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_boxes_do_not_grow_on_average(strength):
    """What `largest_box` of albumentations does: 6 % of the width at ±4°."""
    augmentation = Augmentation(strength, {1: 1}, flip=0)
    box, sides = np.array([[88.0, 40.0, 168.0, 216.0]]), []
    for seed in range(400):
        boxes, _, change = augmentation.draw(seed, 256, box, np.array([1]))
        scale = np.sqrt(np.linalg.det(np.linalg.inv(change.source[:, :2])))
        if len(boxes) and (boxes > 0).all() and (boxes < 256).all():
            sides.append((boxes[0, 2:] - boxes[0, :2]) / scale / [80, 176])
    assert len(sides) > 150
    # A long ellipse becomes a little wider itself: 1.2 % on average at ±8°.
    assert np.abs(np.mean(sides, axis=0) - 1).max() < 0.02
