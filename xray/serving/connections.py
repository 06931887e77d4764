"""HTTP connections: how many, from which addresses, and how long they may send nothing, or not read their answer.

uvicorn limits only the time between two requests: a connection that never sends a whole header stays open for ever, and
so does one that never reads its answer. Once the header is there, the limits of the application hold.
"""

import asyncio
import dataclasses
import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xray.serving.accepting import Places, Throttle, Waiting
from xray.serving.tls import HANDSHAKE

log = logging.getLogger("xray.serving")

TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
WAVE, LONGEST = 10.0, 120
"""Seconds without a connection too many after which pauses begin at the shortest again; the longest pause."""
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
SWEEP = 0.5
"""Seconds between two looks at all connections."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of connections.

    total: open at a time, each of one address. silent: of these, connections without a request under way, silent_each
    of one address: one more ends the oldest. header_seconds: for the header of a request to come. unread_seconds: in
    which a client has to read its answer at bytes_per_second, if it has not all of it. keep_alive: seconds that a
    connection may wait for its next request.
    """

    total: int = 256
    each: int = 128
    silent: int = 64
    silent_each: int = 32
    header_seconds: float = 10.0
    unread_seconds: float = 20.0
    bytes_per_second: int = 16 * 2**10
    keep_alive: int = 5


class Connections:
    """All connections of a server. clock: seconds."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] | None = None) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._places = Places(self.limits.total, self.limits.each)
        self._waiting = Waiting(self.limits.silent, self.limits.silent_each)
        self._open: set[Guarded] = set()
        self._throttle = Throttle()
        self._sweeping: asyncio.TimerHandle | None = None
        self._n_refused, self._refused_at = 0, 0.0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def now(self) -> float:
        """The time, in seconds."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    def opened(self, connection: "Guarded") -> bool:
        """Whether there is room for a connection."""
        if not self._places.take(connection.address):
            if self._throttle.is_due(self.now()):
                log.warning("connections are refused: too many are open")
            return False
        self._open.add(connection)
        self.waits(connection, self.limits.header_seconds)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        return True

    def pause(self) -> int:
        """Seconds after which a client that was refused may come back: they come one after the other, not together."""
        now = self.now()
        self._n_refused = self._n_refused + 1 if now - self._refused_at < WAVE else 1
        self._refused_at = now
        return min(LONGEST, 2 + self._n_refused // 16)

    def waits(self, connection: "Guarded", seconds: float) -> None:
        """A connection has no request under way: it has so many seconds to send a header."""
        if connection in self._open:
            connection.deadline = self.now() + seconds
            self._waiting.add(connection, connection.address, connection.end)

    def has_request(self, connection: "Guarded") -> None:
        """The header of a request is there: from now on the application's limits hold."""
        connection.deadline = None
        self._waiting.remove(connection)

    def closed(self, connection: "Guarded") -> None:
        """A connection is gone."""
        if connection in self._open:
            self._open.discard(connection)
            self._waiting.remove(connection)
            self._places.give(connection.address)

    def sweep(self) -> None:
        """Ends the connections whose time is over."""
        now = self.now()
        for connection in list(self._open):
            connection.check(now)

    def _sweep(self) -> None:
        self._sweeping = None
        self.sweep()
        if self._open:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP, self._sweep)


class Guarded(H11Protocol):
    """uvicorn's HTTP connection, within the limits."""

    def __init__(self, *arguments: Any, guard: Connections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.guard = guard
        self.address = ""
        self.deadline: float | None = None
        self._is_heard = False
        self._unread: tuple[int, float] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self.guard.opened(self):
            transport.write(TOO_MANY % self.guard.pause())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._is_heard = True
        super().data_received(data)
        if self._is_at_work:
            self.guard.has_request(self)

    def on_response_complete(self) -> None:
        """As in uvicorn; what comes next is the rest of this request, or the next one."""
        super().on_response_complete()
        if self._is_at_work:
            return
        self._is_heard = False
        limits = self.guard.limits
        self.guard.waits(self, limits.keep_alive + limits.header_seconds)

    @property
    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def end(self) -> None:
        """Ends a connection without a request under way."""
        if self.transport.is_closing():
            return
        if self._is_heard:
            self.transport.write(TOO_LATE)
        self.transport.close()

    def check(self, now: float) -> None:
        """Ends the connection if its time is over."""
        if self.deadline is not None and now > self.deadline:
            self.deadline = None
            self.end()
        limits = self.guard.limits
        n_bytes = self.transport.get_write_buffer_size()
        # Meanwhile the application writes no more: uvicorn has paused it, or the connection is being closed.
        if not n_bytes or not (self.flow.write_paused or self.transport.is_closing()):
            self._unread = None
        elif self._unread is None:
            self._unread = (n_bytes, now)
        elif (elapsed := now - self._unread[1]) >= limits.unread_seconds:
            if self._unread[0] - n_bytes < elapsed * limits.bytes_per_second:
                self.transport.abort()
            self._unread = (n_bytes, now)


class Server(uvicorn.Server):
    """uvicorn's server, whose loop logs the type of a failure, once a minute, and nothing of the request."""

    async def startup(self, sockets: Any = None) -> None:
        throttle = Throttle()
        loop = asyncio.get_running_loop()
        if self.config.ssl is not None:
            # asyncio would wait for a minute.
            listen = functools.partial(loop.create_server, ssl_handshake_timeout=HANDSHAKE)
            loop.create_server = listen  # type: ignore[method-assign]

        def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if throttle.is_due(loop.time()):
                log.error("a connection failed (%s)", type(context.get("exception")).__name__)

        loop.set_exception_handler(tell)
        await super().startup(sockets)


def server_of(app: Any, grace: float, limits: Limits | None = None, tls: ssl.SSLContext | None = None) -> Server:
    """A server that can be run on a listening socket.

    grace: seconds for answers under way, once it is to end. tls: for HTTPS; None for HTTP.
    """
    guard = Connections(limits)
    config = uvicorn.Config(
        app,
        http=functools.partial(Guarded, guard=guard),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="off",
        # No log of addresses, names of files, or what is sent in place of HTTP.
        log_level="error",
        log_config=None,
        access_log=False,
        server_header=False,
        # Any client could send the headers that a proxy sets.
        proxy_headers=False,
        timeout_keep_alive=guard.limits.keep_alive,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
        backlog=128,
    )
    config.load()
    config.ssl = tls
    server = Server(config)
    server.guard = guard  # type: ignore[attr-defined]
    return server
