"""What the API answers, as its documentation shows it; how findings become such an answer, and the way back.

The JSON of an answer that comes back with a request may be hostile: it is bounded before any work begins.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

import xray
from xray.findings import NO_FINDING_BOX, colour_of
from xray.inference.findings import Findings
from xray.inference.pipeline import Pipeline
from xray.outputs.dicom.reported import has_label
from xray.radiographs.dicom import MAX_PIXELS
from xray.radiographs.image_check import KINDS, ImageCheck
from xray.serving.exports import FoundIn
from xray.serving.worker import RefusedError
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings
from xray.structures.thresholds import SHOWN_FROM, Thresholds

MAX_BYTES = 16 * 2**20
"""Of the JSON: some ten times what the finest masks of a radiograph take."""
MAX_FINDINGS = 300
"""Of one radiograph: a report takes time for each."""
MAX_LABELS = 100
MAX_NAME = 64
"""Letters of a category or a label: the meaning of a DICOM code has no more."""
MAX_MASK_PIXELS = 10 * MAX_PIXELS
"""Of all masks together."""

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


def about(
    pipeline: Pipeline,
    models: Sequence[str],
    max_bytes: int,
    exports: Sequence[str],
    fitted: Thresholds | None = None,
    shown_from: float = SHOWN_FROM,
) -> About:
    """Describes what is loaded. fitted, shown_from: as `Service` has them."""
    return About(
        models=list(models),
        categories=[
            Category(id=number, name=name, colour=colour_of(number)) for number, name in pipeline.categories.items()
        ],
        has_boxes=pipeline.has_places,
        is_vinbig=pipeline.is_vinbig,
        shown_from=shown_from,
        max_bytes=max_bytes,
        exports=list(exports),
        version=xray.__version__,
        found_at=fitted.at if fitted is not None and fitted.from_probability is None else None,
    )


def answer(
    outcome: Findings,
    size: tuple[int, int],
    pipeline: Pipeline,
    models: Sequence[str],
    seconds: float,
    fitted: Thresholds | None = None,
    shown_from: float = SHOWN_FROM,
    check: ImageCheck | None = None,
    sha256: str | None = None,
) -> Answer:
    """The answer for the findings of one radiograph; size: its width and height.

    fitted, shown_from: as `Service` has them. check: what the file is, None where that was not looked at. sha256: of
    the file.
    """
    table, findings, normal = outcome.table, [], None
    more: dict[str, Any] = {}
    calibrated: list[dict[str, Any]] = [{}] * len(table)
    if fitted is not None:
        probabilities = fitted.probabilities(table, pipeline.categories).round(6).tolist()
        positive = fitted.is_positive(table, pipeline.categories).tolist()
        calibrated = [
            {"probability": probability, "is_positive": is_positive}
            for probability, is_positive in zip(probabilities, positive, strict=True)
        ]
        scores = {name: float(column[0]) for name, column in outcome.labels.items()}
        more["label_probabilities"] = {k: round(v, 6) for k, v in fitted.probabilities_of_labels(scores).items()}
        more["positive_labels"] = fitted.positive_labels(scores)
    for row in (-table.scores).argsort(kind="stable").tolist():
        label, score = int(table.labels[row]), round(float(table.scores[row]), 6)
        if label == NO_FINDING_CATEGORY and label not in pipeline.categories:
            normal = score
            more |= {"normal_probability": calibrated[row]["probability"]} if calibrated[row] else {}
        # The rows of classifiers have the whole radiograph as their box; their probabilities are in the labels.
        elif pipeline.has_places:
            x1, y1, x2, y2 = (round(value, 2) for value in table.boxes[row].tolist())
            name = pipeline.categories.get(label, f"category {label}")
            mask = Mask(**outcome.masks[row]) if row in outcome.masks else None
            box = (x1, y1, x2, y2)
            findings.append(
                Finding(category_id=label, category=name, score=score, box=box, mask=mask, **calibrated[row])
            )
    labels = {name: round(float(column[0]), 6) for name, column in outcome.labels.items()}
    return Answer(
        width=size[0],
        height=size[1],
        findings=findings,
        normal=normal,
        labels=labels,
        models=list(models),
        thresholds=thresholds(pipeline, fitted, shown_from),
        seconds=round(seconds, 3),
        version=xray.__version__,
        file_sha256=sha256,
        image_check=_checked(check),
        **more,
    )


def _checked(check: ImageCheck | None) -> Checked | None:
    if check is None:
        return None
    return Checked(
        kind=check.kind,
        frontal=round(check.frontal, 6),
        turned=(0, 90, 180, 270)[check.turn],
        is_negative=check.is_negative,
        warnings=list(check.warnings),
    )


def shown_of(
    given: Answer, categories: Mapping[int, str], has_places: bool = True, threshold: float | None = None
) -> RadiographFindings:
    """The way back: what people are shown of an answer, its rows in their order, "No finding" last.

    Where an answer has probabilities, they take the place of scores. categories: id → name. has_places: as of
    `Pipeline`. threshold: lowest score of the findings that count; None for what the answer itself says: those that
    count as found where thresholds were fitted, otherwise from its `shown_from`.
    """
    lowest = given.thresholds.get("shown_from", SHOWN_FROM) if threshold is None else threshold
    lowest = lowest if isinstance(lowest, (int, float)) else SHOWN_FROM
    rows = [
        finding
        for finding in given.findings
        if (finding.score >= lowest if threshold is not None or finding.is_positive is None else finding.is_positive)
    ]
    scores = [f.score if f.probability is None else f.probability for f in rows]
    columns: list[list[Any]] = [[f.category_id for f in rows], [f.box for f in rows], scores]
    normal = given.normal if given.normal_probability is None else given.normal_probability
    if normal is not None:
        for column, value in zip(columns, (NO_FINDING_CATEGORY, NO_FINDING_BOX, normal), strict=True):
            column.append(value)
    table = BoxTable.of([0] * len(columns[0]), *columns)
    masks: dict[int, Any] = {
        row: {"size": list(finding.mask.size), "counts": finding.mask.counts}
        for row, finding in enumerate(rows)
        if finding.mask is not None
    }
    labels = given.labels | (given.label_probabilities or {})
    has_findings: bool | None = bool(given.positive_labels) or None
    if not has_places and not has_findings:
        has_findings = given.positive_labels is None and has_label(labels, lowest)
    notes = [] if given.image_check is None else given.image_check.warnings
    return RadiographFindings(
        table, masks, categories, labels, notes=notes, has_findings=has_findings, has_places=has_places
    )


def given_findings(
    fields: Mapping[str, str],
    categories: Mapping[int, str],
    threshold: float | None = None,
    has_places: bool = True,
) -> tuple[RadiographFindings, FoundIn]:
    """What people are shown of the findings that came with a file, and in which radiograph they were found.

    The other arguments are those of `shown_of`. Raises RefusedError: 400 for none, 413 for more than can be worked on.
    """
    if "findings" not in fields:
        raise RefusedError(400, "the form has no field findings: send the answer of /predict in it")
    text = fields["findings"]
    if len(text) > MAX_BYTES:
        raise RefusedError(413, f"the findings have more than the {MAX_BYTES >> 20} MiB allowed")
    try:
        given = Given.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        status = 413 if first["type"] in ("too_long", "string_too_long") else 400
        line = f"the findings are no answer of /predict ({where}: {first['msg']})"[:300]
        # Letters of the client that cannot be sent are replaced.
        raise RefusedError(status, " ".join(line.encode("utf-8", "replace").decode().split())) from None
    except (ValueError, RecursionError):
        # The text is not Unicode, or is nested too deeply.
        raise RefusedError(400, "the findings are no answer of /predict (JSON: it cannot be read)") from None
    sizes = [finding.mask.size for finding in given.findings if finding.mask is not None]
    if sum(height * width for height, width in sizes) > MAX_MASK_PIXELS:
        raise RefusedError(413, f"the masks have more than {MAX_MASK_PIXELS // 10**6} million pixels together")
    found_in = FoundIn(given.width, given.height, given.file_sha256)
    return shown_of(given, categories, has_places, threshold), found_in


def thresholds(
    pipeline: Pipeline, fitted: Thresholds | None = None, shown_from: float = SHOWN_FROM
) -> dict[str, float | str]:
    """How masks are decided, where there are any, and which findings are shown at first."""
    values: dict[str, float | str] = {"shown_from": shown_from}
    if fitted is not None and fitted.from_probability is None:
        values["found_at"] = fitted.at
    if pipeline.segmenters:
        values |= {f"mask_{name}": float(value) for name, value in dataclasses.asdict(pipeline.triplet).items()}
    if pipeline.classifiers:
        values |= {"gate": pipeline.gate, "gate_threshold": float(pipeline.gate_threshold)}
    return values
