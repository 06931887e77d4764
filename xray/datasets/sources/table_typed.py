"""Tables whose cells have types, Parquet and spreadsheets → cells as text."""

import contextlib
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.datasets.sources.safe_xml import LONGEST_XML, parse_xml
from xray.errors import InputError, need

if TYPE_CHECKING:
    import pandas as pd

ABOVE, HIDDEN = "lines above the header", "hidden rows"
"""Keys of `attrs` of a table: lines of its file above the names of its columns, and rows that a spreadsheet hides."""
ABOVE_NAMES = "above the names of the columns"

_NOT_COMPUTED = re.compile(
    rb"<c(?:\s+(?!t=\"str\")[\w:]+=\"[^\"]*\")*\s*><f(?:\s[^>]*)?(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v></v>)?\s*</c>"
)
"""A cell with a formula and without a value. One whose value is an empty text says so (t="str")."""
_HIDDEN_ROW = re.compile(rb"<row\s[^>]*\bhidden=\"(?:1|true)\"")


class NoTableError(ValueError):
    """The bytes are no table; the message says why, in a few words. columns: of its header, where it has one."""

    def __init__(self, message: str, columns: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.columns = [str(name).strip() for name in columns]


def parquet(path: Path, content: bytes) -> "pd.DataFrame":
    need(f"{path.name}, a Parquet file,", "tables", "pyarrow")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise NoTableError(" ".join(str(error).split())[:200]) from None
    import pandas as pd

    columns = [[text(value) for value in column.to_pylist()] for column in table.columns]
    frame = pd.DataFrame(dict(enumerate(columns)), dtype=object)
    frame.columns = pd.Index(map(str, table.column_names), dtype=object)
    return frame


def spreadsheet(path: Path, content: bytes, sheet: str | None) -> "pd.DataFrame":
    need(f"{path.name}, a spreadsheet,", "tables", "python_calamine")
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_object(io.BytesIO(content))
        rows_of = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except Exception as error:  # whatever the package raises on damaged bytes
        raise NoTableError(" ".join(str(error).split())[:200]) from None
    filled = [name for name, rows in rows_of.items() if any(any(value != "" for value in row) for row in rows)]
    if sheet is not None and sheet not in rows_of:
        raise InputError(f"{path} has no sheet {sheet!r}: it has {', '.join(rows_of)}")
    if sheet is None and len(filled) > 1:
        raise InputError(f"{path} has {len(filled)} sheets ({', '.join(filled[:8])}): choose one with --sheet")
    if not filled:
        raise NoTableError("its sheets are empty")
    chosen = sheet if sheet is not None else filled[0]
    rows = rows_of[chosen]
    n_above = next((number for number, row in enumerate(rows) if any(value != "" for value in row)), 0)
    header, *rows = rows[n_above:] or [[]]
    _check_header(header, rows, n_above)
    n_formulas, n_hidden = _of_workbook(content, chosen)
    if n_formulas:
        raise NoTableError(f"{n_formulas} cells of {chosen} hold formulas without a value")
    import pandas as pd

    frame = pd.DataFrame([[text(value) for value in row] for row in rows], dtype=object)
    names = [text(name) or f"Unnamed: {number}" for number, name in enumerate(header)]
    if frame.empty:
        frame = pd.DataFrame(columns=range(len(names)), dtype=object)
    frame.columns = pd.Index(names, dtype=object)
    frame.attrs |= {key: n for key, n in ((ABOVE, n_above), (HIDDEN, n_hidden)) if n}
    return frame


def _check_header(header: Sequence[Any], rows: Sequence[Sequence[Any]], n_above: int) -> None:
    """Raises NoTableError for a first line that is a title, and for names of columns in two lines."""
    n_names = sum(value != "" for value in header)
    below = next(iter(rows), [])
    if n_names == 1 and sum(value != "" for value in below) > 1:
        raise NoTableError(f"{text(next(filter(None, header)))[:60]!r} stands alone {ABOVE_NAMES}")
    is_free = [name == "" and value != "" for name, value in zip(header, below, strict=False)]
    is_named = [name != "" and value == "" for name, value in zip(header, below, strict=False)]
    if any(is_free) and any(is_named) and all(isinstance(value, str) for value in below):
        names = ", ".join(text(value) for value in below if value != "")[:60]
        raise NoTableError(f"the names of its columns stand in two lines, {n_above + 1} and {n_above + 2} ({names})")


def _of_workbook(content: bytes, sheet: str) -> tuple[int, int]:
    """Formulas of a sheet that no program has computed, and rows that it hides; 0 where this cannot be told.

    A reader of values takes the first for empty cells. Of .xlsx files; in others neither is looked for.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            book = parse_xml(_member(archive, "xl/workbook.xml"))
            links = parse_xml(_member(archive, "xl/_rels/workbook.xml.rels"))
            target_of = {link.get("Id"): link.get("Target", "") for link in links}
            ids = [
                value
                for one in book.iter()
                if one.tag.endswith("}sheet") and one.get("name") == sheet
                for key, value in one.items()
                if key.endswith("}id")
            ]
            target = target_of[ids[0]]
            cells = _member(archive, target.lstrip("/") if target.startswith("/") else f"xl/{target}")
    except (KeyError, IndexError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):  # or what it cannot unpack
        return 0, 0
    return len(_NOT_COMPUTED.findall(cells)), len(_HIDDEN_ROW.findall(cells))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A part of a workbook. Raises ValueError for one that unpacks to more than LONGEST_XML."""
    with archive.open(name) as file:
        content = file.read(LONGEST_XML + 1)
    if len(content) > LONGEST_XML:
        raise ValueError(f"{name} is too large")
    return content


def text(value: Any) -> str:
    """A cell of a typed table as text: "" for null and NaN, 3 for 3.0, a list as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, bytes):
        # How some tools write texts, too; what is none, such as a picture, stays as it is spelt.
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)
