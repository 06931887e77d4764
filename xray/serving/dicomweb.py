"""The server as a small DICOMweb archive of its results (PS3.18): who stores a radiograph finds what was found in it.

    POST /dicom-web/studies                              STOW-RS: radiographs in, each answered before the response
    GET  /dicom-web/studies?…, …/series?…, …/instances?… QIDO-RS: searches among the results
    GET  /dicom-web/studies/UID[/series/UID[/instances/UID]][/metadata], …/frames/1, …/bulkdata/TAG      WADO-RS

A radiograph is deleted once it is answered; its results stay in memory for a while, see `ResultStore`.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from xray.errors import InputError
from xray.files import sha256_of
from xray.outputs.dicom.objects import OwnPictureError, read_source
from xray.outputs.dicom.results import DicomResults
from xray.radiographs.dicom import check_dicom, read_elements
from xray.radiographs.radiograph import RadiographError
from xray.serving.accepting import Places
from xray.serving.dicom_statuses import NO_RESOURCES, NOT_MATCHING, NOT_SUPPORTED, NOT_UNDERSTOOD, PROCESSING
from xray.serving.dicomweb_formats import (
    DICOM_JSON,
    OCTETS,
    choose,
    choose_json,
    choose_octets,
    frames_of,
    metadata_of,
    related,
)
from xray.serving.dicomweb_search import search
from xray.serving.dicomweb_store import FullError, ResultStore, Stored, stored
from xray.serving.request_guard import DICOMWEB, HostNames
from xray.serving.routes import scheme_of
from xray.serving.service import Limits, Service, objects_of
from xray.serving.uploads import arriving, check_head, counted, refusal
from xray.serving.worker import BusyError, RefusedError
from xray.storage.dicomweb.addresses import valid_uid
from xray.storage.dicomweb.multipart import (
    DICOM,
    RELATED,
    MultipartError,
    MultipartReader,
    boundary_of,
    media_type,
    part_type_of,
)

log = logging.getLogger("xray.serving")

ACCEPT = "accept"
"""Query parameter that stands for the header."""
MAX_PARTS = 100
"""Objects of one request."""
ACCEPTED = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)
"""Classes of radiographs, as the DICOM node has them."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one object of a request. storage, uid: "" where it does not say. failure: None where it was
    answered. retry_after: seconds, where it may be sent again then."""

    storage: str = ""
    uid: str = ""
    study: str = ""
    failure: int | None = None
    retry_after: int = 0


class Answering:
    """Radiographs → their results in the store. results: which objects are made."""

    def __init__(self, service: Service, results: DicomResults, store: ResultStore) -> None:
        self._service, self._results, self.store = service, results, store

    def answer(self, path: Path, study: str = "") -> Outcome:
        """Answers the radiograph in a file, and waits for that; any thread may call it.

        study: that the request names, to which the radiograph must belong.
        """
        try:
            source = read_source(path)
        except Exception as error:  # whatever pydicom raises on an element that is none of its type
            storage, uid, its_study = _identifiers(path)
            is_other = isinstance(error, OwnPictureError) or (storage and storage not in ACCEPTED)
            return Outcome(storage, uid, its_study, NOT_SUPPORTED if is_other else NOT_UNDERSTOOD)
        about = (str(source.SOPClassUID), str(source.SOPInstanceUID), str(source.StudyInstanceUID))
        if source.SOPClassUID not in ACCEPTED:
            return Outcome(*about, NOT_SUPPORTED)
        if study not in ("", source.StudyInstanceUID):
            return Outcome(*about, NOT_MATCHING)
        digest = sha256_of(path)
        key = (str(source.StudyInstanceUID), str(source.SOPInstanceUID))
        if self.store.has(key, digest):
            return Outcome(*about)
        try:
            check_dicom(path)
            self.store.check_room()
            made = objects_of(self._service, self._results, path)
            self.store.add(key, digest, map(stored, made.values()))
        except (BusyError, FullError) as error:
            return Outcome(*about, NO_RESOURCES, error.retry_after)
        except RefusedError as error:
            return Outcome(*about, PROCESSING if error.status >= 500 else NOT_UNDERSTOOD)
        except (RadiographError, InputError):
            return Outcome(*about, NOT_UNDERSTOOD)
        except Exception as error:
            # The other objects of a request shall have their answers.
            log.error("a radiograph gave no answer (%s)", type(error).__name__)
            return Outcome(*about, PROCESSING)
        return Outcome(*about)


def add_dicomweb(
    app: FastAPI, service: Service, results: DicomResults, store: ResultStore, names: HostNames | None = None
) -> None:
    """Adds the endpoint to the application of a service that has been entered by the first request.

    results: what is made of each radiograph. names: as for `create_app`.
    """

    def base_of(request: Request) -> str:
        """The address of this endpoint, as the client knows the server."""
        host, server = request.headers.get("host", ""), request.scope.get("server") or ("", None)
        return f"{scheme_of(request)}://{host if names is None else names.completed(host, server)}{DICOMWEB}"

    answering, limits = Answering(service, results, store), service.limits
    places = Places(*limits.uploads)
    routes = APIRouter(prefix=DICOMWEB, tags=["DICOMweb"])

    @routes.post("/studies")
    @routes.post("/studies/{study}")
    async def store_instances(request: Request, study: str = "") -> Response:
        """STOW-RS: takes radiographs; the results of each are there when this answers."""
        client = request.client.host if request.client else ""
        with contextlib.ExitStack() as files, places.taken(client) as has_room:
            if not has_room:
                raise await refusal(request, limits, BusyError(1))
            paths = await _receive(request, limits, service, files)
            outcomes = [await asyncio.to_thread(answering.answer, path, study) for path in paths]
        # Deleted when their time is over, though nobody asks.
        asyncio.get_running_loop().call_later(store.seconds + 1, store.purge)
        return _of_outcomes(outcomes, base_of(request))

    def searching(level: str, is_below: bool = False) -> Any:
        async def search_results(request: Request, study: str = "", series: str = "") -> Response:
            """QIDO-RS: searches among the results."""
            kind, query = choose_json(_accepted(request)), request.query_params.multi_items()
            query = [(name, value) for name, value in query if name != ACCEPT]
            found, has_more = search(store.results(study, series), level, query, base_of(request), is_below)
            said = ["There are more matches: ask with offset"] if has_more else []
            if any(name == "fuzzymatching" and value.lower() == "true" for name, value in query):
                # As PS3.18 8.3.4.2 has it.
                said.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
            answer = JSONResponse(found, media_type=kind)
            for line in said:
                answer.headers.append("Warning", f'299 {request.url.netloc}: "{line}"')
            return answer

        return search_results

    for path, level in (("/studies", "studies"), ("/series", "series"), ("/instances", "instances")):
        routes.get(path)(searching(level))
    routes.get("/studies/{study}/series")(searching("series", True))
    routes.get("/studies/{study}/instances")(searching("instances", True))
    routes.get("/studies/{study}/series/{series}/instances")(searching("instances", True))

    def there(study: str, series: str = "", uid: str = "") -> list[Stored]:
        if not (found := store.results(study, series, uid)):
            raise RefusedError(404, "there is no such result, or its time is over: store the radiograph again")
        return found

    async def metadata(request: Request, study: str, series: str = "", uid: str = "") -> Response:
        """WADO-RS: everything but pixels."""
        kind, base, found = choose_json(_accepted(request)), base_of(request), there(study, series, uid)
        return JSONResponse([metadata_of(one, base) for one in found], media_type=kind)

    async def retrieve(request: Request, study: str, series: str = "", uid: str = "") -> Response:
        """WADO-RS: the objects themselves."""
        found = there(study, series, uid)
        kind = choose(_accepted(request), {one.syntax for one in found}, len(found) == 1)
        if kind == DICOM:
            return Response(found[0].content, media_type=DICOM)
        return related((one.content for one in found), DICOM)

    for path in (
        "/studies/{study}",
        "/studies/{study}/series/{series}",
        "/studies/{study}/series/{series}/instances/{uid}",
    ):
        routes.get(path)(retrieve)
        routes.get(f"{path}/metadata")(metadata)

    @routes.get("/studies/{study}/series/{series}/instances/{uid}/bulkdata/{tag}")
    async def bulk(request: Request, study: str, series: str, uid: str, tag: str) -> Response:
        """WADO-RS: one value of an object's metadata."""
        choose_octets(_accepted(request))
        dataset = there(study, series, uid)[0].dataset
        if not re.fullmatch(r"[0-9A-Fa-f]{8}", tag) or int(tag, 16) not in dataset:
            raise RefusedError(404, "there is no such value")
        value = dataset[int(tag, 16)].value
        if not isinstance(value, bytes):
            raise RefusedError(404, "this value stands in the metadata")
        return related([value], OCTETS)

    @routes.get("/studies/{study}/series/{series}/instances/{uid}/frames/{numbers}")
    async def frames(request: Request, study: str, series: str, uid: str, numbers: str) -> Response:
        """WADO-RS: the pixels of frames, not compressed."""
        one = there(study, series, uid)[0]
        choose_octets(_accepted(request), [one.syntax])
        return related(frames_of(one, numbers), OCTETS)

    app.include_router(routes)


