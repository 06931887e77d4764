"""Secondary captures: valid, read by others, and the picture that overlays show."""

import subprocess

import cv2
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    ALGORITHM,
    assert_valid,
    blob,
    dicom_source,  # noqa: F401 (a fixture)
    found,
    program,
    some_findings,
    write_phantom,
)

from xray.errors import InputError
from xray.outputs.dicom.objects import OwnPictureError, read_source, save_object
from xray.outputs.dicom.results import OWN_PICTURE, DicomResults, fault_of_source
from xray.outputs.dicom.secondary_capture import secondary_capture
from xray.radiographs.radiograph import read_radiograph
from xray.structures.boxes import BoxTable


def picture_of(path, table, masks=None, **options):
    pixels = read_radiograph(path).pixels
    return secondary_capture(read_source(path), pixels, found(table, masks), ALGORITHM, **options)


def written(dataset, path):
    save_object(path, dataset)
    return pydicom.dcmread(path)


def test_a_picture_is_valid_and_says_what_it_is(source, tmp_path):
    radiograph = read_radiograph(source)
    table = some_findings(radiograph.width, radiograph.height, 3)
    masks = {1: blob(radiograph.width, radiograph.height, 0.5, 0.5, 0.2)}
    read = written(picture_of(source, table, masks), tmp_path / "sc.dcm")
    assert_valid(tmp_path / "sc.dcm")

    header = pydicom.dcmread(source, stop_before_pixels=True)
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (read.ConversionType, read.BurnedInAnnotation) == ("WSD", "YES")
    assert (read.PhotometricInterpretation, read.BitsStored, read.ImageType) == ("RGB", 8, ["DERIVED", "SECONDARY"])
    assert read.SeriesDescription == "AI findings, not for clinical use"
    assert "not for clinical use" in read.DerivationDescription
    assert read.StudyInstanceUID == header.StudyInstanceUID
    assert read.SeriesInstanceUID != header.SeriesInstanceUID
    assert read.PatientID == (header.get("PatientID") or "")
    assert str(read.PatientName) == str(header.get("PatientName") or "")
    (reference,) = read.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == header.SOPClassUID
    assert read.pixel_array.shape == (read.Rows, read.Columns, 3)


def test_between_title_and_legend_stands_the_radiograph_pixel_for_pixel(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", width=701, height=523)
    pixels = read_radiograph(path).pixels
    table = BoxTable.of([0], [13], [[100, 200, 300, 400]], [0.9])
    picture = written(picture_of(path, table), tmp_path / "sc.dcm").pixel_array
    assert_valid(tmp_path / "sc.dcm")
    # The right part of the radiograph is free of boxes and tags.
    (top,) = [
        row for row in range(picture.shape[0] - 522) if (picture[row : row + 523, 500:, 1] == pixels[:, 500:]).all()
    ]
    inside = picture[top : top + 523]
    assert inside.shape == (523, 701, 3)
    is_drawn = (inside != pixels[..., None]).any(axis=2)
    # The box's lines lie on its edges, in and around pixels 100 … 299 and 200 … 399; nothing is drawn within.
    assert is_drawn[200, 100:300].all()
    assert is_drawn[200:400, 100].all()
    assert not is_drawn[210:390, 110:290].any()


def test_large_radiographs_are_drawn_smaller(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", width=2600, height=1300)
    read = written(picture_of(path, BoxTable.empty(), aspect=(2, 1)), tmp_path / "sc.dcm")
    assert_valid(tmp_path / "sc.dcm")
    assert read.Columns == 2048
    assert 1024 < read.Rows < 1200
    # Nobody measures in it, but round things stay round.
    assert "PixelSpacing" not in read
    assert read.PixelAspectRatio == [2, 1]


def test_dcmtk_shows_it(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm", width=601, height=523)
    read = written(picture_of(path, some_findings(601, 523, 3)), tmp_path / "sc.dcm")
    command = [program("dcm2pnm", "dcmtk"), "+op", tmp_path / "sc.dcm", tmp_path / "sc.ppm"]
    subprocess.run(command, check=True, timeout=600)
    shown = cv2.imread(str(tmp_path / "sc.ppm"))[..., ::-1]
    np.testing.assert_array_equal(shown, read.pixel_array)


def test_the_same_image_and_model_give_the_same_object(tmp_path):
    path, table = write_phantom(tmp_path / "phantom.dcm"), some_findings(120, 96, 3)
    one, two = (picture_of(path, table) for _ in range(2))
    assert (one.SeriesInstanceUID, one.SOPInstanceUID) == (two.SeriesInstanceUID, two.SOPInstanceUID)
    assert one.PixelData == two.PixelData
    assert picture_of(path, table, threshold=0.5).SOPInstanceUID != one.SOPInstanceUID


def test_a_picture_of_findings_is_no_radiograph(tmp_path):
    """Or an archive that sends all it gets to the node would have pictures of pictures, without end."""
    path = write_phantom(tmp_path / "phantom.dcm")
    save_object(tmp_path / "sc.dcm", picture_of(path, some_findings(120, 96, 3)))
    with pytest.raises(OwnPictureError, match=r"sc\.dcm: it is a picture of findings"):
        read_source(tmp_path / "sc.dcm")
    assert fault_of_source(tmp_path / "sc.dcm") == OWN_PICTURE
    assert fault_of_source(path) is None


def test_nothing_else_of_the_source_is_taken_over(tmp_path):
    path = write_phantom(
        tmp_path / "source.dcm", PatientComments="planted comment", InstitutionName="planted", Manufacturer="planted",
        StudyDescription="planted", DerivationDescription="planted", StationName="planted", OperatorsName="planted",
    )  # fmt: skip
    save_object(tmp_path / "made.dcm", picture_of(path, some_findings(120, 96, 3)))
    assert b"planted" not in (tmp_path / "made.dcm").read_bytes().lower()


def test_pixels_of_another_size_are_refused(tmp_path):
    source = read_source(write_phantom(tmp_path / "phantom.dcm"))
    with pytest.raises(InputError, match=r"\(96, 121\) for an image of \(96, 120\)"):
        secondary_capture(source, np.zeros((96, 121), np.uint8), found(BoxTable.empty()), ALGORITHM)


def test_colour_has_a_picture_and_no_presentation_state(tmp_path):
    """A grayscale presentation state may refer to grey images alone (PS3.3 A.33.1)."""
    dataset = pydicom.dcmread(write_phantom(tmp_path / "phantom.dcm", bits=8))
    dataset.PixelData = np.repeat(dataset.pixel_array[..., None], 3, axis=2).tobytes()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.save_as(tmp_path / "grey_in_rgb.dcm")
    results = DicomResults(ALGORITHM, sr=False, seg=False, gsps=True, sc=True)
    path, out = tmp_path / "grey_in_rgb.dcm", tmp_path / "out"
    results.write(out, "grey_in_rgb", path, found(some_findings(120, 96, 3)))
    results.write(out, "phantom", tmp_path / "phantom.dcm", found(some_findings(120, 96, 3)))
    assert results.summary(out, [("grey_in_rgb", path), ("phantom", tmp_path / "phantom.dcm")]) == [
        f"1 GSPS: {out / 'gsps'} (in colour, for which there is none: 1)",
        f"2 SC: {out / 'sc'}",
    ]
