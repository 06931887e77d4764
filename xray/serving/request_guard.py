"""What every request passes first: under which name the server was asked, from whose page, and what a failure tells."""

import logging
from collections.abc import Sequence

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xray.serving.host_names import HostNames, netloc_of

log = logging.getLogger("xray.serving")

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Guard:
    """Security headers on every answer, no work for other sites' pages, and one line for a failure.

    names: under which the server may be asked; None lets any be, where something before it sees to that.
    """

    def __init__(self, app: ASGIApp, names: HostNames | None = None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                present = {name.lower() for name, _ in message["headers"]}
                own = ((name.encode(), value.encode()) for name, value in HEADERS.items())
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in present)]
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            status, line = refused
            # What such a request brings is not read, so its connection cannot be used again.
            answer = JSONResponse({"detail": line}, status, {"connection": "close"})
            await answer(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            # Not what it says: that may be a piece of the request.
            log.error("a request failed: %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            if has_begun:
                # The server sees an answer that does not end, and cuts the connection.
                return
            answer = JSONResponse({"detail": f"the request failed ({type(error).__name__})"}, 500)
            await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and line for a request that is not answered, None for others."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        server = scope.get("server") or ("", None)
        if self.names is not None and not self.names.has(hosts, scope["path"], server):
            return 421, "this server does not go by that name: ask by one of its own, or start it with --host-name"
        # Browsers say where a request comes from: another site's page shall not spend this server's time.
        site = dict(scope["headers"]).get(b"sec-fetch-site", b"same-origin")
        is_other = scope["method"] not in ("GET", "HEAD") and site not in (b"same-origin", b"none")
        if is_other or not all(self._is_own(origin, hosts, server) for origin in origins):
            return 403, "requests from other sites' pages are not answered"
        return None

    def _is_own(self, origin: str, hosts: Sequence[str], server: tuple[str, int | None]) -> bool:
        """Whether an Origin is this server's own page."""
        name = netloc_of(origin)
        if name is None:
            return False
        if self.names is not None and self.names.is_own(name, server):
            return True
        # Where any name will do, a page and what it asks are of one.
        return self.names is None and [name] == [host.strip().lower() for host in hosts]
