"""A DICOM node: takes radiographs by C-STORE and returns what is made of them, SR, SEG, …, to another node.

A radiograph is accepted once it lies on the disk and its header shows that the models can use it. One thread then makes
the answers, another sends them, and tries again for a while where the other node is away. What waits is bounded: when
there is no room, a sender gets status A700 and tries again later. The folder in which files wait is deleted at the end.

Log lines count; they hold no identifiers and nothing of what stands in a file.
"""

import contextlib
import dataclasses
import itertools
import logging
import queue
import shutil
import socketserver
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from xray.errors import InputError
from xray.outputs.dicom.objects import read_source, save_object
from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.dicom import check_dicom
from xray.radiographs.image_check import is_fault
from xray.radiographs.radiograph import read_radiograph
from xray.radiographs.workers import TIMEOUT, Failed, Workers
from xray.serving import pixels
from xray.serving.dicom_connections import MAX_PDU, Limits, Receiver, Server
from xray.serving.dicom_peers import Peer, let_sender_choose, offer, support
from xray.serving.quiet import silence_libraries

if TYPE_CHECKING:
    from xray.outputs.dicom.results import DicomResults
    from xray.serving.service import Service

log = logging.getLogger("xray.dicom")

SUCCESS, NO_RESOURCES, NOT_MATCHING, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
"""Status of a C-STORE response (PS3.4 B.2.3)."""
OTHER_IMAGE = 0xB007
"""A warning: what came is not what this node is for. The sender need not send it again."""
_TAKEN = (0x0000, 0xB000, 0xB006, 0xB007)
"""Success and the warnings under which the other node has stored what it was sent."""
_FULL = range(0xA700, 0xA800)


@dataclasses.dataclass
class Counts:
    """What became of the radiographs since the start."""

    received: int = 0
    refused: int = 0
    other_images: int = 0
    """Taken, but not looked at, as they are no frontal chest radiographs."""
    unusable: int = 0
    returned: int = 0
    lost: int = 0


def answering(service: "Service", results: "DicomResults") -> Callable[[Path], Iterable[Dataset]]:
    """What a node calls for each radiograph: it waits for its turn at the service, as every request does."""
    from xray.serving.service import readable
    from xray.serving.worker import BusyError, RefusedError

    def answer(path: Path) -> Iterable[Dataset]:
        while True:
            try:
                found = service.find(path, is_node=True)
                findings = found[0]
                # In a worker, as the models' canvas was: the file may be hostile.
                work = service.in_worker(read_radiograph, path) if results.need_pixels else None
                radiograph = None if work is None else readable(work.result(), path)
                break
            except BusyError as busy:
                time.sleep(busy.retry_after)
            except RefusedError as error:
                raise InputError(error.line) from None
        labels = {label: float(column[0]) for label, column in findings.labels.items()}
        maps = None if findings.maps is None else findings.maps[0]
        check = getattr(found, "check", None)
        about = (labels, radiograph, maps, () if check is None else check.warnings)
        return results.of(path, findings.table, findings.masks, *about).values()

    return answer


