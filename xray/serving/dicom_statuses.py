"""What the answers of another DICOM node mean for an object that it was sent: stored, try again, or never.

From PS3.4 table B.2-1 (C-STORE), PS3.7 annex C (all services) and PS3.8 table 9-21 (rejected associations).
"""

import dataclasses
import enum
import random
from typing import Any

SUCCESS = 0x0000
PROCESSING, NOT_SUPPORTED = 0x0110, 0x0122
NO_RESOURCES, NOT_MATCHING, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000
"""Failures of C-STORE, which are also the Failure Reasons of DICOMweb (PS3.18 table I.2-2)."""
DUPLICATE = 0x0111
"""Duplicate SOP Instance: the other node has it already."""
_PASSING = {
    PROCESSING: "processing failure",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0213: "resource limitation",
    0xFE00: "cancelled",
}
"""States of the other node or of its settings, not of the object."""
_FINAL = {0x0117: "invalid object instance", 0x0118: "no such SOP class", NOT_SUPPORTED: "SOP class not supported"}


class Verdict(enum.Enum):
    """TAKEN: the other node has the object. PASSING: it may have it later. FINAL: it will not take this object."""

    TAKEN = "taken"
    PASSING = "passing"
    FINAL = "final"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a request. why: in a few words, without anything of the object. is_peer: the other node is not
    there, or does not talk to us: whatever it is sent next fares as this did."""

    verdict: Verdict
    why: str
    is_peer: bool = False


NO_ECHO = Outcome(Verdict.FINAL, "it is there, but does not offer it")
NO_COMMITMENT = Outcome(Verdict.FINAL, "it offers no storage commitment")
_NO_COMMITMENT_CODES = frozenset({0x0112, 0x0118, 0x0122, 0x0123, 0x0211})
"""Of an N-ACTION (PS3.7 C.5): no such SOP instance or class, class not supported, no such action, no such operation."""
NOT_TAKEN = Outcome(Verdict.FINAL, "its SOP class is not accepted, in uncompressed little endian")


def outcome_of(status: int | None) -> Outcome:
    """What a status of a C-STORE or N-ACTION response means; None where there is no response."""
    if status is None:
        return Outcome(Verdict.PASSING, "no answer", is_peer=True)
    code = f"status {status:04X}"
    # All warnings mean that the object is stored (PS3.7 C.3, C.4).
    if status in (SUCCESS, DUPLICATE, 0x0001) or 0xB000 <= status <= 0xBFFF:
        return Outcome(Verdict.TAKEN, code)
    if status in _PASSING:
        return Outcome(Verdict.PASSING, f"{code}, {_PASSING[status]}")
    if 0xA700 <= status <= 0xA7FF:
        return Outcome(Verdict.PASSING, f"{code}, out of resources")
    if 0xA900 <= status <= 0xA9FF:
        return Outcome(Verdict.FINAL, f"{code}, does not match its SOP class")
    if 0xC000 <= status <= 0xCFFF:
        return Outcome(Verdict.FINAL, f"{code}, cannot understand")
    return Outcome(Verdict.FINAL, f"{code}, {_FINAL.get(status, 'refused')}")


def outcome_of_commitment(status: int | None) -> Outcome:
    """What the response to a request for storage commitment means; NO_COMMITMENT where there never will be any."""
    return NO_COMMITMENT if status in _NO_COMMITMENT_CODES else outcome_of(status)


def outcome_of_association(association: Any) -> Outcome:
    """Why there is no association.

    Most of it is about the nodes, not about an object, and may be corrected there, "rejected permanent" among it.
    """
    if association.is_rejected:
        answer = association.acceptor.primitive
        source, reason = getattr(answer, "result_source", 0), getattr(answer, "diagnostic", 0)
        return Outcome(Verdict.PASSING, f"association rejected, {_rejection(source, reason)}", is_peer=True)
    # pynetdicom ends an association in which nothing was accepted.
    if association.is_aborted and association.rejected_contexts:
        return NOT_TAKEN
    if association.is_aborted:
        return Outcome(Verdict.PASSING, "no connection, or it was cut off", is_peer=True)
    return Outcome(Verdict.PASSING, "no association", is_peer=True)


def _rejection(source: int, reason: int) -> str:
    reasons = {
        (1, 1): "no reason given",
        (1, 2): "application context not supported",
        (1, 3): "it does not know our title (--dicom-aet)",
        (1, 7): "its title is another one (--dicom-return)",
        (2, 1): "no reason given",
        (2, 2): "protocol version not supported",
        (3, 1): "temporary congestion",
        (3, 2): "local limit exceeded",
    }
    return reasons.get((source, reason), f"source {source}, reason {reason}")


def pause_of(attempts: int, first: float, longest: float, chance: Any = random.random) -> float:
    """Seconds to wait after so many failed attempts, from 1: first, twice that, …, at most `longest`; of each between
    a half and the whole by chance, so that nodes that failed together do not come back together."""
    whole = min(longest, first * 2.0 ** min(attempts - 1, 60))
    return float(whole * (0.5 + 0.5 * chance()))
