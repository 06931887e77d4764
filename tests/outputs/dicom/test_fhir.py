"""FHIR of findings: valid by fhir.resources, what a structured report of them says, and no name in it."""

import datetime
import json
import subprocess
import sys

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_sources import (
    ALGORITHM,
    dicom_source,  # noqa: F401 (a fixture)
    found,
    some_findings,
    write_phantom,
)
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fhir.resources")

from fhir.resources.bundle import Bundle
from pydantic import BaseModel

from xray.findings import NO_FINDING_NAME
from xray.outputs.dicom.codes import FINDING_CODES, finding_code
from xray.outputs.dicom.content import content_of
from xray.outputs.dicom.objects import read_source
from xray.outputs.dicom.structured_report import written_report
from xray.outputs.fhir import SYSTEMS, bundle_of
from xray.radiographs.radiograph import radiograph_size
from xray.structures.boxes import BoxTable

DCM = "http://dicom.nema.org/resources/ontology/DCM"


def checked(content):
    """The Bundle as JSON, once the validator has read it and given the same back: it leaves out what FHIR has not."""
    text = json.dumps(bundle_of(content), allow_nan=False)
    model = Bundle.model_validate_json(text)
    for entry in model.entry:
        assert json.loads(entry.resource.model_dump_json())["resourceType"] == entry.resource.get_resource_type()
    assert_bound(model)
    assert_invariant(json.loads(text))
    # It writes Z for the same time zone.
    assert json.loads(model.model_dump_json()) | {"timestamp": ""} == json.loads(text) | {"timestamp": ""}
    return json.loads(text)


