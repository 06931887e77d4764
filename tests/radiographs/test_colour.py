"""Radiographs that are stored as colour: grey is read, by whatever way it is stored, true colour is refused."""

import io
from pathlib import Path

import jpeg_ls
import numpy as np
import openjpeg
import PIL.Image
import pytest
from dicom_cases import chest_values, dataset, encapsulated, save
from pydicom import uid
from pydicom.dataset import Dataset

from xray.radiographs.colour import FEW_COLOURED, expanded
from xray.radiographs.radiograph import RadiographError, read_radiograph

GREY = chest_values(40, 50, bits=8).astype(np.uint8)
DEEP = chest_values(40, 50, bits=12)
PHOTO = np.dstack([GREY, np.roll(GREY, 20, axis=1), 255 - GREY])


def three(values: np.ndarray) -> np.ndarray:
    """(H, W) → (H, W, 3) equal samples."""
    return np.repeat(values[:, :, None], 3, axis=2)


def colour_dataset(samples: np.ndarray, bits: int = 8, photometric: str = "RGB", planar: int = 0) -> Dataset:
    """A data set of (H, W, 3) samples."""
    ds = dataset(samples[..., 0], bits, SamplesPerPixel=3, PhotometricInterpretation=photometric)
    ds.PlanarConfiguration = planar
    data = (samples.transpose(2, 0, 1) if planar else samples).astype("u1" if bits <= 8 else "<u2").tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    return ds


def read(path: Path) -> np.ndarray:
    return read_radiograph(path).pixels.astype(int)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("planar", [0, 1])
def test_equal_samples(syntax, planar, tmp_path):
    ds = colour_dataset(three(GREY), planar=planar)
    if syntax == uid.ExplicitVRBigEndian:
        ds["PixelData"].VR = "OB"
    assert np.array_equal(read(save(tmp_path / "x.dcm", ds, syntax)), GREY)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless])
def test_equal_samples_of_12_bits(syntax, tmp_path):
    path = save(tmp_path / "x.dcm", colour_dataset(three(DEEP), bits=12), syntax)
    assert np.abs(read(path) - DEEP / 4095 * 255).max() <= 0.5


@pytest.mark.parametrize("missing", ["PhotometricInterpretation", "SamplesPerPixel", "PlanarConfiguration"])
def test_a_header_that_leaves_one_out(missing, tmp_path):
    ds = colour_dataset(three(GREY))
    delattr(ds, missing)
    assert np.array_equal(read(save(tmp_path / "x.dcm", ds)), GREY)


def test_three_samples_called_by_what_they_show(tmp_path):
    ds = colour_dataset(three(GREY), photometric="MONOCHROME2")
    assert np.array_equal(read(save(tmp_path / "x.dcm", ds)), GREY)


@pytest.mark.parametrize("planar", [0, 1])
def test_luma_and_neutral_chroma(planar, tmp_path):
    ds = colour_dataset(np.dstack([GREY, *[np.full_like(GREY, 128)] * 2]), photometric="YBR_FULL", planar=planar)
    assert np.array_equal(read(save(tmp_path / "x.dcm", ds)), GREY)


def test_pairs_of_pixels_that_share_their_chroma(tmp_path):
    # PS3.3 C.7.6.3.1.2: Y1 Y2 Cb Cr.
    pairs = np.full((40, 25, 4), 128, np.uint8)
    pairs[..., 0], pairs[..., 1] = GREY[:, 0::2], GREY[:, 1::2]
    ds = colour_dataset(three(GREY), photometric="YBR_FULL_422")
    ds.PixelData = pairs.tobytes()
    assert np.array_equal(read(save(tmp_path / "full.dcm", ds)), GREY)
    # ITU-R BT.601's limited range: black is 16, white 235.
    pairs[..., :2] = 16 + pairs[..., :2] * (219 / 255)
    ds.PhotometricInterpretation, ds.PixelData = "YBR_PARTIAL_422", pairs.tobytes()
    expected = (pairs[..., :2].reshape(40, 50).astype(float) - 16) / 219 * 255
    assert np.abs(read(save(tmp_path / "partial.dcm", ds)) - expected).max() <= 0.5


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 40, "subsampling": 2}, {"keep_rgb": True}])
def test_jpeg_whatever_its_header_calls_it(photometric, options, tmp_path):
    stream = io.BytesIO()
    PIL.Image.fromarray(three(GREY)).save(stream, "JPEG", **options)
    path = encapsulated(
        tmp_path / "x.dcm", colour_dataset(three(GREY), photometric=photometric), uid.JPEGBaseline8Bit,
        [stream.getvalue()],
    )  # fmt: skip
    expected = np.asarray(PIL.Image.open(stream).convert("L")).astype(int)
    assert np.abs(read(path) - expected).max() <= 1


