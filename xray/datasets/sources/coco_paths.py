"""Names of files in a COCO file or a table written on another machine: /data/set/images/1.png, C:\\set\\1.png."""

from collections import Counter
from collections.abc import Iterable, Sequence

from xray.datasets.sources.splits import split_of, split_of_folder
from xray.errors import InputError

MOST_PLACES = 5
"""Places that a message names."""


class PathsElsewhere:
    """Finds files by the longest end of such a name that is the end of a file's path, too.

    An end that several names have says nothing: of a/frontal.png and b/frontal.png, where one has no file, that of the
    other is not meant. Nor is a file in the folder of another split, or one elsewhere where there is a folder called as
    in the name: a/1.png is not b/1.png where a/ is, and lacks it. What a name starts with before an end of two
    parts or more is where the data path was: what starts with it too and is not behind it here is missing. As
    /data/a/1.png is a/1.png, /data/b/2.png is b/2.png, and never c/2.png.
    """

    def __init__(self, files: Iterable[str], names: Iterable[str], table: str, is_beside: bool = False) -> None:
        """files: relative to the data path. names: all names of the COCO file `table`, with / between folders.

        is_beside: a name with a folder is found as it is written: so all that are relative start at the data path.
        """
        names = set(names)
        self._table, self._split = table, split_of(table)
        self._names = Counter(end for name in names for _, end in _cuts(name))
        wanted = {name.rpartition("/")[2] for name in self._names}
        files = sorted(files)
        self._files: dict[str, list[str]] = {}
        for file in files:
            if file.rpartition("/")[2] in wanted:
                for _, end in _cuts(file):
                    self._files.setdefault(end, []).append(file)
        self._in_folder: dict[str, dict[str, list[str]]] = {}
        self._found: dict[tuple[str, str | None, str | None], list[str]] = {}
        self._split_in: dict[str, str | None] = {}
        self._folders = {folder for file in files for folder in file.split("/")[:-1]}
        self._starts = {(False, "")} if is_beside else set()
        self._starts = self._starts.union(*map(self._starts_of, names))

    def path_of(self, name: str) -> str | None:
        """The file of a name; None where there is none. Raises InputError where it could be one of several."""
        files = self.files_of(name)
        if len(files) > 1:
            raise InputError(
                f"{self._table}: the file {name} may be {files[0]} or {files[1]}: write the path in the data "
                "path as its file_name, or give a folder with one of them as --data-path"
            )
        return files[0] if files else None

    def files_of(self, name: str) -> list[str]:
        """The files that a name may mean: none, one, or several of which it does not say which."""
        about = self._split_and_folder(name)
        for start, end in _cuts(name):
            if files := self._meant(end, *about):
                return [] if self._names[end] > 1 else files
            if (is_absolute(name), start) in self._starts:
                return []
        return []

    def looked_for(self, name: str, tried: Sequence[str] = ()) -> str:
        """In words, where a file was looked for that `path_of` has none for, and why one of that name is not meant.

        tried: files that it might have been besides its ends.
        """
        ends = [end for _, end in _cuts(name)]
        places = list(dict.fromkeys([*tried, *ends]))
        if len(places) > MOST_PLACES:
            places = [*places[: MOST_PLACES - 1], places[-1]]
        said = f"looked for {', '.join(places)} below the data path"
        others = self._files.get(ends[-1], []) if ends else []
        if not others:
            return said
        folder = name.rpartition("/")[0].rpartition("/")[2]
        split, _ = self._split_and_folder(name)
        if split and all(self._split_of(file) not in (None, split) for file in others):
            why = f"that is not of {split}"
        elif folder in self._folders:
            why = f"there is a folder {folder}, which lacks it"
        elif self._names[ends[-1]] > 1:
            why = "other names end so, too"
        elif "/" not in name:
            # It is in one of the places named: nothing says which of many folders it could mean.
            why = "a name without a folder means no other place: give the folder of the pictures as --data-path"
        else:
            why = "other names show where the data path begins"
        return f"{said}; {others[0]} is not taken for it, as {why}"

    def _split_and_folder(self, name: str) -> tuple[str | None, str | None]:
        """The split that a name is of, and the folder that it says if the data path has one of that name."""
        folders = name.rpartition("/")[0]
        folder = folders.rpartition("/")[2]
        return self._split_of(name) or self._split, folder if folder in self._folders else None

    def _split_of(self, path: str) -> str | None:
        """The split that a path's folders say; each folder is looked at once."""
        folders = path.rpartition("/")[0]
        if folders not in self._split_in:
            self._split_in[folders] = split_of_folder(f"{folders}/")
        return self._split_in[folders]

    def _meant(self, end: str, split: str | None, folder: str | None) -> list[str]:
        """The files with this end; split, folder: of the name, see `_split_and_folder`."""
        if end not in self._files:
            return []
        key = end, split, None if "/" in end else folder
        if key not in self._found:
            # A set may have view1_frontal.jpg 100,000 times, and ask for it in as many folders.
            files = self._files[end] if key[2] is None else self._by_folder(end).get(key[2], [])
            self._found[key] = [file for file in files if split in (None, self._split_of(file) or split)]
        return self._found[key]

    def _by_folder(self, end: str) -> dict[str, list[str]]:
        """Name of a folder → the files with this end that are somewhere in one of that name."""
        if end not in self._in_folder:
            inside: dict[str, list[str]] = {}
            for file in self._files[end]:
                for folder in set(file.split("/")[:-1]):
                    inside.setdefault(folder, []).append(file)
            self._in_folder[end] = inside
        return self._in_folder[end]

    def _starts_of(self, name: str) -> list[tuple[bool, str]]:
        """What is before the longest end that is a file with its folder; empty where there is none, or several."""
        about = self._split_and_folder(name)
        for start, end in _cuts(name):
            if files := self._meant(end, *about):
                is_one = "/" in end and self._names[end] == 1 and len(files) == 1
                return [(is_absolute(name), start)] if is_one else []
        return []


def _cuts(name: str) -> list[tuple[str, str]]:
    """A path without a drive and empty parts, cut before each of its parts: ("", a/b/1.png), (a, b/1.png), ….

    Empty for one with .. in it.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts and parts[0][1:] == ":":
        del parts[0]
    if ".." in parts:
        return []
    return [("/".join(parts[:start]), "/".join(parts[start:])) for start in range(len(parts))]


def is_absolute(name: str) -> bool:
    """Whether a path starts at a root, a drive, or a scheme such as file:."""
    return name.startswith("/") or name.partition("/")[0][-1:] == ":"
