"""Paths that do not exist and were probably meant for one that lies beside: data/vinbg for data/vinbig."""

import contextlib
import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

LIKENESS = 0.75
"""Of two names, from which one may have been meant for the other: 2 × what they share ÷ both lengths."""
PATHS = frozenset((
    "annotations", "auth", "ca", "check-data", "compare", "config", "data-path", "dicom-tls-ca", "dicom-tls-cert",
    "dicom-tls-key", "dicomweb-auth", "encoder-from", "ensemble", "fit", "folder", "images", "labels", "map", "masks",
    "notes", "originals", "path", "patients", "predictions", "pseudo", "radiographs", "report", "run", "runs",
    "sample-submission", "sizes", "splits", "table", "tls-cert", "tls-key", "truth", "weights", "yaml",
))  # fmt: skip
"""Flags of what must exist. The others' values are names of columns, labels, categories: nobody's slips of a path."""
IN_DATA = frozenset(("annotations", "images", "masks", "patients", "splits", "table", "yaml"))
"""Those of them that are looked for in --data-path, too."""
MOST_LISTED = 2000
"""Names of a folder that are looked at; larger ones hold data, and their names are nobody's typing."""


def meant_by(path: Path | str) -> Path | None:
    """The path that exists and is most like one that does not; None where that one exists, or none is like it.

    Only the first part that is missing is replaced, by a name beside it: of a/x/c, b/y/c is never meant. Names that
    differ in their numbers alone are other things: fold1 is not meant for fold0.
    """
    path = Path(path)
    parts = path.parts
    for place in range(len(parts)):
        if not Path(*parts[: place + 1]).exists():
            before, missing, rest = Path(*parts[:place]), parts[place], parts[place + 1 :]
            close = (before / name for name in _alike(missing, before))
            return next((one.joinpath(*rest) for one in close if one.joinpath(*rest).exists()), None)
    return None


def _given_paths(words: Sequence[str]) -> dict[str, str]:
    """The words of a command line that may be paths of something that exists → the flag before each, "" for none."""
    given: dict[str, str] = {}
    flag = ""
    for word in words:
        is_flag = word.startswith("-")
        flag, value = (word.partition("=")[0], word.partition("=")[2]) if is_flag else (flag, word)
        name = flag.strip("-").rpartition(".")[2].replace("_", "-")
        # Between flags stand the names of commands, too.
        may_be = name in PATHS or (not flag and re.search(r"[/.]", word) is not None)
        if value and "://" not in value and may_be:
            given.setdefault(value, name)
    return given


def _alike(name: str, folder: Path) -> list[str]:
    """Names in a folder that are much like this one, the most alike first."""
    names: list[str] = []
    # What is no folder, or nobody may list, has no names.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, MOST_LISTED + 1)]
    if len(names) > MOST_LISTED:
        return []
    of_word: dict[str, list[str]] = {}
    for other in sorted(names):
        if not _differ_in_numbers(other.casefold(), name.casefold()):
            of_word.setdefault(other.casefold(), []).append(other)
    close = difflib.get_close_matches(name.casefold(), of_word, 3, LIKENESS)
    return [other for word in close for other in of_word[word]]


def _differ_in_numbers(one: str, other: str) -> bool:
    """Whether two names differ, and in their numbers alone."""
    return one != other and re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)


def with_meant(message: str, words: Sequence[str]) -> str:
    """A message that says of paths that they are not there, with "did you mean …?" behind those that lie beside.

    words: what stands on the command line. Nothing is added for what exists, here or in --data-path, for addresses, for
    what the message does not name, and for flags that take no path, or one that need not exist.
    """
    given = _given_paths(words)
    data = next((Path(word) for word, flag in given.items() if flag == "data-path"), None)
    for word, flag in given.items():
        # What no file system takes is no path.
        with contextlib.suppress(OSError, ValueError):
            text = str(Path(word))
            named = re.search(rf"(?<![\w./-]){re.escape(text)}(?![\w/-]|\.\w)", message)
            if named and (meant := _meant_here(word, data if flag in IN_DATA else None)) is not None:
                message = f"{message[: named.end()]} (did you mean {meant}?){message[named.end() :]}"
    return message


def _meant_here(word: str, data: Path | None) -> Path | None:
    """What a word was meant for, here or in the folder `data`; as it is to be given. None for what exists in either."""
    if data is None or not data.is_dir() or Path(word).is_absolute():
        return meant_by(word)
    if (data / word).exists() or Path(word).exists():
        return None
    meant = meant_by(data / word)
    return meant.relative_to(data) if meant is not None else meant_by(word)
