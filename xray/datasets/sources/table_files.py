"""The files that tables come in: CSV with any separator, packed or not, Parquet and spreadsheets → cells as text.

What a file is decides its content, not its suffix.
"""

import csv
import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.datasets.sources.table_typed import ABOVE, NoTableError, parquet, spreadsheet
from xray.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 4 * 2**30
"""Bytes that a packed table may unpack to."""
SUFFIXES = (
    ".csv", ".tsv", ".tab", ".txt", ".csv.gz", ".tsv.gz", ".csv.zip", ".parquet", ".xlsx", ".xlsm", ".xls", ".ods",
)  # fmt: skip
"""Of files that may be tables; whether they are, their content says."""
JSON, XML = "JSON", "XML"
NOT_UTF8 = "it is not UTF-8"
WINDOWS = "cp1252"
TOO_MANY_CELLS = "a row has more cells than the header has columns"

MOST_COLUMNS = 10_000
"""Of a table: pandas takes minutes to tell apart 100,000 columns of the same few names."""

_OTHERS = {
    re.compile(r'\{\s*["}]|\[\s*[\[{"\]]'): JSON,
    re.compile(r"<(!doctype html|html)\b", re.IGNORECASE): "HTML, a web page",
    re.compile(r"<[?!a-z]", re.IGNORECASE): XML,
}
"""How text that is something else begins → what it is."""
_BINARY = (b"\x89PNG", b"\xff\xd8\xff", b"%PDF", b"\x93NUMPY", b"\x7fELF", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"BZh")
_MOST_COMMENTS = 1000
_OF_DATA = re.compile(r"\s*(?:[-+.\d]*|.*\.[A-Za-z]{2,5})\s*")
"""A cell that no column is called: blank, a number, or a file."""
_INSIDE = re.compile(r'"[^"]*"|\[[^\[\]]*\]')
_OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def separator(header: str) -> str:
    """What stands between the columns of a table with this first line: of comma, ; and tab the most frequent.

    What stands in quotes or brackets is not counted, where something else is: `id;box [x,y,w,h]`.
    """
    outside = _INSIDE.sub("", header)
    for line in (outside, header):
        counts = {mark: line.count(mark) for mark in ",;\t"}
        if any(counts.values()):
            return max(counts, key=lambda mark: counts[mark])
    return ","


def is_csv(content: bytes) -> bool:
    """Whether bytes are none of the other formats."""
    return not content.startswith((b"\x1f\x8b", b"PAR1", b"PK\x03\x04", _OLD_EXCEL))


def cells(
    path: Path, content: bytes, sheet: str | None = None, wanted: Callable[[str], bool] | None = None
) -> "pd.DataFrame":
    """The cells of a file as text, "" where empty; columns as the file spells them.

    sheet: of a spreadsheet; needed where several hold something. wanted: which columns of a CSV; None for all.
    Raises NoTableError for what is no table, and InputError where a package or a choice is missing.
    """
    if content[:2] == b"\x1f\x8b":
        return cells(path.with_suffix(""), _unpacked(content), sheet, wanted)
    if content[:4] == b"PAR1":
        return parquet(path, content)
    if content[:4] == b"PK\x03\x04":
        with _opened(content) as archive:
            names = archive.namelist()
            if "mimetype" not in names and not any(name.endswith(("workbook.xml", "workbook.bin")) for name in names):
                return cells(path.with_suffix(""), _only_member(path, archive), sheet, wanted)
        return spreadsheet(path, content, sheet)
    if content[:8] == _OLD_EXCEL:
        return spreadsheet(path, content, sheet)
    if path.suffix.lower() in (".gz", ".zip"):
        raise NoTableError(f"it cannot be unpacked, it is no {path.suffix.lower()} file")
    return _csv(content, wanted)


