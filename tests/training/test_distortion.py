"""Distortions: the field is SciPy's spline, nothing folds, and what is drawn is where its outline is said to be."""

import cv2
import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from xray.training.augment import Augmentation
from xray.training.changes import Change, change_images, change_masks, stack_changes
from xray.training.distortion import CELLS, NODES, displacements, distort, draw_lattice, inverse
from xray.training.placement import distort_boxes

SIZE = 256
LATTICES = [draw_lattice(np.random.default_rng(seed), SIZE) for seed in range(60)]


def kind_of(lattice):
    """Which of the three kinds a lattice is, by how its coefficients of x depend on the row."""
    if np.ptp(lattice[0], axis=0).max() == 0:
        return "grid"
    return "optical" if np.abs(np.diff(np.sign(np.diff(lattice[0], axis=1)), axis=1)).sum() < 2 * NODES else "elastic"


def extent(mask):
    """xyxy of the true pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_all_kinds_come():
    kinds = [kind_of(lattice) for lattice in LATTICES]
    assert all(kinds.count(kind) >= 10 for kind in ("grid", "optical", "elastic"))


def test_the_field_is_scipys_spline():
    points = np.random.default_rng(0).uniform(0, SIZE, (200, 2))
    knots = (np.arange(NODES + 4) - 3) * SIZE / CELLS
    for lattice in LATTICES[:8]:
        # The tensor product, one axis after the other.
        along_y = BSpline(knots, lattice.transpose(1, 0, 2).astype(np.float64), 3)(points[:, 1])  # (P, 2, 11)
        expected = [BSpline(knots, row.T, 3)(x) for row, x in zip(along_y, points[:, 0], strict=True)]
        np.testing.assert_allclose(displacements(points, lattice, SIZE), expected, atol=1e-4)


def test_nothing_folds():
    line = np.linspace(0, SIZE, 129)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    largest = 0.0
    for lattice in LATTICES:
        sources = grid + displacements(grid.reshape(-1, 2), lattice, SIZE).reshape(grid.shape)
        along_x, along_y = np.diff(sources, axis=1)[:-1], np.diff(sources, axis=0)[:, :-1]
        area = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
        assert area.min() > 0.1 * (SIZE / 128) ** 2
        largest = max(largest, np.abs(sources - grid).max())
    # And yet something moves: by more than 4 % of the canvas, by less than 15 %.
    assert 0.04 * SIZE < largest < 0.15 * SIZE


def test_the_inverse_undoes_it_on_the_canvas_and_beyond_it():
    points = np.random.default_rng(1).uniform(-0.2 * SIZE, 1.2 * SIZE, (300, 2))
    for lattice in LATTICES:
        places = inverse(points, lattice, SIZE)
        assert np.abs(places + displacements(places, lattice, SIZE) - points).max() < 0.02
    assert inverse(np.zeros((0, 2)), LATTICES[0], SIZE).shape == (0, 2)


def test_a_shift_of_all_coefficients_is_a_shift_of_the_canvas():
    lattice = np.zeros((2, NODES, NODES), dtype=np.float32)
    lattice[0], lattice[1] = 3, -2
    image = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 2)).astype(np.uint8)
    expected = np.zeros_like(image)
    expected[2:, :-3] = image[:-2, 3:]
    np.testing.assert_array_equal(distort(image, lattice, cv2.INTER_LINEAR), expected)
    np.testing.assert_array_equal(distort(image, lattice, cv2.INTER_NEAREST), expected)
    changes = stack_changes([Change(0, False, np.eye(2, 3)), Change(0, False, np.eye(2, 3), lattice=lattice)])
    images = torch.from_numpy(image[..., :1].transpose(2, 0, 1)).expand(2, 1, SIZE, SIZE)
    moved = change_images(images, changes).numpy()
    np.testing.assert_array_equal(moved[0, 0], image[..., 0])
    np.testing.assert_array_equal(moved[1, 0], expected[..., 0])
    masks = torch.from_numpy(np.stack([image.transpose(2, 0, 1) > 128] * 2).astype(np.uint8))
    moved = change_masks(masks, changes, [0, 1]).numpy()
    np.testing.assert_array_equal(moved[1], expected.transpose(2, 0, 1) > 128)


@pytest.mark.parametrize("shape", ["ellipse", "rectangle", "crescent"])
def test_boxes_are_where_what_is_drawn_is(shape):
    """Both ways of changing pixels; the outline of the crescent is that of its hull, as of a mask."""
    random = np.random.default_rng(3)
    slack = []
    for lattice in LATTICES:
        x, y = random.integers(70, 186, 2).tolist()
        across, down = random.integers(12, 50, 2).tolist()
        mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
        if shape == "rectangle":
            mask[y - down : y + down, x - across : x + across] = 1
        else:
            cv2.ellipse(mask, (x, y), (across, down), 0, 0, 360, 1, -1)
        if shape == "crescent":
            cv2.ellipse(mask, (x + across // 2, y), (across, down), 0, 0, 360, 0, -1)
        outline = None
        if shape != "ellipse":
            rows, columns = np.nonzero(mask)
            corners = np.stack([columns, rows], 1)[:, None] + np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
            outline = cv2.convexHull(corners.reshape(-1, 2).astype(np.float32))[:, 0].astype(np.float64)
        box = extent(mask)[None].astype(float)
        found = distort_boxes(box, np.eye(3), lattice, SIZE, [outline])[0]
        by_worker = distort(mask[..., None], lattice, cv2.INTER_NEAREST)[..., 0]
        changes = stack_changes([Change(0, False, np.eye(2, 3), lattice=lattice)])
        by_device = change_masks(torch.from_numpy(mask)[None, None], changes, [0])[0, 0].numpy()
        assert (by_worker != by_device).mean() < 0.002
        for pixels in (by_worker, by_device):
            # Outwards positive: how much farther the box reaches than the pixels.
            slack.append((found - extent(pixels)) * [-1, -1, 1, 1])
    assert np.min(slack) > -1.7
    # A hull spans the crescent's hollow, and may be bent beyond what is drawn there.
    assert np.max(slack) < (1.7 if shape != "crescent" else 3.5)
    assert np.abs(np.mean(slack, axis=0)).max() < 0.4


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_picture_mask_and_box_move_together(strength):
    """With the shifts and turns of the augmentation: a bright disc on black, its mask and its box, by both ways."""
    augmentation = Augmentation(strength, {1: 2, 2: 1}, distortion=1)
    disc = np.zeros((SIZE, SIZE), dtype=np.uint8)
    cv2.ellipse(disc, (110, 140), (36, 22), 0, 0, 360, 1, -1)
    mask, box, seeds = np.stack([disc, np.zeros_like(disc)]), extent(disc)[None].astype(float), range(60)
    by_worker = [augmentation(seed, disc * 200, box, np.array([1]), mask) for seed in seeds]
    drawn = [augmentation.draw(seed, SIZE, box, np.array([1])) for seed in seeds]
    changes = stack_changes([change for *_, change in drawn])
    images = change_images(torch.from_numpy(disc * 200).expand(len(seeds), 1, -1, -1), changes)[:, 0].numpy()
    masks = change_masks(torch.from_numpy(mask).expand(len(seeds), -1, -1, -1), changes, [1, 0]).numpy()
    slack = []
    for seed in seeds:
        (image, boxes, labels, own), (same, labels_drawn, change) = by_worker[seed], drawn[seed]
        np.testing.assert_array_equal(boxes, same)
        np.testing.assert_array_equal(labels, labels_drawn)
        for picture, channels in ((image, own), (images[seed], masks[seed])):
            assert not channels[2 - int(labels[0])].any()
            pixels = channels[int(labels[0]) - 1]
            slack.append((boxes[0] - extent(pixels)) * [-1, -1, 1, 1])
            if change.noise == 0 and change.kernel is None and len(change.holes) == 0:
                bright = picture > picture.max() / 2
                assert (bright != pixels).sum() < 0.1 * pixels.sum()
    assert np.abs(slack).max() < 2.2
    assert np.abs(np.mean(slack, axis=0)).max() < 0.5
    assert len({change.lattice.tobytes() for *_, change in drawn}) == len(seeds)


def test_without_it_nothing_is_drawn_otherwise():
    image, none = np.full((64, 64), 90, dtype=np.uint8), (np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    plain, zero = Augmentation("strong", {}), Augmentation("strong", {}, distortion=0.0)
    for seed in range(10):
        np.testing.assert_array_equal(plain(seed, image, *none)[0], zero(seed, image, *none)[0])
    assert Augmentation("none", {}, distortion=1.0).draw(1, 64, *none)[2] is None
