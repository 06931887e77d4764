"""Uncompressed pixels whose values do not fill whole words, or share their chroma, against one loop over bits."""

import dicom_cases as cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.radiographs.pixel_layout import Layout, native_size, native_words, unpacked


@given(st.integers(9, 15), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packed_values_come_out(bits, n, seed):
    values = np.random.default_rng(seed).integers(0, 2**bits, n)
    assert unpacked(cases.packed(values, bits), n, bits).tolist() == values.tolist()


def test_two_values_in_three_bytes():
    # ACR-NEMA: 0xABC and 0x123.
    assert unpacked(bytes([0xBC, 0x3A, 0x12]), 2, 12).tolist() == [0xABC, 0x123]


@pytest.mark.parametrize("columns", [4, 5])
def test_pairs_share_their_chroma(columns):
    layout = Layout(3, columns, 8, 8, 7, False, "YBR_FULL_422", samples=3)
    n = 3 * columns
    luma = np.arange(n, dtype=np.uint8)
    shared = np.zeros(2 * n, np.uint8)
    for at in range(0, n, 2):
        pair = luma[at : at + 2]
        shared[2 * at : 2 * at + len(pair)] = pair
        if len(pair) == 2:
            shared[2 * at + 2 : 2 * at + 4] = 100 + at, 200 - at
    assert native_size(layout, len(shared)) == len(shared)
    words = native_words(shared.tobytes(), layout, False, "OB").reshape(-1, 3)
    assert words[:, 0].tolist() == luma.tolist()
    for at in range(0, n - 1, 2):
        assert words[at, 1:].tolist() == words[at + 1, 1:].tolist() == [100 + at, 200 - at]


def test_pairs_that_were_taken_apart_already():
    layout = Layout(2, 4, 8, 8, 7, False, "YBR_FULL_422", samples=3)
    assert native_size(layout, 24) == 24
    data = np.arange(24, dtype=np.uint8)
    assert native_words(data.tobytes(), layout, False, "OB").ravel().tolist() == data.tolist()