class DicomNode:
    """A running node; a context manager that ends it.

    port: that it listens on. folder: where files wait. counts: what became of the radiographs. server: its
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
    ) -> None:
        """Starts listening.

        answer: the SR, SEG, … for the DICOM file of a radiograph; called from one thread. It raises InputError, whose
            message names no patient, for a radiograph that cannot be used.
        peer: where they are sent. port: 0 chooses one. callers: titles of the nodes that may send; none for all.
        workers: decode what is compressed, before it is accepted; without them the node starts one when it needs it.
        fault_of: why a file is no radiograph for the models, by its header, "" where it may be one; None asks for none.

        Raises InputError if the port cannot be had.
        """
        self.counts, self._answer, self._peer, self._limits = Counts(), answer, peer, limits or Limits()
        self._aet, self._fault_of = aet, fault_of
        self._stopping, self._counting = threading.Event(), threading.Lock()
        self._numbers = itertools.count(1)
        self._receivers: weakref.WeakKeyDictionary[Any, Receiver] = weakref.WeakKeyDictionary()
        self._workers, self._own_workers, self._starting = workers, contextlib.ExitStack(), threading.Lock()
        self._inbox: queue.Queue[Path] = queue.Queue(self._limits.waiting)
        self._outbox: queue.Queue[Path] = queue.Queue(self._limits.waiting)
        silence_libraries()
        self._ae = AE(ae_title=aet)
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(callers)
        # pynetdicom also counts associations that are just ending; the server counts better.
        self._ae.maximum_associations = 2 * self._limits.associations
        self._ae.maximum_pdu_size = MAX_PDU
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = self._limits.seconds
        support(self._ae)
        self.folder = Path(tempfile.mkdtemp(prefix="xray-dicom-"))
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._limit),
            (evt.EVT_REQUESTED, lambda event: let_sender_choose(event.assoc)),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
        ]
        try:
            server = self._ae.make_server((host, port), evt_handlers=handlers, server_class=Server, limits=self._limits)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise InputError(f"no DICOM node at {host}:{port} ({error.strerror or error}): give another port") from None
        self.server, self.port = server, server.server_address[1]
        works = {"accepting": server.serve_forever, "answering": self._answer_all, "returning": self._return_all}
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
        """Ends the node: what finishes within `patience` seconds is done, all else is dropped and counted."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        # First: should the rest be cut short, no radiograph stays behind.
        shutil.rmtree(self.folder, ignore_errors=True)
        # Shutting down waits for peers that may not answer.
        closing = threading.Thread(target=self._close_connections, daemon=True)
        closing.start()
        deadline = time.monotonic() + patience
        for thread in (*self._threads, closing):
            thread.join(max(0.0, deadline - time.monotonic()))
        if dropped := self._inbox.qsize() + self._outbox.qsize():
            log.warning("stopped: %d radiographs or answers are lost", dropped)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close_connections(self) -> None:
        with contextlib.suppress(Exception):
            socketserver.BaseServer.shutdown(self.server)
            self.server.server_close()
        with contextlib.suppress(Exception):
            self._ae.shutdown()
        with self._starting:
            self._own_workers.close()

    def _limit(self, event: Any) -> None:
        """Has a connection read no more, and no longer, than the limits allow."""
        connection = event.assoc.dul.socket
        self._receivers[event.assoc] = receiver = Receiver(connection, self._limits)
        connection.recv = receiver.read

    def _echo(self, event: Any) -> int:
        receiver = self._receivers[event.assoc]
        receiver.begin(has_stored=False)
        if receiver.is_useless:
            event.assoc.abort(block=False)
        return SUCCESS

    def _store(self, event: Any) -> int:
        """Answers a C-STORE request: the status."""
        self._receivers[event.assoc].begin()
        status = self._receive(event)
        # Several connections count at a time.
        with self._counting:
            self.counts.received += status == SUCCESS
            self.counts.other_images += status == OTHER_IMAGE
            self.counts.refused += status not in (SUCCESS, OTHER_IMAGE)
        if status != SUCCESS:
            log.info("refused an object (status %04X)", status)
        return status

    def _receive(self, event: Any) -> int:
        """Writes an object to the disk and queues it, if it can be used: the status."""
        if self._inbox.full() or self._outbox.full() or self._stopping.is_set():
            return NO_RESOURCES
        path = self.folder / f"{next(self._numbers)}.dcm"
        try:
            path.write_bytes(event.encoded_dataset())
            request = event.request
            status = status_of(path, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
            if status == SUCCESS and self._fault_of is not None and (fault := self._fault_of(path)):
                log.warning("an image is not looked at (%s)", fault)
                status = OTHER_IMAGE
            if status == SUCCESS and event.context.transfer_syntax in COMPRESSED and not self._decodes(path):
                status = NOT_UNDERSTOOD
            if status == SUCCESS:
                self._inbox.put_nowait(path)
                return SUCCESS
        except (OSError, queue.Full):
            status = NO_RESOURCES
        path.unlink(missing_ok=True)
        return status

    def _decodes(self, path: Path) -> bool:
        """Whether compressed pixel data can be read; if no worker is free in time, they are taken for readable."""
        with self._starting:
            if self._workers is None:
                self._workers = self._own_workers.enter_context(Workers(1, pixels.__name__))
        outcome = self._workers.submit(pixels.size_of, path, path.name, TIMEOUT)
        try:
            return not isinstance(outcome.result(self._limits.check_seconds), Failed)
        except (TimeoutError, CancelledError):
            if not outcome.cancel():
                self._workers.abandon(outcome)
            return True

    def _answer_all(self) -> None:
        for path in self._files_of(self._inbox):
            try:
                for number, dataset in enumerate(self._answer(path)):
                    if self._stopping.is_set():
                        return
                    answer = path.with_name(f"{path.stem}-{number}.dcm")
                    save_object(answer, dataset)
                    self._offer(answer)
            except Exception as error:
                if is_other := isinstance(error, InputError) and is_fault(str(error)):
                    self.counts.other_images += 1
                else:
                    self.counts.unusable += 1
                if is_other:
                    log.warning("radiograph %s is not looked at (%s)", path.stem, error)
                elif isinstance(error, InputError):
                    log.warning("radiograph %s cannot be used (%s)", path.stem, error)
                else:
                    log.error("radiograph %s gave no answer (%s)", path.stem, type(error).__name__)

    def _return_all(self) -> None:
        for path in self._files_of(self._outbox):
            try:
                self._return(path)
            except Exception as error:
                self.counts.lost += 1
                log.error("answer %s cannot be sent (%s)", path.stem, type(error).__name__)

    def _return(self, path: Path) -> None:
        wait = self._limits.first_wait
        for attempt in range(self._limits.attempts):
            if attempt:
                log.warning("answer %s: %s does not take it, again in %.0f s", path.stem, self._peer.aet, wait)
                if self._stopping.wait(wait):
                    return
                wait = min(2 * wait, 60.0)
            status = self._send(path)
            if status in _TAKEN:
                self.counts.returned += 1
                log.info("answer %s is at %s", path.stem, self._peer.aet)
                return
            if status is not None and status not in _FULL:
                break
        self.counts.lost += 1
        log.error("answer %s is lost: %s does not take it", path.stem, self._peer.aet)

    def _send(self, path: Path) -> int | None:
        """The other node's status, None where it is not there or falls silent."""
        ae = AE(ae_title=self._aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._limits.seconds
        ae.connection_timeout = min(10.0, self._limits.seconds)
        dataset = dcmread(path)
        offer(ae, dataset)
        link = ae.associate(self._peer.host, self._peer.port, ae_title=self._peer.aet)
        if not link.is_established:
            return None
        try:
            status = link.send_c_store(dataset)
        finally:
            link.release()
        return int(status.Status) if "Status" in status else None

    def _files_of(self, box: "queue.Queue[Path]") -> Iterator[Path]:
        """What comes into a box until the node ends; each file is deleted once the caller asks for the next."""
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                path = box.get(timeout=0.1)
                try:
                    yield path
                finally:
                    path.unlink(missing_ok=True)

    def _offer(self, answer: Path) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                return self._outbox.put(answer, timeout=0.1)


def status_of(path: Path, storage: str, instance: str | None = None) -> int:
    """Whether a file is a radiograph of the class and the instance that it came as, is whole, and can be referred to.

    storage, instance: SOP Class UID and SOP Instance UID of the request; None does not ask.
    """
    try:
        check_dicom(path)
        # Identifiers that are not valid cannot stand in a report, so that the radiograph would be lost later.
        source = read_source(path)
    except Exception:  # whatever pydicom raises on an element that is none of its type
        return NOT_UNDERSTOOD
    is_same = source.SOPClassUID == storage and instance in (None, source.SOPInstanceUID)
    return SUCCESS if is_same else NOT_MATCHING
