"""Structured reports: valid by the standard's own tables, read back by others, and at the same places on the source."""

import dataclasses
import io
import subprocess
import warnings

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    ALGORITHM,
    NAMES,
    assert_valid,
    dicom_source,  # noqa: F401 (a fixture)
    found,
    program,
    some_findings,
    write_phantom,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.coding import Code

from xray.errors import InputError
from xray.findings import FINDINGS
from xray.outputs.dicom.codes import FINDING_CODES, SITES, finding_code
from xray.outputs.dicom.content import WITHOUT_PLACES, content_of
from xray.outputs.dicom.objects import read_source, reduced, save_object
from xray.outputs.dicom.structured_report import written_report
from xray.radiographs.radiograph import radiograph_size
from xray.structures.boxes import BoxTable

CERTAINTY = Code("111012", "DCM", "Certainty of Finding")


def structured_report(source, table, names, algorithm, labels=None, masks=None, is_3d=False, **options):
    findings = found(table, masks, names, labels=labels or {})
    return written_report(content_of(source, findings, algorithm, **options), is_3d)


@pytest.fixture
def phantom(tmp_path):
    return write_phantom(tmp_path / "phantom.dcm")


def written(report, path):
    """The report once it has been in a file, as pydicom and as highdicom read it."""
    save_object(path, report)
    return pydicom.dcmread(path), hd.sr.srread(path)


def groups_of(report):
    return report.content.get_planar_roi_measurement_groups()


def wholes_of(report):
    return report.content.get_image_measurement_groups()


def summary_of(group):
    """The code of whether anything was found, of the group of the whole radiograph."""
    (value,) = [item.value.value for item in group[0].ContentSequence if item.name.value == "111017"]
    return value


def test_a_report_is_valid_and_says_what_was_found_where(source, tmp_path):
    width, height = radiograph_size(source)
    # All 14 once; highdicom takes its time.
    table = some_findings(width, height, 14 if width == 91 else 4)
    report = structured_report(read_source(source), table, NAMES, ALGORITHM)
    plain, read = written(report, tmp_path / "sr.dcm")
    assert_valid(tmp_path / "sr.dcm")

    header = pydicom.dcmread(source, stop_before_pixels=True)
    assert plain.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert (plain.Modality, plain.CompletionFlag, plain.VerificationFlag) == ("SR", "COMPLETE", "UNVERIFIED")
    assert (plain.PreliminaryFlag, plain.ContentQualification) == ("PRELIMINARY", "RESEARCH")
    assert "not for clinical use" in plain.SeriesDescription
    assert plain.StudyInstanceUID == header.StudyInstanceUID
    assert plain.PatientID == (header.get("PatientID") or "")
    assert str(plain.PatientName) == str(header.get("PatientName") or "")
    assert plain.SeriesInstanceUID != header.SeriesInstanceUID
    assert read.get_evidence() == [
        (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID, header.SOPClassUID)
    ]
    groups = groups_of(read)
    assert len(groups) == len(table) - 1
    for row, group in enumerate(groups):
        assert group.finding_type == FINDING_CODES[FINDINGS[row]]
        (certainty,) = group.get_measurements(CERTAINTY)
        assert certainty.value == pytest.approx(100 * table.scores[row], abs=1e-4)
        assert certainty.unit.value == "%"
        region = group.roi
        assert region.graphic_type == hd.sr.GraphicTypeValues.POLYLINE
        assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        x1, y1, x2, y2 = table.boxes[row]
        np.testing.assert_allclose(region.value, [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], atol=1e-3)
        assert (region.value >= 0).all()
        assert (region.value <= [width, height]).all()


