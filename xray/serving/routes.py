"""Requests by their route, such as /queue/{ticket}, never by their path, which may name a study or a patient."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNKNOWN = "unknown"
"""Of a request that no route is for."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
OTHER = "other"


def route_of(routes: Iterable[Any], scope: "Scope") -> str:
    """The template of the first of an application's routes that a request is for."""
    from starlette.routing import Match

    for route in routes:
        match, _ = route.matches(dict(scope))
        if match != Match.NONE:
            template = getattr(route, "path_format", None)
            return str(template) if template else OTHER
    return UNKNOWN


def route_after(path: str, scope: "Scope") -> str:
    """The same of a router inside another, which tells its parameters only once it was asked; OTHER where it was not.

    path: of the request. scope: as the application left it.
    """
    parameters = scope.get("path_params")
    if "endpoint" not in scope or not isinstance(parameters, dict):
        return OTHER
    for name, value in sorted(parameters.items(), key=lambda item: -len(str(item[1]))):
        if str(value):
            path = path.replace(str(value), f"{{{name}}}")
    return path


def scheme_of(request: "Request") -> str:
    """How the client reached the server, a proxy with HTTPS between them. A lie of its own misleads nobody else."""
    told = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return told if told in ("http", "https") else request.url.scheme


def method_of(scope: "Scope") -> str:
    """The method of a request, OTHER for one that HTTP does not have."""
    return scope["method"] if scope["method"] in METHODS else OTHER


class Slashes:
    """Answers an address with a slash at its end as the one without: some clients of DICOMweb ask so.

    To send them there by a redirect would need the address by which the client knows the server, which behind a proxy
    with HTTPS is another one.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self.app(scope, receive, send)


class Heads:
    """Answers HEAD as GET, without the body (RFC 9110 9.3.2): load balancers and monitors ask so."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: "Message") -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)
