"""Pieces of the report's page: sections, tables, tiles, bars, numbers, figures."""

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from xray.evaluation.alignment import Alignment
from xray.outputs.report.figures import Figure

MOST_LISTED = 25
DASH = '<span class="dim">–</span>'


def text(value: object) -> str:
    """Anything as HTML text."""
    return html.escape(str(value))


def section(title: str, hint: str, body: str) -> str:
    """hint, body: HTML. The page's navigation leads to it by an anchor made from the title."""
    hint = f'<p class="hint">{hint}</p>' if hint else ""
    anchor = "-".join(re.findall(r"[a-z0-9]+", title.casefold()))
    return f'<section id="{anchor}">\n<h2>{text(title)}</h2>\n{hint}\n{body}\n</section>'


def facts(values: Mapping[str, object]) -> str:
    """Names and what there is to say of each, as plain text."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>"


def table(head: list[str], rows: list[list[str]], mean_row: int = -1) -> str:
    """A table of HTML cells; a heading that starts with # is of a column of numbers."""
    if not rows:
        return "<p>There are none.</p>"
    kind = ['class="number"' if name.startswith("#") else "" for name in head]
    heads = "".join(f"<th {how}>{text(name.removeprefix('#'))}</th>" for name, how in zip(head, kind, strict=True))
    body = "".join(
        ('<tr class="mean">' if number == mean_row else "<tr>")
        + "".join(f"<td {how}>{cell}</td>" for cell, how in zip(row, kind, strict=True))
        + "</tr>\n"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def tile(label: str, value: float | str, ends: list[float] | None, note: str, main: bool = False) -> str:
    """A number in large, with its interval and a note below."""
    large = value if isinstance(value, str) else number(value)
    notes = " · ".join(part for part in (interval(ends), text(note)) if part)
    return (
        f'<div class="tile{" main" if main else ""}"><div class="label">{text(label)}</div>'
        f'<div class="value">{large}</div><div class="note">{notes}</div></div>'
    )


def bar(value: float, ends: list[float] | None = None, mark: float = math.nan) -> str:
    """A number in [0, 1] as a bar, its interval as a thin line, another number as a mark."""
    if math.isnan(value):
        return ""
    parts = f'<i style="width:{100 * value:.1f}%"></i>'
    if ends and not math.isnan(ends[0]):
        parts += f'<b style="left:{100 * ends[0]:.1f}%;width:{100 * (ends[1] - ends[0]):.1f}%"></b>'
    if not math.isnan(mark):
        parts += f'<u style="left:{100 * mark:.1f}%"></u>'
    return f'<span class="bar" aria-hidden="true">{parts}</span>'


def figure_section(figure: Figure, light: bytes, dark: bytes) -> str:
    """A section with a figure, drawn for light and for dark pages."""
    # PNG: the width stands in bytes 16 to 20; figures are drawn with two pixels for one of the page.
    width = int.from_bytes(light[16:20], "big") // 2
    data = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (light, dark)]
    picture = (
        f'<div class="scroll"><picture><source srcset="{data[1]}" media="screen and (prefers-color-scheme: dark)">'
        f'<img src="{data[0]}" width="{width}" alt="{text(figure.title)}" data-file="{figure.file}"></picture></div>'
    )
    return section(figure.title, figure.hint, picture)


def gallery_section(title: str, hint: str, pictures: Sequence[tuple[bytes, str]], file: str) -> str:
    """A section with JPEG pictures and their captions; file: the sheet of all of them beside the page."""
    shown = "\n".join(
        f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="{text(caption)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
        for jpeg, caption in pictures
    )
    return section(title, hint, f'<div class="gallery" data-file="{file}" data-title="{text(title)}">{shown}</div>')


def image(alignment: Alignment, place: int) -> str:
    """A radiograph's id."""
    return f'<span class="id">{text(alignment.records[place]["source_id"])}</span>'


def name(value: str) -> str:
    """A finding's name, never broken across lines."""
    return f'<span class="name">{text(value)}</span>'


def box(edges: np.ndarray) -> str:
    """(4,) x1, y1, x2, y2."""
    return f'<span class="name dim">{", ".join(f"{value:.0f}" for value in edges)}</span>'


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
    """An interval, nothing where there is none."""
    return "" if ends is None or math.isnan(ends[0]) else f"{ends[0]:.3f}–{ends[1]:.3f}"


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Least, median, most."""
    return f"{np.min(values)}, {np.median(values):.0f}, {np.max(values)}"
