"""A report's content as Markdown: its own HTML read back, so that both say the same."""

import html.parser
import re
from collections.abc import Mapping

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_EMPTY_HEADS = {"", "#"}


def to_markdown(content: Mapping[str, str]) -> str:
    """content: title, subtitle, warnings, tiles, sections and footer of the page, as HTML."""
    body = "\n".join(
        (
            f"<h1>{content['title']}</h1>",
            f"<p>{content['subtitle']}</p>",
            "<p><strong>Not for clinical use</strong></p>",
            content["warnings"],
            content["tiles"],
            content["sections"],
            f"<p>{content['footer']}</p>",
        )
    )
    reader = _Reader()
    reader.feed(body)
    reader.close()
    return re.sub(r"\n{3,}", "\n\n", "".join(reader.pieces)).strip() + "\n"


class _Reader(html.parser.HTMLParser):
    """Knows the few tags that the report's parts are made of."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._text: list[str] = []
        self._rows: list[list[str]] = []
        self._is_number: list[bool] = []
        self._is_mean = False
        self._skipped = 0
        self._term = ""
        self._tile: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if self._skipped or given.get("aria-hidden") == "true":
            # Bars are pictures of a number that stands beside them.
            self._skipped += 1
            return
        if tag in ("h1", "h2", "p", "td", "th", "dt", "dd", "figcaption"):
            self._take()
        if tag == "table":
            self._rows, self._is_number = [], []
        elif tag == "tr":
            self._rows.append([])
            self._is_mean = given.get("class") == "mean"
        elif tag == "th":
            self._is_number.append(given.get("class") == "number")
        elif tag in ("em", "strong"):
            self._text.append("*" if tag == "em" else "**")
        elif given.get("data-file"):
            title = _escaped(given.get("alt") or given.get("data-title") or "")
            self.pieces.append(f"\n\n![{title}]({given['data-file']})\n\n")
        elif tag == "div" and (given.get("class") or "").startswith("tile"):
            self._take()
            self._tile = []

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if tag in ("em", "strong"):
            self._text.append("*" if tag == "em" else "**")
        elif tag in ("h1", "h2"):
            self.pieces.append(f"\n\n{'#' * int(tag[1])} {self._take()}\n\n")
        elif tag == "p":
            self.pieces.append(f"\n\n{self._take()}\n\n")
        elif tag in ("td", "th"):
            said = self._take()
            self._rows[-1].append(f"**{said}**" if self._is_mean and tag == "td" and said else said)
        elif tag == "table":
            self.pieces.append("\n\n" + self._table() + "\n\n")
        elif tag == "dt":
            self._term = self._take()
        elif tag == "dd":
            self.pieces.append(f"\n- **{self._term}**: {self._take()}")
        elif tag == "dl":
            self.pieces.append("\n\n")
        elif tag == "figcaption":
            self.pieces.append(f"\n- {self._take()}")
        elif tag == "div" and (said := self._take()):
            # The three lines of a tile: what it is, the number, what else there is to say.
            self._tile.append(said)
        elif tag == "div" and len(self._tile) > 1:
            label, value, *notes = self._tile
            self.pieces.append(f"\n- {label}: **{value}**" + (f" ({' '.join(notes)})" if notes else ""))
            self._tile = []

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text.append(_escaped(data))

    def _take(self) -> str:
        """The text so far, which begins anew."""
        said = " ".join("".join(self._text).split())
        self._text.clear()
        return said

    def _table(self) -> str:
        head, *rows = self._rows
        # A column of bars alone has nothing left.
        kept = [
            k for k in range(len(head)) if head[k] not in _EMPTY_HEADS or any(row[k] for row in rows if len(row) > k)
        ]
        lines = ["| " + " | ".join(row[k] if len(row) > k else "" for k in kept) + " |" for row in (head, *rows)]
        rule = "|" + "|".join(" ---: " if self._is_number[k] else " --- " for k in kept) + "|"
        return "\n".join([lines[0], rule, *lines[1:]])


def _escaped(text: str) -> str:
    said = _SPECIAL.sub(r"\\\1", text)
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
