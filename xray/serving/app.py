"""The HTTP API, and the page on top of it. Nothing of a request is kept once it is answered."""

import asyncio
import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import xray
from xray.outputs.dicom_objects import Algorithm
from xray.serving import exports, invocations, pixels
from xray.serving.answers import About, Answer, Health, Problem, Progress, about, answer, findings_of
from xray.serving.invocations import Address, RefusedError
from xray.serving.service import Limits, Service, UnreadableError, readable
from xray.serving.uploads import FORM, GONE, RAW, counted, refusal, save_upload
from xray.serving.worker import BusyError, ModelError, Place

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
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
TICKET = r"[A-Za-z0-9-]{8,64}"

_FILE = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": _FILE} for kind in RAW}
        | {FORM: {"schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}}},
    }
}
_BODY_OR_ADDRESS = {
    "requestBody": {
        "required": True,
        "content": _BODY["requestBody"]["content"] | {invocations.JSON: {"schema": Address.model_json_schema()}},
    }
}
_BODY_WITH_FINDINGS = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _FILE,
                        "findings": {"type": "string", "description": "the answer of /predict, JSON"},
                    },
                    "required": ["file", "findings"],
                }
            }
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "no file, or a damaged form"},
    408: {"model": Problem, "description": "the file came too slowly"},
    413: {"model": Problem, "description": "too many bytes, counted as they come in"},
    415: {"model": Problem, "description": "neither DICOM nor PNG nor JPEG"},
    422: {"model": Problem, "description": "no radiograph, or a damaged one"},
    429: {"model": Problem, "description": "all places are taken; Retry-After says when to come back, in seconds"},
    500: {"model": Problem, "description": "the models failed on this radiograph"},
}
_INVOCATIONS: dict[int | str, dict[str, Any]] = {
    **_PROBLEMS,
    200: {"content": {invocations.CSV: {"schema": {"type": "string"}}, invocations.DICOM: {"schema": _FILE}}},
    403: {"model": Problem, "description": "an address in a bucket that this server does not read from"},
    406: {"model": Problem, "description": "findings cannot be had in what Accept asks for"},
    502: {"model": Problem, "description": "S3 does not answer, or not as it should"},
    504: {"model": Problem, "description": "S3 is too slow"},
}


