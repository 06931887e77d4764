"""What every request passes first: the name in Host, the page that asks, and what an answer says of a failure.

A page of a foreign site can have its own name lead to 127.0.0.1 (DNS rebinding): the browser then takes it for the
server's own page, and shows it what the server answers. The name in Host gives it away.
"""

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xray.errors import FlagError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
WILDCARDS = ("0.0.0.0", "::", "")
SAGEMAKER = ("/ping", "/invocations", "/execution-parameters")
"""Paths that SageMaker asks for, under a name or address that is not known before."""
DICOMWEB = "/dicom-web"
"""Path of the DICOMweb endpoint, below which a name may lack its port."""

_NAME = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]{2,45}\])"


@dataclasses.dataclass(frozen=True)
class HostNames:
    """Names of a server.

    names: lower-case NAME or NAME:PORT, as in Host. port: it listens at. is_anywhere: whether it listens at all
    addresses of its machine, each of which is then a name, too. is_sagemaker: whether SAGEMAKER's paths go by any.
    """

    names: frozenset[str]
    port: int
    is_anywhere: bool = False
    is_sagemaker: bool = False

    def has(self, hosts: Sequence[str], path: str, server: tuple[str, int | None]) -> bool:
        """Whether a request may be answered. hosts: its Host headers. server: address that it came in at."""
        if self.is_sagemaker and path in SAGEMAKER:
            return True
        is_archive = path.startswith(f"{DICOMWEB}/")
        return len(hosts) == 1 and self.is_own(self.completed(hosts[0], server) if is_archive else hosts[0], server)

    def completed(self, host: str, server: tuple[str, int | None]) -> str:
        """A name of Host with the port that it lacks where it is the server's only with that.

        dicomweb-client (0.61) leaves out every port.
        """
        full = f"{host.strip()}:{self.port}"
        return full if not self.is_own(host, server) and self.is_own(full, server) else host.strip()

    def is_own(self, host: str, server: tuple[str, int | None]) -> bool:
        """Whether a NAME or NAME:PORT is the server's."""
        host = host.strip().lower()
        if host in self.names:
            return True
        address = f"[{server[0]}]" if ":" in server[0] else server[0]
        return self.is_anywhere and host in with_port(address.lower(), self.port)


def with_port(name: str, port: int) -> set[str]:
    """How Host spells a name at a port: clients leave out port 80."""
    return {f"{name}:{port}"} | ({name} if port == 80 else set())


def host_names(host: str, port: int, given: Sequence[str] = (), is_sagemaker: bool = False) -> HostNames:
    """The names of a server that listens at `host`, `port`. given: more of them, NAME or NAME:PORT.

    A name without a port is allowed as it is, as behind a proxy at the port of http or https, which some proxies add,
    and with `port`. Raises FlagError for what is no name.
    """
    bracketed = host if ":" not in host else f"[{host.strip('[]')}]"
    names = set[str]()
    for name in (*LOOPBACK, *(() if host in WILDCARDS else (bracketed,))):
        names |= with_port(name.lower(), port)
    for name in given:
        match = re.fullmatch(rf"({_NAME})(?::(\d{{1,5}}))?", name)
        if match is None or not 0 < int(match[2] or 1) < 65536:
            raise FlagError(f"--host-name is {name!r}: give NAME or NAME:PORT, such as xray.example.org")
        ports = () if match[2] else (port, 80, 443)
        names |= {name.lower(), *(f"{name.lower()}:{number}" for number in ports)}
    return HostNames(frozenset(names), port, host in WILDCARDS, is_sagemaker)


def netloc_of(origin: str) -> str | None:
    """The NAME or NAME:PORT of an Origin, None where it is "null" or anything else."""
    match = re.fullmatch(rf"https?://({_NAME}(?::\d{{1,5}})?)", origin.strip(), re.IGNORECASE)
    return match[1].lower() if match else None


class Guard:
    """Security headers on every answer, no work for other sites' pages, and one line for a failure.

    names: under which the server may be asked; None allows any, where a proxy in front of it checks them.
    """

    def __init__(self, app: "ASGIApp", names: HostNames | None = None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.datastructures import MutableHeaders
        from starlette.responses import JSONResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: "Message") -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refused := self._refusal(scope)) is not None:
            status, line = refused
            # What such a request brings is not read, so its connection cannot be used again.
            answer = JSONResponse({"detail": line}, status, {"connection": "close"})
            await answer(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            # Not its message: that may hold a piece of the request.
            log.error("a request failed: %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            if has_begun:
                # The server sees an answer that does not end, and cuts the connection.
                return
            answer = JSONResponse({"detail": f"the request failed ({type(error).__name__})"}, 500)
            await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: "Scope") -> tuple[int, str] | None:
        """Status and line for a request that is not answered, None for others."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        server = scope.get("server") or ("", None)
        if self.names is not None and not self.names.has(hosts, scope["path"], server):
            return 421, "this server is not known by that name: use another of its names, or start it with --host-name"
        # Browsers send where a request comes from: another site's page shall not use this server's time.
        site = dict(scope["headers"]).get(b"sec-fetch-site", b"same-origin")
        is_other = scope["method"] not in ("GET", "HEAD") and site not in (b"same-origin", b"none")
        if is_other or not all(self._is_own(origin, hosts, server) for origin in origins):
            return 403, "requests from other sites' pages are not answered"
        return None

    def _is_own(self, origin: str, hosts: Sequence[str], server: tuple[str, int | None]) -> bool:
        """Whether an Origin is this server's own page."""
        name = netloc_of(origin)
        if self.names is None:
            # Any name is allowed: the page must have come from the one that it asks.
            return [name] == [host.strip().lower() for host in hosts]
        return name is not None and self.names.is_own(name, server)
