"""Anybody's table of radiographs → a source: a row a box, a label or a radiograph, in CSV, Parquet or a spreadsheet.

Which column is what is said by flags or found by the usual names (`table_columns`); what the numbers of a box mean is
checked against the sizes of the radiographs (`table_boxes`). A label that a row leaves blank is unknown, not negative,
unless the user says so (`table_labels`).
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xray.datasets.category_map import NORMAL_LABELS, plain
from xray.datasets.source import Source, data_root
from xray.datasets.sources.box_names import Form
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.table_boxes import PIXELS, Reading, units_of
from xray.datasets.sources.table_columns import Chosen, find_columns
from xray.datasets.sources.table_files import NOT_UTF8, SUFFIXES
from xray.datasets.sources.table_labels import doubtful, read_labels
from xray.datasets.sources.table_review import said_of_rows
from xray.datasets.sources.table_rows import Policy, TableRows
from xray.datasets.sources.table_spelt import box_columns, unfolded
from xray.datasets.sources.table_typed import ABOVE, HIDDEN
from xray.datasets.sources.tables import read_table as read_cells
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.values import is_missing

if TYPE_CHECKING:
    import pandas as pd

LINES_ABOVE = "lines above the names of the columns, which are not read"
HIDDEN_ROWS = "rows that the spreadsheet hides, which are read like the others"
TOTALS = "row that sums up the others"
_TOTAL = re.compile(r"(?:(?:grand|sub)[ -]?)?(?:total|sum|summary|count|average|mean|median)s?\b", re.IGNORECASE)
_MOST_TOTALS = 10
"""Rows at a table's end among which totals are looked for."""
NO_UTF8 = "table that is not UTF-8, read as Windows-1252: names with accents may be others"
SILENT = "columns of -1 alone, which say nothing and are no categories"
MOST_TABLES = 50
"""Files of a folder that are tried."""


def read_table(
    data_path: Path | str,
    *,
    table: str | None = None,
    sheet: str | None = None,
    id: str = "",
    label: str = "",
    box: Form | None = None,
    columns: str = "",
    units: str = PIXELS,
    normal: Sequence[str] = (),
    kept: Sequence[str] = (),
    blank: Policy = "unknown",
    uncertain: Policy = "unknown",
    same_size: bool = False,
    table_only: bool = False,
    **chosen: str,
) -> Source:
    """Reads a table and finds its radiographs below `data_path`; opens those alone whose size it needs.

    table: relative to `data_path` or to the working directory; None finds the one that is there. sheet: of a
    spreadsheet. id, label, box, columns and `chosen` (patient, split, reader, width, height, view, sex, age): see
    `table_columns.Chosen`. units: see `table_boxes.Units`. normal, kept: labels that mean that nothing was found,
    and that do not, see `NormalNames`. blank: what a blank label means. uncertain: what -1 means. same_size: the files
    have the size at which they were annotated, whatever the boxes look like. table_only: only for `write_store`.

    Radiographs without a row are left out, as are those of which a row cannot be used.

    Raises InputError where there is no table or several, where a column is not found, where boxes fit better in
    another form or in other units, and where no radiograph can be used.
    """
    root = data_root(data_path, "give the folder of the radiographs, and the table itself with --table")
    unit = units_of(units)
    path = _find_table(root, table)
    cells, content = read_cells(path, sheet=sheet, old=True)
    collector = Collector("table", root)
    collector.read(content)
    if line := cells.attrs.get(NOT_UTF8):
        collector.warnings.append(FileWarning(NO_UTF8, path.name, f"the first in line {line}"))
    flags = (id, label, box, columns, unit, *normal, *kept, blank, uncertain, *sorted(chosen.items()))
    collector.read(repr(flags).encode())
    if n_above := cells.attrs.get(ABOVE):
        collector.warnings.append(FileWarning(LINES_ABOVE, path.name, str(n_above)))
    if n_hidden := cells.attrs.get(HIDDEN):
        collector.warnings.append(FileWarning(HIDDEN_ROWS, path.name, str(n_hidden)))
    cells = _without_totals(cells, path.name, collector)
    if not columns:
        cells, spelt = unfolded(cells, path.name, label)
        if spelt:
            label, box, columns = spelt, "xyxy", ",".join(box_columns(spelt))
    found = find_columns(cells, path.name, collector.files, Chosen(id, label, box, columns, **chosen))
    if not (found.labels or found.box):
        names = ", ".join(name for name in cells.columns if name != "line")
        nested = next((name for name in cells.columns if name != "line" and _holds_records(cells[name])), None)
        advice = "name them with --label or --columns"
        if nested is not None:
            advice = f"{nested} holds records in its cells, which are not read: write a row a box or label"
        raise InputError(f"{path} has neither labels nor boxes (found {names}): {advice}")
    print(f"{path.name}: {found.in_words()}", flush=True)
    if unit == PIXELS and (
        percent := next((name for name in found.box if "%" in name or "percent" in name.lower()), "")
    ):
        raise InputError(f"{path.name}: {percent} is in percent of the sides and no pixels: give --units 100")
    if found.silent:
        collector.warnings.append(FileWarning(SILENT, path.name, ", ".join(found.silent)))
    for said, names_of in found.doubts.items():
        collector.warnings.append(FileWarning(said, path.name, ", ".join(names_of)))
    labels = read_labels(cells, found, path.name, NormalNames(normal, kept))
    if labels.states is not None:
        for said, detail in said_of_rows(found.reviews, labels.states, found.is_wide).items():
            collector.warnings.append(FileWarning(said, path.name, detail))
    unmapped = [category for category in labels.categories if plain(category) not in set(map(plain, kept))]
    for said, names_of in doubtful(unmapped).items():
        collector.warnings.append(FileWarning(said, path.name, ", ".join(names_of)))
    if labels.normal_names:
        print(f"{path.name}: nothing was found where it says {' or '.join(labels.normal_names)}", flush=True)
        collector.notes[NORMAL_LABELS] = list(labels.normal_names)
    rows = TableRows(collector, path.name, cells, found, labels)
    rows.judge(uncertain)
    rows.describe(blank)
    if found.form is not None:
        rows.enter_boxes(Reading(found.form, unit), same_size)
    return collector.source()


