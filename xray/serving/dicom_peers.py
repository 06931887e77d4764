"""Other DICOM nodes: how flags name them, and what is negotiated with them: objects, transfer syntaxes, their order."""

import dataclasses
import re
from typing import Any

from pydicom import uid
from pynetdicom import AE

from xray.errors import FlagError
from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.dicom import NATIVE

ACCEPTED = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.SecondaryCaptureImageStorage,
)
"""Classes of radiographs. Raw DX images, for processing, are not among them: models were not trained on such."""
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model, and its well-known instance (PS3.4 annex J)."""
RETURNED_IN = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
MAX_AET = 16


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another node: its title, host and port."""

    aet: str
    host: str
    port: int


def check_aet(flag: str, title: str) -> str:
    """The same application entity title. Raises FlagError if it is none (PS3.5 6.2: 1 to 16 characters)."""
    if not re.fullmatch(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?", title):
        raise FlagError(f"{flag} names the title {title!r}: give 1 to {MAX_AET} characters, none of them a backslash")
    return title


def parse_peer(flag: str, text: str) -> Peer:
    """AET@HOST:PORT → Peer. Raises FlagError if it is none."""
    match = re.fullmatch(r"([^@]*)@(\[[0-9A-Fa-f:.]+\]|[^@:\s\[\]]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise FlagError(f"{flag} is {text!r}: give AET@HOST:PORT, such as PACS@192.168.1.5:104")
    return Peer(check_aet(flag, match[1]), match[2].strip("[]"), int(match[3]))


def support(ae: AE) -> None:
    """Adds what a node takes: radiographs in every transfer syntax that the reader of files decodes, C-ECHO, and
    reports on storage commitments, for which the other node asks for the role of the SCP."""
    ae.add_supported_context(VERIFICATION)
    ae.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    for storage in ACCEPTED:
        ae.add_supported_context(storage, [*NATIVE, *COMPRESSED])


def let_sender_choose(association: Any) -> None:
    """Has each presentation context of an association request end in the first of its transfer syntaxes that is read.

    A sender lists its transfer syntaxes in the order in which it prefers them. pynetdicom follows the acceptor's order
    instead, so that a sender of JPEG 2000 would have to decompress, or could not send at all. Therefore only the first
    supported syntax of each context is left before pynetdicom compares. This changes the copies of one association
    alone.
    """
    supported = {
        context.abstract_syntax: context.transfer_syntax for context in association.acceptor.supported_contexts
    }
    for context in association.requestor.primitive.presentation_context_definition_list:
        readable = supported.get(context.abstract_syntax, [])
        wanted = next((syntax for syntax in context.transfer_syntax if syntax in readable), None)
        # Where none is, the context stays as it was asked for, and is refused for its transfer syntaxes.
        if wanted is not None:
            context.transfer_syntax = [wanted]


def offer(ae: AE, sop_class: str, stored: str) -> None:
    """Adds the presentation contexts in which an object is offered to the node that gets it.

    Each transfer syntax has a context of its own, the object's own syntax, `stored`, first: of several in one context a
    receiver could choose another one than the object's.
    """
    for syntax in sorted(RETURNED_IN, key=lambda syntax: syntax != stored):
        ae.add_requested_context(sop_class, syntax)
