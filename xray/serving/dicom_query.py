"""What another DICOM node has, found by C-FIND (PS3.4 annex C, study root): dicom://AET@HOST:PORT/?AccessionNumber=…"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.dataset import Dataset
from pynetdicom import AE

from xray.errors import FlagError, InputError
from xray.serving.dicom_peers import ACCEPTED, Peer, check_aet, parse_peer
from xray.serving.dicom_sending import linked, status_of_response
from xray.serving.dicom_statuses import Outcome
from xray.serving.dicom_tls import Tls, tls_of
from xray.storage.left_out import LeftOut

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model – FIND."""
KEYS = ("AccessionNumber", "StudyInstanceUID", "PatientID", "StudyDate")
"""What a study can be asked for by."""
PLAIN = ("CR", "DX")
OTHERS = (
    "SR", "SEG", "PR", "KO", "CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "ES", "DOC", "RTSTRUCT", "ECG", "REG",
)  # fmt: skip
"""Modalities of series that hold no radiographs; those of secondary captures are of any name."""
N_OBJECTS = "NumberOfSeriesRelatedInstances"
MAX_IMAGES = 10_000
_OWN = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""What an answer on a level is told from others by."""
Retrieve = Literal["auto", "get", "move"]
_OPTIONS = ("aet", "port", "priors", "retrieve", "tls-cert", "tls-key", "tls-ca")
FLAG = "--data-path"
"""What takes such an address."""
HOW = "give dicom://AET@HOST:PORT/?AccessionNumber=… or ?StudyInstanceUID=…"


@dataclasses.dataclass(frozen=True)
class Query:
    """An address. keys: keyword → value. aet: our title. port: ours for C-MOVE. priors: how many earlier studies of the
    same patient are wanted, too."""

    peer: Peer
    keys: Mapping[str, str]
    aet: str = "XRAY"
    port: int = 11112
    priors: int = 0
    retrieve: Retrieve = "auto"
    tls: Tls | None = None


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that the other node has. sop_class: empty where it does not say."""

    study: str
    series: str
    uid: str
    sop_class: str = ""

    @property
    def name(self) -> str:
        """Where it lies in the folder that studies are brought to."""
        return f"{self.study}/{self.series}/{self.uid}.dcm"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that the other node has. images: those that may be radiographs. is_whole: series of which all images are
    wanted."""

    uid: str
    date: str
    is_prior: bool
    images: tuple[Image, ...]
    left_out: LeftOut
    is_whole: frozenset[str]


def parse_query(text: str) -> Query:
    """The address dicom://AET@HOST:PORT/?KEY=VALUE&OPTION=VALUE → Query; dicoms:// is under TLS.

    Raises FlagError if it is none.
    """
    parts = urlsplit(text)
    peer = parse_peer(FLAG, unquote(parts.netloc))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    keys = {name: value.strip() for name, value in pairs if name in KEYS}
    options = {name: value for name, value in pairs if name in _OPTIONS}
    unknown = [name for name, _ in pairs if name not in (*KEYS, *_OPTIONS)]
    if unknown or len(pairs) != len(keys) + len(options) or parts.path not in ("", "/"):
        what = unknown[0] if unknown else parts.path if parts.path not in ("", "/") else "a key twice"
        raise FlagError(f"{FLAG} has {what!r}: {HOW}; what it can have is {', '.join((*KEYS, *_OPTIONS))}")
    if not set(keys) - {"StudyDate"} or not all(keys.values()):
        raise FlagError(f"{FLAG} does not say which study: {HOW}")
    for name, value in keys.items():
        pattern = r"\d{8}(-(\d{8})?)?|-\d{8}" if name == "StudyDate" else r"[^*?\\\x00-\x1f\x7f]{1,64}"
        if not re.fullmatch(pattern, value):
            raise FlagError(f"{FLAG} has {name} {value!r}: give one value, without wildcards")
    aet = check_aet(f"{FLAG} (aet)", options.get("aet", "XRAY"))
    retrieve = options.get("retrieve", "auto")
    if retrieve not in get_args(Retrieve):
        raise FlagError(f"{FLAG} has retrieve {retrieve!r}: give auto, get or move")
    numbers = {"port": _number("port", options.get("port", "11112"), 65535)}
    numbers["priors"] = _number("priors", options.get("priors", "0"), 100)
    return Query(peer, keys, aet, **numbers, retrieve=retrieve, tls=_tls(parts.scheme, options))  # type: ignore[arg-type]


def _number(name: str, text: str, most: int) -> int:
    if not (text.isdecimal() and text.isascii() and int(text[:9]) <= most):
        raise FlagError(f"{FLAG} has {name} {text!r}: give a whole number from 0 to {most}")
    return int(text)


def _tls(scheme: str, options: Mapping[str, str]) -> Tls | None:
    given = [name for name in options if name.startswith("tls-")]
    if scheme == "dicom":
        if given:
            raise FlagError(f"{FLAG} has {given[0]}, which is for dicoms://…: write that, or leave it out")
        return None
    if "tls-cert" not in options or "tls-key" not in options:
        raise FlagError(f"{FLAG} is under TLS: add tls-cert=FILE and tls-key=FILE, and tls-ca=FILE of the authorities")
    ca = Path(options["tls-ca"]) if "tls-ca" in options else None
    return tls_of(Path(options["tls-cert"]), Path(options["tls-key"]), ca, flag=f"{FLAG} tls-")


def find_studies(query: Query, ae: AE) -> list[Study]:
    """The studies that a query names, then the earlier ones that it asks for, newest first.

    Raises InputError where the other node is not there, finds nothing, or cannot be asked.
    """
    ae.requested_contexts = []
    ae.add_requested_context(FIND)
    with linked(ae, query.peer, query.tls) as link:
        if isinstance(link, Outcome):
            raise InputError(f"{query.peer.aet} at {query.peer.host}:{query.peer.port}: {link.why}")
        wanted = ("StudyInstanceUID", *KEYS, "StudyTime", "ModalitiesInStudy")
        answers = _find(link, "STUDY", query.keys, wanted)
        # A node that does not know a key answers with all that it has.
        matching = [one for one in answers if all(_is(one, name, query.keys[name]) for name in query.keys)]
        if not matching:
            lacking = f"; {len(answers)} that it names instead have another one" if answers else ""
            asked = ", ".join(f"{name} {value}" for name, value in query.keys.items())
            raise InputError(f"{query.peer.aet} has no study of {asked}{lacking}")
        studies = [_study(link, one, False) for one in matching]
        for one in _priors(link, matching, query.priors, wanted):
            studies.append(_study(link, one, True))
    return studies


def _is(answer: Dataset, name: str, value: str) -> bool:
    given = _text(answer, name)
    if name == "StudyDate":
        first, _, last = value.partition("-")
        return not given or (first or "0") <= given <= ((last or "9") if "-" in value else first)
    return given == value


def _text(answer: Dataset, name: str) -> str:
    try:
        return str(answer.get(name, "") or "").strip(" \0")
    except Exception:  # whatever pydicom raises on a value that is none of its type
        return ""


def _uid(answer: Dataset, name: str) -> str:
    """An identifier, which names files here. Raises InputError for what is none."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", text := _text(answer, name)) or len(text) > 64:
        raise InputError(f"the other node answers with a {name} that is no identifier")
    return text


