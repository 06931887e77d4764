"""The lookup table against an independent float64 computation, pixel by pixel and step by step."""

import math
from pathlib import Path

import dicom_cases as cases
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from xray.radiographs import grayscale
from xray.radiographs.grayscale import GreyMeaning, LookupTable, display_grey, white_level
from xray.radiographs.radiograph import read_radiograph


def expected_grey(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """The display grey of stored values, 0 to 255 in float64, computed from the header without any table.

    Written from the standard's text alone (PS3.3 C.11.1, C.11.2, C.11.6, C.7.5.1.1.2), value by value.
    """
    # Equal values have equal grey: each is computed once.
    stored, places = np.unique(stored.astype(np.float64), return_inverse=True)
    padded = np.zeros(stored.shape, dtype=bool)
    if "PixelPaddingValue" in ds:
        ends = sorted((int(ds.PixelPaddingValue), int(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue))))
        padded = (stored >= ends[0]) & (stored <= ends[1])

    if "ModalityLUTSequence" in ds:
        modality = _looked_up(ds.ModalityLUTSequence[0], stored)
    else:
        modality = stored * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))

    if "VOILUTSequence" in ds:
        item = ds.VOILUTSequence[0]
        grey = _looked_up(item, modality) / (2 ** item.LUTDescriptor[2] - 1)
    elif "WindowWidth" in ds:
        center, width = (np.atleast_1d(ds[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        grey = np.vectorize(_windowed, otypes=[np.float64])(
            modality, float(center), float(width), ds.get("VOILUTFunction", "LINEAR")
        )
    else:
        inside = modality[~padded]
        grey = np.clip((modality - inside.min()) / (inside.max() - inside.min()), 0, 1)

    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    if "PresentationLUTShape" in ds:
        inverted = ds.PresentationLUTShape == "INVERSE"
    grey = 255 * (1 - grey if inverted else grey)
    grey[padded] = 0
    return grey[places]


def _windowed(x: float, c: float, w: float, function: str) -> float:
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - c) / w))
    if function == "LINEAR_EXACT":
        if x <= c - w / 2:
            return 0.0
        return 1.0 if x > c + w / 2 else (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    return 1.0 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5


def _looked_up(item: Dataset, values: np.ndarray) -> np.ndarray:
    n_entries, first, bits = item.LUTDescriptor
    n_entries = n_entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        entries = list(data[:n_entries]) if bits <= 8 and len(data) <= n_entries + 1 else np.frombuffer(data, "<u2")
    else:
        entries = np.atleast_1d(data)
    result = np.empty(values.shape)
    for index, value in np.ndenumerate(values):
        result[index] = entries[min(max(int(value) - first, 0), n_entries - 1)]
    return result


def check(path: Path, stored: np.ndarray, ds: Dataset | None = None) -> np.ndarray:
    ds = pydicom.dcmread(path) if ds is None else ds
    pixels = read_radiograph(path).pixels
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels - expected_grey(ds, stored))
    assert difference.max() <= 1, f"grey levels differ by up to {difference.max():.2f}"
    return pixels


def test_real_files_agree_with_float64(shared_data: Path) -> None:
    files = sorted((shared_data / "dicom").glob("*.dcm"))
    assert len(files) >= 5
    for path in files:
        ds = pydicom.dcmread(path)
        check(path, ds.pixel_array, ds)


CURVE = np.rint(65535 * np.linspace(0, 1, 4096) ** 0.6).astype(int)

