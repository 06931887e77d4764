"""The body of a request → a file, its bytes counted as they come in, whatever its headers say."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from xray.serving.service import Limits
from xray.serving.worker import RefusedError

RAW = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
"""Content types of a body that is the file itself; its content decides what it really is."""
FORM = "multipart/form-data"
CHUNK = 2**20
DISCARD_SECONDS = 10.0
"""For which the rest of a refused request is read and thrown away."""
GONE = 499
"""Status for a client that hung up; nobody reads it."""


async def save_upload(request: Request, path: Path, limits: Limits, with_fields: bool = False) -> Mapping[str, str]:
    """Writes the file that a request carries to `path` → the form's other fields, where it is a form.

    with_fields: whether there may be any. Raises RefusedError: 400 for a body without a file or a damaged form, 408
    for one that comes too slowly, 413 for one that is too large, 415 for another content type.
    """
    kind = request.headers.get("content-type", RAW[-1]).partition(";")[0].strip().lower()
    if kind not in (*RAW, FORM):
        line = f"this is {kind[:60]!r}: send {', '.join(RAW)} or {FORM}"
        raise await refusal(request, limits, RefusedError(415, line))
    await check_head(request, limits)
    async with arriving("file", limits):
        if kind == FORM:
            return await _save_form(request, path, limits, with_fields)
        with path.open("wb") as file:
            async for chunk in counted(request, limits):
                file.write(chunk)
    if not path.stat().st_size:
        raise RefusedError(400, "the body is empty: send one DICOM, PNG or JPEG file")
    return {}


async def check_head(request: Request, limits: Limits) -> None:
    """Raises RefusedError: 415 for a compressed body, 413 for one that its header says is too large."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise await refusal(request, limits, RefusedError(415, "the body is compressed: send it as it is"))
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limits.max_bytes):
        raise await too_large(request, limits)


@contextlib.asynccontextmanager
async def arriving(what: str, limits: Limits) -> AsyncIterator[None]:
    """Raises RefusedError where the body of a request takes too long, or its client hangs up."""
    try:
        async with asyncio.timeout(limits.upload_seconds):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the {what} came too slowly", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise RefusedError(GONE, "the client hung up") from None


async def counted(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The chunks of a body, as long as they are no more than allowed, and come."""
    n_bytes = 0
    pace = Pace(limits.bytes_per_second, limits.stall_seconds)
    stream = request.stream()
    while True:
        start = time.monotonic()
        try:
            async with asyncio.timeout(limits.stall_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        pace.note(len(chunk), time.monotonic() - start)
        n_bytes += len(chunk)
        if n_bytes > limits.max_bytes:
            raise await too_large(request, limits)
        yield chunk


class Pace:
    """Checks that a client sends fast enough; the time that the server itself takes does not count.

    bytes_per_second: that it has to send on average, in every `seconds` of waiting for it.
    """

    def __init__(self, bytes_per_second: float, seconds: float) -> None:
        self._bytes_per_second, self._seconds = bytes_per_second, seconds
        self._n_bytes, self._waited = 0, 0.0

    def note(self, n_bytes: int, waited: float) -> None:
        """So many bytes came after so many seconds. Raises TimeoutError where they come too slowly."""
        self._n_bytes += n_bytes
        self._waited += waited
        if self._waited < self._seconds:
            return
        if self._n_bytes < self._waited * self._bytes_per_second:
            raise TimeoutError("a client sends too slowly")
        self._n_bytes, self._waited = 0, 0.0


async def refusal(request: Request, limits: Limits, error: RefusedError) -> RefusedError:
    """The error to raise for a request whose body is not wanted.

    Most clients read the answer only once they have sent the whole body, so a limited rest of it is read first.
    """
    if "expect" not in request.headers:
        n_bytes = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(DISCARD_SECONDS):
                async for chunk in request.stream():
                    n_bytes += len(chunk)
                    if n_bytes > limits.max_bytes:
                        break
    error.headers["Connection"] = "close"
    return error


async def too_large(request: Request, limits: Limits) -> RefusedError:
    """The error to raise for a body that is too large."""
    line = f"the request has more than the {limits.max_bytes / 2**20:g} MiB allowed"
    return await refusal(request, limits, RefusedError(413, line))


async def _save_form(request: Request, path: Path, limits: Limits, with_fields: bool) -> dict[str, str]:
    stream = counted(request, limits)
    try:
        parser = MultiPartParser(
            request.headers, stream, max_files=1, max_fields=int(with_fields), max_part_size=limits.max_bytes
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        what = getattr(error, "message", None) or type(error).__name__
        raise RefusedError(400, f"damaged form: {' '.join(str(what).split())[:200]}") from None
    finally:
        await stream.aclose()
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise RefusedError(400, 'the form holds no file: send one, such as curl -F "file=@radiograph.dcm"')
        with path.open("wb") as file:
            while chunk := await files[0].read(CHUNK):
                file.write(chunk)
        if not path.stat().st_size:
            raise RefusedError(400, "the file is empty: send one DICOM, PNG or JPEG file")
        return {name: value for name, value in form.multi_items() if isinstance(value, str)}
    finally:
        await form.close()
