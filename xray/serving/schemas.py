"""The JSON of the API's requests and answers, as its documentation shows it.

What comes back with a request may be hostile: `Given` says how large it may be.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from xray.radiographs.image_check import KINDS
from xray.serving.uploads import FORM, RAW

MAX_FINDINGS = 300
"""Of one radiograph: a report takes time for each."""
MAX_LABELS = 100
MAX_NAME = 64
"""Letters of a category or a label: the meaning of a DICOM code has no more."""

Pixel = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _fitted(what: str) -> Any:
    """A field that is there only where thresholds were fitted for the models."""
    return Field(None, description=f"{what}; only with fitted thresholds", exclude_if=lambda value: value is None)


class Mask(BaseModel):
    """A mask of the whole radiograph as COCO's compressed run lengths."""

    size: tuple[Id, Id] = Field(description="height and width, in original pixels")
    counts: str = Field(description="run lengths down the columns, in COCO's compressed text")


class Finding(BaseModel):
    """One finding."""

    category_id: Id
    category: str
    score: Share = Field(description="confidence")
    box: tuple[Pixel, Pixel, Pixel, Pixel] = Field(description="x1, y1, x2, y2 in original pixels")
    mask: Mask | None = None
    probability: Share | None = _fitted("the score calibrated")
    is_positive: bool | None = _fitted("whether it counts as found")


class Checked(BaseModel):
    """Whether a file is an upright frontal chest radiograph, by its header and its pixels."""

    kind: Annotated[str, Field(max_length=64)] = Field(description=f"one of: {', '.join(KINDS)}")
    frontal: Share = Field(description="probability of the pixels to be a frontal chest, however it lies")
    turned: Literal[0, 90, 180, 270] = Field(description="degrees by which it is turned clockwise, 0 where not sure")
    is_negative: bool = Field(description="whether black and white are exchanged")
    warnings: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] = Field(
        description="sentences about it; empty for an upright frontal chest radiograph"
    )


class Answer(BaseModel):
    """What was found in one radiograph. For research, not for clinical use."""

    width: Id = Field(description="of the radiograph, in original pixels")
    height: Id = Field(description="of the radiograph, in original pixels")
    findings: list[Finding] = Field(description="highest score first; low scores are not left out")
    normal: Share | None = Field(description="probability that there is none of the 14 findings; null if not known")
    labels: dict[str, Share] = Field(description="probabilities of whole radiographs, where a classifier is loaded")
    models: list[str] = Field(description="names of the runs that were used")
    thresholds: dict[str, float | str] = Field(description="how masks were decided, and the page's first confidence")
    seconds: Number = Field(description="from the end of the upload to this answer")
    version: str = Field(description="of xray")
    file_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None,
        description="SHA-256 of the file's bytes: reports are made of this answer and the same file alone",
        exclude_if=lambda value: value is None,
    )
    normal_probability: Share | None = _fitted("normal calibrated")
    label_probabilities: dict[str, Share] | None = _fitted("labels calibrated")
    positive_labels: list[str] | None = _fitted("the labels that count as found")
    image_check: Checked | None = Field(
        None, description="what the file is; only where that is looked at", exclude_if=lambda value: value is None
    )


class GivenFinding(Finding):
    """A finding that came in."""

    category: Name


class Given(Answer):
    """An answer of /predict that came in: the same fields, within limits."""

    findings: Annotated[list[GivenFinding], Field(max_length=MAX_FINDINGS)]  # type: ignore[assignment]
    labels: Annotated[dict[Name, Share], Field(max_length=MAX_LABELS)]
    models: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=MAX_LABELS)]
    thresholds: Annotated[dict[Name, Number | Name], Field(max_length=MAX_LABELS)]
    version: Name
    label_probabilities: Annotated[dict[Name, Share], Field(max_length=MAX_LABELS)] | None = None
    positive_labels: Annotated[list[Name], Field(max_length=MAX_LABELS)] | None = None


class Category(BaseModel):
    """Something that can be found."""

    id: int
    name: str
    colour: str = Field(description="in which pictures draw it, #RRGGBB")


class About(BaseModel):
    """What this server runs, and its limits."""

    models: list[str]
    categories: list[Category]
    has_boxes: bool = Field(description="false where only whole radiographs are judged")
    is_vinbig: bool = Field(description="whether the categories are the 14 findings of Kaggle's submission")
    shown_from: float = Field(description="confidence from which the page shows findings at first")
    max_bytes: int = Field(description="most bytes of a request")
    exports: list[str] = Field(description='what POST /dicom/… can make: "sr", "seg", "gsps", "sc"; POST /fhir: "fhir"')
    version: str
    found_at: str | None = _fitted("operating point at which findings count as found")
    has_card: bool = Field(default=False, description="whether GET /card has the models' card")


class Health(BaseModel):
    """How busy the server is."""

    status: str
    places: int
    taken: int
    waiting: int
    running: int
    dicom: dict[str, int | float] | None = Field(
        None,
        description="the DICOM node's queue, and its counts since the start; only where there is one",
        exclude_if=lambda value: value is None,
    )
    workers: dict[str, int] | None = Field(
        None,
        description="how many workers are wanted and how many are working, whose numbers are added up; only where "
        "there are several",
        exclude_if=lambda value: value is None,
    )


class Progress(BaseModel):
    """How far the server is with a request."""

    state: str = Field(description="receiving, waiting, running or done")
    before: int = Field(description="radiographs before it in the queue")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one line")


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
