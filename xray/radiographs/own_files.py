"""What xray itself has written is no radiograph: results that lie among radiographs are neither read nor in their way.

A command may be given a folder of radiographs as --data-path and one inside of it as --save-path. Pictures and DICOM
objects there would be read as radiographs by the next command.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from xray.errors import InputError
from xray.file_names import MADE_BY, PREDICTIONS, UNFINISHED
from xray.radiographs.file_kinds import Content, content_of
from xray.radiographs.pictures import is_own_picture

FOLDERS = ("overlays", "sr", "seg", "gsps", "sc", "fhir")
"""Folders of results beside predictions, each with a file a radiograph."""
MARKS = frozenset({PREDICTIONS, UNFINISHED, MADE_BY})
"""Files beside which such folders are those of results."""
LEFT_OUT = "results of xray among the radiographs, left out"


def own_folders(names: Collection[str], folders: Collection[str]) -> list[str]:
    """Those of the folders in a folder that hold results, by the names of the files beside them."""
    return [name for name in folders if name in FOLDERS] if MARKS.intersection(names) else []


def place_inside(out: Path, data: Path) -> Path | None:
    """Where --save-path lies below the folder --data-path, links followed; None where a search does not come there.

    A search leaves hidden folders out.
    """
    inner, outer = (Path(os.path.realpath(path)) for path in (out, data))
    if inner == outer or not outer.is_dir() or not inner.is_relative_to(outer):
        return None
    below = inner.relative_to(outer)
    return None if any(part.startswith(".") for part in below.parts) else below


def check_apart(out: Path, data: Path, suffixes: Collection[str], is_begun: bool = False) -> int:
    """Checks that --save-path may be written to while --data-path is read → how many files in it look like radiographs
    and are not read.

    suffixes: those of radiographs. is_begun: an earlier command, which is continued or written over, has written there.
    Raises InputError where both are one folder, what is written would lie among what is read, or a radiograph would be
    passed over or replaced.
    """
    inner, outer = (Path(os.path.realpath(path)) for path in (out, data))
    if inner == outer:
        raise InputError(
            f"{out} is the folder {data} itself, whose radiographs and results must stay apart: give --save-path "
            f"another folder, such as {out / 'out'}"
        )
    if outer.is_relative_to(inner) and outer.relative_to(inner).parts[0] in FOLDERS:
        raise InputError(f"{data} lies in {out}, where results are written: give another --save-path")
    is_inside = place_inside(out, data) is not None
    if is_begun:
        return sum(1 for _ in _radiographs(out, suffixes)) if is_inside else 0
    for folder in [out] if is_inside else [out / name for name in FOLDERS]:
        for path in _radiographs(folder, suffixes):
            if not is_own_picture(path):
                where = f", lies in {data} and" if is_inside else ""
                raise InputError(
                    f"{out}{where} holds what may be a radiograph ({path.relative_to(out).as_posix()}), which would "
                    f"{'not be read' if is_inside else 'be replaced'}: give --save-path a new folder"
                )
    return 0


def said(n: int, out: Path) -> str:
    """A line that says how many files of --save-path are not read as radiographs; empty for none."""
    if not n:
        return ""
    return f"{n} file{'s' * (n != 1)} in {out}, where results are written, {'are' if n != 1 else 'is'} not read"


def _radiographs(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files that a search for radiographs would find, in the order of their folders."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and content_of(path, suffixes) == Content.RADIOGRAPH:
                yield path