def test_drawn_back_onto_the_source_a_region_covers_the_pixels_of_its_box(phantom, tmp_path):
    # Whole pixels: a box's edges are edges of pixels, as SCOORD counts them, not their centres.
    boxes = [(10, 20, 31, 47), (0, 0, 120, 96), (119, 95, 120, 96), (3, 0, 4, 96)]
    table = BoxTable.of([0] * 4, [1, 2, 3, 4], boxes, [0.9, 0.8, 0.7, 0.6])
    _, read = written(structured_report(read_source(phantom), table, NAMES, ALGORITHM), tmp_path / "sr.dcm")
    centres = np.stack(np.meshgrid(np.arange(120) + 0.5, np.arange(96) + 0.5), -1).reshape(-1, 2)
    for (x1, y1, x2, y2), group in zip(boxes, groups_of(read), strict=True):
        outline = group.roi.value.astype(np.float32)
        inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0 for x, y in centres]
        expected = np.zeros((96, 120), dtype=bool)
        expected[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(np.array(inside).reshape(96, 120), expected)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=3),
    st.integers(1, 9000),
    st.integers(1, 9000),
)
def test_any_box_comes_back_to_a_thousandth_of_a_pixel(shares, width, height):
    source = pydicom.Dataset()
    source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    source.SOPClassUID, source.Rows, source.Columns = "1.2.840.10008.5.1.4.1.1.1", height, width
    boxes = np.array(shares) * [width, height, width, height]
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    table = BoxTable.of([0] * len(boxes), [4] * len(boxes), boxes, np.linspace(0.9, 0.5, len(boxes)))
    file = io.BytesIO()
    structured_report(source, table, NAMES, ALGORITHM).save_as(file, enforce_file_format=True)
    file.seek(0)
    found = [group.roi.value for group in groups_of(hd.sr.srread(file))]
    np.testing.assert_allclose([[*corners[0], *corners[2]] for corners in found], boxes, atol=1e-3)


def test_dcmtk_reads_a_report(phantom, tmp_path):
    dsrdump = program("dsrdump", "dcmtk")
    written(structured_report(read_source(phantom), some_findings(120, 96), NAMES, ALGORITHM), tmp_path / "sr.dcm")
    done = subprocess.run([dsrdump, tmp_path / "sr.dcm"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))], done.stderr
    assert done.stdout.count("Image Region") == 14
    assert '"Finding")=(36118008,SCT,"Pneumothorax")' in done.stdout
    assert "Algorithm Parameters" in done.stdout


def test_each_group_names_the_algorithm_and_its_models(phantom, tmp_path):
    table = some_findings(120, 96, 2)
    _, read = written(structured_report(read_source(phantom), table, NAMES, ALGORITHM), tmp_path / "sr.dcm")
    for group in [*wholes_of(read), *groups_of(read)]:
        said = [item.value for item in group[0].ContentSequence if item.name.value in ("111001", "111003", "111002")]
        assert said == ["xray", "0.1.0", f"model 1: detection sha256:{64 * 'a'}", "threshold: 0.3"]
    (observer,) = read.content.get_observer_contexts()
    assert "not for clinical use" in observer.observer_identifying_attributes.name


def test_the_whole_radiograph_has_its_probabilities(phantom, tmp_path):
    table = some_findings(120, 96, 3)
    labels = {"Pneumothorax": 0.75, "abnormal": 0.6}
    _, read = written(structured_report(read_source(phantom), table, NAMES, ALGORITHM, labels), tmp_path / "sr.dcm")
    summary, normal, pneumothorax = wholes_of(read)
    assert summary_of(summary) == "111242"
    assert normal.finding_type.value == "408573005"
    assert normal.get_measurements(CERTAINTY)[0].value == 12.5
    assert pneumothorax.finding_type.value == "36118008"
    assert pneumothorax.get_measurements(CERTAINTY)[0].value == 75


def test_a_classifiers_rows_are_not_said_twice(phantom, tmp_path):
    table = BoxTable.of([0, 0], [1, 2], [[0, 0, 120, 96]] * 2, [0.9, 0.8])
    labels = {"Aortic enlargement": 0.9, "Atelectasis": 0.8}
    _, read = written(structured_report(read_source(phantom), table, NAMES, ALGORITHM, labels), tmp_path / "sr.dcm")
    assert groups_of(read) == []
    assert len(wholes_of(read)) == 3