def _accepted(request: Request) -> list[str]:
    """What a client accepts, by the parameter of the address or else by the header (PS3.18 8.3.3.1)."""
    return request.query_params.getlist(ACCEPT) or request.headers.getlist("accept")


async def _receive(request: Request, limits: Limits, service: Service, files: contextlib.ExitStack) -> list[Path]:
    """The objects of a request as files, which `files` deletes. Raises RefusedError."""
    kind = request.headers.get("content-type", "")
    if media_type(kind) not in (RELATED, DICOM):
        line = f"this is {media_type(kind)[:60]!r}: send {RELATED} of {DICOM}"
        raise await refusal(request, limits, RefusedError(415, line))
    if (part := part_type_of(kind)) not in ("", DICOM):
        line = f"its parts are {part[:60]!r}: send {RELATED} of {DICOM}"
        raise await refusal(request, limits, RefusedError(415, line))
    await check_head(request, limits)
    paths: list[Path] = []
    with contextlib.ExitStack() as opened:
        file: Any = None
        async with arriving("request", limits):
            try:
                boundary = boundary_of(kind)
                reader = None if boundary is None else MultipartReader(boundary)
                if reader is None:
                    paths.append(files.enter_context(service.upload()))
                    file = opened.enter_context(paths[-1].open("wb"))
                async for chunk in counted(request, limits):
                    for event in [chunk] if reader is None else reader.feed(chunk):
                        if isinstance(event, bytes):
                            file.write(event)
                        elif event is None:
                            file.close()
                        elif len(paths) == MAX_PARTS:
                            raise RefusedError(413, f"more than {MAX_PARTS} objects: send them in several requests")
                        else:
                            paths.append(files.enter_context(service.upload()))
                            file = opened.enter_context(paths[-1].open("wb"))
                if reader is not None:
                    reader.finish()
                if not paths:
                    raise MultipartError("it has no parts")
            except MultipartError as error:
                raise RefusedError(400, f"the body is damaged: {error}") from None
            except RefusedError as error:
                raise await refusal(request, limits, error) from None
    return paths


