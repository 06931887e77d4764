"""Finding the tables of a public set: by the names that it gives them, in its directory or in a folder of that."""

from collections.abc import Sequence
from pathlib import Path

from xray.errors import InputError
from xray.radiographs.names import check_inside

PACKED = ("", ".gz", ".zip")
"""What may follow a table's suffix."""
MOST_FOLDERS = 200
"""Folders of a set's directory that are looked into: more are those of patients."""


def find_table(root: Path, patterns: Sequence[str]) -> Path | None:
    """The file of one of some names, which may hold * and be those of packed files: the first pattern that one has.

    It is looked for in the directory of a set, then in the folders there. Raises InputError where several files of one
    place have a name, and for a link that leads out of the directory.
    """
    folders = _folders(root)
    for pattern in patterns:
        for places in ([root], folders):
            found = {
                path
                for place in places
                for packed in PACKED
                for path in place.glob(pattern + packed)
                if path.is_file() and path.name[0] != "."
            }
            # The same table, once packed and once not, is one.
            plain = sorted(path for path in found if not (_is_packed(path) and path.with_suffix("") in found))
            if len(plain) > 1:
                names = ", ".join(path.relative_to(root).as_posix() for path in plain[:5])
                raise InputError(f"{root} holds several tables of one kind ({names}): leave one of them there")
            if plain:
                return check_inside(plain[0], root)
    return None


def need_table(root: Path, patterns: Sequence[str], what: str) -> Path:
    """`find_table`, which raises InputError where there is none. what: the set's name, for the message."""
    path = find_table(root, patterns)
    if path is None:
        raise InputError(f"{root} has no {patterns[0]}: give the directory that holds it and the radiographs of {what}")
    return path


def _folders(root: Path) -> list[Path]:
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(folders)[:MOST_FOLDERS] if len(folders) <= MOST_FOLDERS else []


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() in PACKED[1:]
