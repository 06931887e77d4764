"""Files that are complete or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

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
