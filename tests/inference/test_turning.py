"""Findings of radiographs that were turned upright, in the files' own pixels: to the pixel, in all four turns."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.findings import NO_FINDING_BOX
from xray.inference.findings import Findings
from xray.inference.turning import boxes_turned_back, map_turned_back, turned_back
from xray.radiographs import decoding
from xray.radiographs.canvas import Canvas
from xray.radiographs.decoding import decode_canvas, decode_whole
from xray.radiographs.image_check import FRONTAL, Gate, ImageCheck
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask, encode_pixels
from xray.structures.predictions import NO_FINDING_CATEGORY

TURNS = (0, 1, 2, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(TURNS), st.data())
def test_a_box_is_where_its_pixels_are(width: int, height: int, turn: int, data: st.DataObject) -> None:
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    pixels = np.zeros((height, width), np.uint8)
    pixels[y1:y2, x1:x2] = 1
    turned = np.rot90(pixels, turn)
    rows, columns = np.flatnonzero(turned.any(axis=1)), np.flatnonzero(turned.any(axis=0))
    found = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
    assert boxes_turned_back(found, turn, (width, height)).tolist() == [[x1, y1, x2, y2]]


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_masks_and_maps_go_back_together(turn: int) -> None:
    rng = np.random.default_rng(turn)
    mask = np.zeros((30, 44), np.uint8)
    mask[4:11, 9:32] = rng.integers(0, 2, (7, 23))
    mask[4, 9] = mask[10, 31] = 1
    other = np.zeros((20, 20), np.uint8)
    other[3:5, 6:9] = 1
    upright = np.ascontiguousarray(np.rot90(mask, turn))
    rows, columns = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    table = BoxTable.of([0, 0, 1], [13, NO_FINDING_CATEGORY, 13], [box, NO_FINDING_BOX, [6, 3, 9, 5]], [0.9, 0.1, 0.8])
    size = (44, 30) if turn % 2 == 0 else (30, 44)
    maps = np.stack([Canvas(*size, 32).letterbox(upright)[None], Canvas(20, 20, 32).letterbox(other)[None]])
    findings = Findings(table, {0: encode_pixels(upright), 2: encode_pixels(other)}, maps, {"abnormal": np.ones(2)})
    back = turned_back(findings, [turn, 0], [(44, 30), (20, 20)])
    assert back.table.boxes.tolist() == [[9, 4, 32, 11], list(NO_FINDING_BOX), [6, 3, 9, 5]]
    assert (decode_mask(back.masks[0]) == mask).all()
    assert (decode_mask(back.masks[2]) == other).all()
    assert back.maps is not None
    assert (back.maps[1] == maps[1]).all()
    assert (back.labels["abnormal"] == 1).all()
    if turn == 0:
        assert back is findings
        return
    # On the canvas of the file: the pixels of the upright canvas, turned, where the file's own letterbox has them.
    left, top, right, bottom = Canvas(44, 30, 32).content
    content = back.maps[0, 0, top:bottom, left:right]
    straight = Canvas(44, 30, 32).letterbox(mask)[top:bottom, left:right]
    assert content.shape == straight.shape
    assert (content == straight).mean() > 0.99
    assert back.maps[0, 0].sum() == content.sum()


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("size", [(7, 40), (33, 32), (40, 7), (31, 31)])
def test_a_map_of_any_shape_goes_back(size: tuple[int, int], turn: int) -> None:
    width, height = size
    canvas = Canvas(*size, 32)
    left, top, right, bottom = canvas.content
    wanted = np.zeros((2, 32, 32), np.float32)
    wanted[:, top:bottom, left:right] = np.random.default_rng(0).random((2, bottom - top, right - left))
    turned = np.zeros_like(wanted)
    left, top, right, bottom = Canvas(*(size[::-1] if turn % 2 else size), 32).content
    of_file = canvas.content
    turned[:, top:bottom, left:right] = np.rot90(
        wanted[:, of_file[1] : of_file[3], of_file[0] : of_file[2]], turn, axes=(1, 2)
    )
    assert (map_turned_back(turned, turn, (width, height)) == wanted).all()


@pytest.mark.parametrize("turn", TURNS)
def test_the_canvas_is_upright_and_the_size_is_the_file_s(
    tmp_path: Path, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upright = np.random.default_rng(3).integers(0, 255, (50, 40), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), np.rot90(upright, -turn))
    check = ImageCheck(FRONTAL, FRONTAL, 1.0, turn)
    monkeypatch.setattr("xray.radiographs.image_check.check_image", lambda pixels, header: check)
    for decode in (decode_canvas, decode_whole):
        item = decode(4, tmp_path / "a.png", 32, gate=Gate("warn", upright=True))
        assert (item.canvas == Canvas(40, 50, 32).letterbox(upright)).all()
        assert (item.width, item.height) == ((40, 50) if turn % 2 == 0 else (50, 40))
        assert item.size_on_canvas == (40, 50)
        assert item.turn == turn
        assert len(item.warnings) == bool(turn)
    assert isinstance(item, decoding.DecodedWhole)
    assert (item.pixels == np.rot90(upright, -turn)).all()
    assert decode_canvas(4, tmp_path / "a.png", 32, gate=Gate("warn")).turn == 0