def create_app(service: Service, algorithm: Algorithm | None = None) -> FastAPI:
    """The application; the service must be entered before the first request.

    algorithm: what DICOM objects name as their maker; without one there are none.
    """
    app = FastAPI(
        title="xray",
        version=xray.__version__,
        description="Findings of chest radiographs. **Not for clinical use.** Files are sent as the body of a request "
        "or in a form, and are forgotten once it is answered.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.add_middleware(Guard)
    app.exception_handler(UnreadableError)(_unreadable)
    app.exception_handler(ModelError)(_failed)
    app.exception_handler(RefusedError)(_refused)
    limits, pipeline = service.limits, service.pipeline
    tickets: dict[str, Place] = {}
    n_others = 0

    @contextlib.asynccontextmanager
    async def beside_the_models(request: Request) -> AsyncIterator[None]:
        # What is only decoded takes no place from what the models have to look at, but is not without bound either.
        nonlocal n_others
        if n_others >= limits.places:
            raise await busy(request, 1)
        n_others += 1
        try:
            yield
        finally:
            n_others -= 1

    async def busy(request: Request, retry_after: int) -> HTTPException:
        line = f"all places are taken: try again in {retry_after} s"
        return await refusal(request, limits, 429, line, **{"Retry-After": str(retry_after)})

    async def find(
        request: Request,
        ticket: str | None,
        save: Callable[[Request, Path, Limits], Awaitable[object]] = save_upload,
        kind: str = invocations.JSON,
    ) -> Answer | Response:
        try:
            place = service.model.enter()
        except BusyError as error:
            raise await busy(request, error.retry_after) from None
        with place, service.upload() as path, _noted(tickets, ticket, place):
            await save(request, path, limits)
            start = time.perf_counter()
            decoded = readable(await unless_gone(request, service.canvas(path)), path)
            size = (decoded.width, decoded.height)
            found = await unless_gone(request, place.submit(decoded.canvas, size))
            told = answer(found, size, pipeline, service.models, time.perf_counter() - start)
            if kind == invocations.DICOM:
                work = invocations.report_of(found, told, pipeline.categories, algorithm)
                content = readable(await unless_gone(request, service.in_worker(work, path)), path)
                return Response(content, media_type=kind)
        return Response(invocations.csv_of(told), media_type=kind) if kind == invocations.CSV else told

    @app.post("/predict", responses=_PROBLEMS, openapi_extra=_BODY, tags=["findings"])
    async def predict(request: Request, x_ticket: Annotated[str | None, Header()] = None) -> Answer:
        """Finds what a radiograph shows. One DICOM, PNG or JPEG file, as the body or in a form.

        A caller that sends an X-Ticket, any unique text of 8 to 64 letters, digits and dashes, may ask
        /queue/{ticket} meanwhile. A request whose client hangs up is dropped.
        """
        return await find(request, x_ticket)

    @app.post("/invocations", responses=_INVOCATIONS, openapi_extra=_BODY_OR_ADDRESS, tags=["SageMaker"])
    async def invoke(request: Request) -> Answer:
        """The same as /predict, under the name that SageMaker asks of a container.

        What is sent may also be the s3:// address of a file, in JSON; what is answered is JSON, CSV, or a DICOM SR of
        findings from the confidence with which the page begins, as Accept asks for it.
        """
        try:
            kind = invocations.choose(",".join(request.headers.getlist("accept")), invocations.offered(algorithm))
        except RefusedError as error:
            raise await refusal(request, limits, error.status, error.line) from None
        return await find(request, None, _save_object_or_upload, kind)

    @app.get("/execution-parameters", tags=["SageMaker"])
    async def execution_parameters() -> dict[str, int | str]:
        """How a batch transform should ask: one radiograph a request, as many at a time as decoding workers."""
        n_megabytes = max(1, min(100, limits.max_bytes // 2**20))
        n = limits.n_workers
        return {"MaxConcurrentTransforms": n, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": n_megabytes}

    @app.get("/ping", tags=["SageMaker"])
    async def ping() -> Response:
        """Whether the models are loaded and at work: 200, or 503."""
        return Response(status_code=200 if service.model.is_alive else 503)

    @app.get("/health", tags=["server"], responses={503: {"model": Health}})
    async def health() -> Health:
        """Whether the server works, and how busy it is."""
        alive = service.model.is_alive
        state = Health(status="ok" if alive else "stopped", **service.model.load)
        return state if alive else JSONResponse(state.model_dump(), 503)

    @app.get("/about", tags=["server"])
    async def describe() -> About:
        """What this server runs, and its limits."""
        return about(pipeline, service.models, limits.max_bytes, ["sr", "seg"] if algorithm else [])

    @app.get("/queue/{ticket}", tags=["findings"], responses={404: {"model": Problem}})
    async def queue(ticket: str) -> Progress:
        """Where a request is that is being answered."""
        if (place := tickets.get(ticket)) is None:
            raise HTTPException(404, "no request with this ticket is being answered")
        state, before = place.state
        return Progress(state=state, before=before)

    @app.post(
        "/pixels",
        responses={**_PROBLEMS, 200: {"content": {pixels.MEDIA_TYPE: {"schema": _FILE}}}},
        response_class=Response,
        openapi_extra=_BODY,
        tags=["findings"],
        description=pixels.FORMAT,
    )
    async def samples(request: Request) -> Response:
        async with beside_the_models(request):
            with service.upload() as path:
                await save_upload(request, path, limits)
                content = readable(await unless_gone(request, service.in_worker(pixels.pixels_of, path)), path)
        return Response(content, media_type=pixels.MEDIA_TYPE)

    async def export(request: Request, kind: str) -> Response:
        async with beside_the_models(request):
            with service.upload() as path:
                fields = await save_upload(request, path, limits, with_fields=True)
                given = _given(fields)
                found = findings_of(given)
                if kind == "seg":
                    work = functools.partial(
                        exports.segmentation_of, found.table, found.masks, pipeline.categories, algorithm
                    )
                else:
                    work = functools.partial(
                        exports.structured_report_of, found.table, given.labels, pipeline.categories, algorithm
                    )
                content = readable(await unless_gone(request, service.in_worker(work, path)), path)
        return Response(content, media_type=exports.MEDIA_TYPE)

    if algorithm is not None:
        dicom: dict[str, Any] = {
            "responses": {**_PROBLEMS, 200: {"content": {exports.MEDIA_TYPE: {"schema": _FILE}}}},
            "response_class": Response,
            "openapi_extra": _BODY_WITH_FINDINGS,
            "tags": ["DICOM"],
        }

        @app.post("/dicom/sr", **dicom)
        async def structured_report(request: Request) -> Response:
            """A DICOM SR (TID 1500): send the DICOM file again, and of /predict's answer what is to be in it."""
            return await export(request, "sr")

        @app.post("/dicom/seg", **dicom)
        async def segmentation(request: Request) -> Response:
            """A DICOM SEG of masks: send the DICOM file again, and of /predict's answer what is to be in it."""
            return await export(request, "seg")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def unless_gone(request: Request, future: "Future[T]") -> T:
    """The result of a future; where the client hangs up first, the future is cancelled."""
    result = asyncio.ensure_future(asyncio.wrap_future(future))
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise HTTPException(GONE, "the client hung up")
    finally:
        gone.cancel()
        result.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextlib.contextmanager
def _noted(tickets: dict[str, Place], ticket: str | None, place: Place) -> Iterator[None]:
    """Has a place found by its ticket."""
    if ticket is None:
        yield
        return
    if not re.fullmatch(TICKET, ticket) or ticket in tickets:
        raise HTTPException(400, "X-Ticket must be 8 to 64 letters, digits and dashes, and not be in use")
    tickets[ticket] = place
    try:
        yield
    finally:
        del tickets[ticket]


def _given(fields: Mapping[str, str]) -> Answer:
    """The findings that came with a file."""
    if "findings" not in fields:
        raise HTTPException(400, "the form has no field findings: send the answer of /predict in it")
    try:
        return Answer.model_validate_json(fields["findings"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise HTTPException(400, f"the findings are no answer of /predict ({where}: {first['msg']})"[:300]) from None


async def _save_object_or_upload(request: Request, path: Path, limits: Limits) -> None:
    """`save_upload`, or the S3 object that the request names in JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != invocations.JSON:
        await save_upload(request, path, limits)
        return
    small = dataclasses.replace(limits, max_bytes=invocations.MAX_ADDRESS)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            body = b"".join([chunk async for chunk in counted(request, small)])
    except TimeoutError:
        raise HTTPException(408, "the address came too slowly", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(GONE, "the client hung up") from None
    wanted = invocations.object_of(body)
    with path.open("wb") as file:
        await asyncio.to_thread(invocations.fetch, wanted, file, limits.max_bytes)


async def _unreadable(request: Request, error: UnreadableError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, invocations.status_of(error))


async def _refused(request: Request, error: RefusedError) -> JSONResponse:
    return JSONResponse({"detail": error.line}, error.status)


async def _failed(request: Request, error: ModelError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 500)


class Guard:
    """Security headers on every answer, and no work for other sites' pages."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                own = ((name.encode(), value.encode()) for name, value in HEADERS.items())
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in present)]
            await send(message)

        # Browsers say where a request comes from: another site's page shall not spend this server's time.
        site = dict(scope["headers"]).get(b"sec-fetch-site", b"same-origin")
        if scope["method"] == "POST" and site not in (b"same-origin", b"none"):
            refused = JSONResponse({"detail": "requests from other sites' pages are not answered"}, 403)
            await refused(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)
