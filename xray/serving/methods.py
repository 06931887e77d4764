"""What is answered to a method that an address does not take, such as a browser's GET of /predict: what to send there.

Starlette's own answer names the methods of a single route, and says nothing of what they take.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.routing import Match, Mount
from starlette.types import Scope

from xray.serving.routes import METHODS, scheme_of
from xray.serving.service import Limits
from xray.serving.uploads import FORM, refusal
from xray.serving.worker import RefusedError

VALUES = {"file": "@radiograph.dcm", "findings": "<answer.json"}
"""Field of a form → what curl is given for it: a file, or the text of one."""


def allowed_at(routes: Iterable[Any], scope: Scope) -> list[str]:
    """The methods that an address takes."""
    # Asked and not read: a router inside another does not show its routes.
    asked = [route for route in _at(routes, scope) if not isinstance(route, Mount)]
    found = {
        method for method in METHODS for route in asked if route.matches({**scope, "method": method})[0] == Match.FULL
    }
    # A folder of files takes GET. Whatever takes GET takes HEAD: see xray.serving.routes.Heads.
    found = found or {"GET"}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def line_for(method: str, allowed: Sequence[str], form: Sequence[str], address: str) -> str:
    """What to do instead. form: the fields of the form that a POST takes, none where it takes no form."""
    if not form or "POST" not in allowed:
        return f"{method} is not answered here: this address takes {', '.join(allowed)}"
    fields = " ".join(f'-F "{name}={VALUES.get(name, "…")}"' for name in form)
    what = "the DICOM file and the answer of /predict" if "findings" in form else "one DICOM, PNG or JPEG file"
    return f"{method} is not answered here: send {what} by POST, such as curl {fields} {address}"


def explaining(routes: Sequence[Any], limits: Limits) -> Callable[[Request, Any], Awaitable[JSONResponse]]:
    """Answers 405 for an application of these routes."""

    async def explain(request: Request, _: Exception) -> JSONResponse:
        # A folder of files has its own name taken off the path, of which /page/predict would be /predict.
        scope = {**request.scope, "root_path": request.scope.get("app_root_path", request.scope.get("root_path", ""))}
        allowed = allowed_at(routes, scope)
        form = [name for route in _at(routes, scope) for name in _form_of(route)]
        line = line_for(
            request.method[:16], allowed, form, f"{scheme_of(request)}://{request.url.netloc}{request.url.path}"
        )
        answer = RefusedError(405, line, {"Allow": ", ".join(allowed)})
        if {"content-length", "transfer-encoding"} & set(request.headers):
            answer = await refusal(request, limits, answer)
        return JSONResponse({"detail": answer.line}, answer.status, answer.headers)

    return explain


def _at(routes: Iterable[Any], scope: Scope) -> list[Any]:
    # PARTIAL is its address with another method.
    return [route for route in routes if route.matches(dict(scope))[0] != Match.NONE]


def _form_of(route: Any) -> list[str]:
    """Fields of the form that a route's documentation has, the file first."""
    content = (getattr(route, "openapi_extra", None) or {}).get("requestBody", {}).get("content", {})
    return list(content.get(FORM, {}).get("schema", {}).get("properties", {}))
