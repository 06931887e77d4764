"""Overlays: where the ink lands, what is left out, and tags that neither collide nor leave the picture."""

import itertools
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.outputs.pictures import overlays, strips
from xray.outputs.pictures.marks import Mark, Region, marks_of
from xray.outputs.pictures.overlays import draw_contact_sheet, draw_overlay, draw_side_by_side, save_picture
from xray.outputs.pictures.tags import place_tag
from xray.structures.boxes import BoxTable

ORANGE, RGB_ORANGE = "#E69F00", (230, 159, 0)


def grey(height: int, width: int, value: int = 90) -> np.ndarray:
    return np.full((height, width), value, dtype=np.uint8)


def test_keeps_the_aspect_within_the_limits():
    large = draw_overlay(grey(2880, 2304), [], max_side=1600)
    assert large.shape[1] == 1280
    assert 1600 < large.shape[0] < 1700
    assert large.dtype == np.uint8
    small = draw_overlay(grey(100, 200), [], min_side=600)
    assert small.shape[1] == 600
    assert 300 < small.shape[0] < 400
    between = draw_overlay(grey(900, 700), [])
    assert between.shape[1] == 700
    assert (between[:900] == 90).all()


def test_a_box_lands_on_its_pixels():
    # 1200 x 1000 drawn at half size: the box's corners fall on (100, 150) and (300, 400).
    picture = draw_overlay(grey(1200, 1000), [Mark((200, 300, 600, 800), "ILD", ORANGE)], max_side=600)
    for x, y in ((100, 250), (300, 250), (200, 400), (299, 399)):
        assert tuple(picture[y, x]) == RGB_ORANGE, (x, y)
    # Dark lines on both sides, and nothing else inside, below the tag, and well away from it.
    assert tuple(picture[250, 99]) == tuple(picture[250, 102]) == (0, 0, 0)
    assert (picture[200:390, 110:290] == 90).all()
    assert (picture[410:590] == 90).all()


def test_a_dashed_box_has_gaps():
    mark = Mark((100, 100, 500, 500), "ILD", ORANGE, dashed=True)
    edge = draw_overlay(grey(600, 600), [mark])[500, 120:480]
    assert {tuple(pixel) for pixel in edge.tolist()} == {RGB_ORANGE, (0, 0, 0)}


def test_leaves_out_the_unsure_and_says_so():
    pixels = grey(600, 600)
    sure = [Mark((100 + 40 * i, 100, 130 + 40 * i, 300), "ILD", ORANGE, 0.9 - 0.1 * i) for i in range(3)]
    unsure = [Mark((300, 400, 500, 500), "Atelectasis", ORANGE, 0.29)]
    alone, both = draw_overlay(pixels, sure), draw_overlay(pixels, sure + unsure)
    np.testing.assert_array_equal(alone[:600], both[:600])
    assert (alone[600:] != both[600:]).any(), "the margin has to mention the box left out"
    np.testing.assert_array_equal(draw_overlay(pixels, sure, top_k=2)[:600], draw_overlay(pixels, sure[:2])[:600])
    assert (draw_overlay(pixels, unsure, threshold=0.2)[:600] != 90).any()
    # The truth has no confidence: all of it is drawn.
    truth = [Mark((300, 400, 500, 500), "ILD", ORANGE)]
    assert tuple(draw_overlay(pixels, truth, top_k=0, threshold=1.0)[450, 300]) == RGB_ORANGE


def test_masks_are_translucent_with_a_contour():
    mask = np.zeros((600, 600), dtype=bool)
    mask[100:300, 200:400] = True
    picture = draw_overlay(grey(600, 600), [], [Region(mask, ORANGE)])
    expected = [0.78 * 90 + 0.22 * value for value in RGB_ORANGE]
    np.testing.assert_allclose(picture[200, 300], expected, atol=1)
    assert np.abs(picture[200, 200].astype(int) - RGB_ORANGE).max() < 60, "the contour is drawn in the colour"
    outside = picture[:600][~cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)]
    assert (outside == 90).all()
    with pytest.raises(ValueError, match="of one size"):
        draw_overlay(grey(600, 600), [], [Region(mask[1:], ORANGE)])


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)])
def test_refuses_other_pixels(pixels):
    with pytest.raises(ValueError, match="uint8 pixels"):
        draw_overlay(pixels, [])


