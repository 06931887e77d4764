"""The canvas: boxes and masks go there and back without losing their place."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xray.radiographs.canvas import Canvas
from xray.structures.boxes import box_iou

canvases = st.builds(Canvas, st.integers(1, 4000), st.integers(1, 4000), st.integers(8, 1500))


def test_content_by_hand():
    # 2000 x 1000 on 500: a quarter, so 500 x 250, with 125 black rows above and below.
    assert Canvas(2000, 1000, 500).content == (0, 125, 500, 375)
    assert Canvas(1000, 2000, 500).content == (125, 0, 375, 500)
    assert Canvas(300, 300, 600).content == (0, 0, 600, 600)


def test_boxes_by_hand():
    canvas = Canvas(2000, 1000, 500)
    np.testing.assert_allclose(canvas.to_canvas([[400, 200, 800, 1000]]), [[100, 175, 200, 375]])
    np.testing.assert_allclose(canvas.to_original([[100, 175, 200, 375]]), [[400, 200, 800, 1000]])


def test_boxes_in_the_padding_are_clipped_to_the_radiograph():
    np.testing.assert_allclose(Canvas(2000, 1000, 500).to_original([[-5, 0, 505, 500]]), [[0, 0, 2000, 1000]])


@given(canvases)
def test_the_radiograph_fills_its_content_and_stays_on_the_canvas(canvas):
    left, top, right, bottom = canvas.content
    assert 0 <= left < right <= canvas.size
    assert 0 <= top < bottom <= canvas.size
    assert max(right - left, bottom - top) == canvas.size
    assert abs(left - (canvas.size - right)) <= 1
    assert abs(top - (canvas.size - bottom)) <= 1
    np.testing.assert_allclose(canvas.to_canvas([[0, 0, canvas.width, canvas.height]]), [canvas.content])


@given(canvases, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back_to_a_millionth_of_a_pixel(canvas, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = np.array([[x1, y1, x2, y2]]) * [canvas.width, canvas.height, canvas.width, canvas.height]
    on_canvas = canvas.to_canvas(box)
    assert (on_canvas >= -1e-6).all()
    assert (on_canvas <= canvas.size + 1e-6).all()
    np.testing.assert_allclose(canvas.to_original(on_canvas), box, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(16, 400), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_where_it_was(width, height, size, seed):
    # A mask thinner than a canvas pixel may fall between two of them.
    assume(min(width, height) // 3 > max(width, height) / size)
    canvas = Canvas(width, height, size)
    random = np.random.default_rng(seed)
    x, y = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
    x2, y2 = int(random.integers(x + width // 3, width + 1)), int(random.integers(y + height // 3, height + 1))
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[y:y2, x:x2] = 1
    boxed = canvas.letterbox(mask, is_mask=True)
    assert set(np.unique(boxed)) <= {0, 1}
    back = canvas.unletterbox(boxed * 255) > 127
    assert back.shape == mask.shape
    # An edge may move by the pixel of the coarser grid, no further.
    pixel = max(1.0, max(width, height) / size)
    rows, columns = np.nonzero(back)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - [x, y, x2, y2]).max() <= pixel + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(64, 400), st.integers(0, 2**32 - 1))
def test_boxes_and_pixels_agree_on_where_a_finding_is(width, height, size, seed):
    canvas = Canvas(width, height, size)
    random = np.random.default_rng(seed)
    x, y = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
    x2, y2 = x + width // 3, y + height // 3
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[y:y2, x:x2] = 255
    rows, columns = np.nonzero(canvas.letterbox(pixels) >= 128)
    bright = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert np.abs(canvas.to_canvas([[x, y, x2, y2]]) - bright).max() <= max(1.0, size / max(width, height)) + 0.5
    assert box_iou(canvas.to_canvas([[x, y, x2, y2]]), bright)[0, 0] > 0.7


def test_padding_is_black_and_the_dtype_stays():
    canvas = Canvas(40, 20, 40)
    boxed = canvas.letterbox(np.full((20, 40), 1000, dtype=np.uint16))
    assert boxed.dtype == np.uint16
    assert (boxed[:10] == 0).all()
    assert (boxed[30:] == 0).all()
    assert (boxed[10:30] == 1000).all()


def test_shrinking_averages_instead_of_sampling():
    # A fine checkerboard must turn grey: nearest neighbour or plain bilinear would leave stripes.
    board = (np.indices((400, 400)).sum(axis=0) % 2 * 200).astype(np.uint8)
    assert (np.abs(Canvas(400, 400, 100).letterbox(board).astype(int) - 100) <= 1).all()


@pytest.mark.parametrize("sides", [(0, 10, 10), (10, 0, 10), (10, 10, 0), (-1, 10, 10)])
def test_a_canvas_needs_sides(sides):
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Canvas(*sides)


def test_pixels_of_another_shape_are_refused():
    canvas = Canvas(40, 20, 32)
    with pytest.raises(ValueError, match="made for"):
        canvas.letterbox(np.zeros((40, 20), dtype=np.uint8))
    with pytest.raises(ValueError, match="expected"):
        canvas.unletterbox(np.zeros((20, 40), dtype=np.uint8))
