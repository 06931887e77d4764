"""Files that are complete or not there, and journals of which no line is believed that was damaged."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PART = ".part"
"""What a file's name ends in while it is being written."""


@contextlib.contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on leaving, it takes the place of `path`.

    Where writing fails nothing of it is left. A process that is killed leaves PATH.part.
    """
    temporary = path.with_name(path.name + PART)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """`complete`, with file and folder synced: after a power failure, too, there is the old file or the new one."""
    with complete(path) as temporary:
        yield temporary
        _sync(temporary)
    if os.name == "posix":
        # Some network drives do not sync folders.
        with contextlib.suppress(OSError):
            _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_line(content: dict[str, Any], number: int) -> bytes:
    """Line `number`, from 0, of a journal: CRC-32 of the JSON as 8 hexadecimal digits, a space, the JSON, a line feed.

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