def _csv(content: bytes, wanted: Callable[[str], bool] | None) -> "pd.DataFrame":
    import pandas as pd

    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    content, n_above = _without_comments(content)
    head = content[: 2**16].decode(encoding, "replace").partition("\n")[0]
    options: dict[str, Any] = {
        # Everything as text: ids may look like numbers, and what is no number must be told from what is empty. Blank
        # lines count, so that line numbers are the file's own.
        "sep": separator(head),
        "dtype": str,
        "keep_default_na": False,
        "skip_blank_lines": False,
        "encoding": encoding,
    }
    _check_kind(content, encoding, options["sep"])
    _check_end(content, head, options["sep"])
    names = [name.strip() for name in next(_rows([head], options["sep"]), [])]
    if wanted is not None:
        _check_width(content, encoding, options["sep"], names)
        # Those of one name as well, which are refused whatever they are.
        twice = {name for name in names if name and names.count(name) > 1}
        options["usecols"] = [place for place, name in enumerate(names) if wanted(name) or name in twice]
    try:
        with warnings.catch_warnings():
            # Cells beyond the last column would be left out with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table: pd.DataFrame = pd.read_csv(io.BytesIO(content), index_col=False, **options)
    except (pd.errors.ParserWarning, pd.errors.ParserError):
        # Of a row with one cell too many pandas warns; with two it gives up, be they empty or not.
        table = _with_longer_rows(content, options)
    except UnicodeError:
        raise _no_text(content, encoding) from None
    except pd.errors.EmptyDataError as error:
        raise NoTableError(" ".join(str(error).split())) from None
    table = _with_own_names(table, [names[place] for place in options.get("usecols", range(len(names)))])
    if n_above:
        table.attrs[ABOVE] = n_above
    return table


def _without_comments(content: bytes) -> tuple[bytes, int]:
    """A table in bytes of one character each without the lines above its header that begin with #; and their number.

    The last of them is the header, as numpy writes it, where it has as many cells as the line below, and that one is of
    numbers or files.
    """
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    lines = [content[start : content.find(b"\n", start) + 1]]
    while lines[-1].startswith(b"#") and len(lines) < _MOST_COMMENTS:
        start += len(lines[-1])
        lines.append(content[start : content.find(b"\n", start) + 1] or content[start:])
    if len(lines) == 1 or not lines[-1].strip():
        return content, 0
    texts = [line.decode("utf-8", "replace") for line in lines]
    mark = separator(texts[-1])
    header, below = (next(_rows([text], mark), []) for text in texts[-2:])
    is_header = 1 < len(header) == len(below) and any(map(_OF_DATA.fullmatch, below))
    n_above = len(lines) - 1 - is_header
    return (content[start - is_header * len(lines[-2]) :], n_above) if n_above else (content, 0)


def _check_width(content: bytes, encoding: str, mark: str, names: Sequence[str]) -> None:
    """Raises NoTableError for a row with cells beyond the last column: where only some are read, pandas passes over it.

    In such a row a cell may hold the separator without quotes, and then all that stand behind it are of other columns.
    """
    try:
        for row in _rows(io.TextIOWrapper(io.BytesIO(content), encoding, newline=""), mark):
            if len(row) > len(names) and any(row[len(names) :]):
                raise NoTableError(f"{TOO_MANY_CELLS}: cells that hold the separator need quotes", names)
    except UnicodeError:
        raise _no_text(content, encoding) from None


def _check_kind(content: bytes, encoding: str, mark: str) -> None:
    """Raises NoTableError for bytes that are no table: as one, a large JSON file would be worked on for minutes."""
    start = content[: 2**12].decode(encoding, "replace").lstrip()
    if kind := next((kind for opening, kind in _OTHERS.items() if opening.match(start)), ""):
        raise NoTableError(f"it is {kind}")
    if content.startswith(_BINARY) or (encoding != "utf-16" and b"\0" in content[: 2**16]):
        raise NoTableError("it is no text")
    line = content[: content.find(b"\n")] if b"\n" in content[: 2**24] else content[: 2**24]
    if (n_columns := line.count(mark.encode()) + 1) > MOST_COLUMNS:
        raise NoTableError(f"its first line has {n_columns} columns, and no table has more than {MOST_COLUMNS}")


