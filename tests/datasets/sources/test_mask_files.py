"""Masks in pictures, and their components."""

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.datasets.sources.mask_reading import regions
from xray.datasets.sources.mask_values import read_values
from xray.radiographs.radiograph import RadiographError
from xray.structures.masks import decode_mask, encode_mask


def pixels_of(region, shape):
    rle, n_pixels = encode_mask(region.rle, shape[1], shape[0])
    mask = decode_mask(rle).astype(bool)
    assert n_pixels == mask.sum()
    return mask


def test_components_by_hand():
    mask = np.zeros((6, 8), dtype=bool)
    mask[0:2, 0:2] = mask[2, 2] = True  # they touch at a corner
    mask[3:6, 6:8] = True
    mask[5, 0] = True
    found, n_small = regions(mask, category=3)
    assert n_small == 0
    assert [region.box.tolist() for region in found] == [[0, 0, 3, 3], [0, 5, 1, 6], [6, 3, 8, 6]]
    assert [int(pixels_of(region, mask.shape).sum()) for region in found] == [5, 1, 6]
    assert {region.category for region in found} == {3}
    found, n_small = regions(mask, min_pixels=5)
    assert [region.box.tolist() for region in found] == [[0, 0, 3, 3], [6, 3, 8, 6]]
    assert n_small == 1
    (whole,), n_small = regions(mask, min_pixels=5, joined=True)
    assert whole.box.tolist() == [0, 0, 8, 6]
    mask[5, 0] = False
    np.testing.assert_array_equal(pixels_of(whole, mask.shape), mask)
    assert regions(mask, min_pixels=7) == ([], 2)
    assert regions(mask, min_pixels=7, joined=True) == ([], 2)
    assert regions(np.zeros((4, 4), dtype=bool)) == ([], 0)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.4, 0.9, 1.0]))
def test_components_add_up_to_the_mask(width, height, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    found, _ = regions(mask)
    total = np.zeros(mask.shape, dtype=int)
    for region in found:
        pixels = pixels_of(region, mask.shape)
        # The RLE is spelt as pycocotools spells it, and the box is the one that it finds.
        assert (
            encode_mask(region.rle, width, height)[0]["counts"]
            == coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()
        )
        x, y, w, h = coco_mask.toBbox(encode_mask(region.rle, width, height)[0]).tolist()
        assert region.box.tolist() == [x, y, x + w, y + h]
        total += pixels
    np.testing.assert_array_equal(total, mask)


def test_pictures_of_masks(tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:12, 6:21] = 1
    path = tmp_path / "mask.png"
    for values in (mask, mask * 255, mask * np.uint8(2), np.stack([mask * 255] * 3, axis=-1), mask.astype(np.uint16)):
        assert cv2.imwrite(str(path), values)
        np.testing.assert_array_equal(read_values(path).labels > 0, mask)
    PIL.Image.fromarray(mask.astype(bool)).save(path)
    np.testing.assert_array_equal(read_values(path).labels > 0, mask)
    # Classes numbered 1 and 2 are both the mask.
    assert cv2.imwrite(str(path), mask + (mask & (np.arange(30) > 10)).astype(np.uint8))
    np.testing.assert_array_equal(read_values(path).labels > 0, mask)
    assert cv2.imwrite(str(tmp_path / "mask.jpg"), mask * 255, [cv2.IMWRITE_JPEG_QUALITY, 60])
    np.testing.assert_array_equal(read_values(tmp_path / "mask.jpg").labels > 0, mask)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(RadiographError, match=r"mask\.png"):
        read_values(tmp_path / "mask.png")
