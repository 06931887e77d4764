"""CLAHE of a batch against OpenCV's, picture by picture."""

import cv2
import numpy as np
import pytest
import torch

from xray.training.changes import equalize


def pictures(size):
    random = np.random.default_rng(size)
    ramp = np.linspace(0, 255, size)
    shades = cv2.resize(random.integers(0, 256, (5, 5)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    letterboxed = shades.clip(0, 255)
    letterboxed[:, : size // 5] = 0
    return [
        np.add.outer(ramp, ramp) / 2,
        random.integers(0, 256, (size, size)),
        np.full((size, size), 77),
        letterboxed,
        (100 + random.normal(0, 3, (size, size))).clip(0, 255),
    ]


@pytest.mark.parametrize("size", [64, 100, 131, 512])
def test_the_pictures_are_opencvs(size):
    images = np.stack(pictures(size)).astype(np.uint8)
    limits = [1.0, 2.3, 4.0, 1.7, 40.0]
    found = equalize(torch.from_numpy(images)[:, None], torch.tensor(limits))[:, 0].numpy()
    assert found.dtype == np.uint8
    for image, limit, ours in zip(images, limits, found, strict=True):
        theirs = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(image)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_each_canvas_has_its_own_limit_and_tiles():
    images = torch.from_numpy(np.stack(pictures(128)).astype(np.uint8))[:, None]
    limits = torch.tensor([1.0, 2.3, 4.0, 1.7, 40.0])
    together = equalize(images, limits)
    for number in range(5):
        alone = equalize(images[number : number + 1], limits[number : number + 1])
        assert torch.equal(alone[0], together[number])
    assert not torch.equal(equalize(images[3:4], torch.tensor([4.0])), together[3:4])


def test_too_small_a_canvas_is_refused():
    with pytest.raises(ValueError, match="3 pixels are too small for 8 × 8 tiles"):
        equalize(torch.zeros((1, 1, 3, 3), dtype=torch.uint8), torch.ones(1))
