"""Raw files of the JSRT database: big-endian, without a header, film density; known by name and size alone."""

import numpy as np
import pytest

from xray.datasets.inputs import open_inputs
from xray.radiographs.jsrt import N_BYTES, SIDE, is_jsrt_name, is_upright, read_jsrt
from xray.radiographs.radiograph import (
    RadiographError,
    find_radiographs,
    radiograph_size,
    read_radiograph,
    source_id,
)


@pytest.fixture(scope="module")
def chest():
    """(2048, 2048) uint16 of 12 bits as displayed: grey tissue, two dark lungs, a bright spine and abdomen."""
    pixels = np.full((SIDE, SIDE), 2000, dtype=np.uint16)
    pixels[400:1300, 300:800] = pixels[400:1300, 1250:1750] = 500
    pixels[300:, 930:1120] = 3500
    pixels[1600:, 300:1750] = 3000
    pixels[0, :3] = 0, 1, 4095
    return pixels


@pytest.fixture
def raw(chest, tmp_path):
    """(name, what is stored, order of bytes) → the file written."""

    def write(name, values=None, order=">u2"):
        path = tmp_path / "raw" / name
        path.parent.mkdir(exist_ok=True)
        (4095 - chest if values is None else values).astype(order).tofile(path)
        return path

    return write


def test_density_is_turned_into_display_grey_of_8_and_16_bits(raw, chest):
    path = raw("JPCLN001.IMG")
    assert path.stat().st_size == N_BYTES == 8_388_608
    assert np.array_equal(read_jsrt(path), chest)
    eight, sixteen = read_radiograph(path), read_radiograph(path, bits=16)
    assert (eight.pixels.dtype, eight.pixels.shape) == (np.uint8, (SIDE, SIDE))
    # 500 / 4095 x 255 = 31.1, 3000 / 4095 x 255 = 186.8
    assert (eight.pixels[800, 500], eight.pixels[1800, 500], eight.pixels[0, 2]) == (31, 187, 255)
    assert (sixteen.pixels[0, 1], sixteen.pixels[0, 2]) == (16, 65535)
    assert eight.spacing == (0.175, 0.175)
    assert radiograph_size(path) == (2048, 2048)
    assert source_id(path) == "JPCLN001"


def test_values_that_somebody_has_turned_round_stay(raw, chest):
    assert is_upright(chest)
    assert not is_upright(4095 - chest)
    assert np.array_equal(read_jsrt(raw("JPCNN093.img", chest)), chest)


def test_a_picture_that_does_not_say_is_taken_as_the_database_has_it(raw):
    assert read_jsrt(raw("JPCLN001.IMG", np.full((SIDE, SIDE), 1000)))[0, 0] == 3095


def test_the_other_order_of_bytes_is_told_by_values_of_12_bits(raw, chest):
    assert np.array_equal(read_jsrt(raw("JPCLN002.IMG", 4095 - chest, "<u2")), chest)
    with pytest.raises(RadiographError, match=r"JPCLN003\.IMG: no raw file of JSRT.*up to 65535.*beyond 12 bits"):
        read_radiograph(raw("JPCLN003.IMG", np.full((SIDE, SIDE), 65535)))


def test_only_the_databases_names_and_size_are_taken_for_it(raw, chest, tmp_path):
    assert is_jsrt_name("jpcnn010.img")
    assert not any(map(is_jsrt_name, ("JPCLN1.IMG", "JPCXN001.IMG", "JPCLN001.IMG.png", "xJPCLN001.IMG")))
    path = raw("JPCLN004.IMG")
    other = raw("scan.img")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(RadiographError, match="neither DICOM nor PNG nor JPEG"):
        read_radiograph(path)
    raw("JPCNN001.IMG")
    skipped = []
    assert [file.name for file in find_radiographs(tmp_path / "raw", passed_over=skipped)] == ["JPCNN001.IMG"]
    assert sorted(warning.where for warning in skipped) == ["JPCLN004.IMG", other.name]


def test_infer_takes_a_folder_of_them(raw):
    raw("JPCLN001.IMG")
    raw("JPCNN001.IMG")
    inputs = open_inputs(raw("JPCNN002.IMG").parent)
    assert inputs.ids == ("JPCLN001", "JPCNN001", "JPCNN002")
    decoded = list(inputs.canvases(64, 0, 60))
    assert [(item.width, item.height, item.canvas.shape) for item in decoded] == [(2048, 2048, (64, 64))] * 3
