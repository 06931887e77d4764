"""Findings that come back with a request for a DICOM object: anyone's JSON, bounded before any work begins."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xray.inference.pipeline import Findings
from xray.radiographs.dicom import MAX_PIXELS
from xray.serving.answers import Answer, Mask, Pixel, Share, findings_of

MAX_BYTES = 16 * 2**20
"""Of the JSON: some ten times what the finest masks of a radiograph take."""
MAX_FINDINGS = 300
"""Of one radiograph. A report takes time for each, and nobody reads more."""
MAX_LABELS = 100
MAX_NAME = 64
"""Letters of a category, a label or a model: a DICOM code's meaning has no more."""
MAX_MASK_PIXELS = 10 * MAX_PIXELS
"""Of all masks together."""

Id = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class GivenMask(Mask):
    """A mask that came in."""

    size: tuple[Id, Id]
    counts: Annotated[str, Field(max_length=MAX_BYTES)]


class GivenFinding(BaseModel):
    """A finding that came in."""

    category_id: Id
    category: Name
    score: Share
    box: tuple[Pixel, Pixel, Pixel, Pixel]
    mask: GivenMask | None = None


class Given(BaseModel):
    """An answer of /predict that came in: the same fields, within limits."""

    model_config = ConfigDict(allow_inf_nan=False)

    width: Id
    height: Id
    findings: Annotated[list[GivenFinding], Field(max_length=MAX_FINDINGS)]
    normal: Share | None
    labels: Annotated[dict[Name, Share], Field(max_length=MAX_LABELS)]
    models: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=MAX_LABELS)]
    thresholds: Annotated[dict[Name, Number | Name], Field(max_length=MAX_LABELS)]
    seconds: Number
    version: Name


def given_findings(fields: Mapping[str, str]) -> tuple[Given, Findings]:
    """The findings that came with a file. Raises HTTPException: 400 for none, 413 for more than can be worked on."""
    if "findings" not in fields:
        raise HTTPException(400, "the form has no field findings: send the answer of /predict in it")
    text = fields["findings"]
    if len(text) > MAX_BYTES:
        raise HTTPException(413, f"the findings have more than the {MAX_BYTES >> 20} MiB allowed")
    try:
        given = Given.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        status = 413 if first["type"] in ("too_long", "string_too_long") else 400
        line = f"the findings are no answer of /predict ({where}: {first['msg']})"[:300]
        raise HTTPException(status, sayable(line)) from None
    except (ValueError, RecursionError):
        # What stands in the text is no Unicode, or is nested beyond all sense.
        raise HTTPException(400, "the findings are no answer of /predict (JSON: it cannot be read)") from None
    sizes = [finding.mask.size for finding in given.findings if finding.mask is not None]
    if sum(height * width for height, width in sizes) > MAX_MASK_PIXELS:
        raise HTTPException(413, f"the masks have more than {MAX_MASK_PIXELS // 10**6} million pixels together")
    return given, findings_of(Answer.model_validate(given.model_dump()))


def sayable(line: str) -> str:
    """A line that can be sent, whatever letters a client made it of."""
    return " ".join(line.encode("utf-8", "replace").decode().split())
