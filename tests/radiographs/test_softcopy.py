"""What a viewer needs to show the values of a DICOM image as they are read; `tests/outputs/dicom` has it shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.radiographs.grayscale import GreyMeaning, LookupTable, display_grey
from xray.radiographs.softcopy import MOST, softcopy_of, whole_ratio

WORDS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize(
    ("aspect", "ratio"),
    [(1.0, (1, 1)), (2.0, (2, 1)), (0.5, (1, 2)), (4 / 3, (4, 3)), (0.175 / 0.143, (175, 143)), (0.0, (1, 1)),
     (-2.0, (1, 1)), (1e9, (1, 1)), (float("nan"), (1, 1)), (float("inf"), (1, 1))],
)  # fmt: skip
def test_an_aspect_is_a_ratio_of_whole_numbers(aspect, ratio):
    assert whole_ratio(aspect) == ratio


@given(st.floats(1 / MOST, MOST))
def test_any_aspect_is_kept_to_a_thousandth(aspect):
    height, width = whole_ratio(aspect)
    assert 1 <= height <= MOST
    assert 1 <= width <= MOST
    assert height / width == pytest.approx(aspect, rel=1e-3)


def linear(values, centre, width):
    """PS3.3 C.11.2.1.2.1, as it stands there."""
    shares = (values - (centre - 0.5)) / max(width - 1, 1e-12) + 0.5
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return np.where(values <= low, 0, np.where(values > high, 1, shares))


@given(
    st.sampled_from(["LINEAR", "LINEAR_EXACT"]),
    st.floats(-5000, 5000),
    st.floats(1.5, 9000),
    st.sampled_from([1.0, 0.25, -2.0]),
    st.integers(-1000, 1000),
    st.booleans(),
)
def test_any_window_becomes_a_linear_one_of_the_same_greys(function, centre, width, slope, intercept, is_inverted):
    meaning = GreyMeaning(12, 11, False, is_inverted, slope, intercept, windows=((centre, width),))
    meaning = GreyMeaning(**{**meaning.__dict__, "voi_function": function})
    softcopy = softcopy_of(WORDS, meaning)
    assert softcopy.window is not None
    grey = linear(WORDS * softcopy.slope + softcopy.intercept, *softcopy.window)
    grey = 1 - grey if softcopy.is_inverted else grey
    np.testing.assert_allclose(255 * grey, display_grey(WORDS, meaning), atol=0.5 + 1e-6)


def test_without_a_window_it_reaches_from_the_darkest_to_the_brightest_value_that_is_no_padding():
    words = WORDS[8:40].copy()  # 512 … 2559, of which the first becomes padding
    words[0, 0] = 4000
    softcopy = softcopy_of(words, GreyMeaning(12, 11, padding=(4000, 4095)))
    # (values - 513) / 2046 by PS3.3 C.11.2.1.2.1.
    assert softcopy.window == ((513 + 2559) / 2 + 0.5, 2047)


def test_a_table_that_was_announced_too_wide_fills_its_range():
    table = LookupTable(100, np.linspace(0, 1023, 500).round().astype(np.uint16), 16)
    meaning = GreyMeaning(12, 11, windows=((10, 20),), voi_lut=table)
    softcopy = softcopy_of(WORDS, meaning)
    assert softcopy.window is None
    assert (softcopy.voi_lut.first, softcopy.voi_lut.bits, softcopy.voi_lut.entries.max()) == (100, 16, 65535)
    shown = softcopy.voi_lut.apply(WORDS.astype(float)) / 65535 * 255
    np.testing.assert_allclose(shown, display_grey(WORDS, meaning), atol=0.51)
