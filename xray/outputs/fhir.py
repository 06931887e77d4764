"""The findings of one radiograph as HL7 FHIR R5: a Bundle of what a structured report of them says, in the same codes.

- DiagnosticReport: preliminary, whether anything was found, and what is to be known of the result.
- Observation for each finding, with its certainty and its sizes, and for each probability of the whole radiograph.
- ImagingSelection for each finding: its rectangle on the image, counted as in DICOM. R4 and R4B have none, hence R5.
- Device: the algorithm with its version and the hashes of its models.

Patient, study and order are named by their identifiers alone (logical references): no name, no date of birth. The
Bundle is a transaction of PUTs whose ids follow from the image, the models and their settings, so that a server that
gets it twice keeps one of each. Which parts of TID 1500 go where follows HL7's guide "DICOM SR to FHIR".
"""

import datetime
import html
import uuid
from collections.abc import Sequence
from typing import Any

from pydicom.sr.coding import Code

from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.content import Content, Located, Tracked

MEDIA_TYPE = "application/fhir+json"
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    dicom_codes.PRIVATE_SCHEME: f"urn:uuid:{dicom_objects.ROOT}",
}
"""Designator of a coding scheme in DICOM → its URI in FHIR. The private one has no address, so it is a UUID."""
DICOM_UID, URI = "urn:dicom:uid", "urn:ietf:rfc:3986"
IDENTIFIERS = "http://terminology.hl7.org/CodeSystem/v2-0203"
NOT_FOR_CLINICAL_USE = f"Found by software, {dicom_objects.NOT_FOR_CLINICAL_USE}."

Resource = dict[str, Any]


def bundle_of(content: Content, at: datetime.datetime | None = None) -> Resource:
    """The Bundle of one radiograph, as JSON. at: when it was made, with its time zone; None for now.

    All but `Bundle.timestamp` is the same for the same content.
    """
    device = _device(content)
    selections = [_selection(content, finding) for finding in content.findings]
    findings = [
        _finding(content, finding, device, selection)
        for finding, selection in zip(content.findings, selections, strict=True)
    ]
    observations = [*(_whole(content, whole, device) for whole in content.wholes), *findings]
    made = [_report(content, observations), *observations, *selections, device]
    # FHIR has no empty lists: what is not there is left out.
    resources = [{key: value for key, value in resource.items() if value != []} for resource in made]
    return {
        "resourceType": "Bundle",
        "id": _id(content, "Bundle"),
        "type": "transaction",
        "timestamp": (at or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds"),
        "entry": [
            {
                "fullUrl": _reference(resource)["reference"],
                "resource": resource,
                "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
            }
            for resource in resources
        ],
    }


def _report(content: Content, observations: Sequence[Resource]) -> Resource:
    said = _conclusion(content)
    narrative = "".join(f"<p>{html.escape(one, quote=False)}</p>" for one in (said, *content.notes))
    return {
        "resourceType": "DiagnosticReport",
        "id": _id(content, "DiagnosticReport"),
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{narrative}</div>',
        },
        "identifier": [_uid_identifier(_uid(content, "DiagnosticReport"))],
        **_order(content),
        "status": "preliminary",
        "category": [_concept_of("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"},
                _coding(dicom_codes.MEASUREMENT_REPORT),
            ],
            "text": "Chest radiograph, findings of software",
        },
        **_about(content),
        "result": [_reference(observation) for observation in observations],
        "note": [{"text": note} for note in (NOT_FOR_CLINICAL_USE, *content.notes)],
        "study": [_study(content)],
        "conclusion": said,
        "conclusionCode": [_concept(content.summary)],
    }


def _conclusion(content: Content) -> str:
    """One line: what this is, and the findings, the surest first."""
    found = [f"{_text(finding.name)} ({100 * finding.probability:.0f} %)" for finding in content.findings]
    is_found = content.summary == dicom_codes.WITH_FINDINGS
    # Where labels of the whole radiograph were fitted, these are found without a place.
    nothing = "Findings of the whole radiograph, none of them located" if is_found else "No finding"
    said = f"{len(found)} {'finding' if len(found) == 1 else 'findings'}: {', '.join(found)}" if found else nothing
    return f"{said}. {NOT_FOR_CLINICAL_USE}"


def _finding(content: Content, finding: Located, device: Resource, selection: Resource) -> Resource:
    sizes = [_component(size.name, size.value, size.unit) for size in finding.sizes]
    methods = {size.method for size in finding.sizes if size.method is not None}
    return {
        **_observation(content, finding, device),
        "code": _concept(dicom_codes.FINDING),
        "valueCodeableConcept": _concept(finding.code) | {"text": _text(finding.name)},
        "note": [{"text": f"{method.meaning}: where sizes in mm are true."} for method in methods],
        "derivedFrom": [_reference(selection)],
        "component": [_component(dicom_codes.CERTAINTY, *_percent(finding)), *sizes],
    }


