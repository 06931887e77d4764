"""What the DICOMweb endpoint answers with: objects, their metadata, frames and large values (PS3.18 8.7, 10.4)."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi.responses import Response, StreamingResponse

from xray.serving.dicomweb_store import Stored
from xray.serving.worker import RefusedError
from xray.storage.dicomweb.multipart import CHUNK, DICOM, RELATED, content_type_of, end_of, head_of, media_type

DICOM_JSON, JSON = "application/dicom+json", "application/json"
OCTETS = "application/octet-stream"
BULK = 1024
"""Bytes from which a value is an address in metadata."""


def ranges_of(accept: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """What an Accept header (RFC 9110 12.5.1) asks for, the most wanted first: media types and their parameters.

    Names and media types are in lower case; what has a weight of 0 is not there.
    """
    found = []
    for part in re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*")+', ",".join(accept) or "*/*"):
        pairs = re.findall(r';\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^;\s]*))', part)
        parameters = {name.lower(): (quoted or plain).strip() for name, quoted, plain in pairs}
        parameters["type"] = parameters.get("type", "*/*").lower()
        given = parameters.get("q", "")
        weight = float(given) if re.fullmatch(r"[01](\.\d{0,3})?", given) else 1.0
        found.append((weight, media_type(part), parameters))
    found.sort(key=lambda one: -one[0])
    return [(kind, parameters) for weight, kind, parameters in found if weight > 0]


def choose(accept: Iterable[str], syntaxes: set[str], is_single: bool) -> str:
    """RELATED or DICOM, as a request to retrieve asks for it. Raises RefusedError 406 for anything else."""
    for kind, parameters in ranges_of(accept):
        syntax = parameters.get("transfer-syntax", "*")
        if not (syntax == "*" or {syntax} >= syntaxes):
            continue
        if kind in ("*/*", "multipart/*") or (kind == RELATED and parameters["type"] in (DICOM, "*/*")):
            return RELATED
        if kind in (DICOM, "application/*") and is_single:
            return DICOM
    raise RefusedError(406, f'results are had as {RELATED}; type="{DICOM}", with transfer-syntax {", ".join(syntaxes)}')


def choose_json(accept: Iterable[str]) -> str:
    """DICOM_JSON, or JSON where that alone is asked for. Raises RefusedError 406 for anything else, such as XML."""
    kinds = [kind for kind, _ in ranges_of(accept)]
    if {DICOM_JSON, "application/*", "*/*"} & set(kinds):
        return DICOM_JSON
    if JSON in kinds:
        return JSON
    raise RefusedError(406, f"this is had as {DICOM_JSON}")


def choose_octets(accept: Iterable[str], syntaxes: Iterable[str] = ()) -> None:
    """Raises RefusedError 406 where pixels or other values as they are, in parts, are not what is asked for.

    syntaxes: transfer syntaxes that these are of, beside any.
    """
    for kind, parameters in ranges_of(accept):
        is_any = kind in ("*/*", "multipart/*")
        is_octets = kind == RELATED and parameters["type"] in (OCTETS, "*/*", "application/*")
        if (is_any or is_octets) and parameters.get("transfer-syntax", "*") in ("*", *syntaxes):
            return
    raise RefusedError(406, f'this is had as {RELATED}; type="{OCTETS}", not compressed')


def metadata_of(one: Stored, base: str) -> Mapping[str, Any]:
    """An object as DICOM JSON; its pixels, and other large values, are addresses."""
    dataset = one.dataset
    address = f"{base}/studies/{one.study}/series/{one.series}/instances/{one.uid}/bulkdata"
    large = {}
    for element in list(dataset):
        if isinstance(element.value, bytes) and len(element.value) > BULK:
            tag = f"{int(element.tag):08X}"
            large[tag] = {"vr": str(element.VR), "BulkDataURI": f"{address}/{tag}"}
            del dataset[element.tag]
    return dict(sorted({**dataset.to_json_dict(suppress_invalid_tags=True), **large}.items()))


def frames_of(one: Stored, numbers: str) -> Iterator[bytes]:
    """Frames by their numbers, from 1, as in 1,2. Raises RefusedError where there are no such ones."""
    dataset = one.dataset
    if not re.fullmatch(r"\d{1,6}(,\d{1,6}){0,99}", numbers):
        raise RefusedError(400, "give the numbers of frames, from 1, as in frames/1,2")
    wanted, n_frames = [int(number) for number in numbers.split(",")], int(dataset.get("NumberOfFrames") or 1)
    pixels = dataset.get("PixelData", b"")
    if not pixels or not all(1 <= number <= n_frames for number in wanted):
        raise RefusedError(404, "this result has no such frame")
    n_bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    if n_bits % 8 and n_frames > 1:
        raise RefusedError(406, "frames of this result do not begin at whole bytes: retrieve it as a whole")
    n_bytes = -(-n_bits // 8)
    return (pixels[(number - 1) * n_bytes : number * n_bytes] for number in wanted)


def related(contents: Iterable[bytes], kind: str) -> Response:
    """A multipart answer, sent piece by piece."""
    boundary = uuid.uuid4().hex

    def pieces() -> Iterator[bytes]:
        for content in contents:
            yield head_of(boundary, {"Content-Type": kind})
            for start in range(0, len(content), CHUNK):
                yield content[start : start + CHUNK]
            yield b"\r\n"
        yield end_of(boundary)

    return StreamingResponse(pieces(), media_type=content_type_of(boundary, kind))
