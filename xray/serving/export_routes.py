"""POST /dicom/… and /fhir: the file again, and what of /predict's answer it shall hold, → a DICOM object or FHIR."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from xray.outputs import fhir
from xray.serving import exports
from xray.serving.schemas import FILE, PROBLEMS, body, form

Export = Callable[[Request, str, float | None], Awaitable[Response]]
"""A request, one of the kinds below, and the lowest confidence that was asked for → what is answered."""
Lowest = Annotated[
    float | None,
    Query(ge=0, le=1, description="lowest confidence of a finding; by default what the answer's own thresholds show"),
]
ROUTES = {
    "sr": ("structured_report", "A DICOM SR (TID 1500)"),
    "seg": ("segmentation", "A DICOM SEG of masks"),
    "gsps": ("presentation_state", "A DICOM presentation state (boxes, names, outlines of masks)"),
    "sc": ("picture", "A DICOM secondary capture, the findings drawn on the radiograph"),
    "fhir": ("bundle", "FHIR R5, a Bundle"),
}
"""Kind → the name of its route, and what it gives."""
_FINDINGS = {"type": "string", "description": "the answer of /predict, JSON"}


def media_type_of(kind: str) -> str:
    """What a kind is answered as."""
    return fhir.MEDIA_TYPE if kind == "fhir" else exports.MEDIA_TYPE


def add_exports(app: FastAPI, export: Export) -> None:
    """Adds an address for each kind."""
    for kind, (name, what) in ROUTES.items():
        is_fhir = kind == "fhir"
        content = {media_type_of(kind): {"schema": {"type": "object"} if is_fhir else FILE}}
        app.add_api_route(
            "/fhir" if is_fhir else f"/dicom/{kind}",
            _endpoint(export, kind),
            methods=["POST"],
            name=name,
            description=f"{what}: send the DICOM file again, and what it shall hold of /predict's answer.",
            responses={**PROBLEMS, 200: {"content": content}},
            response_class=Response,
            openapi_extra=body(form(file=FILE, findings=_FINDINGS)),
            tags=["FHIR" if is_fhir else "DICOM"],
        )


def _endpoint(export: Export, kind: str) -> Callable[..., Any]:
    async def endpoint(request: Request, threshold: Lowest = None) -> Response:
        return await export(request, kind, threshold)

    return endpoint
