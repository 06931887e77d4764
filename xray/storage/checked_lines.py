"""Lines of a journal: JSON with a checksum, so that none is believed that was cut short, damaged or moved."""

import contextlib
import json
import zlib
from typing import Any


def to_line(content: dict[str, Any], number: int) -> bytes:
    """Line `number`, from 0: the CRC-32 of the JSON as 8 hexadecimal digits, a space, the JSON, a line feed.

    The checksum begins with the number: a line that is missing, or there twice, makes those after it wrong.
    """
    text = json.dumps(content).encode()
    return b"%08x %s\n" % (zlib.crc32(text, number), text)


def from_line(line: bytes, number: int) -> dict[str, Any] | None:
    """The content of what should be line `number`; None where it is not, or is empty, cut short or damaged."""
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1], number):
        return None
    with contextlib.suppress(ValueError):
        content = json.loads(text)
        return content if isinstance(content, dict) else None
    return None
