"""Codes of findings and sizes in reports: one of SNOMED CT or DICOM where it means the same, else our own.

Sources: DICOM PS3.16 (its context groups, CID, are in pydicom.sr) and the international edition of SNOMED CT (SCT).
docs/hospital.md lists the findings, and for codes of our own the reason.
"""

import hashlib
import re
from typing import TYPE_CHECKING

from pydicom.sr.coding import Code

from xray.findings import NO_FINDING_NAME

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

PRIVATE_SCHEME = "99XRAY"
"""Designator of our own codes; 99 marks it as private (PS3.16 chapter 8)."""

FINDING_CODES = {
    # No code says just this: SCT has the aneurysm and the dilated part, this finding is any enlargement.
    "Aortic enlargement": Code("aortic-enlarged", PRIVATE_SCHEME, "Aortic enlargement"),
    "Atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "Calcification": Code("112063", "DCM", "Abnormal calcifications"),  # CID 6101
    "Cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "Consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "ILD": Code("233703007", "SCT", "Interstitial lung disease"),
    "Infiltration": Code("409609008", "SCT", "Radiologic infiltrate of lung"),
    "Lung Opacity": Code("112001", "DCM", "Opacity"),  # CID 6102, 6104
    # CID 6104 has Nodule and Mass, each by itself; this finding is one or the other.
    "Nodule/Mass": Code("nodule-or-mass", PRIVATE_SCHEME, "Nodule or mass"),
    # Wider by one word: that it is none of the others is not said.
    "Other lesion": Code("52988006", "SCT", "Lesion"),  # CID 7159
    "Pleural effusion": Code("60046008", "SCT", "Pleural effusion"),  # CID 645
    "Pleural thickening": Code("pleural-thick", PRIVATE_SCHEME, "Pleural thickening"),
    "Pneumothorax": Code("36118008", "SCT", "Pneumothorax"),  # CID 6102, 6105
    "Pulmonary fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
    NO_FINDING_NAME: Code("408573005", "SCT", "Imaging result normal"),  # CID 3209
    # Of other datasets.
    "Clavicle fracture": Code("58150001", "SCT", "Fracture of clavicle"),
    "COPD": Code("13645005", "SCT", "Chronic obstructive pulmonary disease"),
    "Edema": Code("19242006", "SCT", "Pulmonary edema"),  # CID 3700
    "Effusion": Code("60046008", "SCT", "Pleural effusion"),  # CID 645
    "Emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "Fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
    "Mass": Code("4147007", "SCT", "Mass"),  # CID 6102, 6104
    "Nodule": Code("27925004", "SCT", "Nodule"),  # CID 6102, 6104
    "Pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "Rib fracture": Code("33737001", "SCT", "Fracture of rib"),
    "Tuberculosis": Code("56717001", "SCT", "Tuberculosis"),
}
"""Name of a finding → its code."""

LUNG = Code("39607008", "SCT", "Lung")  # CID 6100, 7151
SITES = {
    "Aortic enlargement": Code("15825003", "SCT", "Aorta"),  # CID 7151
    "Infiltration": LUNG,
    "Lung Opacity": LUNG,
    "Nodule/Mass": LUNG,
    "Pleural thickening": Code("3120008", "SCT", "Pleural structure"),  # CID 6100
}
"""Name of a finding → where it is, for those of which neither the code nor its scheme says so."""

LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")  # CID 244

FINDING = Code("121071", "DCM", "Finding")
COMMENT = Code("121106", "DCM", "Comment")
IMAGE_REGION = Code("111030", "DCM", "Image Region")  # TID 1410
MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # TID 1500
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")  # CID 7005

CERTAINTY = Code("111012", "DCM", "Certainty of Finding")  # CID 6048
PERCENT = Code("%", "UCUM", "Percent")

WIDTH = Code("103355008", "SCT", "Width")  # CID 7470
HEIGHT = Code("121207", "DCM", "Height")  # CID 7470
LONG_AXIS = Code("103339001", "SCT", "Long axis")  # CID 7470
AREA = Code("42798000", "SCT", "Area")  # CID 7471
MM, SQUARE_MM = Code("mm", "UCUM", "mm"), Code("mm2", "UCUM", "mm2")  # CID 7460, 7461
PIXELS = Code("{pixels}", "UCUM", "pixels")
"""UCUM takes words in braces for a unit of 1; an area has as many pixels, too."""

AT_DETECTOR = Code("at-detector", PRIVATE_SCHEME, "At the detector, not corrected for magnification")
ON_FILM = Code("on-film", PRIVATE_SCHEME, "On the scanned film, not corrected for magnification")
DEMAGNIFIED = Code("patient-ermf", PRIVATE_SCHEME, "In the patient, by an estimated magnification")
CALIBRATED = Code("patient-unsaid", PRIVATE_SCHEME, "In the patient, corrected or calibrated, not said how")
CALIBRATIONS = {
    "GEOMETRY": Code("patient-geometry", PRIVATE_SCHEME, "In the patient, corrected for geometric magnification"),
    "FIDUCIAL": Code("patient-fiducial", PRIVATE_SCHEME, "In the patient, calibrated by an object of known size"),
}
"""Pixel Spacing Calibration Type (PS3.3 10.7.1.2) → where sizes are true. No public scheme has codes of this."""
PLANE_NOT_SAID = Code("plane-unsaid", PRIVATE_SCHEME, "In a plane of which the image does not say where it is")

SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")  # TID 4000
WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")  # CID 6047
WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")  # CID 6047
CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")  # CID 7150
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150


def finding_code(name: str) -> Code:
    """The code of a category by its name; categories of a user's own get one of PRIVATE_SCHEME."""
    known = FINDING_CODES.get(name)
    if known is not None:
        return known
    # A Code Value has at most 16 characters, a Code Meaning 64, none of them a backslash or a control; validators count
    # bytes.
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:12]
    meaning = " ".join(re.sub(r"[\\\x00-\x1f\x7f]", " ", name).split())
    meaning = meaning.encode("utf-8", "replace")[:64].decode("utf-8", "ignore").strip()
    return Code(f"own-{digest}", PRIVATE_SCHEME, meaning or "Finding")


def lung_side(name: str) -> Code | None:
    """LEFT or RIGHT of a category that is a lung ("Left lung"), None for every other."""
    return {"left lung": LEFT, "right lung": RIGHT}.get(name.strip().casefold())


def private_scheme() -> "CodingSchemeIdentificationItem":
    """The description of PRIVATE_SCHEME for an object (PS3.3 C.12.1.1, Coding Scheme Identification Sequence)."""
    # Not at the top: who writes FHIR alone needs no highdicom.
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME,
        name="Findings and planes of xray without a code of a public scheme",
        responsible_organization="xray",
    )
