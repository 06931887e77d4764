"""Polygons along pixels: pycocotools draws the same mask from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.structures.outlines import part_outlines, whole_outline


def drawn(polygons, shape):
    rle = coco_mask.merge(coco_mask.frPyObjects([list(map(float, polygon)) for polygon in polygons], *shape))
    return coco_mask.decode(rle)


def test_a_rectangle_has_four_corners():
    mask = np.zeros((8, 10), dtype=np.uint8)
    mask[2:5, 3:7] = 1
    assert part_outlines(mask) == [[3, 2, 7, 2, 7, 5, 3, 5]]
    assert part_outlines(np.ones((1, 1))) == [[0, 0, 1, 0, 1, 1, 0, 1]]


def test_parts_and_holes():
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[2:12, 2:12] = 1
    mask[5:8, 5:8] = 0
    mask[6, 6] = 1
    mask[12:14, 12:14] = 1  # touches by a corner
    parts = part_outlines(mask)
    assert len(parts) == 3
    assert (drawn(parts, mask.shape) == mask).all()
    # 4 corners of the part, 4 of its hole, the corner by which the hole was entered again, and that which was left.
    assert sorted(len(part) // 2 for part in parts) == [4, 4, 10]
    assert (drawn([whole_outline(mask)], mask.shape) == mask).all()


def test_an_empty_mask_has_none():
    assert part_outlines(np.zeros((4, 4))) == []
    with pytest.raises(ValueError, match="no pixel"):
        whole_outline(np.zeros((4, 4)))


@given(st.integers(1, 14), st.integers(1, 14), st.floats(0.05, 0.95), st.integers(0, 2**30))
def test_any_mask_comes_back(height, width, share, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    if not mask.any():
        return
    assert (drawn(part_outlines(mask), mask.shape) == mask).all()
    assert (drawn([whole_outline(mask)], mask.shape) == mask).all()


def test_large_smooth_masks_come_back():
    y, x = np.mgrid[:900, :700]
    mask = (((x - 300) / 250) ** 2 + ((y - 420) / 400) ** 2 < 1).astype(np.uint8)
    mask[((x - 260) / 60) ** 2 + ((y - 300) / 90) ** 2 < 1] = 0
    mask[((x - 650) / 30) ** 2 + ((y - 100) / 50) ** 2 < 1] = 1
    assert (drawn(part_outlines(mask), mask.shape) == mask).all()
    assert (drawn([whole_outline(mask)], mask.shape) == mask).all()
