"""What callers of SageMaker may ask for and send beside files: media types of answers, and s3:// addresses."""

import contextlib
import csv
import dataclasses
import functools
import importlib.util
import io
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import BaseModel, Field, ValidationError

from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.outputs import fhir
from xray.outputs.dicom.objects import Algorithm
from xray.serving import exports
from xray.serving.answers import shown_of
from xray.serving.schemas import Answer
from xray.serving.worker import RefusedError
from xray.storage import objects
from xray.structures.predictions import NO_FINDING_CATEGORY

if TYPE_CHECKING:
    from xray.inference.pipeline import Pipeline

JSON, CSV, DICOM, FHIR = "application/json", "text/csv", "application/dicom", fhir.MEDIA_TYPE
REPORTS = (DICOM, FHIR)
"""What `report_of` makes."""
CSV_HEADER = ("category_id", "category", "score", "x1", "y1", "x2", "y2")

BUCKETS = "XRAY_S3_BUCKETS"
"""Environment variable: names of the buckets that requests may name objects of; none where it is not set.

Without this list, every caller could have any object read that the server's role may read.
"""
MAX_ADDRESS = 64 * 2**10
"""Most bytes of a JSON request."""
S3_SECONDS = 30.0
"""For one object to come, and half of the minute that SageMaker gives a request."""


def offered(algorithm: Algorithm | None) -> tuple[str, ...]:
    """The media types in which findings can be had; algorithm: what a report would name as its maker."""
    if algorithm is None:
        return JSON, CSV
    return (JSON, CSV, DICOM, FHIR) if importlib.util.find_spec("highdicom") is not None else (JSON, CSV, FHIR)


def choose(accept: str | None, kinds: Sequence[str]) -> str:
    """The media type to answer in.

    accept: an Accept header (RFC 9110, 12.5.1), its values in any order, with or without weights; of equal weights the
    first counts. kinds: what can be had, the default first. Raises RefusedError (406) if none of them is accepted.
    """
    ranges = []
    for place, item in enumerate((accept or "*/*").lower().split(",")):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights = [parameter[2:].strip() for parameter in parameters if parameter.startswith("q=")]
        weight = float(weights[0]) if weights and re.fullmatch(r"[01](\.\d{0,3})?", weights[0]) else float(not weights)
        ranges.append((name, weight, place))
    wanted = []
    for number, kind in enumerate(kinds):
        patterns = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        # A range that names the type itself counts before one that names all types.
        best = next((item for pattern in patterns for item in ranges if item[0] == pattern), None)
        if best is not None and best[1] > 0:
            wanted.append((-best[1], best[2], number, kind))
    if not wanted:
        raise RefusedError(406, f"findings cannot be had as {accept or ''!r:.80}: accept {', '.join(kinds)}")
    return min(wanted)[-1]


def csv_of(answer: Answer) -> str:
    """A header and a line for each finding, surest first; boxes in original pixels.

    "No finding" has its probability and the unit box, as in predictions.json; labels of whole radiographs no box.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows((f.category_id, f.category, f.score, *f.box) for f in answer.findings)
    if answer.normal is not None:
        writer.writerow((NO_FINDING_CATEGORY, NO_FINDING_NAME, answer.normal, *NO_FINDING_BOX))
    writer.writerows(("", name, value, "", "", "", "") for name, value in answer.labels.items())
    return text.getvalue()


def report_of(answer: Answer, pipeline: "Pipeline", algorithm: Algorithm, kind: str = DICOM) -> Callable[[Path], bytes]:
    """What a worker does to make the DICOM SR of one radiograph; it holds what `tools/infer.py --sr` reports.

    answer: of that radiograph, by the pipeline. kind: DICOM, or FHIR for the same in that.
    """
    make = exports.fhir_of if kind == FHIR else exports.structured_report_of
    found_in = exports.FoundIn(answer.width, answer.height, answer.file_sha256)
    return functools.partial(make, shown_of(answer, pipeline.categories, pipeline.has_places), found_in, algorithm)


class Address(BaseModel):
    """A request that names an object in place of a file."""

    s3_uri: str = Field(description="s3://bucket/key of one DICOM, PNG or JPEG file, in a bucket the server reads from")


@dataclasses.dataclass(frozen=True)
class S3Object:
    """An object that a request names, in a bucket that it may name."""

    bucket: str
    key: str


def object_of(body: bytes | str) -> S3Object:
    """The object of a request {"s3_uri": "s3://bucket/key"}. Raises RefusedError: 400, 403 or 413."""
    wanted = '{"s3_uri": "s3://bucket/key"}'
    if len(body) > MAX_ADDRESS:
        raise RefusedError(413, f"the JSON is larger than an address can be: send {wanted}")
    try:
        address = Address.model_validate_json(body).s3_uri
    except ValidationError:
        raise RefusedError(400, f"this is not the JSON of an address: send {wanted}") from None
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", address)
    # HTTP clients remove . and .. from an address, which would lead to another bucket.
    if match is None or not {".", ".."}.isdisjoint(match[2].split("/")) or not match[2].isprintable():
        raise RefusedError(400, f"the JSON holds no address of an object: send {wanted}")
    allowed = os.environ.get(BUCKETS, "").replace(",", " ").split()
    if match[1] not in allowed:
        todo = f"have it named in {BUCKETS}" if allowed else f"there are none ({BUCKETS} is not set): send the file"
        raise RefusedError(403, f"the bucket is not among those that this server reads from: {todo}")
    return S3Object(match[1], match[2])


def fetch(wanted: S3Object, file: BinaryIO, max_bytes: int, seconds: float = S3_SECONDS) -> None:
    """Writes an object to a file. Raises RefusedError: 413, 422 for one that cannot be had, 502, 504."""
    if importlib.util.find_spec("boto3") is None:
        raise RefusedError(501, "this server was installed without boto3 (the extra remote): send the file itself")
    # Silence counts for less than the whole, so that what is asked in the last moment ends within SageMaker's minute.
    deadline = time.monotonic() + seconds
    try:
        client = objects.client_of(os.getpid(), 5, max(1, seconds / 6), 2)
        answer = client.get_object(Bucket=wanted.bucket, Key=wanted.key)
        with contextlib.closing(answer["Body"]) as body:
            if answer["ContentLength"] > max_bytes:
                raise RefusedError(413, f"the object has more than the {max_bytes / 2**20:g} MiB allowed")
            if not answer["ContentLength"]:
                raise RefusedError(422, "the object is empty: name one DICOM, PNG or JPEG file")
            for chunk in body.iter_chunks(objects.CHUNK):
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise RefusedError(504, f"S3 did not give the object within {seconds:g} s")
    except RefusedError:
        raise
    except Exception as error:
        code = objects.code_of(error)
        if code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise RefusedError(422, "there is no such object in the bucket") from None
        if code in objects.DENIED:
            raise RefusedError(422, "the server's role may not read that object: give it s3:GetObject") from None
        # botocore has many; their messages hold addresses.
        raise RefusedError(502, f"S3 did not give the object ({code or type(error).__name__})") from None
