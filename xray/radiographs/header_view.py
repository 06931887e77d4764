"""What a DICOM header says of the picture: the modality, the part of the body, the view, and which way it lies.

Whatever is missing is not said, never wrong. All is kept in a few words of ours: free text could hold a name.
"""

import dataclasses
import re

from pydicom import uid

from xray.radiographs.body_parts import ANIMAL, CHEST, FRONTAL, LATERAL, OBLIQUE, narrowed, parts_in, views_in
from xray.radiographs.elements import Elements

_IN_PLACE = ("BodyPartExamined",)
_OF_SERIES = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_OF_STUDY = ("StudyDescription", "PerformedProcedureStepDescription", "RequestedProcedureDescription")
SEQUENCES = ("AnatomicRegionSequence", "ViewCodeSequence")
KEYWORDS = (
    *("SOPClassUID", "Modality", "SpecificCharacterSet", "ViewPosition", "PatientOrientation"),
    *("PresentationIntentType", "PatientSpeciesDescription", "CodeValue", "CodeMeaning"),
    *_IN_PLACE, *_OF_SERIES, *_OF_STUDY, *SEQUENCES,
)  # fmt: skip
"""Elements that this module looks at."""

FLUOROSCOPY = "fluoroscopy"
"""A modality under which rooms for both send radiographs, too: pixels that show a frontal chest count."""
MODALITIES = {
    "BI": "biomagnetic imaging", "BMD": "bone densitometry", "CT": "CT", "DG": "diaphanography", "ECG": "an ECG",
    "ES": "endoscopy", "GM": "microscopy", "IO": "intra-oral radiography", "IVOCT": "optical coherence tomography",
    "IVUS": "ultrasound", "MG": "mammography", "MR": "MR", "NM": "nuclear medicine", "OCT": "ophthalmology",
    "OP": "ophthalmology", "OPM": "ophthalmology", "OPT": "ophthalmology", "PT": "PET", "PX": "panoramic radiography",
    "RTDOSE": "radiotherapy", "RTIMAGE": "radiotherapy", "RTPLAN": "radiotherapy", "RTSTRUCT": "radiotherapy",
    "SEG": "a segmentation", "SM": "microscopy", "SR": "a report", "TG": "thermography", "US": "ultrasound",
    "XA": "angiography", "XC": "photography", "DMS": "dermoscopy", "EPS": "electrophysiology", "HD": "haemodynamics",
    "OAM": "ophthalmology", "OSS": "optical surface scan", "LS": "laser scan", "BDUS": "ultrasound", "MA": "MR",
    "MS": "MR", "CD": "ultrasound", "DD": "ultrasound", "ST": "nuclear medicine", "AS": "angiography", "PR": "a "
    "presentation state", "KO": "a list of key objects", "DOC": "a document", "AR": "ophthalmology",
    "RF": FLUOROSCOPY, "DF": FLUOROSCOPY, "CF": FLUOROSCOPY, "EC": "ultrasound", "FA": "ophthalmology", "FS":
    "ophthalmology", "KER": "ophthalmology", "SRF": "ophthalmology", "VA": "ophthalmology", "LEN": "ophthalmology",
    "OPV": "ophthalmology", "OPTBSV": "ophthalmology", "OPTENF": "ophthalmology", "CP": "endoscopy", "LP": "endoscopy",
    "DM": "microscopy", "RTRECORD": "radiotherapy", "RTINTENT": "radiotherapy", "RTRAD": "radiotherapy", "RTSEGANN":
    "radiotherapy", "PLAN": "a plan", "ANN": "annotations", "AU": "a sound recording", "EEG": "a waveform", "EMG":
    "a waveform", "EOG": "a waveform", "RESP": "a waveform", "REG": "a registration", "FID": "a list of fiducials",
    "M3D": "a 3D model", "RWV": "a map of values",
}  # fmt: skip
"""Modality (PS3.3 C.7.3.1.1.1) that is no projection radiograph → in words."""
_CLASSES = (
    ("Presentation State", "a presentation state"), ("Encapsulated", "a document"), ("Key Object", "a list of key "
    "objects"), (" SR ", "a report"), ("ECG", "an ECG"), ("Waveform", "a waveform"), ("Registration", "a registration"),
    ("Fiducials", "a list of fiducials"), ("Radiofluoroscopic", FLUOROSCOPY), ("XRF", FLUOROSCOPY),
    ("Mammography", "mammography"), ("Breast", "mammography"), ("Intra-Oral", "intra-oral radiography"), ("CT", "CT"),
    ("MR", "MR"), ("Ultrasound", "ultrasound"), ("Nuclear Medicine", "nuclear medicine"), ("PET", "PET"),
    ("Positron", "PET"), ("Angiographic", "angiography"), ("XA ", "angiography"), ("Craniofacial", "CT"),
    ("Ophthalmic", "ophthalmology"), ("Optical Coherence", "optical coherence tomography"), ("RT ", "radiotherapy"),
    ("Endoscopic", "endoscopy"), ("Microscop", "microscopy"), ("Photograph", "photography"), ("Dermo", "dermoscopy"),
    ("Segmentation", "a segmentation"), ("Photoacoustic", "ultrasound"), ("Parametric Map", "a parametric map"),
)  # fmt: skip
"""What the name of a storage class holds → in words; those of projection radiographs and secondary captures hold none
of these."""
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"

