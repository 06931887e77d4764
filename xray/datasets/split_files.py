"""Files and folders that say who trains, validates and tests, as people write them → names, each with its split."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.sizes import IDS
from xray.datasets.sources.patients import NAME_COLUMNS, PATIENT_COLUMNS
from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.table_names import SPLITS as SPLIT_COLUMNS
from xray.datasets.sources.tables import plain_name, read_table, spellings
from xray.errors import FlagError, InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.values import is_missing, shown, text_of

HALF_ROW = "row of a table of splits without a name or without a split, not used"

_QUOTES = " \t'\"\ufeff"
_BRACKETS = _QUOTES + "[](){}"
_CELLS = re.compile(r"[,;\t|]")
_FLAG = re.compile(r"\s+(?:-?1|0)$")
_HEADERS = {
    "name": frozenset((*NAME_COLUMNS, *IDS, "name", "names", "dicomid", "uid", "train", "val", "test", "images")),
    "patient": frozenset((*PATIENT_COLUMNS, "patients")),
}
"""What a list's first line may be called, without case and punctuation."""

LINE, LINES, COLUMNS = "line", "lines", "columns"
"""Layouts: what is names alone, such as the only line of a list, or the cell of a table that is called so; lines, of
which each may hold several names; lines of equally many cells without a header, which may be a table."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A line that puts a name, or several, into a split.

    text: the line. place: where, "test.txt line 3". file: what was given for the split. heads: it stands in a first
    line, which may be the name of a column. layout: of its file, which decides what several cells say.
    """

    text: str
    split: str
    place: str
    file: str = ""
    heads: bool = False
    layout: str = LINE

    @property
    def shown(self) -> str:
        """What is quoted as the name where none is found."""
        return self.text.strip(_QUOTES) if self.layout == LINE else _CELLS.split(self.text)[0].strip(_QUOTES)

    def is_name(self, by: str) -> bool:
        """False for comments, and for a first line that is called as columns are. by: "name" or "patient"."""
        return not (self.text.startswith("#") or (self.heads and _is_header(self.text, by)))

    def spellings(self) -> list[str]:
        """All names that the line may hold."""
        return list(dict.fromkeys([*self._whole(), *(cell for cells in self._cells() for cell in cells)]))

    def meant(self, rows_of: Callable[[str], list[int]]) -> list[tuple[str, list[int]]]:
        """The names, and the rows that each means: the line as it stands, without its quotes, or its cells.

        rows_of: name → rows, none for a name that nothing has. Lists of VOC have 1, 0 or -1 behind the name.
        Raises InputError where two cells may be meant, and the others may be of other columns.
        """
        for name in self._whole():
            if rows := rows_of(name):
                return [(name, rows)]
        for cells in self._cells():
            found = [(cell, rows_of(cell)) for cell in cells]
            known = [cell for cell, rows in found if rows]
            if len(known) > 1 and self.layout == COLUMNS:
                raise InputError(
                    f"{self.place}: {known[0]} and {known[1]} may both be meant: write a name a line, or the names of "
                    "the columns above the first line if this is a table"
                )
            if known and (self.layout == LINE or (len(known) > 1 and self.layout == LINES)):
                return found
            if found[0][1]:
                return found[:1]
        return [(self.shown, [])]

    def _whole(self) -> list[str]:
        names = (self.text, self.text.strip(_QUOTES), _FLAG.sub("", self.text))
        return [name for name in dict.fromkeys(names) if name]

    def _cells(self) -> Iterator[list[str]]:
        if self.text.startswith("#"):
            return
        for parts in (_CELLS.split(self.text), self.text.split()):
            if cells := [cell for part in parts if (cell := part.strip(_BRACKETS))]:
                yield cells