def test_jpeg_of_one_sample_called_colour(tmp_path):
    stream = io.BytesIO()
    PIL.Image.fromarray(GREY).save(stream, "JPEG", quality=100)
    path = encapsulated(tmp_path / "x.dcm", colour_dataset(three(GREY)), uid.JPEGBaseline8Bit, [stream.getvalue()])
    assert np.abs(read(path) - GREY).max() <= 1


@pytest.mark.parametrize("interleave", [0, 1, 2])
def test_jpeg_ls(interleave, tmp_path):
    samples = three(GREY) if interleave else np.ascontiguousarray(three(GREY).transpose(2, 0, 1))
    code = bytes(jpeg_ls.encode_array(samples, interleave_mode=interleave))
    path = encapsulated(tmp_path / "x.dcm", colour_dataset(three(GREY)), uid.JPEGLSLossless, [code])
    assert np.array_equal(read(path), GREY)


@pytest.mark.parametrize(("photometric", "mct"), [("YBR_RCT", True), ("RGB", False)])
def test_jpeg_2000(photometric, mct, tmp_path):
    code = openjpeg.encode(three(GREY), photometric_interpretation=1 if mct else 0, use_mct=mct)
    path = encapsulated(
        tmp_path / "x.dcm", colour_dataset(three(GREY), photometric=photometric), uid.JPEG2000Lossless, [code]
    )
    assert np.array_equal(read(path), GREY)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.JPEG2000Lossless])
def test_true_colour_is_refused(syntax, tmp_path):
    ds = colour_dataset(PHOTO)
    if syntax == uid.JPEGBaseline8Bit:
        stream = io.BytesIO()
        PIL.Image.fromarray(PHOTO).save(stream, "JPEG")
        path = encapsulated(tmp_path / "x.dcm", ds, syntax, [stream.getvalue()])
    elif syntax == uid.JPEG2000Lossless:
        path = encapsulated(tmp_path / "x.dcm", ds, syntax, [openjpeg.encode(PHOTO)])
    else:
        path = save(tmp_path / "x.dcm", ds)
    with pytest.raises(RadiographError, match=r"x\.dcm: its pixels are in colour \(RGB\), .* export it in grey"):
        read_radiograph(path)


@pytest.mark.parametrize(("n_coloured", "is_read"), [(1, True), (200, False)])
def test_marks_in_colour(n_coloured, is_read, tmp_path):
    samples = three(chest_values(120, 100, bits=8).astype(np.uint8))
    samples[0, :100] = samples[1, :100] = 0
    samples.reshape(-1, 3)[:n_coloured] = 255, 0, 0
    path = save(tmp_path / "x.dcm", colour_dataset(samples))
    if is_read:
        radiograph = read_radiograph(path)
        assert radiograph.warnings == (FEW_COLOURED,)
        assert radiograph.pixels[0, 0] == round(0.299 * 255)
    else:
        with pytest.raises(RadiographError, match="in colour"):
            read_radiograph(path)


def test_samples_that_differ_by_as_much_as_codecs_let_them(tmp_path):
    rng = np.random.default_rng(0)
    samples = np.clip(three(GREY).astype(int) + rng.integers(-3, 4, PHOTO.shape), 0, 255)
    luma = samples @ [0.299, 0.587, 0.114]
    assert np.abs(read(save(tmp_path / "x.dcm", colour_dataset(samples))) - luma).max() <= 0.5