# PS3.16 CID 4010, DX View.
_VIEW_CODES = {
    "399348003": FRONTAL, "272479007": FRONTAL, "399033003": FRONTAL, "R-10206": FRONTAL, "R-10214": FRONTAL,
    "399067008": LATERAL, "399173006": LATERAL, "399198007": LATERAL, "R-10236": LATERAL, "R-10232": LATERAL,
    "399182000": OBLIQUE, "399236003": OBLIQUE, "399184004": OBLIQUE, "399135007": OBLIQUE, "399356000": OBLIQUE,
    "399038007": OBLIQUE, "399006002": OBLIQUE,
}  # fmt: skip
# PS3.16 CID 4031, Common Anatomic Region: the chest as the standard names it today, and as it did before.
_CHEST_CODES = ("816094009", "51185008", "43799004", "T-D3000")
_POSITIONS = {
    "PA": FRONTAL, "AP": FRONTAL, "LL": LATERAL, "RL": LATERAL, "L": LATERAL, "LAT": LATERAL, "LLO": OBLIQUE,
    "RLO": OBLIQUE, "LLD": FRONTAL, "RLD": FRONTAL,
}  # fmt: skip
"""View Position (PS3.3 C.8.7.1.1.1); who lies on a side (decubitus) is looked at from the front."""

_ACROSS = "LFRH"
"""Directions of an upright frontal radiograph, clockwise from the right of the picture: left, feet, right, head."""


@dataclasses.dataclass(frozen=True)
class HeaderView:
    """What a header says.

    modality: in words where it is no projection radiograph, else "". parts: of the body, in our names; empty where none
    is said. views: FRONTAL, LATERAL, OBLIQUE; empty where none is said. turn: quarter turns, anticlockwise, after which
    it is upright, None where that is not said. is_mirrored: whether the patient's right is said to be on the picture's
    right. for_processing: whether it is said to be raw, not meant to be looked at.
    """

    modality: str = ""
    parts: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    turn: int | None = None
    is_mirrored: bool = False
    for_processing: bool = False

    @property
    def part(self) -> str:
        """The part of the body where one alone is said, else ""; of an animal that it is one."""
        if ANIMAL in self.parts:
            return ANIMAL
        return self.parts[0] if len(self.parts) == 1 else ""

    @property
    def view(self) -> str:
        """The view where one alone is said, else ""."""
        return self.views[0] if len(self.views) == 1 else ""

    @property
    def said(self) -> str:
        """All of it in a few words, "" where nothing is said."""
        part, views = self.part or " or ".join(self.parts), " or ".join(self.views)
        if self.modality:
            return self.modality
        return f"{part}, {views}" if part and views else part or (f"{views} view" if views else "")


