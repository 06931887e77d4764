"""Which connections and requests are let in: a spare descriptor for when descriptors run out, and counted places.

Places are counted in all and for each address, so that no client takes those of the others.
"""

import collections
import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger("xray.serving")

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.01
"""Seconds of rest where not even the spare descriptor helps."""
QUIET = 60.0
"""Seconds without a failure after which the next one is logged again."""


class Throttle:
    """Whether something that happens again and again was logged lately."""

    def __init__(self) -> None:
        self._last: float | None = None

    def is_due(self, now: float) -> bool:
        """Notes that it happens now; whether it had not happened for QUIET seconds."""
        is_due = self._last is None or now - self._last > QUIET
        self._last = now
        return is_due


class Spare:
    """A descriptor in reserve, by which a connection that cannot be had is taken and closed at once.

    The system announces a connection that was not accepted again and again: without the spare descriptor, accepting
    would become an endless loop, and logging each attempt would fill the disk. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._descriptor: int | None = os.open(os.devnull, os.O_RDONLY)
        self._throttle = Throttle()

    def accept(self, accept: Callable[[], Any]) -> Any:
        """`accept()`. Raises BlockingIOError where there was a connection, but nothing to hold it by."""
        try:
            return accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            if self._throttle.is_due(self._clock()):
                reason = os.strerror(error.errno)
                log.error("connections are closed unheard: %s (raise the limit, ulimit -n)", reason)
        with self._lock:
            self._release()
            with contextlib.suppress(OSError):
                accept()[0].close()
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                time.sleep(PAUSE)
        raise BlockingIOError("a connection was closed: there are too few file descriptors")

    def close(self) -> None:
        """Gives the descriptor back."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Door(socket.socket):
    """A listening socket whose `accept` never fails for want of descriptors, but closes the connection.

    places: of all connections that it let in, until they are closed; None for any number. Behind TLS, a connection is
    not known to HTTP's own limits until the handshake is done. is_shared: whether other processes accept here, too: of
    connections that come at once, each process then takes one at a time.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spare = Spare()
        self.places: Places | None = None
        self.is_shared = False
        self._has_one = False

    def accept(self) -> tuple[socket.socket, Any]:
        """As socket.accept. Raises BlockingIOError where there is none, or none that could be held."""
        if self.is_shared and self._has_one:
            self._has_one = False
            raise BlockingIOError("the next one may be another process's")
        connection, address = self.spare.accept(super().accept)
        self._has_one = True
        if self.places is None:
            return connection, address
        if not self.places.take(str(address[0])):
            connection.close()
            raise BlockingIOError("a connection was closed: too many are open")
        return Held(connection, self.places, str(address[0])), address

    def close(self) -> None:
        self.spare.close()
        super().close()


class Held(socket.socket):
    """A connection that gives its place back when it is closed."""

    def __init__(self, connection: socket.socket, places: "Places", address: str) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._place: tuple[Places, str] | None = (places, address)

    def close(self) -> None:
        if self._place is not None:
            places, address = self._place
            self._place = None
            places.give(address)
        super().close()


class Places:
    """A bounded number of places; any thread may ask. total: in all. each: of one address."""

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self._taken: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are taken."""
        with self._lock:
            return self._taken.total()

    def take(self, address: str) -> bool:
        """Takes a place for an address; False where none is left for it."""
        with self._lock:
            if self._taken.total() >= self.total or self._taken[address] >= self.each:
                return False
            self._taken[address] += 1
            return True

    def give(self, address: str) -> None:
        """Gives a place back."""
        with self._lock:
            self._taken[address] -= 1
            # Without this, the counter would grow with each new address.
            if self._taken[address] <= 0:
                del self._taken[address]

    @contextlib.contextmanager
    def taken(self, address: str) -> Iterator[bool]:
        """A place for as long as the block runs → whether there is one."""
        has = self.take(address)
        try:
            yield has
        finally:
            if has:
                self.give(address)


class Waiting:
    """Connections that have not sent a request yet, oldest first; any thread may ask.

    Where there are too many the oldest is ended, not the newest refused: real clients send their request at once, and
    silent ones cannot shut others out. total: in all. each: of one address.
    """

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self._of: dict[object, tuple[str, Callable[[], None]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many wait."""
        with self._lock:
            return len(self._of)

    def __contains__(self, connection: object) -> bool:
        """Whether a connection still waits, and was not ended for another."""
        with self._lock:
            return connection in self._of

    def add(self, connection: object, address: str, end: Callable[[], None]) -> None:
        """Adds a connection; `end` ends it, and is called once there are too many."""
        with self._lock:
            same = [other for other, (of, _) in self._of.items() if of == address]
            too_many = same[: max(0, len(same) - self.each + 1)]
            if not too_many and len(self._of) >= self.total:
                too_many = [next(iter(self._of))]
            ends = [self._of.pop(other)[1] for other in too_many]
            self._of[connection] = (address, end)
        for end_other in ends:
            end_other()

    def remove(self, connection: object) -> None:
        """A connection has sent its request, or is gone; one that is not known is no error."""
        with self._lock:
            self._of.pop(connection, None)
