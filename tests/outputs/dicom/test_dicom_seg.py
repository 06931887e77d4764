"""Segmentations: valid by the standard's own tables, and pixel for pixel the masks that they were made of."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    ALGORITHM,
    NAMES,
    assert_valid,
    blob,
    dicom_source,  # noqa: F401 (a fixture)
    found,
    write_phantom,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.errors import InputError
from xray.findings import colour_of
from xray.outputs.dicom.objects import read_source, save_object
from xray.outputs.dicom.segmentation import segmentation, whole_maps
from xray.radiographs.radiograph import radiograph_size
from xray.structures.boxes import BoxTable

LUNGS = {1: "Left lung", 2: "Right lung"}
PNEUMOTHORAX = 13


def written(dataset, path):
    save_object(path, dataset)
    return hd.seg.segread(path)


def pixels_of(read, uid):
    """(H, W, segments) as highdicom finds them by the source image."""
    return read.get_pixels_by_source_instance([uid])[0]


def test_a_segmentation_is_valid_and_has_the_masks_pixels(source, tmp_path):
    width, height = radiograph_size(source)
    masks = {1: blob(width, height, 0.7, 0.5, 0.21), 2: blob(width, height, 0.3, 0.5, 0.2)}
    read = written(segmentation(read_source(source), masks, LUNGS, ALGORITHM), tmp_path / "seg.dcm")
    assert_valid(tmp_path / "seg.dcm")

    header = pydicom.dcmread(source, stop_before_pixels=True)
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert (read.Modality, read.SegmentationType, read.ContentQualification) == ("SEG", "BINARY", "RESEARCH")
    assert "not for clinical use" in read.SeriesDescription
    assert (read.Rows, read.Columns) == (height, width)
    assert read.StudyInstanceUID == header.StudyInstanceUID
    assert read.PatientID == (header.get("PatientID") or "")
    assert (read.PatientOrientation or "") == (header.get("PatientOrientation") or "")
    assert read.get("FrameOfReferenceUID") == header.get("FrameOfReferenceUID")
    (series,) = read.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID == header.SOPClassUID
    (frame, *_) = read.PerFrameFunctionalGroupsSequence
    (image,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (header.SOPClassUID, header.SOPInstanceUID)
    np.testing.assert_array_equal(pixels_of(read, header.SOPInstanceUID), np.stack([masks[1], masks[2]], axis=-1))
    # And as pydicom alone decodes them.
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "seg.dcm").pixel_array, np.stack([masks[1], masks[2]]))


def test_segments_say_what_they_are(tmp_path):
    source = read_source(write_phantom(tmp_path / "phantom.dcm"))
    masks = {1: blob(120, 96, 0.7, 0.5, 0.2), 2: blob(120, 96, 0.3, 0.5, 0.2)}
    read = written(segmentation(source, masks, LUNGS, ALGORITHM), tmp_path / "seg.dcm")
    left, right = (read.get_segment_description(number) for number in (1, 2))
    for segment, label, side in ((left, "Left lung", "7771000"), (right, "Right lung", "24028007")):
        assert segment.segment_label == label
        assert segment.segmented_property_type.value == "39607008"
        item = segment.SegmentedPropertyTypeCodeSequence[0]
        assert item.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
        assert segment.algorithm_type.value == "AUTOMATIC"
        assert segment.algorithm_identification.name == "xray"
        assert segment.algorithm_identification.parameters["model 1"].endswith(64 * "a")
    masks = {PNEUMOTHORAX: blob(120, 96, 0.7, 0.5, 0.2)}
    read = written(segmentation(source, masks, NAMES, ALGORITHM), tmp_path / "seg.dcm")
    assert_valid(tmp_path / "seg.dcm")
    segment = read.get_segment_description(1)
    assert segment.segmented_property_type.value == "36118008"
    assert segment.segmented_property_category.value == "49755003"
    red, green, blue = hd.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb(clip=True)
    expected = [int(colour_of(PNEUMOTHORAX)[start : start + 2], 16) for start in (1, 3, 5)]
    np.testing.assert_allclose([red, green, blue], expected, atol=1)


def test_masks_of_one_category_are_joined():
    one, two = blob(120, 96, 0.3, 0.3, 0.1), blob(120, 96, 0.35, 0.3, 0.1)
    table = BoxTable.of([0] * 4, [13, 4, 13, 2], np.zeros((4, 4)), [0.9] * 4)
    joined = found(table, {0: one, 2: two, 3: one}).joined_masks()
    assert list(joined) == [2, 13]
    np.testing.assert_array_equal(joined[13], one | two)
    np.testing.assert_array_equal(joined[2], one)


def test_overlapping_masks_and_an_empty_one_come_back(tmp_path):
    path = write_phantom(tmp_path / "phantom.dcm")
    one = blob(120, 96, 0.3, 0.3, 0.2)
    masks = {1: one, 2: np.zeros_like(one), 3: np.ones_like(one)}
    read = written(segmentation(read_source(path), masks, NAMES, ALGORITHM), tmp_path / "seg.dcm")
    assert_valid(tmp_path / "seg.dcm")
    uid = read_source(path).SOPInstanceUID
    np.testing.assert_array_equal(pixels_of(read, uid), np.stack(list(masks.values()), axis=-1))


@settings(max_examples=10, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_any_masks_of_any_size_come_back(width, height, n, seed):
    source = pydicom.Dataset()
    source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    source.SOPClassUID, source.Rows, source.Columns = "1.2.840.10008.5.1.4.1.1.1", height, width
    pixels = np.random.default_rng(seed).integers(0, 2, (n, height, width), dtype=np.uint8)
    found = segmentation(source, dict(enumerate(pixels, 1)), NAMES, ALGORITHM)
    np.testing.assert_array_equal(pixels_of(found, "1.2.5"), pixels.transpose(1, 2, 0))


def test_masks_of_another_size_are_refused(tmp_path):
    source = read_source(write_phantom(tmp_path / "phantom.dcm"))
    with pytest.raises(InputError, match=r"\(96, 121\).*for an image of \(96, 120\)"):
        segmentation(source, {1: np.zeros((96, 121), np.uint8)}, NAMES, ALGORITHM)
    with pytest.raises(InputError, match="there must be some"):
        segmentation(source, {}, NAMES, ALGORITHM)


def test_nothing_else_of_the_source_is_taken_over(tmp_path):
    path = write_phantom(
        tmp_path / "source.dcm", PatientComments="planted comment", InstitutionName="planted", Manufacturer="planted",
        StudyDescription="planted", DerivationDescription="planted",
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0011, "planted creator", create=True).add_new(0x01, "LO", "planted private")
    for source in (read_source(path), dataset):
        save_object(tmp_path / "seg.dcm", segmentation(source, {1: blob(120, 96, 0.5, 0.5, 0.2)}, NAMES, ALGORITHM))
        assert b"planted" not in (tmp_path / "seg.dcm").read_bytes().lower()


# Probabilities


def test_probabilities_come_back_in_255ths(source, tmp_path):
    width, height = radiograph_size(source)
    rng = np.random.default_rng(1)
    maps = {1: rng.random((height, width), np.float32), PNEUMOTHORAX: np.zeros((height, width), np.float32)}
    made = segmentation(read_source(source), maps, NAMES, ALGORITHM, is_fractional=True)
    read = written(made, tmp_path / "seg.dcm")
    assert_valid(tmp_path / "seg.dcm")

    header = pydicom.dcmread(source, stop_before_pixels=True)
    assert (read.SegmentationType, read.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (read.MaximumFractionalValue, read.BitsStored) == (255, 8)
    assert "not for clinical use" in read.SeriesDescription
    steps = np.stack([np.rint(channel * 255) for channel in maps.values()])
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "seg.dcm").pixel_array, steps)
    found = read.get_pixels_by_source_instance([header.SOPInstanceUID])[0]
    np.testing.assert_allclose(found.transpose(2, 0, 1), steps / 255, atol=1e-6)


def test_maps_on_the_canvas_are_those_that_masks_are_drawn_from():
    """A canvas of 4 pixels a side has one row of border above and below a radiograph of 40 x 20."""
    canvas = np.zeros((1, 4, 4), np.uint8)
    canvas[0, 1:3] = [[0, 0, 255, 255], [0, 0, 255, 255]]
    (whole,) = whole_maps(canvas, [7], 40, 20).values()
    assert whole.shape == (20, 40)
    assert (whole[:, :14] == 0).all()
    assert (whole[:, 26:] == 1).all()
    assert 0 < whole[10, 20] < 1
    np.testing.assert_array_equal(whole_maps(canvas / np.float32(255), [7], 40, 20)[7], whole)


def test_identifiers_are_the_same_again_and_tell_both_kinds_apart(tmp_path):
    source = read_source(write_phantom(tmp_path / "phantom.dcm"))
    mask = {PNEUMOTHORAX: blob(120, 96, 0.5, 0.5, 0.2)}
    one, two = (segmentation(source, mask, NAMES, ALGORITHM) for _ in range(2))
    for made in (one, two):
        made.walk(lambda data, element: data.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    # Dimensions are numbered anew each time, within the object.
    uids = ("SOPInstanceUID", "SeriesInstanceUID")
    assert [one[uid].value for uid in uids] == [two[uid].value for uid in uids]
    assert one.SegmentSequence == two.SegmentSequence
    assert one.PixelData == two.PixelData
    other = segmentation(source, mask, NAMES, ALGORITHM, is_fractional=True)
    assert not {other[uid].value for uid in uids} & {one[uid].value for uid in uids}
    again = segmentation(source, mask, NAMES, ALGORITHM, is_fractional=True)
    assert [other[uid].value for uid in uids] == [again[uid].value for uid in uids]
