"""Results go to an archive, by STOW-RS (PS3.18 10.5): the objects of one radiograph in each request."""

import dataclasses
import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.radiographs.dicom import read_elements
from xray.storage.dicomweb.client import Client, persist, read_all
from xray.storage.dicomweb.multipart import FileParts, content_type_of
from xray.storage.dicomweb.search import JSON, value_of

MAX_BYTES = 2**22
"""Of an answer."""
REFERENCED, FAILED, OTHER_FAILURES = "00081199", "00081198", "0008119A"
INSTANCE, REASON, WARNING = "00081155", "00081197", "00081196"
DUPLICATE = 0x0111
STORED, THERE, NOT_STORED = "stored", "there already", "not stored"

_REASONS = {
    0x0110: "processing failure",
    0x0122: "it does not store objects of this class",
    0x0124: "not authorized",
    0xA700: "out of resources",
    0xA900: "the object does not match its class",
    0xB000: "elements were changed",
    0xB006: "elements were discarded",
    0xB007: "the object does not match its class",
    0xC000: "it cannot understand the object",
    0xC122: "it does not take the transfer syntax",
}
"""PS3.18 table I.2-2 and PS3.4 table B.2-1; of the ranges that these begin the first is listed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an object. status: STORED, THERE or NOT_STORED. reason: why not, or a warning."""

    uid: str
    status: str
    reason: str = ""


def uid_of(path: Path) -> str:
    """The SOP Instance UID of a DICOM file."""
    return str(read_elements(path, ["SOPInstanceUID"]).get("SOPInstanceUID", ""))


def store(client: Client, service: str, paths: Sequence[Path]) -> list[Outcome]:
    """Sends DICOM files to a service → what became of each, in their order.

    Raises RefusedError where the service takes none, for a reason that others would meet, too.
    """
    uids = [uid_of(path) for path in paths]
    boundary = f"xray-{uuid.uuid4().hex}"
    headers = {"Content-Type": content_type_of(boundary), "Accept": JSON}

    def send() -> tuple[int, bytes]:
        body = FileParts(paths, boundary)
        with client.answer("POST", f"{service}/studies", headers, body, also=(400, 409, 413, 422)) as response:
            return response.status, read_all(response, MAX_BYTES, service)

    status, content = persist(send)
    answered = _answered(content)
    if answered is None and status == 200:
        # It has stored all, as 200 says, and does not list them.
        return [Outcome(uid, STORED) for uid in uids]
    if answered is None:
        return [Outcome(uid, NOT_STORED, f"{status} without a reason") for uid in uids]
    nothing = "not mentioned in the answer" if status in (200, 202) else f"{status} without a reason"
    return [answered.get(uid, Outcome(uid, NOT_STORED, nothing)) for uid in uids]


def _answered(content: bytes) -> dict[str, Outcome] | None:
    """What the answer says of each object; None where it says nothing that can be read."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if not isinstance(answer, dict) or not {REFERENCED, FAILED, OTHER_FAILURES} & answer.keys():
        return None
    outcomes = {}
    for item in _items(answer, REFERENCED):
        uid, warning = str(value_of(item, INSTANCE)), _number(value_of(item, WARNING))
        outcomes[uid] = Outcome(uid, STORED, "" if warning is None else reason_of(warning))
    for item in _items(answer, FAILED):
        uid, reason = str(value_of(item, INSTANCE)), _number(value_of(item, REASON))
        is_there = reason == DUPLICATE
        outcomes[uid] = Outcome(uid, THERE) if is_there else Outcome(uid, NOT_STORED, reason_of(reason))
    return outcomes


def reason_of(code: int | None) -> str:
    """A Failure Reason or a Warning Reason in words, with its number."""
    if code is None:
        return "no reason given"
    ranges = (code, code & 0xFF00, code & 0xF000)
    words = next((_REASONS[one] for one in ranges if one in _REASONS), "unknown reason")
    return f"{words} ({code:04X})"


def _items(answer: dict[str, Any], tag: str) -> list[Any]:
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _number(value: Any) -> int | None:
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else None
