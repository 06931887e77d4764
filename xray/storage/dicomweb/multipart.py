"""The multipart bodies of DICOMweb (multipart/related, RFC 2387 and RFC 2046 5.1), read and written as streams.

Whatever the size of a part, no more than what came last is in memory.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path

CHUNK = 2**16
MAX_HEADERS = 2**14
"""Bytes of one part's headers."""
MAX_PADDING = 100
"""Blanks that may follow a delimiter in its line."""
DICOM = "application/dicom"
RELATED = "multipart/related"

_END_OF_LINE = re.compile(rb"[ \t]*\r\n")


class MultipartError(Exception):
    """A body that is no multipart body, or that ends too early. Its message names nothing of the content."""


class MultipartReader:
    """Splits a body that comes in chunks of any size into its parts.

    `feed` and `finish` return what has become known: a dict begins a part and holds its headers, names in lower case;
    bytes are a piece of that part; None ends it.
    """

    def __init__(self, boundary: str) -> None:
        """Raises MultipartError where the boundary could be none."""
        if not 0 < len(boundary) <= 200 or not boundary.isascii() or not boundary.isprintable():
            raise MultipartError("its boundary is missing or damaged")
        self._delimiter = b"\r\n--" + boundary.encode()
        # The first delimiter may stand at the very beginning.
        self._buffer = bytearray(b"\r\n")
        self._state = "before"

    def feed(self, chunk: bytes) -> Iterator[dict[str, str] | bytes | None]:
        """What the next bytes of the body say. Raises MultipartError."""
        if self._state == "after":
            return
        self._buffer += chunk
        while True:
            if self._state == "headers":
                headers = self._take_headers()
                if headers is None:
                    return
                self._state = "part"
                yield headers
            content, kind = self._take_content()
            if content and self._state == "part":
                yield content
            if kind is None:
                return
            if self._state == "part":
                yield None
            self._state = kind
            if kind == "after":
                self._buffer.clear()
                return

    def finish(self) -> None:
        """The body has come to its end. Raises MultipartError where its last part has not."""
        if self._state == "before":
            raise MultipartError("it has no parts")
        if self._state != "after":
            raise MultipartError("it was cut short")

    def _take_headers(self) -> dict[str, str] | None:
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return {}
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEADERS or (end < 0 and len(self._buffer) > MAX_HEADERS):
            raise MultipartError("the headers of a part are too long")
        if end < 0:
            return None
        text = re.sub(r"\r\n[ \t]+", " ", self._buffer[:end].decode("latin-1"))
        del self._buffer[: end + 4]
        fields = (line.partition(":") for line in text.split("\r\n"))
        return {name.strip().lower(): value.strip() for name, _, value in fields}

    def _take_content(self) -> tuple[bytes, str | None]:
        """What surely stands before the next delimiter, and the state after it, None where it has not come yet."""
        start = 0
        while (at := self._buffer.find(self._delimiter, start)) >= 0:
            rest = bytes(self._buffer[at + len(self._delimiter) :][: MAX_PADDING + 2])
            if rest.startswith(b"--"):
                return self._cut(at, at + len(self._delimiter) + 2), "after"
            if line := _END_OF_LINE.match(rest):
                return self._cut(at, at + len(self._delimiter) + line.end()), "headers"
            if rest in (b"", b"-") or re.fullmatch(rb"[ \t]{0,%d}\r?" % MAX_PADDING, rest):
                # The line is not whole yet.
                return self._cut(at, at), None
            # Content that begins like a delimiter.
            start = at + 2
        known = max(start, len(self._buffer) - len(self._delimiter) + 1)
        return self._cut(known, known), None

    def _cut(self, n_content: int, n_bytes: int) -> bytes:
        content = bytes(self._buffer[:n_content])
        del self._buffer[:n_bytes]
        return content


def boundary_of(content_type: str) -> str | None:
    """The boundary of a multipart content type, None for any other one."""
    if not media_type(content_type).startswith("multipart/"):
        return None
    return _parameter(content_type, "boundary")


def part_type_of(content_type: str) -> str:
    """What the parts of a multipart/related body are by its parameter type, in lower case; "" where it has none."""
    return _parameter(content_type, "type").strip().lower()


def _parameter(content_type: str, name: str) -> str:
    message = Message()
    message["content-type"] = content_type
    value = message.get_param(name)
    return value if isinstance(value, str) else ""


def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def read_parts(content_type: str, chunks: Iterable[bytes]) -> Iterator[dict[str, str] | bytes | None]:
    """What `MultipartReader` says of a whole body; one that is not multipart is its only part.

    Raises MultipartError.
    """
    boundary = boundary_of(content_type)
    if boundary is None:
        yield {"content-type": content_type}
        yield from filter(None, chunks)
        yield None
        return
    reader = MultipartReader(boundary)
    for chunk in chunks:
        yield from reader.feed(chunk)
    reader.finish()


def content_type_of(boundary: str, part: str = DICOM) -> str:
    """The content type of a body whose parts are of one type."""
    return f'{RELATED}; type="{part}"; boundary={boundary}'


def head_of(boundary: str, headers: Mapping[str, str]) -> bytes:
    """What stands before the content of a part."""
    lines = [f"--{boundary}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def end_of(boundary: str) -> bytes:
    """What stands after the last part."""
    return f"--{boundary}--\r\n".encode()


class FileParts:
    """A body of DICOM files, which are read as it is sent; iterated again, it is the same body."""

    def __init__(self, paths: Sequence[Path], boundary: str) -> None:
        self._paths, self._boundary = paths, boundary

    def __len__(self) -> int:
        head = len(head_of(self._boundary, {"Content-Type": DICOM})) + 2
        return sum(head + path.stat().st_size for path in self._paths) + len(end_of(self._boundary))

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths:
            yield head_of(self._boundary, {"Content-Type": DICOM})
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            yield b"\r\n"
        yield end_of(self._boundary)
