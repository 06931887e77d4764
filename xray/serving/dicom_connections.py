"""TCP connections of the DICOM node: how many, from which addresses, and how slow, before pynetdicom sees them.

pynetdicom gives every connection three threads that poll a thousand times a second, counts silent ones as associations,
and trusts every length. So a connection waits for its association request in one
sleeping thread, and gets a place for an association only once the request lies there whole.
"""

import contextlib
import dataclasses
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from xray.serving.accepting import Places, Spare, Throttle, Waiting
from xray.serving.dicom_tls import Tls, wrapped

log = logging.getLogger("xray.dicom")

MAX_PDU = 2**17
"""Bytes of a message (PDU) that a peer may send in one piece, its head of six bytes not counted."""
ASSOCIATE_RQ = 0x01
ENOUGH = 2**14
"""Bytes of an association request after which it is no longer waited for here; the system may not keep more."""
POLL = 0.02
"""Seconds between two looks at a request of which a part has come."""
ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 2))
"""A-ABORT of the service provider: unexpected message (PS3.8 9.3.8)."""
REJECT = bytes((3, 0, 0, 0, 0, 4, 0, 2, 3, 2))
"""A-ASSOCIATE-RJ: for now, by the service provider, as the local limit is exceeded (PS3.8 9.3.4)."""
REJECT_SECONDS = 1.0
"""For a peer that was turned away to read why."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a DICOM node gives its peers.

    n_bytes: of one object. seconds: that a message may take to come in, and a peer may be silent between two.
    object_seconds: for one object to come; bytes_per_second: that it has to come with on average, from `seconds` on.
    associations: at the same time, and associations_each from one address; useless_seconds: after which one that has
    brought no object is ended. handshakes: connections that have not asked for an association yet, handshakes_each of
    one address; handshake_seconds: in which they have to. waiting: radiographs that wait for the model. returning:
    answers that wait to be sent. check_seconds: that a sender waits at most for its compressed pixel data to be looked
    at. attempts: to send an answer; each waits up to twice as long as the one before it, `first_wait` seconds at first
    and `last_wait` at most. commitment_seconds: for the other node to commit to what it has stored.
    """

    n_bytes: int = 100 * 2**20
    associations: int = 8
    seconds: float = 30.0
    waiting: int = 1000
    returning: int = 10_000
    attempts: int = 1000
    first_wait: float = 1.0
    last_wait: float = 600.0
    commitment_seconds: float = 3600.0
    associations_each: int = 4
    useless_seconds: float = 300.0
    handshakes: int = 32
    handshakes_each: int = 8
    handshake_seconds: float = 5.0
    object_seconds: float = 600.0
    bytes_per_second: int = 16 * 2**10
    check_seconds: float = 8.0


class Handler(RequestHandler):
    """One connection, in a thread of its own, from its acceptance to its end."""

    server: "Server"
    _association: Any = None

    def handle(self) -> None:
        """Waits for the association request, then hands the connection to pynetdicom if there is a place."""
        server = self.server
        try:
            if not self._is_secure(server.limits.handshake_seconds):
                return
            if not self._has_request(server.limits.handshake_seconds):
                return
            with server.associations.taken(str(self.client_address[0])) as has_place:
                if not has_place:
                    log.info("an association was refused: all places are taken")
                    self._turn_away()
                    return
                server.waiting.remove(self.request)
                super().handle()
                if self._association is not None:
                    self._association.join()
                    self._association.dul.join()
        finally:
            server.waiting.remove(self.request)
            self._association = None
            with contextlib.suppress(OSError):
                self.request.close()

    def _create_association(self) -> Any:
        self._association = super()._create_association()
        return self._association

    def _is_secure(self, seconds: float) -> bool:
        """Makes the handshake of TLS, where there is one; whether it succeeds in so many seconds.

        pynetdicom would make it where it accepts connections, so that one silent peer would shut out all others.
        """
        if not isinstance(self.request, ssl.SSLSocket):
            return True
        ending = threading.Timer(seconds, _end, [self.request])
        ending.daemon = True
        ending.start()
        try:
            self.request.settimeout(seconds)
            self.request.do_handshake()
            return True
        except (OSError, ValueError) as error:
            if self.server.untrusted.is_due(time.monotonic()):
                log.warning("a connection has no TLS that fits (%s)", getattr(error, "reason", None) or "cut off")
            return False
        finally:
            ending.cancel()

    def _has_request(self, seconds: float) -> bool:
        """Whether an association request comes within so many seconds; it stays unread."""
        connection, deadline = self.request, time.monotonic() + seconds
        with contextlib.suppress(OSError):
            # A connection that was ended in favour of another may still hold bytes to read.
            while (left := deadline - time.monotonic()) > 0 and connection in self.server.waiting:
                connection.settimeout(left)
                head = connection.recv(ENOUGH, socket.MSG_PEEK)
                if not head:
                    return False
                if head[0] != ASSOCIATE_RQ or int.from_bytes(head[2:6], "big") > MAX_PDU:
                    connection.sendall(ABORT)
                    return False
                if len(head) >= 6 and len(head) >= min(ENOUGH, 6 + int.from_bytes(head[2:6], "big")):
                    # Of TLS, a part of a record may be there, for whose rest `recv` waits.
                    is_tls = isinstance(connection, ssl.SSLSocket)
                    connection.settimeout(self.server.limits.seconds if is_tls else seconds)
                    return True
                # Until there is more, `recv` would come back at once, again and again.
                time.sleep(min(POLL, left))
        return False

    def _turn_away(self) -> None:
        """Answers that there is no place, and reads the rest of the request: otherwise the answer would not arrive."""
        deadline = time.monotonic() + REJECT_SECONDS
        with contextlib.suppress(OSError):
            self.request.settimeout(REJECT_SECONDS)
            self.request.sendall(REJECT)
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(2**16) and time.monotonic() < deadline:
                pass