def assert_bound(model):
    """Codes of required value sets are of these: fhir.resources knows them, and does not look."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name, None)
        known = (field.json_schema_extra or {}).get("enum_values", ["+"])
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                assert_bound(one)
            # Of long value sets it knows the first ones only.
            elif one is not None and "+" not in known:
                assert one in known, (type(model).__name__, name)


def assert_invariant(bundle):
    """Constraints of R5 that types do not say; it knows none of them, and no validator for Python has them."""

    def walk(value):
        yield value
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from walk(one)

    # ele-1: nothing is empty. txt: no text has spaces alone.
    assert all(
        value not in ({}, [], None) and not (isinstance(value, str) and not value.strip()) for value in walk(bundle)
    )
    # bdl-3, bdl-7, bdl-8: a transaction's entries have requests, and full addresses once each, without a version.
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls)
    assert all("request" in entry and "/_history/" not in entry["fullUrl"] for entry in bundle["entry"])
    for resource in (entry["resource"] for entry in bundle["entry"]):
        # dom-2 to dom-5: nothing is contained that has itself something contained, a version or a label.
        assert not any("contained" in one or "meta" in one for one in resource.get("contained", []))
        if resource["resourceType"] == "Observation":
            values = [name for name in resource if name.startswith("value")]
            # obs-6, and obs-7: a value and a component of the same code exclude each other.
            assert len(values) <= 1
            assert not (values and "dataAbsentReason" in resource)
            assert not (values and any(one["code"] == resource["code"] for one in resource.get("component", [])))
    for quantity in (one for one in walk(bundle) if isinstance(one, dict) and "unit" in one):
        # qty-3: a code has its system.
        assert "code" not in quantity or "system" in quantity


def of_kind(bundle, kind):
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def located(bundle):
    return [one for one in of_kind(bundle, "Observation") if "derivedFrom" in one]


def references(value):
    """All references within a Bundle."""
    if isinstance(value, dict):
        yield from ([value["reference"]] if "reference" in value else [])
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_a_bundle_is_valid_and_hangs_together(source):
    width, height = radiograph_size(source)
    table = some_findings(width, height, 14)
    bundle = checked(content_of(read_source(source), found(table, labels={"Edema": 0.25}), ALGORITHM))
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert kinds == ["DiagnosticReport", *["Observation"] * 16, *["ImagingSelection"] * 14, "Device"]
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls)
    assert set(references(bundle)) == set(urls) - {urls[0]}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        assert entry["fullUrl"] == f"urn:uuid:{resource['id']}"
        assert entry["request"] == {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    header = pydicom.dcmread(source, stop_before_pixels=True)
    for selection in of_kind(bundle, "ImagingSelection"):
        (instance,) = selection["instance"]
        assert instance["uid"] == header.SOPInstanceUID
        assert instance["sopClass"]["code"] == f"urn:oid:{header.SOPClassUID}"
        assert (selection["studyUid"], selection["seriesUid"]) == (header.StudyInstanceUID, header.SeriesInstanceUID)
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert report["status"] == "preliminary"
    assert report["study"][0]["identifier"]["value"] == f"urn:oid:{header.StudyInstanceUID}"
    assert "not for clinical use" in report["conclusion"]
    assert len(report["result"]) == 16


def test_it_says_what_the_structured_report_says(tmp_path):
    """Each finding: code, certainty, sizes, rectangle and identifier of the SR, as highdicom reads it."""
    path = write_phantom(tmp_path / "a.dcm", ImagerPixelSpacing=[0.2, 0.1], PixelSpacing=[0.2, 0.1])
    mask = np.zeros((96, 120), np.uint8)
    mask[10:30, 20:50] = 1
    table = some_findings(120, 96, 5)
    content = content_of(read_source(path), found(table, {2: mask}, labels={"Edema": 0.25}), ALGORITHM)
    bundle = checked(content)
    written_report(content).save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    report = hd.sr.srread(tmp_path / "sr.dcm").content
    groups = report.get_planar_roi_measurement_groups()
    assert len(groups) == len(located(bundle)) == 5
    selections = {f"urn:uuid:{one['id']}": one for one in of_kind(bundle, "ImagingSelection")}
    for group, observation in zip(groups, located(bundle), strict=True):
        (coding,) = observation["valueCodeableConcept"]["coding"]
        assert (coding["code"], coding["display"]) == (group.finding_type.value, group.finding_type.meaning)
        assert coding["system"] == SYSTEMS[group.finding_type.scheme_designator]
        numbers = [
            (one["code"]["coding"][0]["code"], one["valueQuantity"]["value"], one["valueQuantity"]["code"])
            for one in observation["component"]
        ]
        assert numbers == [(m.name.value, m.value, m.unit.value) for m in group.get_measurements()]
        assert observation["identifier"][0]["value"] == f"urn:oid:{group.tracking_uid}"
        assert [note["text"] for note in observation["note"]] == [
            "At the detector, not corrected for magnification: where sizes in mm are true."
        ]
        (region,) = selections[observation["derivedFrom"][0]["reference"]]["instance"][0]["imageRegion2D"]
        np.testing.assert_allclose(np.array(region["coordinate"]).reshape(-1, 2), group.roi.value, atol=1e-3)
    wholes = [one for one in of_kind(bundle, "Observation") if "derivedFrom" not in one]
    assert [(one["code"]["coding"][0]["code"], one["valueQuantity"]["value"]) for one in wholes] == [
        (FINDING_CODES[NO_FINDING_NAME].value, 12.5),
        (FINDING_CODES["Edema"].value, 25),
    ]
    assert all("valueCodeableConcept" not in one for one in wholes)
    (device,) = of_kind(bundle, "Device")
    said = {one["type"]["text"]: one["valueString"] for one in device["property"]}
    assert said == dict(ALGORITHM.parameters)
    assert device["version"] == [{"value": "0.1.0"}]
    (conclusion,) = of_kind(bundle, "DiagnosticReport")[0]["conclusionCode"]
    assert conclusion["coding"][0] == {
        "system": DCM,
        "code": "111242",
        "display": "All algorithms succeeded; with findings",
    }


def test_drawn_back_onto_the_source_a_region_covers_the_pixels_of_its_box(tmp_path):
    """Hand-worked: coordinates count corners of pixels from 0, as the definition of imageRegion2D has it."""
    path = write_phantom(tmp_path / "a.dcm")
    table = BoxTable.of([0], [4], [[10, 20, 31, 47]], [0.9])
    (selection,) = of_kind(checked(content_of(read_source(path), found(table), ALGORITHM)), "ImagingSelection")
    (region,) = selection["instance"][0]["imageRegion2D"]
    assert region == {"regionType": "polyline", "coordinate": [10, 20, 31, 20, 31, 47, 10, 47, 10, 20]}
    outline = np.array(region["coordinate"], np.float32).reshape(-1, 2)
    inside = np.array(
        [[cv2.pointPolygonTest(outline, (x + 0.5, y + 0.5), False) > 0 for x in range(120)] for y in range(96)]
    )
    assert inside[20:47, 10:31].all()
    assert inside.sum() == 27 * 21


def test_the_patient_is_named_by_the_identifier_alone(tmp_path):
    path = write_phantom(
        tmp_path / "a.dcm", PatientName="Planted^Name", PatientID="4711", PatientBirthDate="19610523", PatientSex="F",
        AccessionNumber="A-7", StudyDate="20240229", IssuerOfPatientID="Ward", ReferringPhysicianName="Planted^Doctor",
        StudyDescription="planted study", StudyID="planted1",
    )  # fmt: skip
    content = content_of(read_source(path), found(some_findings(120, 96, 2)), ALGORITHM)
    text = json.dumps(bundle_of(content))
    assert "planted" not in text.lower()
    assert "1961" not in text
    bundle = checked(content)
    for one in [*of_kind(bundle, "DiagnosticReport"), *of_kind(bundle, "Observation")]:
        assert one["subject"]["identifier"]["value"] == "4711"
        assert one["subject"]["identifier"]["assigner"] == {"display": "Ward"}
        assert one["basedOn"][0]["identifier"]["value"] == "A-7"
        assert one["effectiveDateTime"] == "2024-02-29"
    bare = write_phantom(tmp_path / "b.dcm", PatientID="", AccessionNumber="", StudyDate="")
    (report,) = of_kind(checked(content_of(read_source(bare), found(BoxTable.empty()), ALGORITHM)), "DiagnosticReport")
    assert not {"subject", "basedOn", "effectiveDateTime"} & set(report)
    assert report["conclusion"] == "No finding. Found by software, not for clinical use."
    assert report["conclusionCode"][0]["coding"][0]["code"] == "111241"


def test_the_same_again_and_other_ones_for_other_findings(tmp_path):
    """A server that gets a Bundle twice keeps each resource once, as all of them are PUT."""
    path, table = write_phantom(tmp_path / "a.dcm"), some_findings(120, 96, 2)
    source, at = read_source(path), datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    one, two = (bundle_of(content_of(source, found(table), ALGORITHM), at) for _ in range(2))
    assert one == two
    assert one["timestamp"] == "2026-05-01T00:00:00+00:00"
    others = [
        bundle_of(content_of(source, found(table), ALGORITHM, threshold=0.5), at),
        bundle_of(content_of(source, found(table, notes=["Maybe no chest."]), ALGORITHM), at),
        bundle_of(content_of(read_source(write_phantom(tmp_path / "b.dcm")), found(table), ALGORITHM), at),
    ]
    ids = [{entry["resource"]["id"] for entry in bundle["entry"][:-1]} for bundle in (one, *others)]
    assert sum(map(len, ids)) == len(set().union(*ids))
    assert "Maybe no chest." in [note["text"] for note in others[1]["entry"][0]["resource"]["note"]]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=80), *[st.floats(0, 1)] * 5), max_size=3),
    st.text(max_size=64),
    st.dictionaries(st.text(max_size=20), st.floats(0, 1), max_size=3),
    st.integers(1, 9000),
)
def test_whatever_names_and_boxes_there_are_it_is_valid(rows, patient, labels, width):
    source = pydicom.Dataset()
    source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    source.SOPClassUID, source.Rows, source.Columns = "1.2.840.10008.5.1.4.1.1.1", 700, width
    source.add_new("PatientID", "LO", patient)
    names = {number: name for number, (name, *_) in enumerate(rows, 1)}
    boxes = [[min(a, b) * width, min(c, d) * 700, max(a, b) * width, max(c, d) * 700] for _, a, b, c, d, _ in rows]
    scores = [score for *_, score in rows]
    table = BoxTable.of([0] * len(rows), list(names), np.array(boxes).reshape(-1, 4), scores)
    content = content_of(source, found(table, names=names, labels=labels), ALGORITHM, 0.0)
    checked(content)


def test_each_scheme_of_our_codes_has_an_address():
    for name in [*FINDING_CODES, "anything else"]:
        assert SYSTEMS[finding_code(name).scheme_designator].startswith(("http://", "urn:uuid:"))


def test_it_needs_no_highdicom():
    script = "import sys; sys.modules['highdicom'] = None; import xray.outputs.dicom.results, xray.outputs.fhir"
    assert subprocess.run([sys.executable, "-c", script], timeout=600).returncode == 0


def test_the_narrative_says_what_the_notes_say(tmp_path):
    source = read_source(write_phantom(tmp_path / "a.dcm"))
    bundle = bundle_of(content_of(source, found(BoxTable.empty(), notes=["May be <no> chest."]), ALGORITHM))
    (report,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"]
    assert "<p>May be &lt;no&gt; chest.</p></div>" in report["text"]["div"]
    assert {"text": "May be <no> chest."} in report["note"]
