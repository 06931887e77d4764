"""The tables of a report on the screen."""

import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from xray.outputs.report.page import Page
from xray.radiographs.names import visible

WIDTH_OF_FILES = 200
"""Characters of a line that is not printed on a terminal."""


def show(page: Page) -> None:
    """Prints the report's warnings to stderr, and its tiles and main tables.

    Of a table that is too wide for the terminal, the last columns are left out.
    """
    for warning in page.warnings:
        print(f"warning: {visible(warning)}", file=sys.stderr)
    for tile in page.tiles:
        print(f"{tile.label} {tile.value}" + (f" ({tile.note})" if tile.note else ""))
    for section in page.sections:
        if section.table and section.is_printed:
            print_table(section.title, section.table.text.columns, section.table.text.rows)
            print(section.warning and f"{section.warning}\n", end="")
    print()


def print_table(title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[object]]) -> None:
    """columns: the heading of each and "number" or something else. The last that find no room are left out."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    texts = [[visible(str(cell)) for cell in row] for row in rows]
    cells = [max((cell_len(row[k]) for row in texts), default=0) for k in range(len(columns))]
    widths = [max(cell_len(heading), cell) for (heading, _), cell in zip(columns, cells, strict=True)]
    if sum(widths) + 2 * len(widths) > console.width:
        # A heading may be broken between words, but not numbers and names.
        words = (max(map(cell_len, heading.split()), default=0) for heading, _ in columns)
        widths = list(map(max, words, cells))
    while len(widths) > 1 and sum(widths) + 2 * len(widths) > console.width:
        widths.pop()
    for (heading, kind), width in zip(columns, widths, strict=False):
        table.add_column(heading, justify="right" if kind == "number" else "left", width=width)
    for row in texts:
        table.add_row(*row[: len(widths)])
    console.print("", table, sep="\n")
