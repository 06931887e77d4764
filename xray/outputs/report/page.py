"""A report's page put together and written: HTML that needs nothing else, Markdown of the same content, PNG figures."""

import base64
import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from xray import __version__
from xray.file_names import METRICS
from xray.files import complete
from xray.outputs.report.parts import FIGURES, GALLERIES, Section, Tile


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of a report: plain text and figures."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    numbers: str = METRICS
    """The file beside the page that holds every number; empty where there is none."""
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name → content, in the HTML's head, for programs."""


def write_page(path: Path, page: Page) -> Page:
    """Writes the page and, beside it, the same as Markdown and its figures; each complete or not at all.

    Figures of an earlier report there that this one has not are removed. Returns the page.
    """
    figures = {section.file: section.png for section in page.sections if section.file}
    for name, png in figures.items():
        _write(path.with_name(name), png)
    for name in {*FIGURES, *GALLERIES} - figures.keys():
        path.with_name(name).unlink(missing_ok=True)
    html, markdown = render(page)
    _write(path, html.encode())
    _write(path.with_suffix(".md"), markdown.encode())
    return page


def render(page: Page) -> tuple[str, str]:
    """The page as HTML and as Markdown."""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    content = {"page": page, "now": now, "version": __version__}
    return _render("report.html.j2", content, autoescape=True), to_markdown(content)


def to_markdown(content: dict[str, Any]) -> str:
    """The page as Markdown. content: what the template asks for."""
    return re.sub(r"\n{3,}", "\n\n", _render("report.md.j2", content, finalize=_escaped)).strip() + "\n"


def method_paragraphs(**content: Any) -> list[str]:
    """How the numbers are computed. content: what the template asks for."""
    return [" ".join(paragraph.split()) for paragraph in _render("method.j2", content).strip().split("\n\n")]


def _render(template: str, content: dict[str, Any], **options: Any) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template(template).render(content)


def _escaped(value: object) -> object:
    if hasattr(value, "__html__"):  # the template's `safe`
        return value
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(str(value).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _write(path: Path, content: bytes) -> None:
    with complete(path) as temporary:
        temporary.write_bytes(content)
