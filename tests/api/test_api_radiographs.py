"""What may be given to a model of the API, and how it is named and decoded."""

import cv2
import numpy as np
import pydicom
import pytest
from api_cases import data_set, pixels_of, write_dicom, write_png
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from xray.api.radiographs import given
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.radiographs import workers
from xray.radiographs.decoding import Undecodable
from xray.radiographs.radiograph import read_radiograph

SIZE = 32


def decoded(found):
    items = list(found.decode(SIZE, 8))
    assert [item.index for item in items] == list(range(len(found.ids)))
    return items


def test_a_file_is_one_radiograph_and_a_folder_several(tmp_path):
    path = write_png(tmp_path / "raw" / "a.png", 1)
    one, several = given(str(path)), given(tmp_path)
    assert (one.is_single, one.ids, one.names) == (True, ("a",), (str(path),))
    assert (several.is_single, several.ids, several.names) == (False, ("a",), (str(path),))
    for found in (one, several):
        (item,) = decoded(found)
        assert (item.width, item.height, item.canvas.shape) == (40, 30, (SIZE, SIZE))
        np.testing.assert_array_equal(found.origin(item).pixels(), pixels_of(1))


def test_no_process_is_started_to_tell_masks_in_a_folder(tmp_path, monkeypatch):
    # A script without `if __name__ == "__main__"` would run anew in each process.
    def started(*_):
        raise AssertionError("a process was started")

    monkeypatch.setattr(workers, "_start_pool", started)
    path = write_png(tmp_path / "images" / "a.png", 1)
    drawn = np.zeros((30, 40), dtype=np.uint8)
    drawn[5:20, 5:20] = 255
    (tmp_path / "masks").mkdir()
    assert cv2.imwrite(str(tmp_path / "masks" / "a.png"), drawn)
    found = given(tmp_path)
    assert found.names == (str(path),)
    assert found.passed_over == ("masks/: masks beside radiographs, left out",)


def test_a_list_of_paths_keeps_its_order_and_what_cannot_be_read(tmp_path):
    paths = [write_png(tmp_path / "b.png", 2), tmp_path / "gone.png", str(write_png(tmp_path / "deep" / "b.png", 1))]
    found = given(paths)
    assert (found.is_single, found.ids) == (False, ("b", "gone", "deep/b"))
    assert found.names == tuple(map(str, paths))
    first, missing, last = decoded(found)
    assert isinstance(missing, Undecodable)
    assert missing.reason == "gone.png: there is no such file"
    np.testing.assert_array_equal(found.origin(first).pixels(), pixels_of(2))
    np.testing.assert_array_equal(found.origin(last).pixels(), pixels_of(1))


def test_pictures_that_were_made_smaller_are_answered_in_original_pixels(tmp_path):
    path = write_png(tmp_path / "a.png", 1)
    (tmp_path / "test_meta.csv").write_text("image_id,dim0,dim1\na,300,400\n")
    for x in (path, tmp_path, [path]):
        found = given(x)
        (item,) = decoded(found)
        assert (item.width, item.height) == (400, 300)
        assert found.origin(item).pixels().shape == (300, 400)
        (own,) = decoded(given(x, sizes="none"))
        assert (own.width, own.height) == (40, 30)


def test_a_dataset_directory(vinbig_store):
    found = given(vinbig_store)
    store = open_store(vinbig_store)
    assert found.ids == tuple(record["source_id"] for record in store.records)
    items = list(found.decode(store.canvas_size, 8))
    np.testing.assert_array_equal(items[3].canvas, store.images[3])
    assert found.origin(items[3]).pixels().shape == (items[3].height, items[3].width)
    assert given(store).ids == found.ids
    with pytest.raises(InputError, match="was opened without its pixels"):
        given(open_store(vinbig_store, pixels=False))


def test_an_array_is_copied_and_named_by_its_number(tmp_path):
    arrays = [pixels_of(1)[:, ::2], pixels_of(2, 20, 50)]
    found = given(arrays)
    assert (found.ids, found.is_single, given(arrays[0]).is_single) == (("image0", "image1"), False, True)
    items = decoded(found)
    expected = arrays[1].copy()
    arrays[1][:] = 0
    np.testing.assert_array_equal(found.origin(items[1]).pixels(), expected)


@pytest.mark.parametrize("maximum", [65535, 4095, 900])
def test_an_array_of_16_bits_is_read_as_a_png_of_16_bits(tmp_path, maximum):
    values = np.linspace(0, maximum, 1200).astype(np.uint16).reshape(30, 40)
    assert cv2.imwrite(str(tmp_path / "a.png"), values)
    for array in (values, values.astype(">u2")):
        (item,) = decoded(given(array))
        np.testing.assert_array_equal(item.pixels, read_radiograph(tmp_path / "a.png").pixels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), bool), np.zeros((4, 4), np.uint32),
    ],
)  # fmt: skip
def test_arrays_that_are_no_display_grey(array):
    with pytest.raises(InputError, match=r"^an array is \(.*: give display grey, \(H, W\) uint8 or uint16"):
        given(array)
    with pytest.raises(InputError, match=r"^an array \(number 1 of the list\) is"):
        given([np.zeros((4, 4), np.uint8), array])


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_is_read_as_its_file(tmp_path, syntax):
    path = write_dicom(tmp_path / "a.dcm", 1, syntax or ExplicitVRLittleEndian)
    for dataset in (data_set(1, syntax), pydicom.dcmread(path)):
        before = {element.tag: element.value for element in dataset}
        found = given(dataset)
        (item,) = decoded(found)
        np.testing.assert_array_equal(item.pixels, read_radiograph(path).pixels)
        assert {element.tag: element.value for element in dataset} == before
        assert found.ids == ("a",) if hasattr(dataset, "filename") else ("image0",)
        # What reports refer to, and nothing that needs the pixels.
        assert found.origin(item).reference.SOPInstanceUID == "1.2.3.1"
        assert "PixelData" not in found.origin(item).reference


def test_a_data_set_without_pixels_or_identity():
    headless, blank = data_set(1), data_set(2)
    del headless.SOPInstanceUID
    del blank.PixelData
    found = given([headless, blank])
    first, second = decoded(found)
    assert found.origin(first).reference is None
    assert isinstance(second, Undecodable)
    assert second.reason.startswith("image1: ")
    assert "Somebody" not in second.reason


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "^an object of type NoneType cannot be looked at: give a path"),
        (b"a.png", "^an object of type bytes cannot be looked at"),
        ({"a": 1}, "^an object of type dict cannot be looked at"),
        ("nowhere", "^there is nothing at nowhere"),
        ("s3://bucket/a.png", "^s3://bucket/a.png is an address"),
        ([1, 2], "^number 0 of the list is a int"),
        (["a.png", np.zeros((4, 4), np.uint8)], "^a list of paths holds something else"),
        (["a.png", "a.png"], "^a.png is given twice"),
        (["."], "^. is a folder in a list of files"),
    ],
)
def test_what_is_no_radiograph(x, message):
    with pytest.raises(InputError, match=message):
        given(x)


def test_names_of_ones_own():
    arrays = [pixels_of(1), pixels_of(2)]
    assert given(arrays, ids=["x", "y"]).ids == ("x", "y")
    assert given(arrays[0], ids="x").ids == ("x",)
    for ids in (["x"], ["x", "x"], ["x", 1], ["x", ""]):
        with pytest.raises(InputError, match="give each a text of its own"):
            given(arrays, ids=ids)


def test_nothing_is_no_error():
    assert given([]).ids == ()
