"""A DICOM node: takes radiographs by C-STORE and returns what is made of them, SR, SEG, …, to another node.

A radiograph is accepted once its header shows that the models can use it and it lies in the queue on the disk
(dicom_queue.py), which keeps it through a kill or a power failure. One thread makes the answers, another returns them
(dicom_returning.py). What waits is bounded: when there is no room, a sender gets status A700 and tries again later.

Log lines count; they hold nothing of what stands in a radiograph's file, and of answers that failed their UID.
"""

import contextlib
import dataclasses
import functools
import logging
import shutil
import socketserver
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from xray.errors import InputError
from xray.outputs.dicom.objects import save_object
from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.image_check import is_fault
from xray.radiographs.radiograph import RadiographError
from xray.radiographs.workers import TIMEOUT, Failed, Workers
from xray.serving import dicom_contents
from xray.serving.dicom_accepted import OTHER_IMAGE, Counts, edited, status_of
from xray.serving.dicom_connections import MAX_PDU, Limits, Receiver, Server
from xray.serving.dicom_contents import contents_of, pixel_digest
from xray.serving.dicom_peers import Peer, let_sender_choose, support
from xray.serving.dicom_queue import Queue, Taken, Work
from xray.serving.dicom_queue_store import forget
from xray.serving.dicom_returning import Returning
from xray.serving.dicom_sending import Sender
from xray.serving.dicom_statuses import NO_RESOURCES, NOT_UNDERSTOOD, SUCCESS
from xray.serving.dicom_tls import Tls
from xray.serving.quiet import silence_libraries

if TYPE_CHECKING:
    from xray.outputs.dicom.results import DicomResults
    from xray.serving.service import Service

log = logging.getLogger("xray.dicom")


def answering(service: "Service", results: "DicomResults") -> Callable[[Path], Iterable[Dataset]]:
    """What a node calls for each radiograph: it waits for its turn at the service, as every request does."""
    from xray.serving.service import objects_of
    from xray.serving.worker import BusyError, RefusedError

    def answer(path: Path) -> Iterable[Dataset]:
        while True:
            try:
                return objects_of(service, results, path, is_node=True).values()
            except BusyError as busy:
                time.sleep(busy.retry_after)
            except RefusedError as error:
                raise InputError(error.line) from None

    return answer


