"""A report's page put together and written: HTML that needs nothing else, Markdown of the same content, PNG figures."""

import base64
import dataclasses
import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from xray import __version__
from xray.files import complete
from xray.outputs.report.parts import Section, Tile

FIGURE_FILES = (
    "precision_recall.png", "froc.png", "scores.png", "dice_histogram.png", "mask_areas.png", "triplet.png", "gate.png",
    "roc.png", "precision_recall_labels.png", "calibration_boxes.png", "calibration_labels.png",
    "calibration_pixels.png", "confusion.png", "groups.png", "training.png", "false_positives.png", "misses.png",
    "compare_values.png", "compare_differences.png",
)  # fmt: skip
"""All figures that a report of any kind may have."""


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report says, as plain text, and its figures."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def write_page(path: Path, page: Page) -> Page:
    """Writes the page and, beside it, the same as Markdown and its figures; each complete or not at all.

    Figures of an earlier report there that this one has not are removed. Returns the page.
    """
    figures = {section.file: section.png for section in page.sections if section.file}
    for name, png in figures.items():
        _write(path.with_name(name), png)
    for name in set(FIGURE_FILES) - figures.keys():
        path.with_name(name).unlink(missing_ok=True)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    content = {"page": page, "now": now, "version": __version__}
    templates = FileSystemLoader(Path(__file__).parent)
    for_html = Environment(autoescape=True, loader=templates, trim_blocks=True, lstrip_blocks=True)
    for_html.filters["base64"] = lambda data: base64.b64encode(data).decode()
    _write(path, for_html.get_template("report.html.j2").render(content).encode())
    _write(path.with_suffix(".md"), to_markdown(content).encode())
    return page


def to_markdown(content: dict[str, object]) -> str:
    """The page as Markdown. content: what the template asks for."""
    templates = FileSystemLoader(Path(__file__).parent)
    # What is put into Markdown is escaped by _escaped, which an HTML escape on top would spoil.
    environment = Environment(autoescape=False, finalize=_escaped, loader=templates, trim_blocks=True)
    text = environment.get_template("report.md.j2").render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _escaped(value: object) -> object:
    if hasattr(value, "__html__"):  # the template's `safe`
        return value
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(str(value).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _write(path: Path, content: bytes) -> None:
    with complete(path) as temporary:
        temporary.write_bytes(content)
