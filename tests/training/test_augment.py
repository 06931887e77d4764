"""Augmentation: what the pixels do, the boxes, labels and masks do too, and one seed always does the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.structures.sides import mirrored
from xray.training.augment import AUGMENTATIONS, Augmentation

SIZE = 96
MIRROR = mirrored({1: "Left lung", 2: "Right lung", 3: "Nodule"})
NO_BOXES = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)


def bright_rectangle(box, level=230, noise=True):
    """A dark canvas with one bright rectangle."""
    image = np.random.default_rng(0).integers(10, 40, (SIZE, SIZE)).astype(np.uint8) if noise else None
    image = np.zeros((SIZE, SIZE), dtype=np.uint8) if image is None else image
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = level
    return image


def channels(mask, place):
    """The mask as one of three channels, the other two empty."""
    return np.stack([mask if channel == place else np.zeros_like(mask) for channel in range(3)])


def extent(mask):
    """xyxy of the true pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def corners(box):
    """The outline of a rectangle."""
    x1, y1, x2, y2 = map(float, box)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _centred(label):
    return bright_rectangle((32, 32, 64, 64)), np.array([[32.0, 32, 64, 64]]), np.array([label])


@pytest.mark.parametrize("box", [(20, 30, 50, 48), (0, 60, 30, 96), (70, 5, 90, 80)])
def test_boxes_follow_their_pixels(box):
    augmentation = Augmentation("light", MIRROR)
    slack, kept = [], 0
    for seed in range(60):
        image, boxes, labels, _ = augmentation(
            seed, bright_rectangle(box), np.array([box], float), np.array([3]), outlines=[corners(box)]
        )
        assert image.shape == (SIZE, SIZE)
        assert image.dtype == np.uint8
        if len(boxes) == 0:
            continue
        kept += 1
        assert labels.tolist() == [3]
        seen = extent(image > 0.6 * image.max())
        # Outwards positive: how much farther the box reaches than the bright pixels.
        slack.append((boxes[0] - seen) * [-1, -1, 1, 1])
    assert kept > 50
    assert np.min(slack) > -1.6
    assert np.max(slack) < 1.6
    assert np.abs(np.mean(slack, axis=0)).max() < 0.7


def test_strong_augmentation_keeps_bright_pixels_inside_their_box():
    augmentation = Augmentation("strong", MIRROR)
    changed = 0
    for seed in range(80):
        image, boxes, _, mask = augmentation(
            seed,
            *_centred(3),
            mask=channels(bright_rectangle((32, 32, 64, 64), 255, noise=False), 2),
            outlines=[corners((32, 32, 64, 64))],
        )
        assert mask.shape == (3, SIZE, SIZE)
        assert image.shape == (SIZE, SIZE)
        assert not mask[:2].any()
        mask = mask[2]
        assert len(boxes) == 1
        x1, y1, x2, y2 = boxes[0]
        assert np.abs(extent(mask > 0) - boxes[0]).max() < 2
        assert set(np.unique(mask).tolist()) <= {0, 255}
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        outside = ~inside
        # A blur of five pixels and noise may pass the edge a little.
        assert (image[outside] > 0.7 * image.max()).mean() < 0.02
        changed += not np.array_equal(boxes[0], [32, 32, 64, 64])
    assert changed > 60


def test_flipping_mirrors_pixels_boxes_masks_and_sides():
    image, boxes, labels = bright_rectangle((10, 30, 40, 60)), np.array([[10.0, 30, 40, 60]]), np.array([1])
    mask = channels(bright_rectangle((10, 30, 40, 60), 1, noise=False), 0)
    plain = Augmentation("none", MIRROR)
    unchanged = plain(3, image, boxes, labels, mask)
    for one, other in zip(unchanged, (image, boxes, labels, mask), strict=True):
        np.testing.assert_array_equal(one, other)

    # The flip alone, without what else "light" does.
    plain.flip = 1
    found, new_boxes, new_labels, new_mask = plain(0, image, boxes, labels, mask)
    np.testing.assert_array_equal(found, np.fliplr(image))
    np.testing.assert_array_equal(new_boxes, [[SIZE - 40, 30, SIZE - 10, 60]])
    assert new_labels.tolist() == [2]
    # What was on the left lung's channel is on the right one's.
    np.testing.assert_array_equal(new_mask, channels(np.fliplr(mask[0]), 1))
    assert plain(0, image, boxes, np.array([2]))[2].tolist() == [1]
    assert plain(0, image, boxes, np.array([3]))[2].tolist() == [3]
    assert sum(Augmentation("light", MIRROR)(seed, *_centred(1))[2].tolist() == [2] for seed in range(40)) in range(
        10, 31
    )


@pytest.mark.parametrize(("strength", "flip", "share"), [("light", 1, 1), ("strong", 0, 0), ("none", 1, 0)])
def test_the_share_of_canvases_that_are_mirrored(strength, flip, share):
    augmentation = Augmentation(strength, MIRROR, flip)
    sides = [augmentation(seed, *_centred(1))[2].tolist() for seed in range(12)]
    assert sides == [[2] if share else [1]] * 12


@pytest.mark.parametrize("strength", AUGMENTATIONS)
def test_one_seed_gives_one_result_whatever_ran_before(strength):
    inputs = _centred(1)
    first = Augmentation(strength, MIRROR)
    results = [first(seed, *inputs) for seed in range(8)]
    np.random.seed(99)  # noqa: NPY002 - the global generator must not matter
    second = Augmentation(strength, MIRROR)
    for seed in reversed(range(8)):
        again = second(seed, *inputs)
        for one, other in zip(results[seed][:3], again[:3], strict=True):
            np.testing.assert_array_equal(one, other)
    distinct = {result[0].tobytes() for result in results}
    assert len(distinct) == 1 if strength == "none" else len(distinct) >= 7


@pytest.mark.parametrize("strength", AUGMENTATIONS)
def test_a_radiograph_without_boxes(strength):
    augmentation = Augmentation(strength, MIRROR)
    for seed in range(10):
        image, boxes, labels, mask = augmentation(seed, bright_rectangle((10, 10, 20, 20)), *NO_BOXES)
        assert image.shape == (SIZE, SIZE)
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)
        assert labels.dtype == np.int64
        assert mask is None


def test_the_inputs_are_left_as_they_were():
    image, boxes, labels = _centred(1)
    kept = image.copy(), boxes.copy(), labels.copy()
    for seed in range(10):
        Augmentation("strong", MIRROR)(seed, image, boxes, labels)
    for one, other in zip((image, boxes, labels), kept, strict=True):
        np.testing.assert_array_equal(one, other)


coordinate = st.floats(-2, SIZE + 2, allow_nan=False, width=32)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from(AUGMENTATIONS),
)
def test_any_boxes_give_boxes_on_the_canvas(corners, seed, strength):
    corners = np.array(corners, dtype=np.float64).reshape(-1, 2, 2)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    labels = np.arange(len(boxes)) % 3 + 1
    _, found, found_labels, _ = Augmentation(strength, MIRROR)(seed, bright_rectangle((5, 5, 9, 9)), boxes, labels)
    assert len(found) == len(found_labels) <= len(boxes)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= SIZE).all()
    assert ((found[:, 2:] - found[:, :2]) >= 0).all()
    assert set(found_labels.tolist()) <= {1, 2, 3}


def test_an_unknown_strength_is_refused():
    with pytest.raises(ValueError, match="none, light, strong"):
        Augmentation("medium", MIRROR)