class DicomNode:
    """A running node; a context manager that ends it.

    port: that it listens on. queue: where files wait, in `folder`. counts: what happened since the start. server: its
    connections.
    """

    def __init__(
        self,
        answer: Callable[[Path], Iterable[Dataset]],
        peer: Peer,
        port: int,
        aet: str = "XRAY",
        host: str = "127.0.0.1",
        callers: Sequence[str] = (),
        limits: Limits | None = None,
        workers: Workers | None = None,
        fault_of: Callable[[Path], str] | None = None,
        folder: Path | None = None,
        tls: Tls | None = None,
        commits: bool = False,
    ) -> None:
        """Starts listening.

        answer: the SR, SEG, … for the DICOM file of a radiograph; called from one thread. It raises InputError, whose
            message names no patient, for a radiograph that cannot be used.
        peer: where they are sent. port: 0 chooses one. callers: titles of the nodes that may send; none for all.
        workers: decode what is compressed, before it is accepted; without them the node starts one when it needs it.
        fault_of: why a file is no radiograph for the models, by its header, "" where it may be one; None asks for none.
        folder: of the queue; what a node before left there goes on. None makes one that is deleted at the end.
        tls: for what comes in and goes out. commits: whether the other node has to commit to what it has stored.

        Raises InputError if the port or the folder cannot be had.
        """
        self.counts, self._answer, self._limits = Counts(), answer, limits or Limits()
        self._fault_of = fault_of
        self._stopping, self._counting = threading.Event(), threading.Lock()
        self._receivers: weakref.WeakKeyDictionary[Any, Receiver] = weakref.WeakKeyDictionary()
        self._workers, self._own_workers, self._starting = workers, contextlib.ExitStack(), threading.Lock()
        silence_libraries()
        self._ae = AE(ae_title=aet)
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(callers)
        # pynetdicom also counts associations that are just ending; the server counts better.
        self._ae.maximum_associations = 2 * self._limits.associations
        self._ae.maximum_pdu_size = MAX_PDU
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = self._limits.seconds
        support(self._ae)
        self._is_lasting = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="xray-dicom-"))
        self.queue = Queue(self.folder)
        sender = Sender(peer, aet, self._limits, tls)
        self._returning = Returning(self.queue, sender, self._limits, self.counts, commits)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._limit),
            (evt.EVT_REQUESTED, lambda event: let_sender_choose(event.assoc)),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_N_EVENT_REPORT, self._report),
        ]
        try:
            options: dict[str, Any] = {"limits": self._limits, "tls": tls}
            server: Any = self._ae.make_server((host, port), evt_handlers=handlers, server_class=Server, **options)
        except OSError as error:
            self._close_queue()
            raise InputError(f"no DICOM node at {host}:{port} ({error.strerror or error}): give another port") from None
        self.server, self.port = server, server.server_address[1]
        works = {"accepting": server.serve_forever, "answering": self._answer_all, "returning": self._returning.run}
        self._threads = [
            threading.Thread(target=work, name=f"dicom {name}", daemon=True) for name, work in works.items()
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "DicomNode":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self, patience: float = 0.6) -> None:
        """Ends the node: what finishes within `patience` seconds is done. The rest waits in the queue for the next
        start; without a folder of its own it is dropped and counted."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._returning.stop()
        with self.queue.changed:
            self.queue.changed.notify_all()
            status = self.status()
        left = int(status["waiting"] + status["working"] + status["returning"] + status["uncommitted"])
        if not self._is_lasting:
            # First: should the rest be cut short, no radiograph stays behind.
            forget(self.folder)
        # Shutting down waits for peers that may not answer.
        closing = threading.Thread(target=self._close_connections, daemon=True)
        closing.start()
        deadline = time.monotonic() + patience
        for thread in (*self._threads, closing):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._close_queue()
        if left and self._is_lasting:
            log.warning("stopped: %d radiographs or answers wait for the next start", left)
        elif left:
            log.warning("stopped: %d radiographs or answers are lost", left)

    def _close_queue(self) -> None:
        self.queue.close()
        if not self._is_lasting:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _close_connections(self) -> None:
        with contextlib.suppress(Exception):
            socketserver.BaseServer.shutdown(self.server)
            self.server.server_close()
        with contextlib.suppress(Exception):
            self._ae.shutdown()
        with self._starting:
            self._own_workers.close()

    def status(self) -> dict[str, int | float]:
        """How it stands, flat and in numbers.

        Now: radiographs `waiting`, `working`, `answered` (as far back as that is known), `unanswered` (for good);
        answers `returning`, `uncommitted`, `failed` (kept); `oldest_seconds` of what is not answered yet; open
        `associations`. Since the start: radiographs `received`, `repeated`, `refused`, `unusable`, `other_images` (no
        frontal chest radiographs), answers `returned`, and those of them that are `unconfirmed`: the other node offers
        no storage commitment.
        """
        counts = dataclasses.asdict(self.counts)
        counts.pop("failed")
        return {**self.queue.status(), **counts, "associations": len(self.server.associations)}

    def resend(self) -> int:
        """Tries again what failed and was kept → how many answers and radiographs."""
        return self.queue.resend()

    def _limit(self, event: Any) -> None:
        """Has a connection read no more, and no longer, than the limits allow."""
        connection = event.assoc.dul.socket
        # Weakly: a connection knows its association, which would then be kept for ever by what is kept for it.
        self._receivers[event.assoc] = receiver = Receiver(weakref.proxy(connection), self._limits)
        connection.recv = receiver.read

    def _echo(self, event: Any) -> int:
        receiver = self._receivers[event.assoc]
        receiver.begin(has_stored=False)
        if receiver.is_useless:
            event.assoc.abort(block=False)
        return SUCCESS

    def _report(self, event: Any) -> tuple[int, None]:
        self._receivers[event.assoc].begin()
        return self._returning.report(event), None

    def _store(self, event: Any) -> int:
        """Answers a C-STORE request: the status."""
        self._receivers[event.assoc].begin()
        status, is_repeated = self._receive(event)
        # Several connections count at a time.
        with self._counting:
            self.counts.received += status == SUCCESS and not is_repeated
            self.counts.repeated += is_repeated
            self.counts.other_images += status == OTHER_IMAGE
            self.counts.refused += status not in (SUCCESS, OTHER_IMAGE)
        if status != SUCCESS:
            log.info("refused an object (status %04X)", status)
        return status

    @property
    def _is_full(self) -> bool:
        limits = self._limits
        if self.queue.is_full(limits.waiting) or self.queue.backlog() >= limits.returning:
            return True
        # What is accepted shall find room for its answers.
        return shutil.disk_usage(self.folder).free < 3 * limits.n_bytes

    def _receive(self, event: Any) -> tuple[int, bool]:
        """Writes an object to the disk and queues it, if it can be used: the status, and whether it was known."""
        path = self.queue.new_path()
        try:
            if self._stopping.is_set() or self._is_full:
                return NO_RESOURCES, False
            path.write_bytes(event.encoded_dataset())
            request = event.request
            status = status_of(path, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
            if status == SUCCESS and self._fault_of is not None and (fault := self._fault_of(path)):
                log.warning("an image is not looked at (%s)", fault)
                status = OTHER_IMAGE
            digest: str | None = None
            if status == SUCCESS:
                is_compressed = event.context.transfer_syntax in COMPRESSED
                outcome = self._in_worker(path) if is_compressed else pixel_digest(path)
                if isinstance(outcome, Failed):
                    status = NOT_UNDERSTOOD
                else:
                    digest = outcome
            if status == SUCCESS:
                contents = contents_of(path, event.encoded_dataset(include_meta=False), digest)
                taken = self.queue.take(path, str(request.AffectedSOPInstanceUID), contents, self._limits.waiting)
                return (NO_RESOURCES if taken == Taken.FULL else SUCCESS), taken == Taken.REPEATED
            return status, False
        except RadiographError:
            return NOT_UNDERSTOOD, False
        except (OSError, sqlite3.Error):
            return NO_RESOURCES, False
        finally:
            # Where it was taken, it has moved.
            path.unlink(missing_ok=True)

    def _in_worker(self, path: Path) -> Any:
        """The digest of compressed pixel data, Failed where it cannot be read; None if no worker is free in time."""
        with self._starting:
            if self._workers is None:
                self._workers = self._own_workers.enter_context(Workers(1, dicom_contents.__name__))
        outcome = self._workers.submit(pixel_digest, path, path.name, TIMEOUT)
        try:
            return outcome.result(self._limits.check_seconds)
        except (TimeoutError, CancelledError):
            if not outcome.cancel():
                self._workers.abandon(outcome)
            return None

    def _answer_all(self) -> None:
        while not self._stopping.is_set():
            try:
                with self.queue.changed:
                    work = self.queue.next_work()
                    if work is None:
                        self.queue.changed.wait(1.0)
                        continue
                self._answer_one(work)
            except Exception as error:  # such as a full disk: it may have room later
                if not self._stopping.is_set():
                    log.error("radiographs cannot be answered for now (%s)", type(error).__name__)
                    self._stopping.wait(10.0)

    def _answer_one(self, work: Work) -> None:
        try:
            made = [edited(dataset, work.edition) for dataset in self._answer(work.path)]
        except Exception as error:
            if self._stopping.is_set():
                return
            is_known = isinstance(error, InputError)
            why = str(error) if is_known else type(error).__name__
            is_other = is_known and is_fault(why)
            self.counts.other_images += is_other
            self.counts.unusable += not is_other
            self.queue.unusable(work, why, is_kept=not is_known)
            if is_other:
                log.warning("radiograph %d is not looked at (%s)", work.number, why)
            elif is_known:
                log.warning("radiograph %d cannot be used (%s)", work.number, why)
            else:
                log.error("radiograph %d gave no answer (%s)", work.number, why)
            return
        if self._stopping.is_set() and not self._is_lasting:
            return
        self.queue.answered(
            work,
            [
                (str(one.SOPInstanceUID), str(one.SOPClassUID), functools.partial(save_object, dataset=one))
                for one in made
            ],
        )