def read_splits(
    splits: Sequence[str], by: str, data_path: Path, warnings: list[FileWarning]
) -> tuple[list[Named], bytes]:
    """All names with their splits, and the bytes that they were read from.

    splits, by, data_path: as for `splits.apply_splits`. warnings: rows that are not used are added to them.
    Raises FlagError for values of another form, InputError for files that cannot be read or name nothing.
    """
    given = []
    for text in splits:
        word, is_pair, rest = text.partition("=")
        given.append((split_meant(word), rest) if is_pair and split_meant(word) else (None, text))
        if is_pair and not split_meant(word) and not _found(text, data_path).exists():
            raise FlagError(f"--splits {text}: {word} is no split: write train=, val= or test=, or one table")
        if is_pair and not rest.strip():
            raise FlagError(f"--splits {text} names no file: write {text}FILE or {text}FOLDER")
    if len(given) > 1 and any(split is None for split, _ in given):
        raise FlagError("--splits is one table with a column of splits, or train=FILE, val=FILE and test=FILE")
    named: list[Named] = []
    contents = []
    for split, name in given:
        path = _found(name, data_path)
        if path.suffix.casefold() == ".json":
            names, content = _read_json(path, split, by)
        elif split is None:
            names, content = _read_table(path, by, warnings)
        elif path.is_dir():
            if by == "patient":
                raise FlagError(
                    f"--splits {split}={name}: a folder holds radiographs, so leave out --splits-by patient"
                )
            names, content = _read_folder(path, split, data_path)
        else:
            names, content = _read_names(path, split, by, warnings)
        if not names:
            raise InputError(f"--splits: {path} names nothing: leave it out, or write the names into it")
        given_as = name if split is None else f"{split}={name}"
        named += [dataclasses.replace(one, file=given_as) for one in names]
        contents.append(content)
    return named, b"\0".join(contents)


def _found(text: str, data_path: Path) -> Path:
    inside = data_path / text
    return inside if inside.is_dir() or (inside.exists() and not Path(text).exists()) else Path(text)


def _text_of(path: Path) -> tuple[str, bytes]:
    """A file's text, and its bytes."""
    try:
        content = path.read_bytes()
        # As some editors write "Unicode".
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if is_wide else "utf-8-sig"), content
    except OSError as error:
        raise InputError(f"--splits: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--splits: {path} is no text in UTF-8: write a name a line") from None


def _read_names(path: Path, split: str, by: str, warnings: list[FileWarning]) -> tuple[list[Named], bytes]:
    text, content = _text_of(path)
    # Tabs at the ends stand for empty cells.
    lines = [(number, line.strip(" ")) for number, line in enumerate(text.splitlines(), 1)]
    filled = [(number, line) for number, line in lines if line.strip()]
    said = [line for _, line in filled if not line.startswith("#")]
    if not said:
        # Comments alone are no names.
        return [], content
    head = next(number for number, line in filled if not line.startswith("#"))
    header = _header(said[0], split, by)
    for number, line in filled:
        cells = [cell.strip(_QUOTES) for cell in _CELLS.split(line)]
        other = next((cell for cell in cells[number != head :] if split_meant(cell) not in (None, split)), None)
        if not (line.startswith("#") or (header and header.is_of_splits)) and other is not None:
            raise InputError(
                f"--splits {split}={path}: line {number} says {other}: give {path} without {split}= if it is a table "
                "of splits, or a file of the names alone"
            )
    layout = LINE if header else _layout(said[1:] if _is_header(said[0], by) else said)
    names = []
    for number, line in filled:
        place, name = f"{path.name} line {number}", line
        if header and number == head:
            continue
        if header and not line.startswith("#"):
            name = header.name_in(line)
            if not name:
                # Columns of one split each are of different lengths.
                warnings += [] if header.is_of_splits else [FileWarning(HALF_ROW, place, line)]
                continue
        names.append(Named(name, split, place, "", number == head, layout))
    return names, content


def _layout(lines: list[str]) -> str:
    """How a list without a header is laid out, by its lines without comments."""
    if len(lines) == 1:
        return LINE
    both_ways = [_CELLS.split(line) for line in lines], [line.split() for line in lines]
    counts = [{len([part for part in parts if part.strip()]) for parts in each} for each in both_ways]
    return COLUMNS if any(len(each) == 1 and each != {1} for each in counts) else LINES


def _is_header(line: str, by: str) -> bool:
    return any(plain_name(cell) in _HEADERS[by] for cell in _CELLS.split(line))


@dataclasses.dataclass(frozen=True)
class _Header:
    """The first line of a table. column: which of its cells is called as names are; row numbers, labels or patients may
    stand before it, and may be names of other radiographs. is_of_splits: each column holds the names of one split, as
    below "train,val,test"."""

    separator: str
    column: int
    is_of_splits: bool = False

    def name_in(self, line: str) -> str:
        """The name in a row, which quotes may hold together; empty where the row ends before it."""
        cells = next(csv.reader([line], delimiter=self.separator), [])
        return cells[self.column].strip(_QUOTES) if self.column < len(cells) else ""


