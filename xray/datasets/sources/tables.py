"""Reading someone's table as the text that it is."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.table_files import (
    JSON,
    NOT_UTF8,
    TOO_MANY_CELLS,
    XML,
    cells,
    from_windows,
    is_csv,
    not_utf8,
    separator,
)
from xray.datasets.sources.table_typed import ABOVE, ABOVE_NAMES, NoTableError
from xray.errors import InputError, spelled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["each_text", "factorize", "plain_name", "read_table", "separator", "spellings"]
MOST_OF_COLUMNS = 300
"""Characters of the names of columns that a message shows."""


def plain_name(name: str) -> str:
    """A column's name without case, blanks and punctuation: image_id, ImageId and "Image ID" are one."""
    return "".join(mark for mark in str(name).casefold() if mark.isalnum())


def spellings(columns: Iterable[str]) -> dict[str, str]:
    """Plain name (see `plain_name`) → the column as it is spelt; of two of one plain name the first. Without `line`."""
    return {plain_name(name): name for name in reversed(list(columns)) if name != "line"}


def read_table(
    path: Path,
    needed: Sequence[str] = (),
    known: Sequence[str] = (),
    sheet: str | None = None,
    only: bool = False,
    old: bool = False,
) -> "tuple[pd.DataFrame, bytes]":
    """A table → its cells as text, stripped like the names of its columns, "" where empty; and the file's bytes.

    The file is a CSV with commas, semicolons or tabs, packed by gzip or zip or not, Parquet, or a spreadsheet.
    needed: columns that it must have. known: further ones that it may have. Both get the names given here where they
    are spelt otherwise, see `plain_name`. sheet: of a spreadsheet. only: no other columns are kept of a CSV, such as
    reports, which may be a gigabyte.
    old: a CSV that is not UTF-8 is read as Windows-1252, in which spreadsheets write; the first line where that matters
    is then `attrs[NOT_UTF8]` of the table.
    A column `line` has each row's line in the file. Rows whose cells are all empty are none.
    Raises InputError for a file that cannot be read or is no table, for two columns of one name, and for a column that
    is missing.
    """
    try:
        content = path.read_bytes()
        wanted = frozenset(map(plain_name, (*needed, *known)))
        in_utf8 = from_windows(content) if old else None
        readable = content if in_utf8 is None else in_utf8
        table = cells(path, readable, sheet, (lambda name: plain_name(name) in wanted) if only else None)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except NoTableError as error:
        if error.columns:
            # What is missing says more than what is left over.
            _check_columns(path, error.columns, needed)
        advice = _advice(str(error), error.columns)
        kind = "CSV table" if is_csv(content) else "table"
        raise InputError(f"{path} is not a {kind} ({error}): {advice}") from None
    table.columns = [str(name).strip() for name in table.columns]
    if not table.columns.is_unique:
        found = _listed(table.columns)
        raise InputError(f"{path} has two columns of one name (found {found}): rename one of them")
    for name in (*needed, *known):
        alike = [column for column in table.columns if plain_name(column) == plain_name(name)]
        if name not in table.columns and len(alike) == 1:
            table = table.rename(columns={alike[0]: name})
    _check_columns(path, list(table.columns), needed, exactly=True)
    for name in table.columns:
        # Each distinct text once: 15,000 image ids instead of VinBigData's 67,914 rows.
        table[name] = each_text(table[name], str.strip)
    first = 2 + table.attrs.get(ABOVE, 0)
    table["line"] = range(first, first + len(table))
    if not only:
        table = _without_empty_rows(table)
    if in_utf8 is not None:
        table.attrs[NOT_UTF8] = not_utf8(content)
    return table, content


def _without_empty_rows(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows in which at least one cell is filled: spreadsheets save rows of commas below those that were deleted."""
    filled = np.zeros(len(table), dtype=bool)
    for name in table.columns.drop("line"):
        filled |= (table[name] != "").to_numpy()
        if filled.all():
            return table
    result = table[filled].reset_index(drop=True)
    result.attrs = table.attrs
    return result


def _advice(fault: str, columns: Sequence[str]) -> str:
    """What to do about a file that is no table. fault, columns: of a NoTableError."""
    if (TOO_MANY_CELLS in fault and len(columns) == 1) or ABOVE_NAMES in fault:
        return "its first line needs the names of the columns, so delete what stands above them"
    if "two lines" in fault:
        return "write them into one"
    if "without a value" in fault:
        return "open it in a program for spreadsheets, which computes them, and save it"
    if TOO_MANY_CELLS in fault:
        return "put them there"
    if NOT_UTF8 in fault:
        return "save it as UTF-8"
    if fault == f"it is {JSON}":
        coco, tree = (f"{spelled('convert')} {source}" for source in ("coco", "tree"))
        return f"a COCO file is read by {coco} --annotations FILE, what Label Studio exports by {tree}"
    if fault == f"it is {XML}":
        return f"files of Pascal VOC and CVAT are read by {spelled('convert')} tree"
    return "download it again"


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str], exactly: bool = False) -> None:
    """Raises InputError for columns that are missing. exactly: they have the names that are needed by now."""
    have = set(columns) if exactly else set(map(plain_name, columns))
    missing = [name for name in needed if (name if exactly else plain_name(name)) not in have]
    if missing:
        raise InputError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: "
            f"it needs {', '.join(needed)} (found {_listed(columns)})"
        )


def _listed(columns: Iterable[str]) -> str:
    """Names of columns for a message: of a damaged table they may be anything."""
    return " ".join(", ".join(columns).split())[:MOST_OF_COLUMNS] or "none"


def each_text(column: "pd.Series", change: Callable[[str], str]) -> np.ndarray:
    """A column with each of its texts changed, once for all rows that have it."""
    texts, row_of = factorize(column)
    changed: np.ndarray = np.array([*map(change, texts), ""], dtype=object)[row_of]
    return changed


def factorize(column: "pd.Series") -> tuple[list[str], np.ndarray]:
    """Distinct texts in order of appearance, and the number of each row's."""
    import pandas as pd

    codes, names = pd.factorize(column)
    return [str(name) for name in names], np.asarray(codes, dtype=np.int64)