class Server(ThreadedAssociationServer):
    """pynetdicom's server, within the limits.

    waiting: connections that have not asked for an association yet. associations: places of those that have.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any, limits: Limits, tls: Tls | None = None, **options: Any) -> None:
        self.limits, self._spare, self._tls, self.untrusted = limits, Spare(), tls, Throttle()
        self.waiting = Waiting(limits.handshakes, limits.handshakes_each)
        self.associations = Places(limits.associations, limits.associations_each)
        super().__init__(*arguments, request_handler=Handler, **options)  # type: ignore[misc]  # never among `arguments`

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self._spare.accept(super().get_request)
        return wrapped(connection, self._tls), address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Lets a connection in; where too many wait, the oldest of them is ended."""
        self.waiting.add(request, str(client_address[0]), lambda: _end(request))
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line in place of a traceback with the peer's address."""
        self.waiting.remove(request)
        log.error("a connection failed")

    def server_close(self) -> None:
        """Closes the listening socket."""
        super().server_close()
        self._spare.close()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Receiver:
    """Reads from a connection in place of pynetdicom, which would trust any length, and wait for ever.

    clock: seconds.
    """

    def __init__(self, connection: Any, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection, self._limits, self._clock = connection, limits, clock
        self._stored = clock()
        self.begin()

    def begin(self, has_stored: bool = True) -> None:
        """The next request begins. has_stored: whether the one before brought an object."""
        self._n_bytes = 0
        self._began: float | None = None
        if has_stored:
            self._stored = self._clock()

    @property
    def is_useless(self) -> bool:
        """Whether the association has brought no object for so long that others should have its place."""
        return self._clock() - self._stored > self._limits.useless_seconds

    def read(self, n_bytes: int) -> bytearray:
        """So many bytes, fewer where the connection ends. Raises OSError beyond the limits, which ends it."""
        now = self._clock()
        self._began = now if self._began is None else self._began
        self._n_bytes += n_bytes
        if n_bytes > MAX_PDU + 6 or self._n_bytes > self._limits.n_bytes:
            raise OSError("a peer sends more than is allowed")
        data, deadline = bytearray(), now + self._limits.seconds
        while len(data) < n_bytes:
            self._check_pace(self._n_bytes - n_bytes + len(data))
            left = deadline - self._clock()
            if left <= 0 or not self._is_readable(left):
                raise TimeoutError("a peer sends too slowly")
            received = self._connection.socket.recv(min(2**16, n_bytes - len(data)))
            if not received:
                break
            data += received
        return data

    def _is_readable(self, seconds: float) -> bool:
        connection = self._connection.socket
        # TLS has read more than was asked of it.
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        return bool(select.select([connection], [], [], seconds)[0])

    def _check_pace(self, n_bytes: int) -> None:
        elapsed = self._clock() - (self._began or 0.0)
        late = elapsed - self._limits.seconds
        if elapsed > self._limits.object_seconds or n_bytes < late * self._limits.bytes_per_second:
            raise TimeoutError("a peer sends too slowly")
