"""Files that are complete or not there, and outputs of several files that a mark calls unfinished until all are there.

A command that is killed between two of its files leaves the one without the other. The mark tells that they are its
own, so that it may write over them when it is repeated.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from xray.errors import InputError

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


def check_output(folder: Path, names: Iterable[str] = (), command: str = "", overwrite: bool = False) -> None:
    """Raises InputError if --save-path is a file, or a folder with one of these files that the command may not replace.

    It may with --overwrite, and where it was cut off.
    """
    existing = [folder / name for name in names if (folder / name).exists()]
    if existing and not overwrite and not is_unfinished(folder, command):
        raise InputError(f"{existing[0]} exists: give --overwrite, or another --save-path")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give --save-path a folder")


def is_unfinished(folder: Path, command: str) -> bool:
    """Whether this command was cut off while it wrote into the folder."""
    return (folder / f"{command}{PART}").exists()


@contextlib.contextmanager
def finishing(folder: Path, command: str) -> Iterator[None]:
    """For writing a command's files into a folder, which is made where it is missing; the mark stays if it fails."""
    mark = folder / f"{command}{PART}"
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield
    mark.unlink()
