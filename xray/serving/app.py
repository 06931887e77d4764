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

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

import xray
from xray.files import sha256_of
from xray.outputs.dicom.objects import Algorithm
from xray.serving import exports, invocations, methods, pixels
from xray.serving.accepting import Places
from xray.serving.answers import answer, given_findings
from xray.serving.export_routes import add_exports, media_type_of
from xray.serving.invocations import Address
from xray.serving.operations import Operations
from xray.serving.request_guard import Guard, HostNames
from xray.serving.routes import Heads, Slashes
from xray.serving.schemas import FILE, PROBLEMS, UPLOAD, Answer, Problem, Progress, body
from xray.serving.service import Limits, Service, of_file, readable
from xray.serving.state_routes import add_state
from xray.serving.tickets import Tickets
from xray.serving.turns import Turns, key_of
from xray.serving.uploads import GONE, arriving, counted, refusal, save_upload
from xray.serving.worker import BusyError, RefusedError

T = TypeVar("T")
Save = Callable[..., Awaitable[Mapping[str, str]]]
"""`save_upload`, or what stands in for it."""

PAGE = Path(__file__).parent / "page"
TICKET = r"[A-Za-z0-9-]{8,64}"

_INVOCATIONS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {
        "content": {
            invocations.CSV: {"schema": {"type": "string"}},
            invocations.DICOM: {"schema": FILE},
            invocations.FHIR: {"schema": {"type": "object"}},
        }
    },
    403: {"model": Problem, "description": "an address in a bucket that this server does not read from"},
    406: {"model": Problem, "description": "findings cannot be had in the format that Accept asks for"},
    502: {"model": Problem, "description": "S3 does not answer, or not as it should"},
    504: {"model": Problem, "description": "S3 is too slow"},
}


