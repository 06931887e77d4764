"""How the API's documentation shows what is sent and what can go wrong."""

from typing import Any

from xray.serving.schemas import Problem
from xray.serving.uploads import FORM, RAW

FILE = {"type": "string", "format": "binary"}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """The documentation of a request's body. content: media type → its schema."""
    return {"requestBody": {"required": True, "content": content}}


def form(**fields: Any) -> dict[str, Any]:
    """The content of a form with these fields, all of them required. fields: name → schema."""
    return {FORM: {"schema": {"type": "object", "properties": fields, "required": list(fields)}}}


UPLOAD = {kind: {"schema": FILE} for kind in RAW} | form(file=FILE)
"""The content of a request that brings a file, as its body or in a form."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "no file, or a damaged form"},
    408: {"model": Problem, "description": "the file came too slowly"},
    413: {"model": Problem, "description": "too many bytes, counted as they come in"},
    415: {"model": Problem, "description": "neither DICOM nor PNG nor JPEG"},
    422: {"model": Problem, "description": "no radiograph, or a damaged one"},
    429: {"model": Problem, "description": "all places are taken; Retry-After says in how many seconds its turn comes"},
    500: {"model": Problem, "description": "the models failed on this radiograph"},
}
"""Status → what it says, of every request that brings a file."""
