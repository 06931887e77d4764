"""A report's page put together and written: HTML that needs nothing else, Markdown of the same content, PNG figures."""

import dataclasses
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from xray import __version__
from xray.files import complete
from xray.outputs.pictures.overlays import save_picture
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import LIGHT, Figure, for_dark, on_white
from xray.outputs.report.galleries import Gallery
from xray.outputs.report.markdown import to_markdown
from xray.outputs.report.parts import text

TEMPLATE = Path(__file__).with_name("report.html")
FIGURE_FILES = (
    "precision_recall.png", "froc.png", "scores.png", "dice_histogram.png", "mask_areas.png", "triplet.png", "gate.png",
    "roc.png", "precision_recall_labels.png", "calibration_boxes.png", "calibration_labels.png",
    "calibration_pixels.png", "confusion.png", "groups.png", "training.png", "false_positives.png", "misses.png",
    "compare_values.png", "compare_differences.png",
)  # fmt: skip
"""All figures that a report of any kind may have."""


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report says. subtitle, warnings: plain text. tiles: HTML. sections: HTML, or what is drawn for one."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    tiles: Sequence[str]
    sections: Sequence[str | Figure | Gallery]


def write_page(path: Path, page: Page) -> list[Path]:
    """Writes the page and, beside it, the same as Markdown and its figures; each complete or not at all.

    Figures of an earlier report there that this one has not are removed. Returns the paths of the figures.
    """
    sections, written = [], []
    for part in page.sections:
        if isinstance(part, Figure):
            light = part.draw(LIGHT)
            _write(path.with_name(part.file), on_white(light))
            written.append(part.file)
            part = parts.figure_section(part, light, for_dark(light))
        elif isinstance(part, Gallery):
            save_picture(path.with_name(part.file), part.sheet)
            written.append(part.file)
            part = parts.gallery_section(part.title, part.hint, part.pictures, part.file)
        sections.append(part)
    for name in set(FIGURE_FILES) - set(written):
        path.with_name(name).unlink(missing_ok=True)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    headings = re.findall(r'<section id="([^"]+)">\n<h2>(.*?)</h2>', "\n".join(sections))
    content = {
        "title": text(page.title),
        "subtitle": f"{text(page.subtitle)} · {now}",
        "warnings": "\n".join(f'<p class="warning">{text(warning)}</p>' for warning in page.warnings),
        "tiles": "\n".join(page.tiles),
        "sections": "\n".join(sections),
        "footer": f"Written by xray {__version__}; every number is in metrics.json beside this page.",
    }
    links = "\n".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading in headings)
    html = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(content, links=links)
    _write(path, html.encode())
    _write(path.with_suffix(".md"), to_markdown(content).encode())
    return [path.with_name(name) for name in written]


def _write(path: Path, content: bytes) -> None:
    with complete(path) as temporary:
        temporary.write_bytes(content)