def create_app(
    service: Service,
    algorithm: Algorithm | None = None,
    names: HostNames | None = None,
    operations: Operations | None = None,
    node: Callable[[], dict[str, int | float]] | None = None,
) -> FastAPI:
    """The application; the service must be entered before the first request.

    algorithm: what DICOM objects name as their maker; without one there are none. names: under which the server may be
    asked; None allows any. operations: accounts, request log, metrics and card; None for none of them. node:
    `DicomNode.status` of the DICOM node beside it.
    """
    operations = operations or Operations()
    app = FastAPI(
        title="xray",
        version=xray.__version__,
        description="Findings of chest radiographs. **Not for clinical use.** Files are sent as the body of a request "
        "or in a form, and are forgotten once it is answered.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    # The last one that is added is the first to see a request.
    app.add_middleware(Heads)
    operations.protect(app)
    app.add_middleware(Guard, names=names)
    operations.observe(app)
    app.add_middleware(Slashes)
    limits, pipeline = service.limits, service.pipeline
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_wrong_parameter)
    app.exception_handler(405)(methods.explaining(app.router.routes, limits))
    shown = (service.thresholds, service.shown_from)
    tickets = Tickets(operations.tickets)
    uploads = Places(*limits.uploads)
    turns = Turns(lambda: service.model.free, lambda: service.model.seconds)
    # Files that are only decoded take no place from those for the models, but are bounded too.
    decodings = Places(limits.places, limits.places)

    @contextlib.asynccontextmanager
    async def room(request: Request, places: Places, address: str = "") -> AsyncIterator[None]:
        with places.taken(address) as has_room:
            if not has_room:
                raise await refusal(request, limits, BusyError(1))
            yield

    async def save(request: Request, path: Path, how: Save = save_upload, **options: bool) -> Mapping[str, str]:
        # The places of `service.model` are for work: a client that still sends has one of these instead.
        async with room(request, uploads, request.client.host if request.client else ""):
            return await how(request, path, limits, **options)

    async def unless_gone(request: Request, future: "Future[T]") -> T:
        """The result of a future; where the client hangs up first, the work on it ends."""
        try:
            return await until_gone(request, future)
        finally:
            service.drop(future)

    async def in_worker(request: Request, work: Callable[[Path], Any], path: Path) -> Any:
        return readable(await unless_gone(request, service.in_worker(work, path)), path)

    async def find(
        request: Request, ticket: str | None, how: Save = save_upload, kind: str = invocations.JSON
    ) -> Answer | Response:
        with _noted(tickets, ticket), service.upload() as path:
            try:
                key = key_of(ticket, request.client.host if request.client else "")
                # A request that cannot be answered anyway need not be read.
                turns.ask(key)
                try:
                    await save(request, path, how)
                except BusyError:
                    turns.ask(key, has_room=False)
                place = await turns.enter(service.model.enter, request.is_disconnected)
            except BusyError as error:
                raise await refusal(request, limits, error) from None
            with place:
                if ticket is not None:
                    tickets[ticket] = place
                start = time.perf_counter()
                decoded = readable(await unless_gone(request, service.canvas(path)), path)
                size = (decoded.width, decoded.height)
                findings = await unless_gone(request, place.submit(decoded.canvas, decoded.size_on_canvas))
                findings, seconds = of_file(findings, decoded), time.perf_counter() - start
                told = (decoded.check, await asyncio.to_thread(sha256_of, path))
                result = answer(findings, size, pipeline, service.models, seconds, *shown, *told)
                if kind in invocations.REPORTS:
                    assert algorithm is not None  # or it is not offered
                    work = invocations.report_of(result, pipeline, algorithm, kind)
                    return Response(await in_worker(request, work, path), media_type=kind)
        return Response(invocations.csv_of(result), media_type=kind) if kind == invocations.CSV else result

    @app.post(
        "/predict",
        response_model=Answer,
        responses=PROBLEMS,
        openapi_extra=body(UPLOAD),
        tags=["findings"],
    )
    async def predict(request: Request, x_ticket: Annotated[str | None, Header()] = None) -> Answer | Response:
        """Finds what a radiograph shows. One DICOM, PNG or JPEG file, as the body or in a form.

        A caller that sends an X-Ticket, any unique text of 8 to 64 letters, digits and dashes, may ask
        /queue/{ticket} meanwhile. A request whose client hangs up is dropped.
        """
        return await find(request, x_ticket)

    @app.post(
        "/invocations",
        response_model=Answer,
        responses=_INVOCATIONS,
        openapi_extra=body(UPLOAD | {invocations.JSON: {"schema": Address.model_json_schema()}}),
        tags=["SageMaker"],
    )
    async def invoke(request: Request) -> Answer | Response:
        """The same as /predict, under the name that SageMaker asks of a container.

        The body may also be the s3:// address of a file, in JSON. The answer is JSON, CSV, a DICOM SR or FHIR R5, as
        Accept asks for it; SR and FHIR hold the findings from the confidence with which the page begins.
        """
        try:
            kind = invocations.choose(",".join(request.headers.getlist("accept")), invocations.offered(algorithm))
        except RefusedError as error:
            raise await refusal(request, limits, error) from None
        return await find(request, None, _save_object_or_upload, kind)

    add_state(app, service, operations, node, list(exports.EXPORTS) if algorithm else [])

    @app.get("/queue/{ticket}", tags=["findings"], responses={404: {"model": Problem}})
    async def queue(ticket: str) -> Progress:
        """How far the server is with a request."""
        found = tickets.state(ticket, service.model.load["waiting"])
        if found is None:
            raise RefusedError(404, "no request with this ticket is being answered")
        return Progress(state=found[0], before=found[1])

    @app.post(
        "/pixels",
        responses={**PROBLEMS, 200: {"content": {pixels.MEDIA_TYPE: {"schema": FILE}}}},
        response_class=Response,
        openapi_extra=body(UPLOAD),
        tags=["findings"],
        description=pixels.FORMAT,
    )
    async def samples(request: Request) -> Response:
        with service.upload() as path:
            await save(request, path)
            async with room(request, decodings):
                return Response(await in_worker(request, pixels.pixels_of, path), media_type=pixels.MEDIA_TYPE)

    async def export(request: Request, kind: str, threshold: float | None) -> Response:
        assert algorithm is not None  # or its addresses are not there
        with service.upload() as path:
            fields = await save(request, path, with_fields=True)
            async with room(request, decodings):
                # Megabytes of JSON take a while: in a thread, so that other requests need not wait.
                about_models = (pipeline.categories, threshold, pipeline.has_places)
                given = await asyncio.to_thread(given_findings, fields, *about_models)
                work = functools.partial(exports.EXPORTS[kind], *given, algorithm)
                return Response(await in_worker(request, work, path), media_type=media_type_of(kind))

    if algorithm is not None:
        add_exports(app, export)

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    operations.add_routes(app)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def until_gone(request: Request, future: "Future[T]") -> T:
    """The result of a future, for as long as the client waits for it."""
    result = asyncio.ensure_future(asyncio.wrap_future(future))
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise RefusedError(GONE, "the client hung up")
    finally:
        gone.cancel()
        result.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextlib.contextmanager
def _noted(tickets: Tickets, ticket: str | None) -> Iterator[None]:
    """Lets /queue find a request by its ticket."""
    if ticket is None:
        yield
        return
    if not re.fullmatch(TICKET, ticket) or ticket in tickets:
        raise RefusedError(400, "X-Ticket must be 8 to 64 letters, digits and dashes, and not be in use")
    tickets[ticket] = None
    try:
        yield
    finally:
        del tickets[ticket]


async def _save_object_or_upload(request: Request, path: Path, limits: Limits) -> Mapping[str, str]:
    """`save_upload`, or the S3 object that the request names in JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != invocations.JSON:
        return await save_upload(request, path, limits)
    small = dataclasses.replace(limits, max_bytes=invocations.MAX_ADDRESS)
    async with arriving("address", limits):
        body = b"".join([chunk async for chunk in counted(request, small)])
    wanted = invocations.object_of(body)
    with path.open("wb") as file:
        await asyncio.to_thread(invocations.fetch, wanted, file, limits.max_bytes)
    return {}


async def _refused(request: Request, error: RefusedError) -> JSONResponse:
    return JSONResponse({"detail": error.line}, error.status, error.headers)


async def _wrong_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
    """One line that says what is wrong in an address or a header; what was sent, any text, is not repeated."""
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"][1:]) or "the request"
    return JSONResponse({"detail": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422)
