"""Sizes of findings: which spacing counts, where it is true, and hand-worked lengths and areas."""

import itertools
import math

import numpy as np
import pytest
from dicom_sources import blob, found, rle_of, write_phantom
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.outputs.dicom import codes
from xray.outputs.dicom.content import content_of
from xray.outputs.dicom.measurements import Spacing, sizes_of, spacing_of
from xray.outputs.dicom.objects import Algorithm, read_source
from xray.structures.boxes import BoxTable

PIXEL, IMAGER, FILM = "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"
KIND, FACTOR = "PixelSpacingCalibrationType", "EstimatedRadiographicMagnificationFactor"
ABSENT = {PIXEL: None, IMAGER: None}


def spacing_in(tmp_path, **elements):
    """The spacing of a file of 120 x 96 with these elements alone."""
    return spacing_of(read_source(write_phantom(tmp_path / "a.dcm", **(ABSENT | elements))))


@pytest.mark.parametrize(
    ("elements", "row", "column", "method"),
    [
        # PS3.3 10.7.1.1: equal values are those of the detector, other ones are corrected or calibrated.
        ({IMAGER: [0.2, 0.1]}, 0.2, 0.1, "at-detector"),
        ({IMAGER: [0.2, 0.1], PIXEL: [0.2, 0.1]}, 0.2, 0.1, "at-detector"),
        ({IMAGER: [0.143, 0.143], PIXEL: [0.14300001, 0.143]}, 0.143, 0.143, "at-detector"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.18, 0.18]}, 0.18, 0.18, "patient-unsaid"),
        # 10.7.1.2: what the type says counts, also where no correction was needed.
        ({IMAGER: [0.2, 0.2], PIXEL: [0.18, 0.18], KIND: "GEOMETRY"}, 0.18, 0.18, "patient-geometry"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.2, 0.2], KIND: "GEOMETRY"}, 0.2, 0.2, "patient-geometry"),
        ({PIXEL: [0.17, 0.17], KIND: "FIDUCIAL"}, 0.17, 0.17, "patient-fiducial"),
        ({PIXEL: [0.17, 0.17], KIND: "nonsense"}, 0.17, 0.17, "plane-unsaid"),
        ({PIXEL: [0.17, 0.17]}, 0.17, 0.17, "plane-unsaid"),
        # At the detector things are by this factor larger.
        ({IMAGER: [0.22, 0.11], FACTOR: 1.1}, 0.2, 0.1, "patient-ermf"),
        ({IMAGER: [0.22, 0.11], PIXEL: [0.22, 0.11], FACTOR: 1.1}, 0.2, 0.1, "patient-ermf"),
        ({IMAGER: [0.22, 0.22], PIXEL: [0.2, 0.2], FACTOR: 1.2}, 0.2, 0.2, "patient-unsaid"),
        ({IMAGER: [0.22, 0.22], FACTOR: 1.0}, 0.22, 0.22, "at-detector"),
        ({IMAGER: [0.22, 0.22], FACTOR: 0}, 0.22, 0.22, "at-detector"),
        ({FILM: [0.3, 0.3]}, 0.3, 0.3, "on-film"),
        ({FILM: [0.3, 0.3], PIXEL: [0.3, 0.3]}, 0.3, 0.3, "on-film"),
        ({FILM: [0.3, 0.3], PIXEL: [0.25, 0.25]}, 0.25, 0.25, "patient-unsaid"),
        # What cannot be is passed over, not believed.
        ({PIXEL: [0, 0], IMAGER: [0.2, 0.2]}, 0.2, 0.2, "at-detector"),
        ({PIXEL: [100.0, 100.0], IMAGER: [0.2, 0.2]}, 0.2, 0.2, "at-detector"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_which_spacing_counts_and_where_it_is_true(tmp_path, elements, row, column, method):
    found = spacing_in(tmp_path, **elements)
    assert (found.row, found.column) == pytest.approx((row, column), rel=1e-6)
    assert (found.method.value, found.method.scheme_designator) == (method, "99XRAY")
    assert found.description.startswith("Sizes in mm are measured ")
    assert f"{row:.4g} x {column:.4g} mm" in found.description


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {PIXEL: [0, 0]},
        {PIXEL: [-0.1, 0.1]},
        {PIXEL: 0.2},
        {PIXEL: [0.2, 0.2, 0.2]},
        {PIXEL: ""},
        # Of 120 columns, these are 1.2 m wide; in metres, a pixel would be of 0.1 µm.
        {PIXEL: [10, 10]},
        {IMAGER: [0.000143, 0.000143]},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_without_a_spacing_that_can_be_sizes_are_in_pixels(tmp_path, elements):
    assert spacing_in(tmp_path, **elements) is None


def test_a_box_is_measured_in_mm_and_in_pixels():
    """Hand-worked: 21 columns of 0.1 mm, 27 rows of 0.2 mm."""
    box = (10, 20, 31, 47)
    width, height = sizes_of(box, Spacing(0.2, 0.1, codes.AT_DETECTOR, "Imager Pixel Spacing"))
    assert (width.name.meaning, width.value, width.unit.value) == ("Width", 2.1, "mm")
    assert (height.name.meaning, height.value, height.unit.value) == ("Height", 5.4, "mm")
    assert width.method == height.method == codes.AT_DETECTOR
    width, height = sizes_of(box, None)
    assert [(size.value, size.unit.value, size.method) for size in (width, height)] == [
        (21, "{pixels}", None),
        (27, "{pixels}", None),
    ]


def test_a_mask_has_a_long_axis_and_an_area():
    """Hand-worked: 30 columns of 0.1 mm and 20 rows of 0.2 mm are 3 by 4 mm, from corner to corner 5, less a hole."""
    mask = np.zeros((64, 80), np.uint8)
    mask[10:30, 20:50] = 1
    mask[15, 25] = 0
    spacing = Spacing(0.2, 0.1, codes.AT_DETECTOR, "Imager Pixel Spacing")
    *_, axis, area = sizes_of((20, 10, 50, 30), spacing, rle_of(mask))
    assert (axis.name.meaning, axis.value, axis.unit.value) == ("Long axis", 5, "mm")
    assert (area.name.meaning, area.value, area.unit.value) == ("Area", 11.98, "mm2")
    *_, axis, area = sizes_of((20, 10, 50, 30), None, rle_of(mask))
    assert (axis.value, area.value, area.unit.value) == (pytest.approx(math.hypot(30, 20), abs=1e-3), 599, "{pixels}")
    assert len(sizes_of((0, 0, 9, 9), spacing, rle_of(np.zeros((64, 80), np.uint8)))) == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 2), st.floats(0.05, 2), st.integers(1, 2**32 - 1))
