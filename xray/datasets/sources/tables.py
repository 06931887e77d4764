"""Reading someone's CSV table as the text that it is."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MOST_OF_COLUMNS = 300
"""Characters of the names of columns that a message shows."""


MAX_TABLE_BYTES = 2**32
"""Of an unpacked table: PadChest's, with the reports, has 2^27."""


def plain_name(name: str) -> str:
    """A column's name without case, blanks and punctuation: image_id, ImageId and "Image ID" are one."""
    return "".join(mark for mark in str(name).casefold() if mark.isalnum())


def spellings(columns: Iterable[str]) -> dict[str, str]:
    """Plain name (see `plain_name`) → the column as it is spelt; of two of one plain name the first. Without `line`."""
    return {plain_name(name): name for name in reversed(list(columns)) if name != "line"}


def separator(header: str) -> str:
    """What stands between the columns of a table with this first line: a comma or, where there is none, ; or a tab."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def read_table(path: Path, needed: Sequence[str] = (), known: Sequence[str] = ()) -> "tuple[pd.DataFrame, bytes]":
    """A CSV file → its cells as text, stripped like the names of its columns, "" where empty; and its bytes.

    It may be packed, as .gz or as the only file of a .zip.

    needed: columns that it must have. known: further ones that it may have. Both get the names given here where they
    are spelt otherwise, see `plain_name`. A column `line` has each row's line in the file.
    Raises InputError for a file that cannot be read or is no table, for two columns of one name, and for a column that
    is missing.
    """
    # Here, as it takes 0.3 s and 70 MiB to import: one DICOM file needs no table.
    import pandas as pd

    try:
        content = unpacked(path)
        # Everything as text: ids may look like numbers, and what is no number must be told from what is empty. Blank
        # lines count, so that line numbers are the file's own.
        table = pd.read_csv(
            io.BytesIO(content),
            sep=separator(content[: 2**16].partition(b"\n")[0].decode("utf-8", "replace")),
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            encoding="utf-8-sig",
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a CSV table ({reason}): download it again") from None
    table.columns = [str(name).strip() for name in table.columns]
    # Of a damaged table they may be anything.
    columns = " ".join(", ".join(table.columns).split())[:MOST_OF_COLUMNS] or "none"
    if not table.columns.is_unique:
        raise InputError(f"{path} has two columns of one name (found {columns}): rename one of them")
    for name in (*needed, *known):
        alike = [column for column in table.columns if plain_name(column) == plain_name(name)]
        if name not in table.columns and len(alike) == 1:
            table = table.rename(columns={alike[0]: name})
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: "
            f"it needs {', '.join(needed)} (found {columns})"
        )
    for name in table.columns:
        # Each distinct text once: 15,000 image ids instead of VinBigData's 67,914 rows.
        table[name] = each_text(table[name], str.strip)
    table["line"] = range(2, len(table) + 2)
    return table, content


def unpacked(path: Path) -> bytes:
    """The bytes of a table: those of its file, of what is in a .gz file, or of the only file in a .zip file.

    Raises InputError for a packed file that cannot be unpacked, or is too large; OSError where it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in (".gz", ".zip"):
        return path.read_bytes()
    try:
        if suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read(MAX_TABLE_BYTES + 1)
        else:
            with zipfile.ZipFile(path) as archive:
                # macOS adds files of its own.
                names = [name for name in archive.namelist() if name[-1] != "/" and not name.startswith("__MACOSX/")]
                if len(names) != 1:
                    raise InputError(f"{path} holds {len(names)} files, where one table is expected: unpack it")
                with archive.open(names[0]) as file:
                    content = file.read(MAX_TABLE_BYTES + 1)
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} cannot be unpacked ({error}): download it again") from None
    if len(content) > MAX_TABLE_BYTES:
        raise InputError(f"{path} holds more than {MAX_TABLE_BYTES >> 30} GiB: no table of radiographs is so large")
    return content


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
