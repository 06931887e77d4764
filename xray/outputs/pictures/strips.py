"""Lines of text in pictures: the legend below, the title above, and their fonts."""

import collections
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xray.findings import NO_FINDING_NAME
from xray.outputs.pictures.marks import Mark

FOOTER = "not for clinical use"
BACKGROUND = (16, 18, 20)
INK = (232, 234, 236)
FAINT_INK = (140, 146, 152)
SHADOW = (0, 0, 0)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def legend_strip(
    marks: Sequence[Mark], left_out: Sequence[str], normal: float | None, nothing: str, width: int, font_size: int
) -> np.ndarray:
    """The strip below a picture `width` pixels wide, (h, width, 3) uint8: findings with their colour, the rest in
    words, and the standing footer. left_out: notes in grey. normal, nothing: as for `overlays.draw_overlay`."""
    font, small = font_of(font_size), font_of(max(9, round(font_size * 0.85)))
    counts = collections.Counter((mark.name, mark.colour) for mark in marks)
    items = [(name if count == 1 else f"{name} ({count})", colour, INK) for (name, colour), count in counts.items()]
    if normal is not None:
        items.append((f"{NO_FINDING_NAME} p={normal:.2f}", "", INK))
    elif not marks and not left_out:
        items.append((nothing, "", INK))
    pad, row = round(font_size * 0.7), round(text_height(font) * 1.25)
    items += [(line, "", FAINT_INK) for note in left_out for line in wrapped(note, width - 2 * pad, font)]

    swatch = round(font_size * 0.7)
    places, x, y = [], pad, pad // 2
    for text, colour, ink in items:
        text = shortened(text, width - 2 * pad - swatch, font)
        length = round(font.getlength(text)) + (swatch + pad // 2 if colour else 0)
        if x > pad and x + length > width - pad:
            x, y = pad, y + row
        places.append((x, y, text, colour, ink))
        x += length + 2 * pad
    footer = shortened(FOOTER, width - 2 * pad, small)
    if x > pad and x + small.getlength(footer) > width - pad:
        y += row
    strip = Image.new("RGB", (width, y + row + pad // 2), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for left, top, text, colour, ink in places:
        if colour:
            middle = top + row // 2
            draw.rectangle((left, middle - swatch // 2, left + swatch - 1, middle + (swatch - 1) // 2), fill=colour)
            left += swatch + pad // 2
        draw.text((left, top + row / 2), text, fill=ink, font=font, anchor="lm")
    draw.text((width - pad, y + row / 2), footer, fill=FAINT_INK, font=small, anchor="rm")
    return np.asarray(strip)


def title_strip(title: str, width: int, font_size: int) -> np.ndarray:
    """The strip above a picture `width` pixels wide, (h, width, 3) uint8; a long title is cut."""
    font = font_of(font_size)
    pad, height = round(font_size * 0.7), round(text_height(font) * 1.5)
    strip = Image.new("RGB", (width, height), BACKGROUND)
    text = shortened(" ".join(title.split()), width - 2 * pad, font)
    ImageDraw.Draw(strip).text((pad, height / 2), text, fill=INK, font=font, anchor="lm")
    return np.asarray(strip)


@functools.lru_cache(maxsize=32)
def font_of(size: int) -> Font:
    """The font of all pictures in a size, in pixels."""
    # matplotlib ships DejaVu Sans, whose glyphs cover most scripts; finding the file does not import the package.
    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size)


def text_height(font: Font) -> int:
    """Pixels of a line of text."""
    _, top, _, bottom = font.getbbox("Åg")
    return round(bottom - top)


def shortened(text: str, width: float, font: Font) -> str:
    """The text, cut to `width` pixels, with … at its end then."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…" if text else ""


def font_size_for(side: int) -> int:
    """The font's size on a picture whose longer side has so many pixels."""
    return min(max(round(side / 68), 11), 26)
