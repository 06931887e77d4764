"""What a server tells of its requests: a log without names, and what metrics count.

Method, route, status, time and bytes, and nothing else: no identifier, no query, no address, no name of an account.
"""

import contextlib
import datetime
import json
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xray.errors import InputError
from xray.serving.accepting import Throttle
from xray.serving.routes import OTHER, method_of, route_after, route_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("xray.serving")

GONE = 499
"""Status, as nginx has it, of a request whose client hung up before it got an answer."""
STDERR = "-"


class Observed(NamedTuple):
    """One request. seconds: until the last byte of its answer. received, sent: bytes of the bodies."""

    method: str
    route: str
    status: int
    seconds: float
    received: int
    sent: int


class RequestLog:
    """A line of JSON for each request, to a file that only its owner may read, or to stderr.

    A file that is moved away, as logrotate does it, is opened anew.
    """

    def __init__(self, path: str) -> None:
        """path: of the file, STDERR for stderr. Raises InputError where it cannot be written."""
        self._logger = logging.Logger("xray.requests")
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        if path != STDERR:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
                handler = _Kept(path)
            except OSError as error:
                raise InputError(f"--request-log {path} cannot be written ({error.strerror}): give another") from None
        self._logger.addHandler(handler)

    def __call__(self, one: Observed) -> None:
        """Writes a line."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        content: dict[str, Any] = {"time": now.replace("+00:00", "Z"), "method": one.method, "route": one.route}
        content |= {"status": one.status, "milliseconds": round(1000 * one.seconds, 1)}
        self._logger.info(json.dumps(content | {"received": one.received, "sent": one.sent}))

    def close(self) -> None:
        """Closes the file."""
        for handler in self._logger.handlers:
            # What a full disk did not take before was told then.
            with contextlib.suppress(OSError):
                handler.close()


class _Kept(logging.handlers.WatchedFileHandler):
    """A file whose failures are told once a minute, not with each request."""

    def __init__(self, path: str) -> None:
        super().__init__(Path(path).absolute(), encoding="utf-8")
        self._throttle = Throttle()

    def _open(self) -> Any:
        # As the first time: moved away and made anew, it is still nobody else's.
        return open(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if self._throttle.is_due(time.monotonic()):
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.error("the request log cannot be written: %s", reason)


class Observing:
    """Tells of each request once it is over. to: whom."""

    def __init__(self, app: "ASGIApp", routes: list[Any], to: list[Callable[[Observed], object]]) -> None:
        self.app, self.routes, self.to = app, routes, to

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, path, route = time.perf_counter(), scope["path"], route_of(self.routes, scope)
        status, received, sent = GONE, 0, 0

        async def counting_receive() -> "Message":
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counting_send(message: "Message") -> None:
            nonlocal status, sent
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))

        try:
            await self.app(scope, counting_receive, counting_send)
        finally:
            # Inside the application, the scope may be a copy; where it is not, its route is known by now.
            route = route_after(path, scope) if route == OTHER else route
            one = Observed(method_of(scope), route, status, time.perf_counter() - start, received, sent)
            for tell in self.to:
                tell(one)
