"""Of several views and priors, each result says which image it is about, and nothing that may name somebody."""

import subprocess

import numpy as np
import pydicom
import pytest

pytest.importorskip("highdicom")

from dicom_sources import ALGORITHM, assert_valid, blob, found, program, some_findings, write_phantom

from xray.outputs.dicom.origin import origin_of
from xray.outputs.dicom.results import DicomResults

LATERAL = {
    "SeriesNumber": 2,
    "InstanceNumber": 3,
    "ViewPosition": "LL",
    "ImageLaterality": "L",
    "StudyDate": "20240301",
    "SeriesDescription": "Planted^Name lateral",
}
SAID = "series 2, image 3, view LL (left lateral), left side, study of 2024-03-01"


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        (LATERAL, SAID),
        (
            {"SeriesNumber": None, "ViewPosition": "", "StudyDate": ""},
            "image 1",
        ),
        (
            {"SeriesNumber": "x", "InstanceNumber": None, "ViewPosition": "Planted", "StudyDate": "2024"},
            "",
        ),
        (
            {"SeriesNumber": -1, "InstanceNumber": 7, "ViewPosition": "pa", "StudyDate": None},
            "image 7, view PA (poster",
        ),
    ],
)
def test_what_a_header_tells_of_where_an_image_belongs(tmp_path, elements, said):
    wanted = {k: v for k, v in elements.items() if not (k == "SeriesNumber" and v == "x")}
    path = write_phantom(tmp_path / "a.dcm", **wanted)
    if len(wanted) < len(elements):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x20\x00\x11\x00IS\x02\x001 ", b"\x20\x00\x11\x00IS\x02\x00x "))
    assert origin_of(path) == said if not said.endswith("poster") else origin_of(path).startswith(said)
    (tmp_path / "b.dcm").write_bytes(b"no DICOM file" * 20)
    assert origin_of(tmp_path / "b.dcm") == ""


def test_every_result_names_its_image_and_stays_valid(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", 512, 480, **LATERAL)
    results = DicomResults(ALGORITHM, gsps=True, sc=True)
    findings = found(some_findings(512, 480), {0: blob(512, 480, 0.4, 0.5, 0.2)})
    results.write(tmp_path, "a", path, findings)
    report, segmentation, state, picture = (
        pydicom.dcmread(tmp_path / kind / "a.dcm") for kind in ("sr", "seg", "gsps", "sc")
    )
    comments = []
    report.walk(lambda dataset, element: comments.append(element.value) if element.keyword == "TextValue" else None)
    assert f"Image: {SAID}" in comments
    for dataset in (segmentation, state):
        if "ContentDescription" in dataset:
            assert "series 2, image 3" in dataset.ContentDescription
            assert len(dataset.ContentDescription) <= 64
    assert picture.ImageComments == f"Findings in {SAID}"
    for dataset in (report, segmentation, state, picture):
        assert "Planted" not in str(dataset)
    dump = subprocess.run([program("dsrdump", "dcmtk"), tmp_path / "sr" / "a.dcm"], capture_output=True, timeout=600)
    assert dump.returncode == 0
    assert b'(,,"Comment")="Image: series 2, image 3' in dump.stdout
    for kind in ("sr", "seg", "gsps", "sc"):
        assert_valid(tmp_path / kind / "a.dcm")
    # highdicom reads it back.
    from highdicom.sr import srread

    assert len(srread(tmp_path / "sr" / "a.dcm").content.get_planar_roi_measurement_groups()) > 0
    np.testing.assert_array_equal(segmentation.pixel_array.any(), True)
