"""What all DICOM objects share: the patient and the image that they are about, what made them, their identifiers.

Identifiers follow from the image, the models and their settings: who has the same image answered twice gets the same
object twice, which an archive keeps once.

Of the source only what places an object in its study is taken over: patient, study, and the reference to the image.
Descriptions, comments, names of devices and institutions, and private elements stay behind.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import DA, TM, DSfloat

from xray import __version__
from xray.errors import InputError
from xray.file_names import MODEL_FILE, WEIGHTS_FILE
from xray.files import complete, sha256_of
from xray.inference.ensemble_file import is_ensemble
from xray.outputs.card.reference import SETTING, card_setting
from xray.outputs.dicom import codes as dicom_codes
from xray.radiographs.dicom import read_elements

if TYPE_CHECKING:
    from highdicom import ContributingEquipment

MANUFACTURER = MODEL_NAME = "xray"
NOT_FOR_CLINICAL_USE = "not for clinical use"
ROOT = uuid.UUID("6f0e2c1a-3b57-4d8e-9a41-c8d2f7b06e35")
"""From it all identifiers are derived that must come out the same again; all are UUIDs under 2.25 (PS3.5 B.2)."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# Keyword → most characters; a name has three groups of 64 (PS3.5 6.2).
_TEXTS = {
    "PatientName": 194,
    "PatientID": 64,
    "IssuerOfPatientID": 64,
    "AccessionNumber": 16,
    "StudyID": 16,
    "ReferringPhysicianName": 194,
}
_MADE_BY = ("Manufacturer", "BurnedInAnnotation")
_PATTERNS = {
    "PatientBirthDate": (r"\d{8}", DA),
    "StudyDate": (r"\d{8}", DA),
    "StudyTime": (r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", TM),
    "PatientSex": (r"[MFO]", str),
}
_OTHERS = (
    *("SpecificCharacterSet", "Modality", "InstanceNumber", "Rows", "Columns", "FrameOfReferenceUID"),
    *("PatientOrientation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_OF_SPACINGS = ("PixelSpacingCalibrationType", "EstimatedRadiographicMagnificationFactor")


class OwnPictureError(InputError):
    """A picture of findings, which is no radiograph: its findings would be found again, and those once more."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What made the findings. parameters: name → value, the hashes of the models among them."""

    name: str
    version: str
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that change with any of it, but for whether there is a card: that finds nothing."""
        parameters = {name: value for name, value in self.parameters.items() if name != SETTING}
        content = json.dumps([self.name, self.version, parameters])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def algorithm_of(runs: Sequence[Path], **settings: object) -> Algorithm:
    """The models of run directories or ONNX files by the hashes of these, and the settings they are used with.

    runs: where an ensemble.yaml was given, `files_of` that.
    """
    parameters = {}
    for number, run in enumerate(runs, 1):
        if run.is_file():
            task = "ensemble" if is_ensemble(run) else "ONNX"
        else:
            task = json.loads((run / MODEL_FILE).read_text())["task"]
        digest = sha256_of(run if run.is_file() else run / WEIGHTS_FILE)
        parameters[f"model {number}"] = f"{task} sha256:{digest}"
    return Algorithm(MODEL_NAME, __version__, parameters | {name: str(value) for name, value in settings.items()})


def inference_algorithm(
    runs: Sequence[Path],
    threshold: float | str,
    mirrored: bool,
    gate: str,
    triplet: Sequence[float] = (),
    scales: Sequence[float] = (1.0,),
    upright: bool = False,
    **others: object,
) -> Algorithm:
    """`algorithm_of` with the settings that inference writes into SR and SEG.

    threshold: lowest score that reports hold, or fitted thresholds in words. mirrored: whether mirrored views were
    looked at, too. gate: "soft" or "hard". triplet: of segmenters, empty without any. scales: sizes of the views, named
    where they are not 1 alone. upright: whether turned radiographs were turned back; named where they were. others:
    more that changes findings, such as what a hard gate opens at, without None; and where the card is, if that is not
    beside the weights. The same settings give the same objects, by whichever command.
    """
    settings: dict[str, object] = {"threshold": threshold, "mirrored": mirrored, "gate": gate}
    for name, values in (("triplet", triplet), ("scales", () if tuple(scales) == (1.0,) else scales)):
        if values:
            settings[name] = " ".join(f"{value:g}" for value in values)
    settings |= {"upright": True} if upright else {}
    settings |= {name: value for name, value in others.items() if value is not None}
    return algorithm_of(runs, **settings, **({} if SETTING in settings else card_setting(runs)))


def read_source(path: Path) -> Dataset:
    """The elements of a DICOM file that our objects need of its image; no pixel is read.

    Raises InputError where it is no such file, or does not say which image of which study it is, and OwnPictureError.
    """
    source = read_elements(path, (*_UIDS, *_TEXTS, *_PATTERNS, *_OTHERS, *_MADE_BY, *SPACINGS, *_OF_SPACINGS))
    try:
        return reduced(source)
    except InputError as error:
        raise type(error)(f"{path.name}: {error}") from None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps pydicom and highdicom from telling of odd values, which would put names and identifiers into logs."""
    for library in ("highdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@quietly()
def reduced(source: Dataset) -> Dataset:
    """The elements of an image's data set that our objects take over; values that are not of their type become empty.

    Raises InputError for what is no image, or does not say which image of which study it is, and OwnPictureError for a
    secondary capture of ours.
    """
    result = Dataset()
    for keyword in _UIDS:
        # Whole: what was cut, or one of several, would refer to something else.
        identifier = str(_value(source, keyword) or "").strip(" \0")
        # Components with leading zeros are wrong but met, and the reference must be to the very same.
        if len(identifier) > 64 or not re.fullmatch(r"[0-9]+(\.[0-9]+)+", identifier, re.ASCII):
            raise InputError(f"no DICOM object can refer to it, as its {keyword} is missing or no identifier")
        setattr(result, keyword, identifier)
    if "Image Storage" not in UID(result.SOPClassUID).name:
        raise InputError("no DICOM object can refer to it, as its SOPClassUID is none of an image")
    is_ours = _text(source, "Manufacturer", 64) == MANUFACTURER and _text(source, "BurnedInAnnotation", 16) == "YES"
    if is_ours and result.SOPClassUID == SecondaryCaptureImageStorage:
        raise OwnPictureError("it is a picture of findings, made by xray, and no radiograph")
    for keyword, length in _TEXTS.items():
        groups = _text(source, keyword, length).split("=")[:3] if length > 64 else [_text(source, keyword, length)]
        setattr(result, keyword, "=".join(group[:64] for group in groups))
    for keyword, (pattern, kind) in _PATTERNS.items():
        text = _text(source, keyword, 16)
        setattr(result, keyword, text if re.fullmatch(pattern, text) and _is_valid(kind, text) else "")
    if not result.IssuerOfPatientID:
        del result.IssuerOfPatientID
    result.Modality = _text(source, "Modality", 16) or "OT"
    result.Rows, result.Columns = (int(_number(source, keyword) or 0) for keyword in ("Rows", "Columns"))
    result.InstanceNumber = max(1, int(_number(source, "InstanceNumber") or 1))
    if re.fullmatch(r"[0-9]+(\.[0-9]+)+", frame := _text(source, "FrameOfReferenceUID", 64)):
        result.FrameOfReferenceUID = frame
    # Where rows and columns lead, such as left and foot, and nothing where that is not said.
    value = _value(source, "PatientOrientation")
    words = [str(word) for word in value] if isinstance(value, MultiValue | list | tuple) else []
    is_orientation = len(words) == 2 and all(re.fullmatch(r"[ALPRHF]{1,3}", word) for word in words)
    result.PatientOrientation = words if is_orientation else []
    # That the source was compressed with loss stays true of all that is made of it (PS3.3 C.7.6.1.1.5).
    if _text(source, "LossyImageCompression", 16) == "01":
        result.LossyImageCompression = "01"
        if ratio := _number(source, "LossyImageCompressionRatio"):
            result.LossyImageCompressionRatio = DSfloat(ratio, auto_format=True)
        if re.fullmatch(r"[A-Z0-9_ ]{1,16}", method := _text(source, "LossyImageCompressionMethod", 16)):
            result.LossyImageCompressionMethod = method
    _add_spacings(result, source)
    in_unicode(result, *(str(result[keyword].value) for keyword in _TEXTS if keyword in result))
    return result


def _add_spacings(result: Dataset, source: Dataset) -> None:
    """What an image says of how far its pixels are apart; see `measurements`."""
    for keyword in SPACINGS:
        value = _value(source, keyword)
        pair = [_as_number(one) for one in value] if isinstance(value, MultiValue | list | tuple) else []
        numbers = [DSfloat(one, auto_format=True) for one in pair if one is not None and one > 0]
        if len(numbers) == len(pair) == 2:
            setattr(result, keyword, numbers)
    if (kind := _text(source, "PixelSpacingCalibrationType", 16)) in ("GEOMETRY", "FIDUCIAL"):
        result.PixelSpacingCalibrationType = kind
    if (factor := _number(source, "EstimatedRadiographicMagnificationFactor")) is not None and factor > 0:
        result.EstimatedRadiographicMagnificationFactor = DSfloat(factor, auto_format=True)


def in_unicode(dataset: Dataset, *texts: str) -> None:
    """Has a data set written in UTF-8 if these texts, of those it holds, need it."""
    if not all(text.isascii() for text in texts):
        dataset.SpecificCharacterSet = "ISO_IR 192"


def edition_with(edition: str, notes: Sequence[str]) -> str:
    """An edition of an object that also says these notes: they are part of what one of its identifier says."""
    return f"{edition} {hashlib.sha256(json.dumps(list(notes)).encode()).hexdigest()[:16]}" if notes else edition


def common_attributes(source: Dataset, kind: str, algorithm: Algorithm, edition: str = "") -> dict[str, Any]:
    """Arguments of highdicom for every object of a kind ("SR", "SEG", …): one series of an algorithm in a study.

    edition: what decides the object's content beside the image and the algorithm, such as the lowest score it holds.
    """
    return {
        "series_instance_uid": _uid(uuid.uuid5(ROOT, f"{kind} {source.StudyInstanceUID} {algorithm.digest}")),
        "sop_instance_uid": derived_uid(source, kind, algorithm, edition),
        "instance_number": source.InstanceNumber,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": algorithm.version,
        "device_serial_number": algorithm.digest,
        "content_qualification": "RESEARCH",
        "contributing_equipment": [_equipment(algorithm)],
    }


def _equipment(algorithm: Algorithm) -> "ContributingEquipment":
    """The algorithm as IHE's AI Results asks for it (6.5.3.1); another model is another device."""
    from highdicom import ContributingEquipment

    item = ContributingEquipment(
        MANUFACTURER,
        dicom_codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=algorithm.version,
        device_serial_number=algorithm.digest,
        contribution_description=f"Algorithm that made the findings, {NOT_FOR_CLINICAL_USE}",
    )
    item.DeviceUID = device_uid(algorithm)
    return item


def device_uid(algorithm: Algorithm) -> str:
    """Identifies the software with its models."""
    return _uid(uuid.uuid5(ROOT, f"device {algorithm.digest}"))


def derived_uid(source: Dataset, kind: str, algorithm: Algorithm, edition: str = "", part: str = "") -> str:
    """The identifier of an object of this kind about an image, or of a part of it: always the same."""
    # The study's too, as a picture that was copied into another study has its results there.
    about = f"{source.StudyInstanceUID} {source.SOPInstanceUID}"
    return _uid(uuid.uuid5(ROOT, json.dumps([kind, about, algorithm.digest, edition, part])))


def save_object(path: Path, dataset: Dataset) -> None:
    """Writes a DICOM file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as temporary, quietly():
        dataset.save_as(temporary, enforce_file_format=True)


def _uid(number: uuid.UUID) -> str:
    return f"2.25.{number.int}"


def _value(dataset: Dataset, keyword: str) -> Any:
    # What pydicom raises on a value that is none of its type is not worth telling apart: there is no such value.
    with contextlib.suppress(Exception):
        return dataset.get(keyword)
    return None


def _text(dataset: Dataset, keyword: str, length: int) -> str:
    value = _value(dataset, keyword)
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if value else None
    text = "" if value is None else str(value)
    return re.sub(r"[\\\x00-\x1f\x7f]", "", text).strip()[:length].strip()


def _is_valid(kind: Callable[[str], Any], text: str) -> bool:
    try:
        return bool(kind(text))
    except ValueError:
        return False


def _number(dataset: Dataset, keyword: str) -> float | None:
    return _as_number(_value(dataset, keyword))


def _as_number(value: Any) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(value) if math.isfinite(float(value)) else None
    return None