@pytest.mark.parametrize(
    ("labels", "summary"),
    [
        ({"Aortic enlargement": 0.31, "abnormal": 0.1}, "111242"),
        ({"Aortic enlargement": 0.29, "abnormal": 0.9, "No finding": 0.9}, "111241"),
        ({"abnormal": 0.31}, "111242"),
        ({"abnormal": 0.29}, "111241"),
        ({}, "111241"),
    ],
)
def test_a_classifier_alone_says_so_and_its_labels_are_its_findings(labels, summary, phantom, tmp_path):
    """A report without places reads otherwise where places were looked for, and none were found."""
    named = {number: name for number, name in NAMES.items() if name in labels}
    table = BoxTable.of(
        [0] * len(named), list(named), [[0, 0, 120, 96]] * len(named), [labels[n] for n in named.values()]
    )
    for has_places, expected in ((False, summary), (True, "111241")):
        findings = found(table, labels=labels, has_places=has_places)
        content = content_of(read_source(phantom), findings, ALGORITHM)
        assert (content.summary.value, content.findings) == (expected, ())
        assert (WITHOUT_PLACES in content.notes) is not has_places
        _, read = written(written_report(content), tmp_path / "sr.dcm")
        assert (WITHOUT_PLACES in comments(read)) is not has_places
    # What was fitted decides before all else.
    decided = content_of(read_source(phantom), dataclasses.replace(findings, has_findings=True), ALGORITHM)
    assert decided.summary.value == "111242"


def test_a_radiograph_without_findings_has_a_report_that_says_so(phantom, tmp_path):
    for table in (BoxTable.empty(), BoxTable.of([0], [1], [[1, 1, 9, 9]], [0.29])):
        _, read = written(structured_report(read_source(phantom), table, NAMES, ALGORITHM), tmp_path / "sr.dcm")
        assert groups_of(read) == []
        assert summary_of(wholes_of(read)[0]) == "111241"
        assert_valid(tmp_path / "sr.dcm")


def test_categories_of_ones_own_have_codes_of_a_declared_private_scheme(phantom, tmp_path):
    names = {1: "Left shadow", 2: "Verschattung über dem Zwerchfell \\ rechts, " + 60 * "x"}
    table = BoxTable.of([0, 0], [1, 2], [[1, 1, 9, 9], [5, 5, 50, 50]], [0.9, 0.8])
    plain, read = written(structured_report(read_source(phantom), table, names, ALGORITHM), tmp_path / "sr.dcm")
    assert_valid(tmp_path / "sr.dcm")
    codes = [group.finding_type for group in groups_of(read)]
    assert [code.scheme_designator for code in codes] == ["99XRAY"] * 2
    assert codes[0].meaning == "Left shadow"
    assert codes[1].meaning.startswith("Verschattung über dem Zwerchfell rechts")
    assert plain.SpecificCharacterSet == "ISO_IR 192"
    assert plain.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99XRAY"


def test_names_with_characters_that_dicom_has_not_make_a_valid_report(tmp_path, phantom):
    names = ["a\0b", "\x07", "a\nb\tc", "\\", "\x85", "<&>", "🫁" * 20]
    table = BoxTable.of([0] * 7, range(1, 8), [[0, 0, 9, 9]] * 7, [0.9] * 7)
    report = structured_report(read_source(phantom), table, dict(enumerate(names, 1)), ALGORITHM, {"x\0y": 0.5})
    dataset, _ = written(report, tmp_path / "sr.dcm")
    assert_valid(tmp_path / "sr.dcm")
    told = []
    dataset.walk(lambda data, element: told.append(element.value) if element.keyword == "TextValue" else None)
    assert [text for text in told if any(ord(letter) < 32 for letter in text)] == []
    assert {"Finding 1: a b", "Finding 3: a b c", "Radiograph: x y"} <= set(told)


def test_codes_differ_and_fit_their_types():
    codes = [finding_code(name) for name in [*FINDINGS, "No finding", "anything", "anything else", ""]]
    assert len({code[:2] for code in codes}) == len(codes)
    for code in codes:
        assert 0 < len(code.value) <= 16
        assert 0 < len(code.meaning) <= 64


