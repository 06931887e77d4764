"""Outputs of several files: a mark stands beside them until all are there, so that a command cut off can be repeated.

Each file is complete or not there, but a command killed between two of them leaves the one without the other. What it
would otherwise refuse to write over is then its own.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def is_unfinished(folder: Path, command: str) -> bool:
    """Whether this command was cut off while it wrote into the folder."""
    return _mark(folder, command).exists()


@contextlib.contextmanager
def finishing(folder: Path, command: str) -> Iterator[None]:
    """For writing a command's files into a folder, which is made where it is missing; the mark stays if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    _mark(folder, command).touch()
    yield
    _mark(folder, command).unlink()


def _mark(folder: Path, command: str) -> Path:
    return folder / f"{command}.part"
