"""Probability maps: what is written is read back, what was never added is left out, damage is named."""

import json

import numpy as np
import pytest

from xray.errors import InputError
from xray.radiographs.canvas import Canvas
from xray.structures.probability_maps import INDEX, MAPS, MapWriter, read_maps

CATEGORIES = {1: "Right lung", 2: "Left lung"}


@pytest.fixture
def folder(tmp_path):
    writer = MapWriter(tmp_path, ["a", "b", "c"], CATEGORIES, 32)
    half = np.zeros((2, 32, 32))
    half[0, :, :16] = 1
    writer.add(2, 60, 40, half, {"abnormal": 0.25})
    writer.add(0, 32, 32, np.full((2, 32, 32), 0.5), {"abnormal": 0.75})
    assert read_maps(tmp_path) is None, "not before they are complete"
    writer.close()
    return tmp_path


def test_what_was_added_comes_back_and_what_was_not_is_left_out(folder):
    maps = read_maps(folder)
    assert maps.image_ids == ("a", "c")
    assert maps.sizes.tolist() == [[32, 32], [60, 40]]
    assert maps.categories == CATEGORIES
    np.testing.assert_array_equal(maps.labels["abnormal"], [0.75, 0.25])
    np.testing.assert_allclose(maps.original(0, 1), 128 / 255)
    truth = np.zeros((40, 60), np.float32)
    truth[:, :30] = 1
    # On the canvas, 60 pixels are 32: the edge is blurred over about two original pixels.
    found = maps.original(1, 0)
    assert found.shape == (40, 60)
    np.testing.assert_allclose(found[:, :28], truth[:, :28])
    np.testing.assert_allclose(found[:, 32:], truth[:, 32:])
    assert Canvas(60, 40, 32).content[2] == 32


def test_damage_is_named(folder, tmp_path):
    assert read_maps(tmp_path / "elsewhere") is None
    content = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**content, "image_ids": ["a"]}))
    with pytest.raises(InputError, match="damaged probability maps"):
        read_maps(folder)
    (folder / INDEX).write_text(json.dumps(content))
    (folder / MAPS).write_bytes((folder / MAPS).read_bytes()[:200])
    with pytest.raises(InputError, match="--probabilities again"):
        read_maps(folder)
