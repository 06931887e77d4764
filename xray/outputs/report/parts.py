"""The parts of a report's page: tiles and sections, with numbers as text.

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
RELIABILITY = (
    "Share that is right over the mean score of each bin, the diagonal being perfect; dot areas grow with what lies in "
    "a bin. Orange: as given, with 95 % intervals; blue: calibrated, each patient by what was fitted on others, where "
    "that is enough to fit."
)
FIGURES = {
    "precision_recall.png": (
        "Precision and recall",
        "The line is the precision after each prediction, from the highest score down; the area is the AP.",
    ),
    "froc.png": (
        "Free-response ROC",
        "Share of the findings that are found, against false positives per image; dots from ⅛ to 8.",
    ),
    "scores.png": ("Scores", "Number of true and false positives by score, on a logarithmic axis."),
    "dice_histogram.png": (
        "Dice over positives",
        "Of the radiographs with a true mask; the line is the median, “none” the share whose mask is missed "
        "altogether.",
    ),
    "mask_areas.png": (
        "Areas",
        "Each dot is a radiograph; on the dashed line, the predicted mask is as large as the true one.",
    ),
    "triplet.png": ("Dice by top, bottom and min area", "The square marks"),
    "gate.png": (
        "Dice by the classifier's gate",
        "A radiograph whose probability is under the gate has its mask emptied.",
    ),
    "roc.png": ("ROC of whole radiographs", "The dot is the point at the threshold; the dashed line is chance."),
    "precision_recall_labels.png": (
        "Precision and recall of whole radiographs",
        "The dot is the point at the threshold; the dashed line is the share of positives.",
    ),
    "calibration_boxes.png": ("Reliability of boxes", RELIABILITY),
    "calibration_labels.png": ("Reliability of whole radiographs", RELIABILITY),
    "calibration_pixels.png": ("Reliability of probability maps", RELIABILITY),
    "confusion.png": (
        "Confusion matrix",
        "Numbers are boxes, shades are shares of a row; the corner has no meaning and is left out.",
    ),
    "groups.png": ("Groups at a glance", "Dots with their 95 % intervals; the number of radiographs in brackets."),
    "training.png": (
        "Training curves",
        "By epoch: the loss and its terms (lines are means of epochs, marks what single steps had), what was measured "
        "in validation, and the learning rate.",
    ),
    "readers.png": ("Readers with each other", "Cohen’s kappa of any finding; below, how far their own boxes overlap."),
    "places.png": (
        "Boxes by place",
        "Of each category's boxes, the share that covers each place of the radiograph: white is none, black most.",
    ),
    "compare_values.png": ("Both, number by number", "Blue: A, orange: B."),
    "compare_differences.png": (
        "Differences",
        "B − A with 95 % intervals; right of the line B is better. Faint where the interval holds zero.",
    ),
}
"""File of every figure that a report may have → its title, and a hint."""
GALLERIES = ("false_positives.png", "misses.png", "copies.png", "odd.png", "labels.png")
"""Files of pictures of single errors, and of what an audit names."""
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
    """A title, a hint below it, and the content.

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
        """The name of the section in links."""
        return "-".join(re.findall(r"[a-z0-9]+", self.title.casefold()))

    @property
    def width(self) -> int:
        """Of the figure on the page in pixels; it is drawn with two for one. In a PNG it stands in bytes 16 to 20."""
        return int.from_bytes(self.png[16:20], "big") // 2


def figure(file: str, png: bytes, title_end: str = "", hint_end: str = "") -> Section:
    """A section with one of FIGURES; ends are added to its title and hint."""
    title, hint = FIGURES[file]
    return Section(f"{title} {title_end}".strip(), f"{hint} {hint_end}".strip(), file=file, png=png)


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
