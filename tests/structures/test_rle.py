"""Run lengths: both of Kaggle's dialects, by hand, against SIIM's own slow loops, and damaged."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from xray.errors import InputError
from xray.structures.rle import coco_counts, decode, encode, fits, is_empty, is_telling, other, read_runs, runs_of

DIALECTS = ("relative", "absolute")

# Of 3 rows and 4 columns, counted down the columns: pixels 1, 2, 3 and 8, 9.
MASK = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 1, 0]], dtype=bool)


@pytest.mark.parametrize(("dialect", "text"), [("relative", "1 3 4 2"), ("absolute", "2 3 9 2")])
def test_a_mask_by_hand(dialect, text):
    assert encode(MASK, dialect) == text
    np.testing.assert_array_equal(decode(text, 3, 4, dialect), MASK)
    np.testing.assert_array_equal(decode(f"  {text} \n", 3, 4, dialect), MASK)
    np.testing.assert_array_equal(decode(text.replace(" ", ".0 ") + ".", 3, 4, dialect), MASK)


@pytest.mark.parametrize(
    ("pixels", "relative", "absolute"),
    [
        ([], "-1", ""),
        (range(12), "0 12", "1 12"),
        ([0], "0 1", "1 1"),
        ([11], "11 1", "12 1"),
        ([0, 11], "0 1 10 1", "1 1 12 1"),
        ([0, 1, 2, 4, 6, 10, 11], "0 3 1 1 1 1 3 2", "1 3 5 1 7 1 11 2"),
    ],
)
def test_first_and_last_pixel_empty_and_full(pixels, relative, absolute):
    flat = np.zeros(12, dtype=bool)
    flat[list(pixels)] = True
    mask = flat.reshape(4, 3).T
    for dialect, text in (("relative", relative), ("absolute", absolute)):
        assert encode(mask, dialect) == text
        np.testing.assert_array_equal(decode(text, 3, 4, dialect), mask)


@pytest.mark.parametrize("text", ["", " ", "-1", " -1", "-1 \n", "-1.0", "nan"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_mask(text, dialect):
    mask = decode(text, 5, 7, dialect)
    assert mask.shape == (5, 7)
    assert mask.dtype == bool
    assert not mask.any()


def masks():
    return st.builds(
        lambda height, width, seed, share: np.random.default_rng(seed).random((height, width)) < share,
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(0, 2**32 - 1),
        st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]),
    )


@settings(deadline=None)
@given(masks(), st.sampled_from(DIALECTS), st.sampled_from([np.uint8, np.int32, bool, np.float32]))
def test_masks_come_back(mask, dialect, dtype):
    text = encode(mask.astype(dtype) * (1 if dtype is bool else dtype(200)), dialect)
    np.testing.assert_array_equal(decode(text, *mask.shape, dialect), mask)


@settings(deadline=None)
@given(masks())
def test_masks_agree_with_the_challenges_own_reading_and_with_coco(mask):
    height, width = mask.shape
    values = [int(word) for word in encode(mask, "relative").split()]
    flat, position = np.zeros(height * width, dtype=bool), 0
    for gap, length in zip(values[0::2], values[1::2], strict=False):  # "-1" is no pair
        position += gap
        flat[position : position + length] = True
        position += length
    np.testing.assert_array_equal(flat.reshape(width, height).T, mask)

    counts = coco_counts(*runs_of(mask), mask.size).tolist()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    assert rle["counts"] == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=20))
def test_runs_come_back_or_reach_beyond_the_radiograph(height, width, pairs):
    text = " ".join(f"{gap} {length}" for gap, length in pairs)
    total = sum(map(sum, pairs))
    if total > height * width:
        with pytest.raises(InputError, match="reaches beyond"):
            decode(text, height, width, "relative")
        return
    mask = decode(text, height, width, "relative")
    assert mask.sum() == sum(length for _, length in pairs)
    starts, ends = read_runs(text, height, width, "relative")
    absolute = " ".join(f"{start + 1} {end - start}" for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    np.testing.assert_array_equal(decode(absolute, height, width, "absolute"), mask)
    # Runs that touch are one when written again.
    np.testing.assert_array_equal(decode(encode(mask, "relative"), height, width, "relative"), mask)


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.integers(-5, 60), max_size=10).map(lambda values: " ".join(map(str, values))),
        st.lists(st.integers(-(2**70), 2**70), max_size=4).map(lambda values: " ".join(map(str, values))),
    ),
    st.sampled_from(DIALECTS),
)
def test_whatever_the_text_a_mask_or_an_input_error(text, dialect):
    try:
        mask = decode(text, 6, 8, dialect)
    except InputError:
        return
    assert mask.shape == (6, 8)
    # "NULL" and its like say that there is no mask.
    assert mask.sum() == (0 if is_empty(text) else sum(int(word) for word in text.split()[1::2]))


@pytest.mark.parametrize(
    ("text", "dialect", "message"),
    [
        ("1 2 3", "relative", "3 numbers: runs are pairs"),
        ("-1 -1 -1", "relative", "3 numbers"),
        ("1 two", "relative", "'two', which is no whole number"),
        ("1 2.5", "absolute", "'2.5', which is no whole number"),
        ("1 nan", "absolute", "'nan'"),
        ("1.0 two", "absolute", "'two'"),
        (f"1 {'9' * 30}", "absolute", "'99999999999999999999', which is no whole"),
        ("3 0", "relative", r"run 1 of the mask \(3 0\) has no pixel"),
        ("3 2 1 -2", "relative", r"run 2 of the mask \(1 -2\) has no pixel"),
        ("3 2 -1 2", "relative", r"run 2 of the mask \(-1 2\) begins before the run in front of it ends"),
        ("-1 2", "relative", r"run 1 of the mask \(-1 2\) begins before"),
        ("5 4 3 1", "relative", r"run 2 of the mask \(3 1\) reaches beyond the 4 x 3 pixels"),
        ("12 1", "relative", r"run 1 of the mask \(12 1\) reaches beyond"),
        (f"{2**62} 1 {2**62} 1", "relative", "run 1 .* reaches beyond"),
        ("0 3", "absolute", r"run 1 of the mask \(0 3\) begins before the first pixel, which is 1"),
        ("5 2 1 2", "absolute", r"run 2 of the mask \(1 2\) begins before the run in front of it"),
        ("1 5 5 2", "absolute", r"run 2 of the mask \(5 2\) overlaps the run in front of it"),
        ("1 2 1 2", "absolute", r"run 2 of the mask \(1 2\) overlaps"),
        ("12 2", "absolute", r"run 1 of the mask \(12 2\) reaches beyond the 4 x 3 pixels"),
    ],
)
def test_damaged_run_lengths_are_refused(text, dialect, message):
    with pytest.raises(InputError, match=message):
        decode(text, 3, 4, dialect)


@settings(deadline=None)
@given(
    st.sampled_from(DIALECTS), st.integers(30, 170), st.integers(30, 170), st.integers(3, 25), st.integers(3, 25),
    st.integers(0, 180),
)  # fmt: skip
def test_an_ellipse_in_the_other_dialect_is_told_from_a_damaged_one(dialect, x, y, width, height, angle):
    mask = np.zeros((200, 200), dtype=np.uint8)
    cv2.ellipse(mask, (x, y), (width, height), angle, 0, 360, 1, -1)
    text = encode(mask, other(dialect))
    assert fits(text, 200, 200, other(dialect))
    # It has a run for each of at least seven columns: only those near the left edge may fit either dialect by chance.
    assert not fits(text, 200, 200, dialect) or x < 60
    assert is_telling(text, dialect)


def test_damaged_texts_are_not_taken_for_the_other_dialect():
    rows = [f"{start} 20" for start in range(1000, 3000, 200)]
    unsorted = " ".join([*rows[:4], rows[5], rows[4], *rows[6:]])
    assert not fits(unsorted, 200, 200, "absolute")
    assert fits(unsorted, 200, 200, "relative")
    assert not is_telling(unsorted, "absolute")
    for dialect in DIALECTS:
        assert not is_telling("100 10 50 10", dialect)
