"""Advice about boxes that are small on their canvas."""

import numpy as np

from xray.datasets.box_sizes import about_small_boxes


def test_boxes_of_usual_size_need_no_advice():
    assert about_small_boxes(np.array([8.0, 20, 300]), 3000, 512) == []
    assert about_small_boxes(np.zeros(0), 3000, 512) == []


def test_a_canvas_is_advised_on_which_nineteen_of_twenty_are_eight_pixels_wide():
    (sentence,) = about_small_boxes(np.full(40, 2.0), 3000, 256)
    assert "at most 2.0 canvas pixels" in sentence
    assert sentence.endswith("--image-size 1024")


def test_no_canvas_is_advised_beyond_the_radiographs():
    (sentence,) = about_small_boxes(np.full(40, 2.0), 700, 256)
    assert sentence.endswith("--image-size 700")
    assert about_small_boxes(np.full(40, 2.0), 260, 256) == []


def test_boxes_below_a_pixel_are_counted():
    assert about_small_boxes(np.array([0.5, 0.2, 40, 90]), 256, 256) == [
        "2 boxes are narrower than a pixel of the canvas: training widens what is below one pixel to one"
    ]
    assert about_small_boxes(np.array([0.5, 40]), 256, 256)[0].startswith("1 box is narrower")
