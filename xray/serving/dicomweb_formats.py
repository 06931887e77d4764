"""What the DICOMweb endpoint answers with: objects, their metadata, frames and large values (PS3.18 8.7, 10.4)."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi.responses import Response, StreamingResponse

from xray.serving.dicomweb_store import Stored
from xray.serving.worker import RefusedError
from xray.storage.dicomweb.multipart import CHUNK, DICOM, RELATED, content_type_of, end_of, head_of, media_type

BULK = 1024
"""Bytes from which a value is an address in metadata."""


def choose(accept: Iterable[str], syntaxes: set[str], is_single: bool) -> str:
    """RELATED or DICOM, as a request to retrieve asks for it. Raises RefusedError 406 for anything else."""
    text = ",".join(accept) or "*/*"
    for part in re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*")+', text):
        parameters = dict(re.findall(r';\s*([\w-]+)\s*=\s*"?([^";]*)"?', part))
        kind, syntax = media_type(part), parameters.get("transfer-syntax", "*").strip()
        if not (syntax == "*" or {syntax} >= syntaxes) or parameters.get("q", "1").strip() in ("0", "0.0"):
            continue
        if kind in ("*/*", "multipart/*") or (kind == RELATED and parameters.get("type", DICOM) in (DICOM, "*/*")):
            return RELATED
        if kind in (DICOM, "application/*") and is_single:
            return DICOM
    raise RefusedError(406, f'results are had as {RELATED}; type="{DICOM}", with transfer-syntax {", ".join(syntaxes)}')


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