def _priors(link: Any, studies: Sequence[Dataset], most: int, wanted: Sequence[str]) -> list[Dataset]:
    """Earlier studies of the same patient that have radiographs, the newest first."""
    patients = {_text(one, "PatientID") for one in studies}
    if not most or len(patients) != 1 or not (patient := patients.pop()):
        return []
    known = {_text(one, "StudyInstanceUID") for one in studies}
    first = min(_text(one, "StudyDate") + _text(one, "StudyTime") for one in studies)
    found = []
    for one in _find(link, "STUDY", {"PatientID": patient}, wanted):
        when = _text(one, "StudyDate") + _text(one, "StudyTime")
        modalities = one.get("ModalitiesInStudy") or ()
        modalities = {modalities} if isinstance(modalities, str) else set(modalities)
        is_prior = when < first and _text(one, "StudyInstanceUID") not in known and _is(one, "PatientID", patient)
        if is_prior and (not modalities or modalities & set(PLAIN)):
            found.append((when, _text(one, "StudyInstanceUID"), one))
    return [one for *_, one in sorted(found, key=lambda item: item[:2], reverse=True)[:most]]


def _study(link: Any, answer: Dataset, is_prior: bool) -> Study:
    study = _uid(answer, "StudyInstanceUID")
    images, left_out, whole = [], LeftOut(), set()
    about = ("SeriesInstanceUID", "Modality", N_OBJECTS)
    for series in _find(link, "SERIES", {"StudyInstanceUID": study}, about):
        uid, modality = _uid(series, "SeriesInstanceUID"), _text(series, "Modality")
        if modality in OTHERS:
            left_out.add_series(modality, _text(series, N_OBJECTS))
            continue
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": uid}
        whole.add(uid)
        for image in _find(link, "IMAGE", keys, ("SOPInstanceUID", "SOPClassUID")):
            sop_class = _text(image, "SOPClassUID")
            if sop_class and sop_class not in ACCEPTED:
                name = str(getattr(image.SOPClassUID, "name", sop_class))
                left_out.objects[name.removesuffix(" Storage")] += 1
                whole.discard(uid)
            else:
                images.append(Image(study, uid, _uid(image, "SOPInstanceUID"), sop_class))
    date = _text(answer, "StudyDate")
    return Study(study, date, is_prior, tuple(images), left_out, frozenset(whole))


def _find(link: Any, level: str, keys: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
    """What matches on a level, each once: an archive that asks others names an object as often as they have it.

    Raises InputError where the other node fails.
    """
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level
    for name in wanted:
        setattr(asked, name, "")
    for name, value in keys.items():
        setattr(asked, name, value)
    found: list[Dataset] = []
    seen: set[str] = set()
    for response, identifier in link.send_c_find(asked, FIND):
        status = status_of_response(response)
        if status in (0xFF00, 0xFF01):
            own = "" if identifier is None else _text(identifier, _OWN[level])
            if identifier is not None and own not in seen:
                found.append(identifier)
            seen |= {own} - {""}
            if len(found) > MAX_IMAGES:
                raise InputError(f"there are more than {MAX_IMAGES} matches: ask for a single study")
        elif status != 0:
            what = "no answer: perhaps it does not know our title, aet=…" if status is None else f"status {status:04X}"
            raise InputError(f"the other node could not be asked for what it has on level {level} ({what})")
    return found
