"""The parts of the search for copies by hand: neighbours, and from which fit on a pair is looked at closer."""

import cv2
import numpy as np
import pytest
from planting import draw_pictures

from xray.audit.alignment import ANY_FIT, LEAST_FITS, Fit, laid_upon
from xray.audit.duplicates import SLACK, least_fits, nearest


def test_neighbours_come_in_order_without_oneself():
    descriptions = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
    found = nearest(descriptions[[0, 3]], descriptions, np.array([0, 3]), 3)
    assert found.tolist() == [[1, 2, 3], [2, 1, 0]]
    # Of three there are two others.
    assert nearest(descriptions[:1], descriptions[:3], np.array([0]), 3).tolist() == [[1, 2, -1]]
    assert nearest(descriptions[:1], descriptions[:1], np.array([0]), 3).tolist() == [[-1, -1, -1]]


def test_neighbours_as_sorting_has_them():
    random = np.random.default_rng(0)
    descriptions = random.normal(size=(60, 16)).astype(np.float32)
    likeness = descriptions @ descriptions.T
    np.fill_diagonal(likeness, -np.inf)
    expected = np.argsort(-likeness, axis=1)[:, :3]
    assert nearest(descriptions, descriptions, np.arange(60), 3).tolist() == expected.tolist()


def test_pairs_are_given_up_below_what_copies_have():
    # Copies that fit by tanh(2) and tanh(1.8), one that could not be aligned, and one that fell at the first grid.
    copies = [Fit(np.tanh(2.0), np.tanh(1.8), 0.9)] * 40 + [Fit(), Fit(np.tanh(2.0))]
    assert least_fits(copies) == pytest.approx((np.tanh(2 - SLACK), np.tanh(1.8 - SLACK)))
    # Never less than the limits for any dataset, and these without a copy.
    assert least_fits([Fit(0.7, 0.75, 0.6)] * 10) == LEAST_FITS
    assert least_fits([Fit()] * 3) == least_fits([]) == LEAST_FITS
    assert Fit(0.9, 0.8, 0.7).reaches((0.9, 0.8))
    assert not Fit(0.9, 0.8, 0.7).reaches((0.9, 0.81))
    assert not Fit(0.9).reaches(LEAST_FITS)


def test_a_pair_that_is_given_up_is_not_looked_at_in_detail():
    pictures = [cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA) for picture in draw_pictures(2, 128)[0]]
    asked = []

    def both(number):
        def fine():
            asked.append(number)
            return pictures[number]

        return cv2.resize(pictures[number], (64, 64), interpolation=cv2.INTER_AREA), fine

    copy = laid_upon(both(0), both(0))
    assert min(copy.coarse, copy.middle, copy.detail) > 0.999
    whole = laid_upon(both(0), both(1), ANY_FIT)
    assert asked == [0, 0, 0, 1]
    assert 0 <= whole.detail < 0.8
    assert laid_upon(both(0), both(1), (whole.coarse + 0.01, 0)) == Fit(whole.coarse)
    assert laid_upon(both(0), both(1), (0, whole.middle + 0.01)) == Fit(whole.coarse, whole.middle)
    assert asked == [0, 0, 0, 1]
