"""Names of files in a COCO file that was written on another machine: /data/set/images/1.png, C:\\set\\images\\1.png."""

from collections import Counter
from collections.abc import Iterable

from xray.datasets.sources.splits import split_of, split_of_folder
from xray.errors import InputError


class PathsElsewhere:
    """Finds files by the longest end of such a name that is the end of a file's path, too.

    An end that several names have says nothing: of a/frontal.png and b/frontal.png, where one has no file, that of the
    other is not meant. Nor does a file in the folder of another split.
    """

    def __init__(self, files: Iterable[str], names: Iterable[str], table: str) -> None:
        """files: relative to the data path. names: all names of the COCO file `table`, with / between folders."""
        self._table, self._split = table, split_of(table)
        self._names = Counter(end for name in set(names) for end in _ends(name))
        wanted = {name.rpartition("/")[2] for name in self._names}
        self._files: dict[str, list[str]] = {}
        for file in sorted(files):
            if file.rpartition("/")[2] in wanted:
                for end in _ends(file):
                    self._files.setdefault(end, []).append(file)

    def path_of(self, name: str) -> str | None:
        """The file of a name; None where there is none. Raises InputError where it could be one of several."""
        split = split_of_folder(name) or self._split
        for end in _ends(name):
            files = [file for file in self._files.get(end, ()) if split in (None, split_of_folder(file) or split)]
            if not files:
                continue
            if self._names[end] > 1:
                return None
            if len(files) > 1:
                raise InputError(
                    f"{self._table}: the file {name} may be {files[0]} or {files[1]}: write the path in the data path "
                    "as its file_name, or give a folder with one of them as --data-path"
                )
            return files[0]
        return None


def _ends(name: str) -> Iterable[str]:
    """A path without a drive and empty parts, and what is left of it without its first folders, the longest first."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts and parts[0][1:] == ":":
        del parts[0]
    if ".." in parts:
        return []
    return ["/".join(parts[start:]) for start in range(len(parts))]