anything = st.floats(-1e4, 1e4) | st.sampled_from([np.nan, np.inf, -np.inf, 1e300])


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(st.tuples(*[anything] * 4), st.text(max_size=40), st.booleans()), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_draws_whatever_it_is_given(height, width, rows):
    marks = [Mark(box, name, ORANGE, None, dashed=dashed) for box, name, dashed in rows]
    picture = draw_overlay(grey(height, width), marks, title="x\ny", normal=0.5, max_side=200, min_side=100)
    assert picture.shape[2] == 3
    assert picture.shape[1] <= 200
    assert picture.shape[0] >= 1


@st.composite
def rectangles(draw, width, height):
    x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    return x1, y1, draw(st.integers(x1 + 1, width - 1)), draw(st.integers(y1 + 1, height - 1))


@given(st.lists(st.tuples(rectangles(400, 300), st.integers(20, 180)), min_size=1, max_size=25))
def test_tags_neither_collide_nor_leave_the_picture(rows):
    boxes, taken = [box for box, _ in rows], []
    for box, width in rows:
        place = place_tag((width, 16), box, boxes, taken, (400, 300))
        if place is not None:
            assert place[2] - place[0] + 1 == width
            assert place[3] - place[1] + 1 == 16
            taken.append(place)
        else:
            # A tag may be given up only when the picture is crowded.
            assert sum((b[2] - b[0] + 5) * (b[3] - b[1] + 5) for b in taken) > 0.25 * 400 * 300
    for a, b in itertools.combinations(taken, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    assert all(x1 >= 0 and y1 >= 0 and x2 < 400 and y2 < 300 for x1, y1, x2, y2 in taken)


def test_a_lone_tag_sits_on_top_of_its_box():
    assert place_tag((80, 16), (100, 100, 300, 200), [(100, 100, 300, 200)], [], (400, 300)) == (100, 83, 179, 98)


def test_a_tag_avoids_a_small_neighbour():
    box, nodule = (100, 100, 300, 200), (110, 84, 124, 98)
    place = place_tag((80, 16), box, [box, nodule], [], (400, 300))
    assert place[0] > nodule[2] or place[1] > nodule[3]


def test_marks_of_a_table():
    table = BoxTable.of([0, 0, 0], [4, 15, 1], [(1, 2, 3, 4), (0, 0, 1, 1), (5, 6, 7, 8)], [0.934, 0.87, 0.5])
    marks, normal = marks_of(table, {1: "Aortic enlargement", 4: "Cardiomegaly"})
    assert normal == 0.87
    assert [mark.text for mark in marks] == ["Cardiomegaly 0.93", "Aortic enlargement 0.50"]
    assert marks[0].box == (1, 2, 3, 4)
    assert marks[0].colour != marks[1].colour
    truth, normal = marks_of(table.select(np.array([0])), {4: "Cardiomegaly"}, scored=False)
    assert normal is None
    assert truth[0].score is None
    assert truth[0].text == "Cardiomegaly"
    assert Mark((0, 0, 1, 1), "Nodule/Mass", ORANGE, note="2/3").text == "Nodule/Mass 2/3"


def test_side_by_side_keeps_both_pictures():
    left, right = np.full((300, 200, 3), 50, np.uint8), np.full((260, 240, 3), 70, np.uint8)
    picture = draw_side_by_side(left, right)
    assert (picture == 50).all(axis=2).sum() >= 300 * 200
    assert (picture == 70).all(axis=2).sum() >= 260 * 240
    assert 440 < picture.shape[1] < 460
    assert picture.shape[0] > 300


def test_contact_sheet_places_every_picture():
    pictures = [np.full((30 + i, 40, 3), 100 + i, np.uint8) for i in range(7)]
    sheet = draw_contact_sheet(pictures, columns=3, gap=2)
    assert sheet.shape == (3 * 38 + 2, 3 * 42 + 2, 3)
    for i, picture in enumerate(pictures):
        assert (sheet == 100 + i).all(axis=2).sum() == picture.shape[0] * 40
    with pytest.raises(ValueError, match="at least one"):
        draw_contact_sheet([])


def test_saves_rgb_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    save_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    assert os.listdir(tmp_path) == ["a.png"]


def test_long_notes_are_broken_between_words_and_none_is_cut():
    font = strips.font_of(12)
    text = "no frontal chest radiograph: its header says chest, lateral"
    lines = strips.wrapped(text, 120, font)
    assert len(lines) > 1
    assert " ".join(lines) == text
    assert all(font.getlength(line) <= 120 for line in lines)
    pixels = np.zeros((300, 300), dtype=np.uint8)
    plain, noted = (overlays.draw_overlay(pixels, [], notes=notes) for notes in ((), (text, text)))
    assert noted.shape[0] > plain.shape[0]