HEADERS = {
    "no window": {},
    "no window, inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "rescale without window": {"RescaleSlope": "2.5", "RescaleIntercept": "-1000"},
    "falling rescale without window": {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
    "linear": {"WindowCenter": "1800", "WindowWidth": "2100"},
    "linear, inverted": {"WindowCenter": "1800", "WindowWidth": "2100", "PhotometricInterpretation": "MONOCHROME1"},
    "linear, odd": {"WindowCenter": "1800.25", "WindowWidth": "3"},
    "linear, threshold": {"WindowCenter": "1800", "WindowWidth": "1"},
    "linear exact": {"WindowCenter": "1800", "WindowWidth": "2100", "VOILUTFunction": "LINEAR_EXACT"},
    "linear exact, narrow": {"WindowCenter": "1800", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": "1800", "WindowWidth": "900", "VOILUTFunction": "SIGMOID"},
    "sigmoid, inverted": {
        "WindowCenter": "1800",
        "WindowWidth": "900",
        "VOILUTFunction": "SIGMOID",
        "PresentationLUTShape": "INVERSE",
    },
    "several windows": {"WindowCenter": ["1800", "400"], "WindowWidth": ["2100", "80"]},
    "rescaled window": {
        "RescaleSlope": "0.5",
        "RescaleIntercept": "-1024",
        "WindowCenter": "-100",
        "WindowWidth": "700",
    },
    "identity over MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
    "inverse over MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "identity over MONOCHROME2": {"PresentationLUTShape": "IDENTITY"},
    "inverse over MONOCHROME2": {"PresentationLUTShape": "INVERSE"},
    "modality table": {"ModalityLUTSequence": [cases.lookup_table(0, CURVE, 16)]},
    "modality table and window": {
        "ModalityLUTSequence": [cases.lookup_table(0, CURVE, 16)],
        "WindowCenter": "40000",
        "WindowWidth": "30000",
    },
    "falling modality table": {"ModalityLUTSequence": [cases.lookup_table(0, CURVE[::-1], 16, vr="OW")]},
    "modality table of 1000 entries": {"ModalityLUTSequence": [cases.lookup_table(500, np.arange(1000) * 65, 16)]},
    "VOI table": {"VOILUTSequence": [cases.lookup_table(0, CURVE, 16)]},
    "VOI table wins over a window": {
        "VOILUTSequence": [cases.lookup_table(0, CURVE, 16)],
        "WindowCenter": "100",
        "WindowWidth": "2",
    },
    "VOI table, inverted": {
        "VOILUTSequence": [cases.lookup_table(0, CURVE, 16)],
        "PhotometricInterpretation": "MONOCHROME1",
    },
    "VOI table, 12 bits": {"VOILUTSequence": [cases.lookup_table(0, CURVE >> 4, 12)]},
    "VOI table, 8 bits packed, 4096 entries": {"VOILUTSequence": [cases.lookup_table(0, CURVE >> 8, 8, packed=True)]},
    "VOI table, 8 bits packed, odd": {"VOILUTSequence": [cases.lookup_table(1200, (CURVE >> 8)[::5], 8, packed=True)]},
    "VOI table, 8 bits in words": {"VOILUTSequence": [cases.lookup_table(0, CURVE >> 8, 8)]},
    "VOI table from a negative value": {
        "RescaleSlope": "1",
        "RescaleIntercept": "-2048",
        "VOILUTSequence": [cases.lookup_table(-2048, CURVE, 16)],
    },
    "VOI table of 65,536 entries": {"VOILUTSequence": [cases.lookup_table(0, np.arange(65536), 16, vr="OW")]},
    "padding at the dark end": {"PixelPaddingValue": 0},
    "padding at the bright end": {"PixelPaddingValue": 4095, "PhotometricInterpretation": "MONOCHROME1"},
    "padding that would invert to white": {
        "PixelPaddingValue": 0,
        "PhotometricInterpretation": "MONOCHROME1",
        "WindowCenter": "2000",
        "WindowWidth": "3000",
    },
    "padding range": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 600},
    "padding range, turned round": {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3000},
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_header_agrees_with_float64(name: str, syntax: str, tmp_path: Path) -> None:
    values = cases.chest_values(bits=12)
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12, **HEADERS[name]), syntax)
    # The table is judged against the header as it was meant, not as pydicom reads it back.
    pixels = check(path, values, cases.dataset(values, 12, **HEADERS[name]))
    if "threshold" not in name:
        assert len(np.unique(pixels)) > 2


