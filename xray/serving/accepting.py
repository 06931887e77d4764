"""Accepting connections where descriptors or memory run out: said once, and without a loop that does nothing else."""

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("xray.serving")

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.01
"""Seconds of rest where not even the spare descriptor helps."""
QUIET = 60.0
"""Seconds without a failure after which the next one is told again."""


class Told:
    """Whether something that happens again and again has been told lately."""

    def __init__(self) -> None:
        self._last: float | None = None

    def is_news(self, now: float) -> bool:
        """Whether it has not happened for QUIET seconds; it happens now."""
        is_news = self._last is None or now - self._last > QUIET
        self._last = now
        return is_news


class Spare:
    """A descriptor in reserve, by which a connection that cannot be had is taken and closed at once.

    The system goes on announcing a connection that was not accepted: whoever tries again at once tries for ever, and
    whoever logs each time fills a disk. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._descriptor: int | None = os.open(os.devnull, os.O_RDONLY)
        self._told = Told()

    def accept(self, accept: Callable[[], Any]) -> Any:
        """`accept()`. Raises BlockingIOError where there was a connection, but nothing to hold it by."""
        try:
            return accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            if self._told.is_news(self._clock()):
                reason = os.strerror(error.errno)
                log.error("connections are closed unheard: %s (raise the limit, ulimit -n)", reason)
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            with contextlib.suppress(OSError):
                accept()[0].close()
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                time.sleep(PAUSE)
        raise BlockingIOError("a connection was closed for want of descriptors")

    def close(self) -> None:
        """Gives the descriptor back."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class Door(socket.socket):
    """A listening socket whose `accept` never fails for want of descriptors, but closes the connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spare = Spare()

    def accept(self) -> tuple[socket.socket, Any]:
        """As socket.accept. Raises BlockingIOError where there is none, or none that could be held."""
        return self.spare.accept(super().accept)

    def close(self) -> None:
        """As socket.close."""
        self.spare.close()
        super().close()
