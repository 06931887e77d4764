"""What a report's page is made of: tiles and sections, with numbers as text.

All text is plain; the two templates escape it for HTML and for Markdown.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.evaluation.alignment import Alignment

MOST_LISTED = 25
DASH = "–"
KINDS = {"#": "number", "!": "name", "@": "id", "~": "dim", "|": "bars"}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A number in [0, 1] as a bar, its interval as a thin line, another number as a mark; NaN draws nothing."""

    value: float
    ends: list[float] | None = None
    mark: float = math.nan


@dataclasses.dataclass(frozen=True)
class Table:
    """head: a title for each column, behind a sign of what the column holds: "#" numbers, "!" names that are not
    broken across lines, "@" ids, "~" side remarks, "|" bars; without a sign it holds text. rows: text, or a `Bar` in a
    column of bars. mean_row: the row that stands out, -1 for none."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Bar]]
    mean_row: int = -1

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(title, value of KINDS or "") of each column."""
        return [(title[1:], KINDS[title[0]]) if title[:1] in KINDS else (title, "") for title in self.head]

    @property
    def text(self) -> "Table":
        """The table where only text can be shown: without bars and without columns that hold nothing."""
        return table(
            [
                self.head[k] if kind != "bars" and (title or any(row[k] for row in self.rows)) else None
                for k, (title, kind) in enumerate(self.columns)
            ],
            self.rows,
            self.mean_row,
        )


def table(head: Sequence[str | None], rows: Sequence[Sequence[str | Bar]], mean_row: int = -1) -> Table:
    """A table without those columns whose title is None."""
    shown = [k for k, title in enumerate(head) if title is not None]
    return Table([head[k] or "" for k in shown], [[row[k] for k in shown] for row in rows], mean_row)


@dataclasses.dataclass(frozen=True)
class Section:
    """A title, a hint below it, and what there is of the rest.

    png: a figure, opaque on white; of pictures, all of them on one sheet. file: its name beside the report.
    pictures: (JPEG, caption) each. is_printed: the table is shown on the screen, too.
    """

    title: str
    hint: str = ""
    table: Table | None = None
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paragraphs: Sequence[str] = ()
    warning: str = ""
    file: str = ""
    png: bytes = b""
    pictures: Sequence[tuple[bytes, str]] = ()
    is_printed: bool = False

    @property
    def anchor(self) -> str:
        """What links to the section name."""
        return "-".join(re.findall(r"[a-z0-9]+", self.title.casefold()))

    @property
    def width(self) -> int:
        """Of the figure on the page in pixels; it is drawn with two for one. In a PNG it stands in bytes 16 to 20."""
        return int.from_bytes(self.png[16:20], "big") // 2


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number in large with a note below; is_main: it is what the report is about."""

    label: str
    value: str
    note: str
    is_main: bool = False


def tile(label: str, value: float, ends: list[float] | None, note: str, is_main: bool = False) -> Tile:
    """A number with its interval, if it has one, and a note."""
    known = "" if ends is None or math.isnan(ends[0]) else interval(ends)
    return Tile(label, number(value), " · ".join(filter(None, (known, note))), is_main)


def metric_tiles(metrics: Mapping[str, Any], *rows: tuple[str, str, str], is_main: bool = False) -> list[Tile]:
    """Tiles of those metrics that there are. rows: key, label, note. is_main: of the first."""
    return [
        tile(label, metrics[key], metrics.get(f"{key}_ci95"), note, is_main and place == 0)
        for place, (key, label, note) in enumerate(rows)
        if key in metrics
    ]


def source_id(alignment: Alignment, place: int) -> str:
    """The id of a radiograph."""
    return str(alignment.records[place]["source_id"])


def box(edges: np.ndarray) -> str:
    """(4,) x1, y1, x2, y2."""
    return ", ".join(f"{value:.0f}" for value in edges)


def shown(n_shown: int, n_all: int) -> str:
    """How many of all a list shows."""
    return f"{n_shown:,} of {n_all:,}" if n_shown < n_all else f"All {n_all:,}"


def number(value: float, digits: int = 3) -> str:
    """A number, a dash where it is not defined."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as percent."""
    return DASH if math.isnan(share) else f"{100 * share:.{digits}f} %"


def interval(ends: list[float] | None) -> str:
    """An interval, a dash where there is none."""
    return DASH if ends is None or math.isnan(ends[0]) else f"{ends[0]:.3f}–{ends[1]:.3f}"


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Least, median, most."""
    return f"{np.min(values)}, {np.median(values):.0f}, {np.max(values)}"
