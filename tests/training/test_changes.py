"""Augmentation of a batch on the device: the same pictures, boxes and masks as canvas by canvas, without any wait."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.changes import Change, change_images, change_masks, stack_changes

SIZE = 128
MIRROR = mirrored({1: "Left lung", 2: "Right lung", 3: "Nodule"})
STAY = np.eye(2, 3)


@pytest.fixture(scope="module")
def canvas():
    """Smooth shades with fine grain, black at the sides as a letterboxed radiograph is."""
    random = np.random.default_rng(3)
    coarse = random.integers(20, 230, (9, 9)).astype(np.float32)
    shades = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    canvas = (shades + random.normal(0, 4, shades.shape)).clip(0, 255).astype(np.uint8)
    canvas[:, :14] = canvas[:, -14:] = 0
    return canvas


@pytest.fixture(scope="module")
def mask():
    """(3, S, S): a disc for the left lung, a rectangle for the right one, nothing for the nodule."""
    mask = np.zeros((3, SIZE, SIZE), dtype=np.uint8)
    cv2.circle(mask[0], (40, 60), 21, 1, -1)
    mask[1, 30:100, 70:101] = 1
    return mask


def changed(canvas, *changes):
    images = torch.from_numpy(np.stack([canvas] * len(changes)))[:, None]
    return change_images(images, stack_changes(changes))[:, 0].numpy()


@pytest.mark.parametrize(("strength", "distortion"), [("light", 0), ("strong", 0), ("strong", 0.4), ("light", 1)])
def test_the_same_seed_gives_the_same_picture_boxes_and_masks_as_by_the_workers(canvas, mask, strength, distortion):
    augmentation = Augmentation(strength, MIRROR, distortion=distortion)
    boxes, labels = np.array([[20.0, 39, 61, 81], [70, 30, 101, 100], [3, 100, 20, 127]]), np.array([1, 2, 3])
    seeds = range(120)
    by_workers, changes = [], []
    for seed in seeds:
        by_workers.append(augmentation(seed, canvas, boxes, labels, mask))
        found, kept, change = augmentation.draw(seed, SIZE, boxes, labels)
        np.testing.assert_array_equal(found, by_workers[-1][1])
        np.testing.assert_array_equal(kept, by_workers[-1][2])
        changes.append(change)
    stacked = stack_changes(changes)
    images = change_images(torch.from_numpy(canvas).expand(len(seeds), 1, -1, -1), stacked)[:, 0].numpy()
    masks = change_masks(
        torch.from_numpy(mask).expand(len(seeds), -1, -1, -1), stacked, augmentation.mirrored_channels
    ).numpy()
    # Every kind of change comes, and alone as well as with others.
    assert stacked.counts[0] == pytest.approx(distortion * len(seeds), abs=15)
    assert min(stacked.counts[2:4]) >= 4
    assert strength == "light" or min(stacked.counts[1:]) >= 8
    assert len({change.flipped for change in changes}) == 2
    for image, own, change, (expected, _, _, expected_mask) in zip(images, masks, changes, by_workers, strict=True):
        difference = image.astype(float) - expected
        # OpenCV before 5 rounds where a pixel comes from to a 32nd; local contrast makes more of that.
        mean, share, rel = (0.02, 0.001, 0.15) if cv2.__version__ >= "5" else (2.5, 0.15, 0.25)
        if change.noise:
            # Other noise of the same strength; black stays black on half of its pixels.
            inside = (expected > 60) & (expected < 190)
            assert abs(difference[inside].mean()) < 1.5
            assert difference[inside].std() == pytest.approx(np.sqrt(2) * change.noise, rel=rel)
        else:
            assert np.abs(difference).mean() < mean
            assert (np.abs(difference) > 3).mean() < share
        # Of a turn and a distortion, each rounds where an edge is.
        assert (own != expected_mask).mean() < (0.002 if change.lattice is None else 0.004)
    assert masks[[change.flipped for change in changes]][:, 2].sum() == 0


def test_transforms_come_independently_of_each_other():
    """Drawn from one stream: begun anew for each of them, those of equal chance always came together."""
    augmentation = Augmentation("strong", MIRROR, distortion=0.3)
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    changes = [augmentation.draw(seed, 64, *none)[2] for seed in range(600)]
    has = {
        "flip": [change.flipped for change in changes],
        "distortion": [change.lattice is not None for change in changes],
        "tone": [change.table is not None for change in changes],
        "clahe": [change.clip_limit > 0 for change in changes],
        "grain": [change.noise > 0 or change.kernel is not None for change in changes],
        "holes": [len(change.holes) > 0 for change in changes],
    }
    expected = {"flip": 0.5, "distortion": 0.3, "tone": 0.7, "clahe": 0.15, "grain": 0.2, "holes": 0.2}
    for name, chance in expected.items():
        assert np.mean(has[name]) == pytest.approx(chance, abs=0.06), name
    correlations = np.corrcoef([has[name] for name in expected]) - np.eye(6)
    assert np.abs(correlations).max() < 0.14


def test_changes_worked_by_hand(canvas):
    holes = np.array([[3, 5, 20, 9], [100, 0, 128, 128]])
    negative = np.arange(255, -1, -1, dtype=np.uint8)
    kernel = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    still, moved, turned, inverted, pierced, short, blurred, mirrored_ = changed(
        canvas,
        Change(0, False, STAY),
        Change(0, False, np.array([[1.0, 0, -2], [0, 1, 3]])),  # each pixel from two to the left and three below
        Change(0, False, np.array([[0.0, 1, 0], [1, 0, 0]])),
        Change(0, False, STAY, table=negative),
        Change(0, False, STAY, holes=holes),
        Change(0, False, STAY, kernel=np.array([0.25, 0.5, 0.25])),
        Change(0, False, STAY, kernel=kernel),
        Change(0, True, np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]])),
    )
    np.testing.assert_array_equal(still, canvas)
    expected = np.zeros_like(canvas)
    expected[:-3, 2:] = canvas[3:, :-2]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(turned, canvas.T)
    np.testing.assert_array_equal(inverted, 255 - canvas)
    expected = canvas.copy()
    expected[5:9, 3:20] = expected[:, 100:] = 0
    np.testing.assert_array_equal(pierced, expected)
    for found, taps in ((short, np.array([0.25, 0.5, 0.25])), (blurred, kernel)):
        exact = cv2.sepFilter2D(canvas.astype(np.float64), -1, taps, taps)
        assert np.abs(found - exact).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(mirrored_, canvas[:, ::-1])
    # Half a pixel to the right: the mean of two neighbours, the last one's with the black outside.
    half = changed(canvas, Change(0, False, np.array([[1.0, 0, 0.5], [0, 1, 0]])))[0]
    wide = np.pad(canvas.astype(float), ((0, 0), (0, 1)))
    assert np.abs(half - (wide[:, 1:] + wide[:, :-1]) / 2).max() <= 0.5 + 1e-3


def test_noise_is_that_of_the_seed_and_differs_from_canvas_to_canvas():
    grey = np.full((SIZE, SIZE), 128, dtype=np.uint8)
    batch = (Change(5, False, STAY, noise=6.0), Change(9, False, STAY), Change(7, False, STAY, noise=3.0))
    strong, none, weak = changed(grey, *batch)
    assert np.array_equal(none, grey)
    # Fractions are cut off: half a grey level less.
    assert strong.astype(float).mean() == pytest.approx(127.5, abs=0.2)
    assert strong.std() == pytest.approx(6, rel=0.03)
    assert weak.std() == pytest.approx(3, rel=0.03)
    assert abs(np.corrcoef(strong.ravel(), weak.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(strong.ravel()[1:], strong.ravel()[:-1])[0, 1]) < 0.03
    state = torch.get_rng_state()
    np.testing.assert_array_equal(changed(grey, *batch)[0], strong)
    assert torch.equal(state, torch.get_rng_state())
    assert not np.array_equal(changed(grey, Change(6, False, STAY, noise=6.0), *batch[1:])[0], strong)


def test_masks_stay_masks_and_sides_are_swapped_on_flipped_canvases_alone(mask):
    flip = np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]])
    both = stack_changes([Change(0, True, flip), Change(0, False, STAY), Change(0, False, STAY / 1.05)])
    found = change_masks(torch.from_numpy(np.stack([mask] * 3)), both, [1, 0, 2]).numpy()
    np.testing.assert_array_equal(found[0], mask[[1, 0, 2]][..., ::-1])
    np.testing.assert_array_equal(found[1], mask)
    assert set(np.unique(found[2]).tolist()) == {0, 1}
    assert found[2].sum() == pytest.approx(1.05**2 * mask.sum(), rel=0.02)
    one = change_masks(torch.from_numpy(mask[None, :1]), stack_changes([Change(0, True, flip)]), [0]).numpy()
    np.testing.assert_array_equal(one[0], mask[:1, :, ::-1])


class Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


WAIT = {
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "bincount", "unique", "_unique2", "equal",
    "lift_fresh", "_pin_memory", "index",
}  # fmt: skip
"""What on a GPU would wait for it, or copy from memory that is not pinned (an index is only that if it is boolean or a
list, and here there is none at all)."""


def test_nothing_waits_for_the_device(canvas, mask):
    augmentation = Augmentation("strong", MIRROR, distortion=0.3)
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    changes = stack_changes([augmentation.draw(seed, SIZE, *none)[2] for seed in range(20)])
    assert min(changes.counts) > 0
    images = torch.from_numpy(canvas).expand(20, 1, -1, -1).clone()
    masks = torch.from_numpy(mask).expand(20, -1, -1, -1).clone()
    with Operations() as operations:
        change_images(images, changes)
        change_masks(masks, changes, augmentation.mirrored_channels)
    assert {"grid_sampler_2d", "index_select", "scatter_add_"} <= operations.names
    assert not operations.names & WAIT


def test_changes_travel_between_processes(canvas):
    augmentation = pickle.loads(pickle.dumps(Augmentation("strong", MIRROR, distortion=0.5)))
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    changes = stack_changes([augmentation.draw(seed, SIZE, *none)[2] for seed in range(8)])
    again = pickle.loads(pickle.dumps(changes))
    images = torch.from_numpy(canvas).expand(8, 1, -1, -1)
    assert torch.equal(change_images(images, changes), change_images(images, again))


def test_without_augmentation_there_is_no_change():
    boxes = np.array([[-1.0, 0, 20, 30]])
    found, labels, change = Augmentation("none", MIRROR).draw(1, SIZE, boxes, np.array([2]))
    assert change is None
    np.testing.assert_array_equal(found, [[0, 0, 20, 30]])
    assert labels.tolist() == [2]
