"""How findings become an answer of the API, and the way back.

The JSON of an answer that comes back with a request may be hostile: it is bounded before any work begins.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

import xray
from xray.findings import NO_FINDING_BOX, colour_of
from xray.inference.findings import Findings
from xray.inference.pipeline import Pipeline
from xray.outputs.dicom.reported import has_label
from xray.radiographs.dicom import MAX_PIXELS
from xray.radiographs.image_check import ImageCheck
from xray.serving.exports import FoundIn
from xray.serving.schemas import About, Answer, Category, Checked, Finding, Given, Mask
from xray.serving.worker import RefusedError
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings
from xray.structures.thresholds import SHOWN_FROM, Thresholds

MAX_BYTES = 16 * 2**20
"""Of the JSON: some ten times what the finest masks of a radiograph take."""
MAX_MASK_PIXELS = 10 * MAX_PIXELS
"""Of all masks together."""


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
