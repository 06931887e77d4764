"""The samples that a display gets: through their table they are what every other part of xray sees."""

import json

import cv2
import numpy as np
import pytest
from serving_cases import write_phantom

from xray.phantoms.dicom import Storage
from xray.radiographs.radiograph import RadiographError, read_radiograph
from xray.serving.pixels import pixels_of


def parse(content: bytes) -> tuple[dict, np.ndarray, np.ndarray]:
    """Description, greys and samples, by the words of the documentation."""
    assert content[:4] == b"XRPX"
    n = int.from_bytes(content[4:8], "little")
    description = json.loads(content[8 : 8 + n])
    rest = content[8 + n :]
    n_greys = 2 ** description["bits"]
    samples = np.frombuffer(rest[n_greys:], "<u2" if description["bits"] > 8 else "u1")
    assert (8 + n + n_greys) % samples.itemsize == 0  # browsers read no word that lies askew
    shape = (description["height"], description["width"])
    return description, np.frombuffer(rest[:n_greys], "u1"), samples.reshape(shape)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("monochrome1", [False, True])
def test_a_phantom_file(tmp_path, bits, monochrome1):
    path = tmp_path / "a.dcm"
    write_phantom(path, 1, (), (96, 120), Storage(bits, monochrome1, True, "1.2.840.10008.1.2.1", False))
    description, greys, samples = parse(pixels_of(path))
    assert (samples.shape, description["bits"]) == ((120, 96), bits)
    np.testing.assert_array_equal(greys[samples], read_radiograph(path).pixels)
    # The window, applied by DICOM's own formula to the values, gives the same grey.
    [[center, width]] = description["windows"]
    values = (samples + description["offset"]) * description["slope"] + description["intercept"]
    grey = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    assert description["inverted"] == monochrome1
    np.testing.assert_allclose(255 - grey if monochrome1 else grey, greys[samples], atol=0.51)


def test_real_files(shared_data):
    paths = sorted((shared_data / "dicom").glob("*.dcm"))
    assert len(paths) >= 3
    for path in paths:
        try:
            expected = read_radiograph(path).pixels
        except RadiographError:
            continue
        description, greys, samples = parse(pixels_of(path))
        np.testing.assert_array_equal(greys[samples], expected)
        assert samples.max() < 2 ** description["bits"]


def test_signed_values_padding_and_overlay_bits(tmp_path):
    from pydicom import dcmread

    path = tmp_path / "a.dcm"
    write_phantom(path, 1, (), (96, 120), Storage(12, False, True, "1.2.840.10008.1.2.1", False))
    dataset = dcmread(path)
    stored = np.arange(-2048, 2048, dtype=np.int16).repeat(3)[: 96 * 120].reshape(120, 96)
    overlay = (np.arange(96 * 120).reshape(120, 96) % 2).astype(np.uint16) << 15
    dataset.PixelData = ((stored.view(np.uint16) & 0xFFF) | overlay).tobytes()
    dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 1, 2, 100
    dataset.WindowCenter, dataset.WindowWidth = 0, 1000
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    dataset.save_as(path)
    description, greys, samples = parse(pixels_of(path))
    np.testing.assert_array_equal(greys[samples], read_radiograph(path).pixels)
    np.testing.assert_array_equal(samples.astype(int) + description["offset"], stored)
    assert (description["slope"], description["intercept"]) == (2, 100)
    assert description["padding"] == [48, 58]
    assert description["windows"] == [[0, 1000]]


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for dtype, name in ((np.uint8, "a.png"), (np.uint16, "b.png"), (np.uint8, "c.jpg")):
        pixels = rng.integers(0, np.iinfo(dtype).max, (50, 61), dtype=dtype, endpoint=True)
        assert cv2.imwrite(str(tmp_path / name), pixels)
        description, greys, samples = parse(pixels_of(tmp_path / name))
        assert description["bits"] == 8 * np.dtype(dtype).itemsize
        # Of 16 bits, two roundings may fall apart by one.
        expected = read_radiograph(tmp_path / name).pixels.astype(int)
        assert np.abs(greys[samples].astype(int) - expected).max() <= (dtype == np.uint16)


def test_says_what_is_wrong(tmp_path):
    (tmp_path / "a.txt").write_text("no radiograph")
    with pytest.raises(RadiographError, match="neither DICOM nor PNG nor JPEG"):
        pixels_of(tmp_path / "a.txt")