@pytest.mark.parametrize("bits", [2, 7, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("header", ["no window", "window", "padding"])
def test_every_depth_agrees_with_float64(bits: int, signed: bool, header: str, tmp_path: Path) -> None:
    values = cases.chest_values(bits=bits, signed=signed)
    middle = int(values.mean())
    elements = {
        "no window": {},
        "window": {"WindowCenter": str(middle), "WindowWidth": str(2**bits // 2 + 1)},
        "padding": {"PixelPaddingValue": int(values.min()), "PhotometricInterpretation": "MONOCHROME1"},
    }[header]
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, bits, signed, **elements))
    check(path, values, cases.dataset(values, bits, signed, **elements))


def test_signed_modality_table(tmp_path: Path) -> None:
    values = cases.chest_values(bits=12, signed=True)
    elements = {"ModalityLUTSequence": [cases.lookup_table(-2048, CURVE, 16)]}
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12, True, **elements))
    check(path, values, cases.dataset(values, 12, True, **elements))


@pytest.mark.parametrize("signed", [False, True])
def test_bits_outside_the_stored_ones_are_ignored(signed: bool, tmp_path: Path) -> None:
    values = cases.chest_values(bits=12, signed=signed)
    overlay = np.random.default_rng(1).integers(0, 16, values.shape) << 12
    ds = cases.dataset(values & 0xFFF | overlay, 12, signed)
    check(cases.save(tmp_path / "a.dcm", ds), values, cases.dataset(values, 12, signed))

    left_justified = cases.dataset((values & 0xFFF) << 4 | overlay >> 12, 12, signed, HighBit=15)
    check(cases.save(tmp_path / "b.dcm", left_justified), values, cases.dataset(values, 12, signed))


@pytest.mark.parametrize(
    "bad",
    [
        {"WindowCenter": "1800", "WindowWidth": "0"},
        {"WindowCenter": "1800", "WindowWidth": "0.5"},
        {"WindowCenter": "1800", "WindowWidth": "-5"},
        {"WindowCenter": "1800", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": "1800", "WindowWidth": "-1", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "1800"},
        {"WindowWidth": "1800"},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [Dataset()]},
        {"ModalityLUTSequence": [Dataset()]},
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"PixelPaddingValue": None},
    ],
)
def test_an_unusable_header_gives_the_range_of_the_pixels(bad: dict, tmp_path: Path) -> None:
    values = cases.chest_values(bits=12)
    ds = cases.dataset(values, 12)
    for keyword, value in bad.items():
        setattr(ds, keyword, value)
    check(cases.save(tmp_path / "a.dcm", ds), values, cases.dataset(values, 12))


@pytest.mark.parametrize("text", [b"NaN ", b"inf ", b"1e99", b"abcd", b"    "])
def test_a_window_that_is_no_number(text: bytes, tmp_path: Path) -> None:
    values = cases.chest_values(bits=12)
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12, WindowCenter="1800", WindowWidth="2222"))
    path.write_bytes(path.read_bytes().replace(b"2222", text))
    check(path, values, cases.dataset(values, 12))


def test_the_next_window_stands_in_for_a_bad_first_one(tmp_path: Path) -> None:
    values = cases.chest_values(bits=12)
    ds = cases.dataset(values, 12, WindowCenter=["5", "1800"], WindowWidth=["0", "2100"])
    good = cases.dataset(values, 12, WindowCenter="1800", WindowWidth="2100")
    check(cases.save(tmp_path / "a.dcm", ds), values, good)


def test_worked_window() -> None:
    """PS3.3 C.11.2.1.2.1's own example: c=2048, w=4096 maps 0 to 0 and 4095 to 255."""
    words = np.array([[0, 2047, 2048, 4095]], dtype=np.uint16)
    meaning = GreyMeaning(bits_stored=12, high_bit=11, windows=((2048.0, 4096.0),))
    assert display_grey(words, meaning).tolist() == [[0, 127, 128, 255]]
    inverted = GreyMeaning(bits_stored=12, high_bit=11, windows=((2048.0, 4096.0),), is_inverted=True)
    assert display_grey(words, inverted).tolist() == [[255, 128, 127, 0]]
    assert display_grey(words, meaning, bits=16)[0, [0, 3]].tolist() == [0, 65535]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("wide_tables", [False, True])
