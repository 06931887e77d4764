"""COCO segmentations of every kind, and damaged ones that must not reach the C code behind pycocotools."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.structures.masks import MaskError, decode_mask, encode_mask


def test_a_polygon_by_hand():
    # A rectangle of 20 x 10 pixels on a radiograph of 60 x 40.
    rle, n_pixels = encode_mask([[10, 5, 30, 5, 30, 15, 10, 15]], 60, 40)
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[5:15, 10:30] = 1
    assert rle["size"] == [40, 60]
    assert isinstance(rle["counts"], str)
    assert n_pixels == 200
    np.testing.assert_array_equal(decode_mask(rle), expected)


def test_several_polygons_are_one_mask():
    rle, n_pixels = encode_mask([[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]], 60, 40)
    assert n_pixels == 175
    assert decode_mask(rle)[12, 12] == 1


def test_plain_run_lengths_run_down_the_columns():
    # 41 zeros reach the second column's second row.
    rle, n_pixels = encode_mask({"size": [40, 60], "counts": [41, 2, 2357]}, 60, 40)
    assert n_pixels == 2
    assert np.argwhere(decode_mask(rle)).tolist() == [[1, 1], [2, 1]]


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98]))
def test_run_lengths_come_back(width, height, seed, share):
    random = np.random.default_rng(seed)
    mask = (random.random((height, width)) < share).astype(np.uint8)
    mask[random.integers(height), random.integers(width)] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    text = compressed["counts"].decode()
    for counts in (text, text.encode()):
        rle, n_pixels = encode_mask({"size": [height, width], "counts": counts}, width, height)
        assert rle == {"size": [height, width], "counts": text}
        assert n_pixels == mask.sum()
    np.testing.assert_array_equal(decode_mask(rle), mask)


def test_long_runs_of_a_large_radiograph():
    mask = np.zeros((3000, 2500), dtype=np.uint8)
    cv2.circle(mask, (1500, 1200), 900, 1, -1)
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    rle, n_pixels = encode_mask({"size": [3000, 2500], "counts": counts}, 2500, 3000)
    assert (rle["counts"], n_pixels) == (counts, mask.sum())


@settings(deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(st.integers(-50, 3000), max_size=10)))
def test_damaged_run_lengths_are_refused_or_fill_the_radiograph(counts):
    try:
        rle, n_pixels = encode_mask({"size": [40, 60], "counts": counts}, 60, 40)
    except ValueError:
        return
    assert decode_mask(rle).sum() == n_pixels


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither polygons nor run lengths"),
        ([], "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least three points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "finite"),
        ([[1, 2, 3, 4, 5, 1e12]], "far outside"),
        ([["a", "b", "c", "d", "e", "f"]], "not numbers"),
        ([[70, 70, 80, 70, 80, 80]], "no pixel"),
        ({"size": [60, 40], "counts": [2400]}, "the radiograph is"),
        ({"size": [40, 60], "counts": [10, 10]}, "cover 20 of 2400"),
        ({"size": [40, 60], "counts": [10, -10, 2400]}, "whole numbers"),
        ({"size": [40, 60], "counts": [2400]}, "no pixel"),
        ({"size": [40, 60]}, "whole numbers"),
        ({"size": [40, 60], "counts": "\x00"}, "none of COCO's"),
        ({"size": [40, 60], "counts": "oooooooooooooooo"}, "none of COCO's"),
        ({"size": [40, 60], "counts": "o"}, "in the middle"),
    ],
)
def test_unusable_masks(segmentation, message):
    with pytest.raises(ValueError, match=message):
        encode_mask(segmentation, 60, 40)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [40, 61], "counts": [2440]}, "mask and image differ in size"),
        ({"size": [40, 60], "counts": [10, 20, 2371]}, "runs beyond the image"),
        ({"size": [40, 60], "counts": [10, -1, 2391]}, "overlapping or unsorted runs"),
        ({"size": [40, 60], "counts": [10, 20]}, "malformed run lengths"),
        ({"size": [40, 60], "counts": [10, 2.5, 2387.5]}, "malformed run lengths"),
        ({"size": [40, 60], "counts": "o"}, "malformed run lengths"),
        ([[1, 2, 3]], "unusable mask"),
    ],
)
def test_what_is_wrong_is_named_by_a_text_to_count_by(segmentation, reason):
    with pytest.raises(MaskError) as error:
        encode_mask(segmentation, 60, 40)
    assert error.value.reason == reason