def _check_end(content: bytes, head: str, mark: str) -> None:
    """Raises NoTableError for a table that was cut off in its last row, of which an empty cell may mean a normal one.

    Rows may lack empty cells at their end, but a row that lacks its line end as well was not meant to end there.
    """
    *before, last = content.rpartition(b"\n")
    if not before[0].strip() or not last.strip() or b'"' in last or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return
    n_cells, n_columns = last.count(mark.encode()) + 1, len(next(_rows([head], mark), []))
    if n_cells < n_columns:
        raise NoTableError(f"it is cut off: its last row has {n_cells} of {n_columns} cells and no end of line")


def _with_own_names(table: "pd.DataFrame", names: Sequence[str]) -> "pd.DataFrame":
    """The table with the names in its first line: pandas calls the second of two columns of one name `name.1`."""
    import pandas as pd

    filled = [name for name in names if name]
    if len(names) == len(table.columns) and len(set(filled)) < len(filled):
        known = zip(names, table.columns, strict=True)
        table.columns = pd.Index([name or other for name, other in known], dtype=object)
    return table


def _rows(lines: Iterable[str], mark: str) -> Iterator[list[str]]:
    """The cells of lines, however long these are. Raises NoTableError for what cannot be taken apart."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield from csv.reader(lines, delimiter=mark)
    except csv.Error as error:
        raise NoTableError(str(error)) from None
    finally:
        csv.field_size_limit(before)


def _with_longer_rows(content: bytes, options: dict[str, Any]) -> "pd.DataFrame":
    """The columns of the header; rows may end in separators, but not in further cells."""
    import pandas as pd

    try:
        header = pd.read_csv(io.BytesIO(content), index_col=False, nrows=0, **options).columns
        text_of_rows = content.decode(options["encoding"]).splitlines()
        width = max(len(row) for row in _rows(text_of_rows, options["sep"]))
        table: pd.DataFrame = pd.read_csv(
            io.BytesIO(content), header=None, names=list(range(width)), skiprows=1, **options
        )
    except UnicodeError:
        raise _no_text(content, options["encoding"]) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise NoTableError(" ".join(str(error).split())) from None
    if (table[table.columns[len(header) :]].fillna("") != "").any(axis=None):
        raise NoTableError(f"{TOO_MANY_CELLS}: cells that hold the separator need quotes", list(header))
    table = table[table.columns[: len(header)]]
    table.columns = header
    return table


def _no_text(content: bytes, encoding: str) -> NoTableError:
    """What is wrong with bytes that are no text in an encoding: pandas counts from the start of some part of them."""
    if (line := not_utf8(content)) is not None and encoding != "utf-16":
        return NoTableError(f"{NOT_UTF8}, see its line {line}")
    return NoTableError(f"it is damaged: its bytes are no {encoding}")


def not_utf8(content: bytes) -> int | None:
    """The first line that is no UTF-8; None where all are."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content[: error.start].count(b"\n") + 1
    return None


def from_windows(content: bytes) -> bytes | None:
    """The bytes of a CSV file that a spreadsheet of Windows wrote in its own encoding, in UTF-8; None for any other."""
    if not is_csv(content) or content.startswith((b"\xff\xfe", b"\xfe\xff", *_BINARY)) or not_utf8(content) is None:
        return None
    try:
        return content.decode(WINDOWS).encode()
    except UnicodeDecodeError:
        return None


def _unpacked(content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return _limited(file.read(LARGEST + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise NoTableError(f"it cannot be unpacked, {error}") from None


def _opened(content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise NoTableError(f"it cannot be unpacked, {error}") from None


def _only_member(path: Path, archive: zipfile.ZipFile) -> bytes:
    names = [one for one in archive.infolist() if not one.is_dir() and "__MACOSX" not in one.filename]
    if len(names) != 1:
        listing = ", ".join(one.filename for one in names[:5])
        raise InputError(f"{path} holds {len(names)} files ({listing}): unpack it, and give the table")
    try:
        with archive.open(names[0]) as file:
            return _limited(file.read(LARGEST + 1))
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise NoTableError(f"it cannot be unpacked, {error}") from None


def _limited(content: bytes) -> bytes:
    if len(content) > LARGEST:
        raise NoTableError(f"it unpacks to more than {LARGEST // 2**30} GiB")
    return content