def _without_totals(cells: "pd.DataFrame", name: str, collector: Collector) -> "pd.DataFrame":
    """The rows without those at the end that sum the others up, which are named: their numbers are no labels.

    Such a row begins with a word for it, and names no radiograph.
    """
    columns = [column for column in cells.columns if column != "line"]
    n_kept, totals = len(cells), []
    for place in range(len(cells) - 1, max(len(cells) - 1 - _MOST_TOTALS, -1), -1):
        filled = [text for text in cells[columns].iloc[place] if not is_missing(text)]
        is_total = bool(filled) and _TOTAL.match(filled[0]) is not None
        # Its numbers may be names of files by chance.
        words = [text for text in filled if any(map(str.isalpha, text))]
        if filled and (not is_total or any(map(collector.files.meant_by, words))):
            break
        if is_total:
            n_kept = place
            totals.append((f"{name} line {cells['line'].iat[place]}", filled[0]))
    for where, word in reversed(totals):
        collector.leave_out(where, TOTALS, word)
    return cells.iloc[:n_kept].copy() if totals else cells


def _holds_records(column: "pd.Series") -> bool:
    return any(text.lstrip().startswith(("{", "[{")) for text in column.iloc[:100])


def _find_table(root: Path, chosen: str | None) -> Path:
    """The table that is named, or the only one in the folder itself."""
    if chosen is not None:
        path = root / chosen if (root / chosen).is_file() else Path(chosen)
        if not path.is_file():
            raise InputError(f"there is no table {chosen}, neither in {root} nor here: check --table")
        return path
    files = sorted(path for path in root.iterdir() if path.name.lower().endswith(SUFFIXES) and path.name[0] != ".")
    tables = []
    for path in files[:MOST_TABLES]:
        # A text file of one column is a README or a list.
        with contextlib.suppress(InputError):
            if not path.name.lower().endswith(".txt") or len(read_cells(path, old=True)[0].columns) > 2:
                tables.append(path)
    if not tables and files:
        read_cells(files[0])  # says why it is none
    if not tables:
        raise InputError(f"{root} holds no table (CSV, TSV, Parquet, Excel): put it there, or name it with --table")
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:6])
        raise InputError(f"{root} holds {len(tables)} tables ({names}): choose one with --table")
    return tables[0]