def _header(line: str, split: str, by: str) -> _Header | None:
    """What a list's first line says of columns; None where it has one cell, or where none is called as names are."""
    separator = max(",;\t|", key=line.count)
    cells = [plain_name(cell) for cell in line.split(separator)]
    splits = [split_meant(cell) for cell in cells]
    if splits.count(split) == 1 and len(set(splits) - {None}) > 1:
        return _Header(separator, splits.index(split), is_of_splits=True)
    called = [name for name in _columns(by) if name in cells] or [name for name in cells if name in _HEADERS[by]]
    return _Header(separator, cells.index(called[0])) if called and len(cells) > 1 else None


def _read_json(path: Path, split: str | None, by: str) -> tuple[list[Named], bytes]:
    """A list of names, or an object of a list for each split; an entry may be an object that has the name, as
    MONAI's do."""
    text, content = _text_of(path)
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--splits: {path} is no JSON: {error}") from None
    if split is None and not isinstance(given, dict):
        raise InputError(f"--splits: {path} does not say who trains or tests: write train={path}, val= or test=")
    if isinstance(given, dict) and split is not None:
        raise InputError(f"--splits {split}={path}: it holds more than a list of names: give {path} without {split}=")
    lists = given if isinstance(given, dict) else {split: given}
    named = []
    for word, entries in lists.items():
        if not isinstance(entries, list):
            # Names and versions of the set stand beside its splits.
            continue
        meant = split_meant(str(word))
        if meant is None:
            raise InputError(f"--splits: {path}: {shown(word)} is no split: write train, val and test")
        for number, entry in enumerate(entries, 1):
            name = _name_in(entry, by)
            if name is None:
                raise InputError(f"--splits: {path}: {word} entry {number} is no name: {shown(entry)}")
            named.append(Named(name, meant, f"{path.name} {word} entry {number}"))
    return named, content


def _name_in(entry: Any, by: str) -> str | None:
    """The name that an entry is or holds; None for none."""
    if isinstance(entry, dict):
        column = _column_of(spellings(entry), _columns(by))
        entry = None if column is None else entry[column]
    try:
        return text_of(entry) if isinstance(entry, str | int) else None
    except ValueError:
        return None


def _columns(by: str) -> tuple[str, ...]:
    return tuple(PATIENT_COLUMNS) if by == "patient" else (*NAME_COLUMNS, "name", "dicomid", "uid")


def _column_of(found: Mapping[str, str], wanted: Iterable[str]) -> str | None:
    """The first wanted column, as it is spelt. found: plain name → spelling."""
    return next((found[name] for name in wanted if name in found), None)


def _read_folder(path: Path, split: str, data_path: Path) -> tuple[list[Named], bytes]:
    from xray.radiographs.radiograph import find_radiographs

    folder, root = Path(os.path.abspath(path)), Path(os.path.abspath(data_path))
    if not folder.is_relative_to(root):
        raise InputError(f"--splits {split}={path}: the folder is not in {data_path}: give one that is")
    names = [file.relative_to(root).as_posix() for file in find_radiographs(folder)]
    return [Named(name, split, f"{path.name}/") for name in names], "\n".join(names).encode("utf-8", "surrogateescape")


def _read_table(path: Path, by: str, warnings: list[FileWarning]) -> tuple[list[Named], bytes]:
    table, content = read_table(path)
    found = spellings(table.columns)
    column, split = _column_of(found, _columns(by)), _column_of(found, SPLIT_COLUMNS)
    if column is None or split is None:
        what = "patient" if by == "patient" else "file_name"
        columns = ", ".join(name for name in table.columns if name != "line")
        raise InputError(f"--splits: {path} needs the columns {what} and split (found {columns}), or give train={path}")
    named = []
    for text, word, line in zip(table[column], table[split], table["line"], strict=True):
        if is_missing(text) or is_missing(word):
            if not (is_missing(text) and is_missing(word)):
                warnings.append(FileWarning(HALF_ROW, f"{path.name} line {line}", text or word))
            continue
        meant = split_meant(word)
        if meant is None:
            raise InputError(f"{path} line {line}: {shown(word)} is no split: write train, val or test")
        named.append(Named(text, meant, f"{path.name} line {line}"))
    return named, content
