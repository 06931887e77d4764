"""Codes of the findings in DICOM objects: one of SNOMED CT or DICOM where it means the same, else our own.

Sources: DICOM PS3.16 (its context groups, CID, are in pydicom.sr) and the international edition of SNOMED CT (SCT).
"""

import hashlib
import re

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.coding import Code

from xray.findings import NO_FINDING_NAME

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
    "Infiltration": Code("112121", "DCM", "Infiltrate"),  # CID 6102, 6104
    "Lung Opacity": Code("112001", "DCM", "Opacity"),  # CID 6102, 6104
    # CID 6104 has Nodule and Mass, each by itself; this finding is one or the other.
    "Nodule/Mass": Code("nodule-or-mass", PRIVATE_SCHEME, "Nodule or mass"),
    "Other lesion": Code("other-lesion", PRIVATE_SCHEME, "Other lesion"),
    "Pleural effusion": Code("60046008", "SCT", "Pleural effusion"),  # CID 645
    "Pleural thickening": Code("pleural-thick", PRIVATE_SCHEME, "Pleural thickening"),
    "Pneumothorax": Code("36118008", "SCT", "Pneumothorax"),  # CID 6102, 6105
    "Pulmonary fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
    NO_FINDING_NAME: Code("408573005", "SCT", "Imaging result normal"),  # CID 3209
}
"""Name of a finding → its code."""

LUNG = Code("39607008", "SCT", "Lung")  # CID 6100, 7151
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")  # CID 244

CERTAINTY = Code("111012", "DCM", "Certainty of Finding")  # CID 6048
PERCENT = Code("%", "UCUM", "Percent")
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


def private_scheme() -> CodingSchemeIdentificationItem:
    """The description of PRIVATE_SCHEME for an object (PS3.3 C.12.1.1, Coding Scheme Identification Sequence)."""
    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="Findings of xray without a code of a public scheme", responsible_organization="xray"
    )