def _whole(content: Content, whole: Tracked, device: Resource) -> Resource:
    # Not a finding with a certainty: who reads values alone would take 1 % for a finding.
    value, unit = _percent(whole)
    return {
        **_observation(content, whole, device),
        "code": _concept(whole.code) | {"text": f"{_text(whole.name)}, probability in the whole radiograph"},
        "valueQuantity": _quantity(value, unit),
    }


def _observation(content: Content, tracked: Tracked, device: Resource) -> Resource:
    observation = {
        "resourceType": "Observation",
        "id": _as_id(tracked.uid),
        "identifier": [_uid_identifier(tracked.uid)],
        **_order(content),
        "partOf": [_study(content)],
        "status": "preliminary",
        "category": [_concept_of("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging")],
        **_about(content),
        "device": _reference(device),
    }
    return observation if tracked.site is None else observation | {"bodySite": _concept(tracked.site)}


def _selection(content: Content, finding: Located) -> Resource:
    x1, y1, x2, y2 = finding.box
    source = content.source
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    return {
        "resourceType": "ImagingSelection",
        "id": _as_id(dicom_objects.derived_uid(source, "FHIR", content.algorithm, content.edition, finding.identifier)),
        "status": "available",
        **{key: value for key, value in _about(content).items() if key == "subject"},
        "code": _concept(dicom_codes.IMAGE_REGION),
        "studyUid": source.StudyInstanceUID,
        "derivedFrom": [_study(content)],
        "seriesUid": source.SeriesInstanceUID,
        "instance": [
            {
                "uid": source.SOPInstanceUID,
                "sopClass": {"system": URI, "code": f"urn:oid:{source.SOPClassUID}"},
                # Closed by ending where it began, as in the structured report.
                "imageRegion2D": [
                    {
                        "regionType": "polyline",
                        "coordinate": [round(value, 3) for corner in corners for value in corner],
                    }
                ],
            }
        ],
    }


def _device(content: Content) -> Resource:
    algorithm = content.algorithm
    uid = dicom_objects.device_uid(algorithm)
    return {
        "resourceType": "Device",
        "id": _as_id(uid),
        "identifier": [_uid_identifier(uid)],
        "displayName": algorithm.name,
        "manufacturer": dicom_objects.MANUFACTURER,
        "type": [_concept(dicom_codes.ARTIFICIAL_INTELLIGENCE)],
        "version": [{"value": algorithm.version}],
        "property": [
            {"type": {"text": _text(name)}, "valueString": _text(value)} for name, value in algorithm.parameters.items()
        ],
        "note": [{"text": NOT_FOR_CLINICAL_USE}],
    }


# What they share


def _about(content: Content) -> Resource:
    """Whose radiograph it is, by the patient's identifier, and when its study was made, as far as that is known."""
    source = content.source
    about: Resource = {}
    if source.PatientID:
        identifier: Resource = {"type": _concept_of(IDENTIFIERS, "MR", "Medical record number")}
        identifier["value"] = source.PatientID
        if source.get("IssuerOfPatientID"):
            identifier["assigner"] = {"display": source.IssuerOfPatientID}
        about["subject"] = {"type": "Patient", "identifier": identifier}
    if day := source.StudyDate:
        about["effectiveDateTime"] = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return about


def _order(content: Content) -> Resource:
    number = content.source.AccessionNumber
    if not number:
        return {}
    identifier = {"type": _concept_of(IDENTIFIERS, "ACSN", "Accession ID"), "value": number}
    return {"basedOn": [{"type": "ServiceRequest", "identifier": identifier}]}


def _study(content: Content) -> Resource:
    return {"type": "ImagingStudy", "identifier": _uid_identifier(content.source.StudyInstanceUID)}


def _uid_identifier(uid: str) -> Resource:
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"}


def _reference(resource: Resource) -> Resource:
    # Resolved within the Bundle, by its fullUrl.
    return {"reference": f"urn:uuid:{resource['id']}", "type": resource["resourceType"]}


def _uid(content: Content, kind: str) -> str:
    return dicom_objects.derived_uid(content.source, "FHIR", content.algorithm, content.edition, kind)


def _id(content: Content, kind: str) -> str:
    return _as_id(_uid(content, kind))


def _as_id(uid: str) -> str:
    """The UUID that an identifier of ours, under 2.25, was made of."""
    return str(uuid.UUID(int=int(uid.removeprefix("2.25."))))


def _coding(code: Code) -> Resource:
    return {"system": SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}


def _concept(code: Code) -> Resource:
    return {"coding": [_coding(code)]}


def _concept_of(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _percent(tracked: Tracked) -> tuple[float, Code]:
    return round(100 * tracked.probability, 4), dicom_codes.PERCENT


def _quantity(value: float, unit: Code) -> Resource:
    return {"value": value, "unit": unit.meaning, "system": SYSTEMS[unit.scheme_designator], "code": unit.value}


def _component(name: Code, value: float, unit: Code) -> Resource:
    return {"code": _concept(name), "valueQuantity": _quantity(value, unit)}


def _text(value: str) -> str:
    """A name as a string of FHIR: with something in it, and no control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in value).split()) or "unnamed"