def test_the_same_image_and_model_give_the_same_report(tmp_path):
    """So an archive that gets it twice keeps one; what differs in anything is another one, of the same series."""
    path, table = write_phantom(tmp_path / "phantom.dcm"), some_findings(120, 96, 1)
    one, two = (structured_report(read_source(path), table, NAMES, ALGORITHM) for _ in range(2))
    assert one.SeriesInstanceUID == two.SeriesInstanceUID
    assert one.SOPInstanceUID == two.SOPInstanceUID
    assert one.SOPInstanceUID.startswith("2.25.")
    for report in (one, two):
        report.walk(lambda data, element: data.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    assert one == two
    second = write_phantom(tmp_path / "second.dcm", StudyInstanceUID=one.StudyInstanceUID)
    others = [
        structured_report(read_source(path), table, NAMES, ALGORITHM, threshold=0.5),
        structured_report(read_source(path), table, NAMES, ALGORITHM, edition="chosen"),
        structured_report(read_source(second), table, NAMES, ALGORITHM),
    ]
    assert {other.SeriesInstanceUID for other in others} == {one.SeriesInstanceUID}
    assert len({other.SOPInstanceUID for other in (one, *others)}) == 4
    model = dataclasses.replace(ALGORITHM, parameters={"model 1": "another"})
    for source, algorithm in ((write_phantom(tmp_path / "other.dcm"), ALGORITHM), (path, model)):
        other = structured_report(read_source(source), table, NAMES, algorithm)
        assert other.SeriesInstanceUID != one.SeriesInstanceUID
        assert other.SOPInstanceUID != one.SOPInstanceUID


# What is taken over


PLANTED = {
    "PatientComments": "planted comment",
    "StudyDescription": "planted study",
    "SeriesDescription": "planted series",
    "InstitutionName": "planted hospital",
    "InstitutionAddress": "planted street",
    "OperatorsName": "Planted^Operator",
    "PerformingPhysicianName": "Planted^Physician",
    "OtherPatientIDs": "planted other id",
    "PatientAddress": "planted home",
    "AdditionalPatientHistory": "planted history",
    "ImageComments": "planted picture",
    "StationName": "planted station",
    "Manufacturer": "planted maker",
    "RequestedProcedureDescription": "planted request",
    "PatientTelephoneNumbers": "planted number",
    "EthnicGroup": "planted group",
    "Occupation": "planted work",
    "ProtocolName": "planted protocol",
}


def test_nothing_is_taken_over_but_what_places_a_report_in_its_study(tmp_path):
    path = write_phantom(tmp_path / "source.dcm", **PLANTED)
    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x0011, "planted creator", create=True)
    block.add_new(0x01, "LO", "planted private")
    dataset.save_as(path)
    # Whole data sets are reduced too.
    for source in (read_source(path), dataset):
        save_object(tmp_path / "sr.dcm", structured_report(source, some_findings(120, 96, 1), NAMES, ALGORITHM))
        assert b"planted" not in (tmp_path / "sr.dcm").read_bytes().lower()


@pytest.mark.parametrize(
    ("charset", "name", "encoded"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "Müller^Jürgen".encode("latin-1")),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=山田^太郎=やまだ^たろう".encode()),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        (None, "Plain^Name", b"Plain^Name"),
    ],
)
def test_names_in_any_character_set_stay_what_they_are(tmp_path, charset, name, encoded):
    path = write_phantom(tmp_path / "named.dcm", PatientName="X" * len(encoded))
    dataset = pydicom.dcmread(path)
    if charset is not None:
        dataset.SpecificCharacterSet = charset
        dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"X" * len(encoded), encoded))
    plain, _ = written(
        structured_report(read_source(path), some_findings(9, 9, 1), NAMES, ALGORITHM), tmp_path / "sr.dcm"
    )
    assert str(plain.PatientName) == name


