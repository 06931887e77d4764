"""What models are run over: a folder, one file, or a dataset directory, in a fixed order under unique names."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from xray.datasets.inputs import open_inputs
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.radiographs.canvas import Canvas
from xray.radiographs.decoding import Undecodable


def write(path, level=100, width=60, height=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width), level, dtype=np.uint8)
    pixels[: height // 2] += 50
    assert cv2.imwrite(str(path), pixels)
    return path


def test_a_folder(tmp_path):
    for number, name in enumerate(("b.png", "deep/a.png", "c.PNG")):
        write(tmp_path / name, 50 + number)
    (tmp_path / "notes.txt").write_text("no radiograph")
    inputs = open_inputs(tmp_path)
    assert inputs.ids == ("a", "b", "c")
    assert len(inputs) == 3
    found = list(inputs.canvases(32, 0, 10))
    assert [item.index for item in found] == [0, 1, 2]
    assert [(item.width, item.height) for item in found] == [(60, 40)] * 3
    expected = Canvas(60, 40, 32).letterbox(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(found[1].canvas, expected)
    np.testing.assert_array_equal(inputs.pixels(0), cv2.imread(str(tmp_path / "deep/a.png"), cv2.IMREAD_GRAYSCALE))


def test_one_file(tmp_path):
    inputs = open_inputs(write(tmp_path / "1.2.840.png"))
    assert inputs.ids == ("1.2.840",)
    assert len(list(inputs.canvases(32, 0, 10))) == 1


def test_equal_names_in_two_folders_are_told_apart_by_their_path(tmp_path):
    for name in ("one/a.png", "two/a.png", "b.png"):
        write(tmp_path / name)
    inputs = open_inputs(tmp_path)
    assert sorted(inputs.ids) == ["b", "one/a", "two/a"]
    for name, path in zip(inputs.ids, inputs.paths, strict=True):
        assert path == tmp_path / f"{name}.png"


def test_equal_stems_in_one_folder_keep_their_suffixes(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        write(tmp_path / name)
    inputs = open_inputs(tmp_path)
    assert dict(zip(inputs.names, inputs.ids, strict=True)) == {"a.jpg": "a.jpg", "a.png": "a.png", "b.png": "b"}
    assert [inputs.file_name(number) for number in range(3)] == list(inputs.names)


def test_only_some(tmp_path):
    for name in "abcd":
        write(tmp_path / f"{name}.png", ord(name))
    inputs = open_inputs(tmp_path).only({"d", "b", "stranger"})
    assert inputs.ids == ("b", "d")
    assert [path.stem for path in inputs.paths] == ["b", "d"]
    assert [item.path.stem for item in inputs.canvases(32, 0, 10)] == ["b", "d"]


def test_a_broken_file_is_an_outcome_not_an_error(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = list(open_inputs(tmp_path).canvases(32, 0, 10))
    assert isinstance(found[1], Undecodable)
    assert "b.png" in found[1].reason
    assert found[0].canvas.shape == (32, 32)


@pytest.mark.parametrize(
    ("part", "rows"), [({}, 16), ({"split": "test"}, 2), ({"split": "train"}, 14), ({"fold": 1}, 7)]
)
def test_a_part_of_a_dataset_directory(side_store, part, rows):
    inputs = open_inputs(side_store, **part)
    store = open_store(side_store)
    assert len(inputs) == rows
    assert list(inputs.ids) == [store.records[row]["source_id"] for row in inputs.rows]
    found = list(inputs.canvases(64, 0, 10))
    for item, row in zip(found, inputs.rows, strict=True):
        np.testing.assert_array_equal(item.canvas, store.images[row])
        assert (item.width, item.height) == (store.records[row]["width"], store.records[row]["height"])
    one = inputs.only({inputs.ids[1]})
    assert one.rows.tolist() == [inputs.rows[1]]


@pytest.mark.parametrize("size", [32, 96])
def test_canvases_of_another_size(side_store, size):
    for item in open_inputs(side_store, split="test").canvases(size, 0, 10):
        assert item.canvas.shape == (size, size)
        assert item.canvas.dtype == np.uint8
        left, top, right, bottom = Canvas(item.width, item.height, size).content
        assert (item.canvas[top + 2 : bottom - 2, left:right] > 0).all()
        if top > 3:
            assert (item.canvas[: top - 2] == 0).all()


def test_pixels_of_a_dataset_are_scaled_back(side_store):
    inputs = open_inputs(side_store)
    store = open_store(side_store)
    pixels = inputs.pixels(1)
    assert pixels.shape == (store.records[1]["height"], store.records[1]["width"])
    source = cv2.imread(str(side_store.parent / "source" / store.records[1]["file_name"]), cv2.IMREAD_GRAYSCALE)
    x1, y1, x2, y2 = store.boxes.boxes[store.boxes.images == 1][0].astype(int)
    inside = (slice(y1 + 3, y2 - 3), slice(x1 + 3, x2 - 3))
    np.testing.assert_allclose(pixels[inside], source[inside], atol=3)


def test_what_cannot_be_opened(side_store, tmp_path):
    with pytest.raises(InputError, match="has no fold 9"):
        open_inputs(side_store, fold=9)
    with pytest.raises(InputError, match="there is no folder"):
        open_inputs(tmp_path / "none")
    with pytest.raises(InputError, match="no radiograph in"):
        open_inputs(tmp_path)
    write(tmp_path / "a.png")
    for part in ({"fold": 0}, {"split": "test"}):
        with pytest.raises(InputError, match=r"choose a part of a dataset directory, and .* is none"):
            open_inputs(tmp_path, **part)
    assert open_inputs(Path(tmp_path)).store is None