def test_look_up(dtype: type, wide_tables: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide_tables and not grayscale._WIDE_TABLES:
        pytest.skip("this OpenCV has no tables for 16-bit words")
    monkeypatch.setattr(grayscale, "_WIDE_TABLES", wide_tables)
    rng = np.random.default_rng(0)
    n = np.iinfo(dtype).max + 1
    words, table = rng.integers(0, n, (31, 17)).astype(dtype), rng.integers(0, 65536, n).astype(np.uint16)
    for column in (words, words[:, :1], words[:1]):
        assert np.array_equal(grayscale.look_up(np.ascontiguousarray(column), table), table[column])


def test_a_constant_radiograph_has_one_grey_level() -> None:
    words = np.full((4, 5), 77, dtype=np.uint8)
    assert display_grey(words, GreyMeaning(8, 7)).tolist() == [[0] * 5] * 4
    everything_padded = GreyMeaning(8, 7, padding=(77, 77), is_inverted=True)
    assert display_grey(words, everything_padded).tolist() == [[0] * 5] * 4


@pytest.mark.parametrize(
    ("maximum", "bits", "white"),
    [
        (65535, 16, 65535),
        (20000, 16, 65535),
        (16383, 16, 16383),
        (4095, 16, 4095),
        (1000, 16, 1023),
        (90, 16, 255),
        (4095, 12, 4095),
        (1024, 12, 4095),
        (1023, 12, 1023),
        (255, 8, 255),
        (3, 8, 255),
        (4095, 8, 4095),
    ],
)
def test_white_level(maximum: int, bits: int, white: int) -> None:
    assert white_level(maximum, bits) == white


@given(
    bits=st.integers(1, 16),
    shift=st.integers(0, 15),
    signed=st.booleans(),
    inverted=st.booleans(),
    slope=st.floats(-1e6, 1e6).filter(bool),
    intercept=st.floats(-1e6, 1e6),
    window=st.none() | st.tuples(st.floats(-1e8, 1e8), st.floats(0, 1e8)),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER"]),
    padding=st.none() | st.tuples(st.integers(-100, 0), st.integers(0, 100)),
    table=st.none() | st.tuples(st.integers(-70000, 70000), st.lists(st.integers(0, 65535), min_size=1, max_size=40)),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=150)
def test_any_meaning_gives_grey_of_one_direction(
    bits: int, shift: int, signed: bool, inverted: bool, slope: float, intercept: float, window: tuple | None,
    function: str, padding: tuple | None, table: tuple | None, seed: int,
) -> None:  # fmt: skip
    high_bit = min(bits - 1 + shift, 15)
    words = np.random.default_rng(seed).integers(0, 65536, (16, 16)).astype(np.uint16)
    meaning = GreyMeaning(
        bits, high_bit, signed, inverted, slope, intercept, windows=(window,) if window else (), voi_function=function,
        padding=padding, voi_lut=LookupTable(table[0], np.array(sorted(table[1]), np.uint16), 16) if table else None,
    )  # fmt: skip
    pixels = display_grey(words, meaning)
    stored = (words >> (high_bit + 1 - bits)).astype(np.int64) & (2**bits - 1)
    if signed:
        stored[stored >= 2 ** (bits - 1)] -= 2**bits
    padded = np.zeros(words.shape, bool) if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    assert not pixels[padded].any()
    # Windows and rising tables keep the order of the values, or turn it round.
    order = np.argsort(stored[~padded], kind="stable")
    steps = np.diff(pixels[~padded][order].astype(int))
    assert (steps >= 0).all() if (slope > 0) != inverted else (steps <= 0).all()