def palette(entries: np.ndarray, first: int = 0, bits: int = 16, data: bytes | None = None, **elements) -> Dataset:
    """A data set whose values are indices into a grey palette."""
    values = elements.pop("values", GREY)
    stored = elements.pop("stored", 8)
    ds = dataset(values, stored, PhotometricInterpretation="PALETTE COLOR", **elements)
    for colour, place in (("Red", 1), ("Green", 2), ("Blue", 3)):
        ds.add_new(0x00281100 | place, "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
        ds.add_new(0x00281200 | place, "OW", data if data is not None else np.asarray(entries).astype("<u2").tobytes())
        assert f"{colour}PaletteColorLookupTableData" in ds
    return ds


STEPS = np.arange(256)


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (palette(STEPS * 257), GREY),
        (palette(STEPS, bits=8), GREY),
        (palette(STEPS, bits=8, data=STEPS.astype(np.uint8).tobytes()), GREY),
        (palette(STEPS, bits=16), GREY),
        (palette((255 - STEPS) * 257), 255 - GREY.astype(int)),
        (palette(STEPS[:100] * 655, first=50), (np.clip(GREY.astype(int) - 50, 0, 99) * 655 / 65535 * 255)),
        (
            palette(np.arange(4096) * 16, first=-2048, values=DEEP - 2048, stored=12, PixelRepresentation=1),
            DEEP * 16 / 65535 * 255,
        ),
    ],
    ids=["16 bits", "8 bits", "8 bits packed", "16 bits of 8", "inverse", "first 50", "signed"],
)
def test_grey_palettes(ds, expected, tmp_path):
    assert np.abs(read(save(tmp_path / "x.dcm", ds)) - expected).max() <= 0.5


def test_a_palette_is_in_colour_as_far_as_it_is_used(tmp_path):
    ds = palette(STEPS * 257, values=np.minimum(GREY, 249))
    ds.GreenPaletteColorLookupTableData = (STEPS * 257 * (STEPS < 250)).astype("<u2").tobytes()
    assert np.array_equal(read(save(tmp_path / "unused.dcm", ds)), np.minimum(GREY, 249))
    ds.GreenPaletteColorLookupTableData = (STEPS[::-1] * 257).astype("<u2").tobytes()
    with pytest.raises(RadiographError, match=r"in colour \(PALETTE COLOR\)"):
        read_radiograph(save(tmp_path / "used.dcm", ds))
    del ds.GreenPaletteColorLookupTableData
    with pytest.raises(RadiographError, match="its palette is missing or damaged"):
        read_radiograph(save(tmp_path / "missing.dcm", ds))


@pytest.mark.parametrize(
    ("segments", "bits"), [(np.array([0, 1, 0, 1, 255, 65535], "<u2"), 16), (np.array([0, 1, 0, 1, 255, 255], "u1"), 8)]
)
def test_segmented_palettes(segments, bits, tmp_path):
    ds = palette(STEPS, bits=bits)
    for place, colour in enumerate(("Red", "Green", "Blue"), start=1):
        delattr(ds, f"{colour}PaletteColorLookupTableData")
        ds.add_new(0x00281220 | place, "OW", segments.tobytes())
    assert np.array_equal(read(save(tmp_path / "x.dcm", ds)), GREY)


def test_segments():
    # Two entries, then four on a line to 100, then one more entry.
    assert expanded([0, 2, 5, 20, 1, 4, 100, 0, 1, 7]).tolist() == [5, 20, 40, 60, 80, 100, 7]
    assert len(expanded([0, 1, 0] + [1, 65535, 9] * 30000)) == 65536
    with pytest.raises(RadiographError, match="missing or damaged"):
        expanded([1, 4, 100])
    with pytest.raises(RadiographError, match="repeats parts of itself"):
        expanded([0, 1, 0, 2, 1, 0, 0])


def test_three_samples_count_for_the_limit(tmp_path):
    ds = colour_dataset(three(GREY))
    ds.Rows = ds.Columns = 8000
    with pytest.raises(RadiographError, match="8000 x 8000 pixels of 3 samples are more than"):
        read_radiograph(save(tmp_path / "x.dcm", ds))
    ds = colour_dataset(three(GREY))
    ds.PixelData = ds.PixelData[:-2]
    with pytest.raises(RadiographError, match=r"truncated: 50 x 40 pixels of 3 samples of 8 bits need 6000 bytes"):
        read_radiograph(save(tmp_path / "cut.dcm", ds))