def _identifiers(path: Path) -> tuple[str, str, str]:
    """Class, object and study as a file that cannot be used names them, "" for what cannot be read."""
    try:
        elements = read_elements(path, ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"))
        storage, uid, study = (
            valid_uid(str(elements.get(name, ""))) for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
        )
    except Exception:  # whatever pydicom raises on an element that is none of its type
        return "", "", ""
    return storage, uid, study


def _of_outcomes(outcomes: Iterable[Outcome], base: str) -> Response:
    """The answer to a request that stores (PS3.18 10.5.3)."""
    outcomes = list(outcomes)
    failed = [one for one in outcomes if one.failure is not None]
    answer: dict[str, Any] = {}

    def item(one: Outcome) -> dict[str, Any]:
        found = {"00081150": {"vr": "UI", "Value": [one.storage]}, "00081155": {"vr": "UI", "Value": [one.uid]}}
        if one.failure is None:
            return found | {"00081190": {"vr": "UR", "Value": [f"{base}/studies/{one.study}"]}}
        return found | {"00081197": {"vr": "US", "Value": [one.failure]}}

    if stored_ones := [item(one) for one in outcomes if one.failure is None]:
        answer["00081199"] = {"vr": "SQ", "Value": stored_ones}
    if named := [item(one) for one in failed if one.uid]:
        answer["00081198"] = {"vr": "SQ", "Value": named}
    if nameless := [{"00081197": {"vr": "US", "Value": [one.failure]}} for one in failed if not one.uid]:
        answer["0008119A"] = {"vr": "SQ", "Value": nameless}
    status = 200 if not failed else 202 if stored_ones else 409
    headers = {}
    if waits := [one.retry_after for one in failed if one.retry_after]:
        headers["Retry-After"] = str(max(waits))
        status = 503 if len(waits) == len(outcomes) else status
    return JSONResponse(answer, status, headers, DICOM_JSON)
