"""Requests by their route, such as /queue/{ticket}, never by their path, which may name a study or a patient."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope

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


def method_of(scope: "Scope") -> str:
    """The method of a request, OTHER for one that HTTP does not have."""
    return scope["method"] if scope["method"] in METHODS else OTHER
