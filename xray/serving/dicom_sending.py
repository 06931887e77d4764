"""Sends objects to another DICOM node, asks whether it is there, and asks it to commit to what it has stored."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association

from xray.serving.dicom_connections import Limits
from xray.serving.dicom_peers import COMMITMENT, COMMITMENT_INSTANCE, VERIFICATION, Peer, offer
from xray.serving.dicom_queue import Answer
from xray.serving.dicom_statuses import (
    NO_COMMITMENT,
    NO_ECHO,
    NOT_TAKEN,
    Outcome,
    Verdict,
    outcome_of,
    outcome_of_association,
    outcome_of_commitment,
)
from xray.serving.dicom_tls import Tls

REPORT_SECONDS = 2.0
"""For which an association stays open for the report on a storage commitment; later the other node opens one."""


@dataclasses.dataclass(frozen=True)
class Sender:
    """Associations with one other node. aet: our title. tls: None for none."""

    peer: Peer
    aet: str
    limits: Limits
    tls: Tls | None = None

    def echo(self) -> Outcome:
        """Whether the other node is there, knows us, and answers a C-ECHO."""
        ae = ae_of(self.aet, self.limits)
        ae.add_requested_context(VERIFICATION)
        with linked(ae, self.peer, self.tls) as link:
            if isinstance(link, Outcome):
                return NO_ECHO if link is NOT_TAKEN else link
            return outcome_of(status_of_response(link.send_c_echo()))

    def send(
        self,
        answers: Sequence[Answer],
        done: Callable[[Answer, Outcome], None],
        begin: Callable[[Sequence[Answer]], str] | None = None,
        report: Callable[[Any], int] | None = None,
    ) -> Outcome | None:
        """Sends objects in one association; once one gets no answer at all, neither do those that follow.

        done: called with what became of each object, in turn. begin: where the other node is to commit to what it has
        stored: called with these objects → the UID of the transaction. report: called where it answers at once.
        Returns what it said to the request for commitment; None where there was none.
        """
        ae = ae_of(self.aet, self.limits)
        kinds: dict[tuple[str, str], None] = {}
        readable = []
        for answer in answers:
            try:
                header = dcmread(answer.path, stop_before_pixels=True, specific_tags=[])
                kinds.setdefault((answer.sop_class, header.file_meta.TransferSyntaxUID), None)
            except Exception:  # whatever pydicom raises on a file that was damaged, or is gone
                done(answer, Outcome(Verdict.FINAL, "its file cannot be read any more"))
            else:
                readable.append(answer)
        if not readable:
            return None
        for kind in kinds:
            offer(ae, *kind)
        if begin is not None:
            ae.add_requested_context(COMMITMENT)
        reported = threading.Event()

        def on_report(event: Any) -> tuple[int, None]:
            try:
                return (report(event) if report is not None else 0), None
            finally:
                reported.set()

        handlers = [(evt.EVT_N_EVENT_REPORT, on_report)] if begin is not None else []
        with linked(ae, self.peer, self.tls, handlers) as link:
            failure, taken = (link if isinstance(link, Outcome) else None), []
            for answer in readable:
                outcome = failure or _store(link, answer)
                failure = outcome if outcome.is_peer else None
                if outcome.verdict == Verdict.TAKEN:
                    taken.append(answer)
                done(answer, outcome)
            if begin is None or not taken or failure is not None:
                return None
            asked = Dataset()
            asked.TransactionUID = begin(taken)
            if not any(context.abstract_syntax == COMMITMENT for context in link.accepted_contexts):
                return NO_COMMITMENT
            asked.ReferencedSOPSequence = [_reference(answer) for answer in taken]
            response, _ = link.send_n_action(asked, 1, COMMITMENT, COMMITMENT_INSTANCE)
            outcome = outcome_of_commitment(status_of_response(response))
            if outcome.verdict == Verdict.TAKEN:
                reported.wait(REPORT_SECONDS)
            return outcome


def ae_of(aet: str, limits: Limits) -> AE:
    """An application entity that asks for associations; it gives up on peers that fall silent."""
    ae = AE(ae_title=aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = limits.seconds
    ae.connection_timeout = min(10.0, limits.seconds)
    return ae


@contextlib.contextmanager
def linked(
    ae: AE, peer: Peer, tls: Tls | None, handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
) -> Iterator[Any]:
    """An association with another node, or the Outcome that says why there is none; released at the end."""
    tls_args = None if tls is None or tls.connecting is None else (tls.connecting, peer.host)
    options: dict[str, Any] = {"evt_handlers": [*handlers], "ext_neg": [*roles] or None, "tls_args": tls_args}
    link: Association = ae.associate(peer.host, peer.port, ae_title=peer.aet, **options)
    if not link.is_established:
        yield outcome_of_association(link)
        return
    try:
        yield link
    finally:
        if link.is_established:
            link.release()


def status_of_response(response: Dataset) -> int | None:
    """The status of a response of pynetdicom, None where there was none."""
    return int(response.Status) if "Status" in response else None


def _store(link: Association, answer: Answer) -> Outcome:
    # Read when its turn comes: a segmentation may be large.
    dataset = dcmread(answer.path)
    if not any(context.abstract_syntax == answer.sop_class for context in link.accepted_contexts):
        return NOT_TAKEN
    try:
        return outcome_of(status_of_response(link.send_c_store(dataset)))
    except RuntimeError:  # the association has ended
        return outcome_of(None)
    except (ValueError, AttributeError):
        return Outcome(Verdict.FINAL, "it cannot be encoded")


def _reference(answer: Answer) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = answer.sop_class, answer.uid
    return item