def header_view(elements: Elements) -> HeaderView:
    """What the elements of a data set say."""
    turn, is_mirrored, lies = _orientation(elements.texts("PatientOrientation"))
    views = _views(elements) or ({lies} if lies else set())
    storage, intent = elements.texts("SOPClassUID")[0], elements.texts("PresentationIntentType")[0]
    return HeaderView(
        modality=_modality(storage, elements.texts("Modality")[0].upper()),
        parts=_chest_first(narrowed(_parts(elements))),
        views=tuple(sorted(views)),
        turn=turn if lies == FRONTAL else None,
        is_mirrored=is_mirrored,
        for_processing=storage == _FOR_PROCESSING or intent.upper() == "FOR PROCESSING",
    )


def _modality(storage: str, modality: str) -> str:
    if modality in MODALITIES:
        return MODALITIES[modality]
    name = uid.UID_dictionary.get(storage, ("",))[0]
    # A dose report and a list of words are storage classes too, and have no pixels.
    return next((words for part, words in _CLASSES if part in name), "")


def _parts(elements: Elements) -> set[str]:
    """What the fields for it say; else what the descriptions of the series say; else those of the study."""
    species = _text(elements, "PatientSpeciesDescription")
    if species and not re.search("human|homo|sapiens", species.casefold()):
        return {ANIMAL}
    parts = {p for keyword in _IN_PLACE for p in parts_in(_text(elements, keyword), is_place=True)}
    for item in elements.items("AnatomicRegionSequence")[:1]:
        is_chest = item.texts("CodeValue")[0] in _CHEST_CODES
        parts |= {CHEST} if is_chest else parts_in(_text(item, "CodeMeaning"), is_place=True)
    of_series = {p for keyword in _OF_SERIES for p in parts_in(_text(elements, keyword))}
    if parts or of_series:
        # Devices that fill in a part of their own for every picture have the right one in the description.
        return parts | of_series
    return {p for keyword in _OF_STUDY for p in parts_in(_text(elements, keyword))}


def _views(elements: Elements) -> set[str]:
    """As `_parts`, of views."""
    position = elements.texts("ViewPosition")[0].upper()
    views = {_POSITIONS[position]} if position in _POSITIONS else set(views_in(_text(elements, "ViewPosition")))
    for item in elements.items("ViewCodeSequence")[:1]:
        code = item.texts("CodeValue")[0]
        views |= {_VIEW_CODES[code]} if code in _VIEW_CODES else views_in(_text(item, "CodeMeaning"))
    # What holds several views says nothing of one picture in it.
    of_series = {v for keyword in _OF_SERIES for v in views_in(_text(elements, keyword))}
    if views or len(of_series) == 1:
        return views | (of_series if len(of_series) == 1 else set())
    of_study = {v for keyword in _OF_STUDY for v in views_in(_text(elements, keyword))}
    return of_study if len(of_study) == 1 else set()


def _orientation(directions: list[str]) -> tuple[int | None, bool, str]:
    """Patient Orientation (PS3.3 C.7.6.1.1.1) → quarter turns to upright; whether it is mirrored; the view."""
    if len(directions) != 2 or not all(directions):
        return None, False, ""
    right, down = (direction[0].upper() for direction in directions)
    if {right, down} & set("AP") and {right, down} & set("FH"):
        return None, False, LATERAL
    if right not in _ACROSS or down not in _ACROSS:
        return None, False, ""
    first, second = _ACROSS.index(right), _ACROSS.index(down)
    if (second - first) % 4 == 1:
        return (4 - first) % 4, False, FRONTAL
    if (first - second) % 4 == 1:
        # Of a picture that is mirrored from side to side, its feet down.
        return {("R", "F"): 0, ("F", "L"): 3, ("L", "H"): 2, ("H", "R"): 1}[right, down], True, FRONTAL
    return None, False, ""


def _chest_first(parts: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(parts, key=lambda part: (part != CHEST, part)))


def _text(elements: Elements, keyword: str) -> str:
    """A text of any alphabet; what cannot be decoded is left out."""
    value = elements.bytes_of(keyword)[:256]
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if b"\x1b" not in value:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        return decode_bytes(value, convert_encodings(elements.texts("SpecificCharacterSet")), set())
    except Exception:  # whatever pydicom and the codecs raise on what is damaged or not known
        return value.decode("latin-1")
