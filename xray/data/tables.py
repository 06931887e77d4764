"""Reading someone's CSV table as the text that it is."""

from pathlib import Path

import pandas as pd

from xray.command import InputError


def read_table(path: Path) -> tuple[pd.DataFrame, bytes]:
    """A CSV file → its cells as text, stripped like the names of its columns, "" where empty; and its bytes.

    A column `line` has each row's line in the file. Raises InputError for a file that cannot be read or is no table.
    """
    try:
        content = path.read_bytes()
        # Everything as text, as ids may look like numbers. Blank lines count, so that line numbers are the file's own.
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False, encoding="utf-8-sig"
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not a CSV table ({error}): download it again") from None
    table.columns = [str(name).strip() for name in table.columns]
    for name in table.columns:
        table[name] = table[name].fillna("").str.strip()
    table["line"] = range(2, len(table) + 2)
    return table, content