def test_the_long_axis_is_the_longest_distance_of_two_corners(rows, columns, row, column, seed):
    mask = np.random.default_rng(seed).integers(0, 2, (rows, columns), dtype=np.uint8)
    mask[seed % rows, seed % columns] = 1
    corners = [
        ((x + dx) * column, (y + dy) * row)
        for y, x in np.argwhere(mask).tolist()
        for dx, dy in itertools.product((0, 1), repeat=2)
    ]
    longest = max(math.dist(one, two) for one, two in itertools.combinations(corners, 2))
    sizes = sizes_of((0, 0, columns, rows), Spacing(row, column, codes.ON_FILM, ""), rle_of(mask))
    assert sizes[2].value == pytest.approx(longest, abs=2e-3)
    assert sizes[3].value == pytest.approx(mask.sum() * row * column, abs=1e-3)


def test_a_report_says_which_spacing_was_used_and_what_is_of_masks(tmp_path):
    source = read_source(write_phantom(tmp_path / "a.dcm", ImagerPixelSpacing=[0.22, 0.22], PixelSpacing=None,
                                       EstimatedRadiographicMagnificationFactor=1.1))  # fmt: skip
    table, algorithm = BoxTable.of([0], [13], [[5, 5, 50, 50]], [0.9]), Algorithm("xray", "0.1.0")
    findings = found(table, {0: blob(120, 96, 0.3, 0.3, 0.1)}, notes=["May be no chest."])
    said = content_of(source, findings, algorithm).notes
    assert said[0] == "May be no chest."
    assert "Estimated Radiographic Magnification Factor 1.1, 0.2 x 0.2 mm" in said[1]
    assert "in the patient" in said[1]
    assert "those of the masks" in said[2]
    assert content_of(source, found(BoxTable.empty()), algorithm).notes == ()
    bare = read_source(write_phantom(tmp_path / "b.dcm", spacing=False))
    assert "in pixels" in content_of(bare, found(table), algorithm).notes[0]


def test_notes_and_masks_set_reports_apart(tmp_path):
    """Two reports of one identifier say the same."""
    source = read_source(write_phantom(tmp_path / "a.dcm"))
    table, algorithm = BoxTable.of([0], [13], [[5, 5, 50, 50]], [0.9]), Algorithm("xray", "0.1.0")
    plain, noted, other = (content_of(source, found(table, notes=notes), algorithm).uid for notes in ((), ["a"], ["b"]))
    assert len({plain, noted, other}) == 3
