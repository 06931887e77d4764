"""Returns answers to another DICOM node, for as long as it may take them, and waits until it has committed to them."""

import dataclasses
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydicom.uid import generate_uid

from xray.serving.dicom_queue import Answer, Queue
from xray.serving.dicom_statuses import NO_COMMITMENT, Outcome, Verdict, outcome_of, pause_of

if TYPE_CHECKING:
    from xray.serving.dicom_connections import Limits
    from xray.serving.dicom_sending import Sender

log = logging.getLogger("xray.dicom")

BATCH = 16
"""Objects that are sent in one association."""

PRUNE_SECONDS = 3600.0
"""Between two times that the queue forgets what is old."""
IDLE_SECONDS = 1.0


class Returning:
    """One thread's work: sends what is due until it is told to stop.

    commits: whether an answer counts as returned only once the other node has committed to it; where it offers no
    storage commitment, once it is stored, which is said and counted.
    """

    def __init__(self, queue: Queue, sender: "Sender", limits: "Limits", counts: Any, commits: bool = False) -> None:
        self._queue, self._sender, self._limits, self._counts = queue, sender, limits, counts
        self._commits, self._stopping = commits, threading.Event()
        # Reports on commitments come in threads of their own.
        self._counting = threading.Lock()
        self._n_absent = 0

    def stop(self) -> None:
        """Ends `run` soon."""
        self._stopping.set()

    def run(self) -> None:
        """Sends what is due, until `stop`."""
        self.greet()
        waited = 0.0
        while not self._stopping.is_set():
            try:
                pause = self.step()
                if (waited := waited + pause) > PRUNE_SECONDS:
                    waited = 0.0
                    self._queue.prune()
            except Exception as error:  # such as a full disk: it may have room later
                if self._stopping.is_set():
                    return
                log.error("answers cannot be returned for now (%s)", type(error).__name__)
                pause = 10 * IDLE_SECONDS
            if pause and self._n_absent:
                self._stopping.wait(pause)
            elif pause:
                self._queue.wait(pause)

    def greet(self) -> None:
        """Says in the log whether the other node is there."""
        try:
            outcome = self._sender.echo()
        except Exception as error:
            outcome = Outcome(Verdict.PASSING, type(error).__name__)
        if outcome.verdict == Verdict.TAKEN:
            log.info("%s answers (C-ECHO)", self._aet)
        elif not self._stopping.is_set():
            log.warning("%s does not answer a C-ECHO yet: %s", self._aet, outcome.why)

    @property
    def _aet(self) -> str:
        return self._sender.peer.aet

    def step(self) -> float:
        """Sends what is due in one association → seconds until more may be."""
        limits = self._limits
        if self._commits:
            self._give_up_commitments()
        answers = self._queue.due_answers(BATCH, latest=2 * limits.last_wait)
        if not answers:
            next_one = self._queue.seconds_to_next()
            return IDLE_SECONDS if next_one is None else min(IDLE_SECONDS, max(0.01, next_one))
        outcomes: list[Outcome] = []

        def done(answer: Answer, outcome: Outcome) -> None:
            outcomes.append(outcome)
            if outcome.verdict == Verdict.TAKEN and not self._commits:
                self._is_at(answer)
            elif outcome.verdict == Verdict.PASSING:
                self._passes(answer, outcome)
            elif outcome.verdict == Verdict.FINAL:
                self._fails(answer, outcome.why)

        taken: list[Answer] = []

        def begin(stored: Sequence[Answer]) -> str:
            taken.extend(stored)
            transaction = str(generate_uid(prefix=None))
            self._queue.stored(stored, transaction, limits.commitment_seconds)
            return transaction

        with_commitment = (begin, self.report) if self._commits else ()
        said = self._sender.send(answers, done, *with_commitment)
        if said is not None:
            self._is_asked(said, taken)
        if not outcomes[-1].is_peer:
            self._n_absent = 0
            return 0.0
        self._n_absent += 1
        return pause_of(self._n_absent, limits.first_wait, limits.last_wait)

    def _is_at(self, answer: Answer) -> None:
        self._queue.returned(answer)
        with self._counting:
            self._counts.returned += 1
        log.info("answer %d is at %s", answer.number, self._aet)

    def _passes(self, answer: Answer, outcome: Outcome) -> None:
        attempts = answer.attempts + 1
        if attempts >= self._limits.attempts:
            self._fails(answer, f"{outcome.why}, {attempts} times")
            return
        # Where the other node is away, all answers wait for it together.
        pause = 0.0 if outcome.is_peer else pause_of(attempts, self._limits.first_wait, self._limits.last_wait)
        self._queue.again(answer, pause, outcome.why)
        log.warning("answer %d: %s does not take it now (%s), again later", answer.number, self._aet, outcome.why)

    def _fails(self, answer: Answer, why: str) -> None:
        self._queue.failed(answer, why)
        with self._counting:
            self._counts.failed += 1
        log.error(
            "answer %d (%s) has failed: %s does not take it (%s); it is kept, --dicom-resend sends it again",
            answer.number,
            answer.uid,
            self._aet,
            why,
        )

    def _is_asked(self, said: Outcome, stored: Sequence[Answer]) -> None:
        """The other node was asked to commit to what it stored."""
        if said.verdict == Verdict.TAKEN:
            return
        if said is NO_COMMITMENT:
            # It has stored them all the same, and would never commit: to send them again would change nothing.
            for answer in stored:
                self._is_at(answer)
            with self._counting:
                is_first, self._counts.unconfirmed = (
                    not self._counts.unconfirmed,
                    self._counts.unconfirmed + len(stored),
                )
            if is_first:
                log.warning(
                    "%s has stored answers, but %s: they count as returned, without its word that it keeps them; leave "
                    "--dicom-commitment out, or have it set up there",
                    self._aet,
                    said.why,
                )
            return
        for answer in stored:
            self._passes(answer, dataclasses.replace(said, why=f"storage commitment: {said.why}", is_peer=False))

    def report(self, event: Any) -> int:
        """Handles an N-EVENT-REPORT: what the other node has committed to, and what it has not → the status."""
        try:
            about = event.event_information
            transaction = str(about.TransactionUID)
            kept = {str(item.ReferencedSOPInstanceUID) for item in about.get("ReferencedSOPSequence") or ()}
            missing = {
                str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0)
                for item in about.get("FailedSOPSequence") or ()
            }
        except Exception:  # whatever pydicom raises on an element that is none of its type
            return 0x0110
        answers = self._queue.uncommitted(transaction)
        for answer in answers:
            if answer.uid in missing:
                reason = missing[answer.uid]
                why = f"not committed, reason {reason:04X}"
                self._passes(answer, dataclasses.replace(outcome_of(0x0110), why=why))
            elif answer.uid in kept:
                self._is_at(answer)
        # Unknown: of an instance that is back in the queue, or of none of ours.
        return 0x0000 if answers else 0x0112

    def _give_up_commitments(self) -> None:
        """What was not committed in time is sent again."""
        for answer in self._queue.uncommitted():
            self._passes(answer, Outcome(Verdict.PASSING, "not committed in time"))