@pytest.mark.parametrize(
    ("elements", "kept"),
    [
        ({"PatientSex": "unknown"}, {"PatientSex": ""}),
        ({"PatientBirthDate": "12. May"}, {"PatientBirthDate": ""}),
        ({"StudyTime": "99"}, {"StudyTime": ""}),
        ({"PatientID": None, "AccessionNumber": None}, {"PatientID": "", "AccessionNumber": ""}),
        ({"AccessionNumber": 40 * "9"}, {"AccessionNumber": 16 * "9"}),
        ({"PatientID": "a\\b"}, {"PatientID": "a"}),
        ({"InstanceNumber": None}, {"InstanceNumber": 1}),
        ({"StudyInstanceUID": "1.2.03"}, {"StudyInstanceUID": "1.2.03"}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_value_of_its_type_is_left_empty(tmp_path, elements, kept):
    path = write_phantom(tmp_path / "odd.dcm", **elements)
    plain, _ = written(
        structured_report(read_source(path), some_findings(9, 9, 1), NAMES, ALGORITHM), tmp_path / "sr.dcm"
    )
    for keyword, value in kept.items():
        assert (plain[keyword].value or "") == value


@pytest.mark.filterwarnings("error")
def test_odd_values_reach_no_log(tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_phantom(tmp_path / "a.dcm", PatientName="Odd" * 40, PatientID="odd" * 40, PatientSex="odd")
    caplog.clear()
    save_object(tmp_path / "sr.dcm", structured_report(read_source(path), some_findings(9, 9, 1), NAMES, ALGORITHM))
    assert "odd" not in (caplog.text + "".join(capfd.readouterr())).lower()
    assert read_source(path).SOPInstanceUID not in caplog.text


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"StudyInstanceUID": None}, "odd.dcm: .* StudyInstanceUID is missing or no identifier"),
        ({"SeriesInstanceUID": ""}, "SeriesInstanceUID is missing"),
        ({"SOPInstanceUID": "../../etc"}, "SOPInstanceUID is missing or no identifier"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "SOPClassUID is none of an image"),
        ({"SOPClassUID": "1.2.3"}, "SOPClassUID is none of an image"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_source_that_cannot_be_referred_to_is_refused(tmp_path, elements, message):
    path = write_phantom(tmp_path / "odd.dcm", **elements)
    with pytest.raises(InputError, match=message):
        read_source(path)


def test_a_file_that_is_no_dicom_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_source(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="StudyInstanceUID"):
        reduced(pydicom.Dataset())


# Measurements, and the other class


def measured(group):
    """Name → (value, unit, code of the method) of the measurements of a group, its certainty left out."""
    found = {}
    for one in group.get_measurements():
        method = [item.value.value for item in one[0].get("ContentSequence", []) if item.name.value == "370129005"]
        found[one.name.meaning] = (one.value, one.unit.value, *method)
    del found["Certainty of Finding"]
    return found


def comments(report):
    (whole, *_) = wholes_of(report)
    return [item.value for item in whole[0].ContentSequence if item.name.value == "121106"]


@pytest.mark.parametrize("is_3d", [False, True])
def test_findings_have_sizes_that_say_where_they_are_true(tmp_path, is_3d):
    path = write_phantom(tmp_path / "a.dcm", ImagerPixelSpacing=[0.2, 0.1], PixelSpacing=[0.2, 0.1])
    table = BoxTable.of([0, 0], [13, 1], [[20, 10, 50, 30], [3, 0, 4, 96]], [0.9, 0.8])
    mask = np.zeros((96, 120), np.uint8)
    mask[10:30, 20:50] = 1
    options = {"masks": {0: mask}, "is_3d": is_3d}
    report = structured_report(read_source(path), table, NAMES, ALGORITHM, **options)
    _, read = written(report, tmp_path / "sr.dcm")
    assert_valid(tmp_path / "sr.dcm")
    first, second = groups_of(read)
    at = ("mm", "at-detector")
    expected = {"Width": (3, *at), "Height": (4, *at), "Long axis": (5, *at), "Area": (12, "mm2", "at-detector")}
    assert measured(first) == expected
    assert measured(second) == {"Width": (0.1, *at), "Height": (19.2, *at)}
    assert second.finding_sites[0].value.meaning == "Aorta"
    (of_mm, of_masks) = comments(read)
    assert "at the detector" in of_mm
    assert "Imager Pixel Spacing, 0.2 x 0.1 mm" in of_mm
    assert "masks" in of_masks
    dump = subprocess.run(
        [program("dsrdump", "dcmtk"), tmp_path / "sr.dcm"], capture_output=True, text=True, timeout=600
    )
    assert dump.returncode == 0, dump.stderr
    assert not [line for line in dump.stderr.splitlines() if line.startswith(("E:", "F:"))], dump.stderr
    assert 'has concept mod CODE:(,,"Measurement Method")=(at-detector,99XRAY,' in dump.stdout.replace(
        "370129005,SCT", ","
    )


def test_without_a_spacing_sizes_are_in_pixels(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", spacing=False)
    table = BoxTable.of([0], [13], [[20, 10, 50, 30]], [0.9])
    _, read = written(structured_report(read_source(path), table, NAMES, ALGORITHM), tmp_path / "sr.dcm")
    assert_valid(tmp_path / "sr.dcm")
    assert measured(groups_of(read)[0]) == {"Width": (30, "{pixels}"), "Height": (20, "{pixels}")}
    assert comments(read) == ["Sizes are in pixels: the image does not say how far these are apart in mm."]


def without_times(report):
    report.walk(lambda data, element: data.pop(element.tag) if element.VR in ("DA", "TM", "DT") else None)
    return report


def test_comprehensive_3d_says_the_same_in_a_class_of_its_own(source, tmp_path):
    width, height = radiograph_size(source)
    table, about = some_findings(width, height, 2), (NAMES, ALGORITHM)
    plain, other = (structured_report(read_source(source), table, *about, is_3d=is_3d) for is_3d in (False, True))
    _, read = written(other, tmp_path / "sr3d.dcm")
    assert_valid(tmp_path / "sr3d.dcm")
    assert isinstance(read, hd.sr.Comprehensive3DSR)
    assert other.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert other.SOPInstanceUID != plain.SOPInstanceUID
    # The same groups, findings and identifiers to track them by; regions are pixels of the image, as it is nowhere.
    assert without_times(other).ContentSequence == without_times(plain).ContentSequence
    for row, group in enumerate(groups_of(read)):
        x1, y1, x2, y2 = table.boxes[row]
        assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(group.roi.value, [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], atol=1e-3)
    again = structured_report(read_source(source), table, *about, is_3d=True)
    assert again.SOPInstanceUID == other.SOPInstanceUID


def test_an_object_names_the_algorithm_as_contributing_equipment(phantom):
    """As IHE's AI Results asks for it: with an identifier that changes with the model."""
    about = (read_source(phantom), some_findings(120, 96, 1), NAMES)
    report = structured_report(*about, ALGORITHM, is_3d=True)
    item = next(one for one in report.ContributingEquipmentSequence if one.Manufacturer == "xray")
    assert (item.ManufacturerModelName, item.SoftwareVersions) == ("xray", "0.1.0")
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    other = structured_report(*about, dataclasses.replace(ALGORITHM, parameters={"model 1": "another"}), is_3d=True)
    second = next(one for one in other.ContributingEquipmentSequence if one.Manufacturer == "xray")
    assert item.DeviceUID.startswith("2.25.")
    assert item.DeviceUID != second.DeviceUID


def test_codes_of_snomed_have_its_check_digit():
    """Verhoeff's, by which SNOMED CT's identifiers are told from numbers that somebody made up."""
    for name, code in [*FINDING_CODES.items(), *SITES.items()]:
        if code.scheme_designator == "SCT":
            assert is_verhoeff(code.value), name
    assert not is_verhoeff("78381009")


def is_verhoeff(digits):
    """By the dihedral group of order 10, in which 5 … 9 are reflections."""

    def times(a, b):
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    check, permuted = 0, (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    for place, digit in enumerate(map(int, reversed(digits))):
        for _ in range(place % 8):
            digit = permuted[digit]
        check = times(check, digit)
    return check == 0
