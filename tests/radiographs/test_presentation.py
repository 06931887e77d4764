"""Functional groups of single-frame enhanced objects, and windows that show nothing."""

import dicom_cases as cases
import numpy as np
import pytest
from pydicom import uid

from xray.radiographs.dicom import WINDOW_MISSED
from xray.radiographs.radiograph import ONE_GREY, read_radiograph

VALUES = cases.chest_values(40, 50, bits=12)
VOI, RESCALE = "FrameVOILUTSequence", "PixelValueTransformationSequence"
WINDOW = {"WindowCenter": 1000, "WindowWidth": 500}
OTHER = {"WindowCenter": 3000, "WindowWidth": 90}


def linear(values: np.ndarray, center: float = 1000, width: float = 500) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, 0 to 255."""
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


SIGMOID = 255 / (1 + np.exp(-4 * (VALUES - 1000) / 500))
EXACT = np.clip((VALUES - 1000) / 500 + 0.5, 0, 1) * 255
TRANSFORMED = {RESCALE: {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}}


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.JPEGLSLossless],
)
@pytest.mark.parametrize(
    ("shared", "first", "elements", "expected"),
    [
        ({VOI: WINDOW}, None, {}, linear(VALUES)),
        (None, {VOI: WINDOW}, {}, linear(VALUES)),
        ({VOI: OTHER}, {VOI: WINDOW}, {}, linear(VALUES)),
        ({VOI: WINDOW}, None, OTHER, linear(VALUES)),
        ({}, {}, WINDOW, linear(VALUES)),
        ({VOI: WINDOW | {"VOILUTFunction": "SIGMOID"}}, None, {}, SIGMOID),
        (None, {VOI: WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}}, {"VOILUTFunction": "SIGMOID"}, EXACT),
        (TRANSFORMED, {VOI: WINDOW}, {}, linear(VALUES * 2 - 1000)),
        (TRANSFORMED, None, WINDOW | {"RescaleSlope": 5}, linear(VALUES * 2 - 1000)),
        ({VOI: WINDOW}, None, {"PhotometricInterpretation": "MONOCHROME1"}, 255 - linear(VALUES)),
    ],
    ids=[
        *("shared", "first frame", "both", "beside others", "empty", "sigmoid", "exact", "rescale", "rescale beside"),
        "monochrome1",
    ],
)
def test_functional_groups(shared, first, elements, expected, syntax, tmp_path):
    ds = cases.in_functional_groups(cases.dataset(VALUES, 12, NumberOfFrames=1, **elements), shared, first)
    path = cases.save(tmp_path / "x.dcm", ds, syntax)
    assert np.abs(read_radiograph(path).pixels - expected).max() <= 0.5


def test_spacing_in_functional_groups(tmp_path):
    ds = cases.dataset(VALUES, 12, ImagerPixelSpacing=["0.2", "0.3"])
    cases.in_functional_groups(ds, {"PixelMeasuresSequence": {"PixelSpacing": ["0.15", "0.16"]}})
    assert read_radiograph(cases.save(tmp_path / "x.dcm", ds)).spacing == (0.15, 0.16)


STRETCHED = VALUES / 4095 * 255
BESIDE = {"WindowCenter": 60000, "WindowWidth": 100}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (BESIDE, STRETCHED),
        ({"WindowCenter": -9000, "WindowWidth": 100}, STRETCHED),
        (BESIDE | {"WindowWidth": 1}, STRETCHED),
        (BESIDE | {"VOILUTFunction": "SIGMOID"}, STRETCHED),
        (BESIDE | {"VOILUTFunction": "LINEAR_EXACT"}, STRETCHED),
        (BESIDE | {"PhotometricInterpretation": "MONOCHROME1"}, 255 - STRETCHED),
        (BESIDE | {"PresentationLUTShape": "INVERSE"}, 255 - STRETCHED),
        ({"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 1, "RescaleIntercept": -100000}, STRETCHED),
        ({"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": -1, "RescaleIntercept": -9000}, 255 - STRETCHED),
        ({"VOILUTSequence": [cases.lookup_table(5000, np.arange(16) * 17, 8)]}, STRETCHED),
    ],
    ids=[
        *("above", "below", "threshold", "sigmoid", "exact", "monochrome1", "inverse", "rescale", "negative slope"),
        "table",
    ],
)
def test_a_window_beside_all_values(elements, expected, bits, tmp_path):
    radiograph = read_radiograph(cases.save(tmp_path / "x.dcm", cases.dataset(VALUES, 12, **elements)), bits)
    assert np.abs(radiograph.pixels / (257 if bits == 16 else 1) - expected).max() <= 0.5
    assert radiograph.warnings == (WINDOW_MISSED,)


def test_a_window_beside_all_values_but_padding(tmp_path):
    values = VALUES + 1
    values[:10] = 0
    ds = cases.dataset(values, 16, PixelPaddingValue=0, WindowCenter=60000, WindowWidth=100)
    radiograph = read_radiograph(cases.save(tmp_path / "x.dcm", ds))
    inside = values[10:]
    expected = np.where(values == 0, 0, (values - inside.min()) / (inside.max() - inside.min()) * 255)
    assert np.abs(radiograph.pixels - expected).max() <= 0.5
    assert radiograph.warnings == (WINDOW_MISSED,)


def test_a_window_that_shows_little_is_kept(tmp_path):
    """One pixel in it is enough: what most of the others show is what its header asks for."""
    values = VALUES // 2
    values[17, 23] = 4095
    ds = cases.dataset(values, 12, WindowCenter=4000, WindowWidth=10)
    radiograph = read_radiograph(cases.save(tmp_path / "x.dcm", ds))
    assert np.count_nonzero(radiograph.pixels) == 1
    assert radiograph.warnings == (ONE_GREY,)


def test_a_constant_radiograph_is_not_the_windows_fault(tmp_path):
    ds = cases.dataset(np.full((40, 50), 7), 12, WindowCenter=2048, WindowWidth=4096)
    assert read_radiograph(cases.save(tmp_path / "x.dcm", ds)).warnings == (ONE_GREY,)
