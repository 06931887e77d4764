"""Pictures of radiographs with their findings: thin boxes, tags that never cover each other, a legend outside.

Nothing is said by colour alone: every box carries its finding's name, as long as there is room for a tag anywhere.
Box edges are snapped to whole pixels, which keeps them crisp; contours and text are anti-aliased.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from xray.files import complete
from xray.findings import NO_FINDING_NAME
from xray.outputs.pictures.marks import Mark, Region
from xray.outputs.pictures.strips import (
    BACKGROUND,
    SHADOW,
    font_of,
    font_size_for,
    legend_strip,
    shortened,
    text_height,
    title_strip,
)
from xray.outputs.pictures.tags import Rectangle, nearest, place_tag, touch
from xray.radiographs.pictures import of_own


def draw_overlay(
    pixels: np.ndarray,
    marks: Sequence[Mark],
    regions: Sequence[Region] = (),
    title: str = "",
    normal: float | None = None,
    threshold: float = 0.3,
    top_k: int = 12,
    max_side: int = 1600,
    min_side: int = 512,
    nothing: str = NO_FINDING_NAME,
    notes: Sequence[str] = (),
) -> np.ndarray:
    """Draws findings on a radiograph: (height, width) uint8 → (h, w, 3) uint8 RGB with a legend strip below.

    The radiograph keeps its aspect; its longer side is brought between `min_side` and `max_side` pixels.
    Marks without a score are all drawn; of the others, at most `top_k` with a score of at least `threshold`, and the
    margin says how many were left out.

    threshold: below 0 where something else has decided. normal: the probability that the radiograph is normal, written
    into the legend. nothing: what the legend says where
    there is no mark at all. notes: further lines of the legend, in grey; with any, `nothing` is not said.

    Raises ValueError for pixels that are not (height, width) uint8 and for masks of another size.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"an overlay needs (height, width) uint8 pixels, not {pixels.shape} {pixels.dtype}")
    picture = _scaled(pixels, min_side, max_side)
    height, width = picture.shape[:2]
    for region in regions:
        _draw_region(picture, region, pixels.shape)

    shown, left_out = _readable(marks, threshold, top_k)
    image = Image.fromarray(picture)
    font_size = font_size_for(max(width, height))
    scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
    boxes = [_whole_pixels(np.asarray(mark.box) * scale, width, height) for mark in shown]
    # The faintest first, so that the surest box and tag lie on top.
    for mark, box in reversed(list(zip(shown, boxes, strict=True))):
        _draw_box(ImageDraw.Draw(image), box, mark, max(width, height))
    _draw_tags(image, shown, boxes, font_size)

    strip = legend_strip(shown, [*left_out, *notes], normal, nothing, width, font_size)
    parts = [title_strip(title, width, font_size)] if title else []
    return np.concatenate([*parts, np.asarray(image), strip])


def draw_side_by_side(
    left: np.ndarray, right: np.ndarray, titles: tuple[str, str] = ("truth", "prediction")
) -> np.ndarray:
    """Two RGB pictures beside each other under their titles: (h, w, 3) uint8 each → one (H, W, 3) uint8."""
    height = max(left.shape[0], right.shape[0])
    panels = []
    for picture, title in zip((left, right), titles, strict=True):
        header = title_strip(title, picture.shape[1], font_size_for(max(picture.shape[:2])))
        panels.append(np.concatenate([header, _padded(picture, height)]))
    height = max(panel.shape[0] for panel in panels)
    panels = [_padded(panel, height) for panel in panels]
    gap = np.full((height, max(4, height // 128), 3), BACKGROUND, dtype=np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def draw_contact_sheet(pictures: Sequence[np.ndarray], columns: int = 4, gap: int = 12) -> np.ndarray:
    """RGB pictures in rows of `columns`, each centred in a cell of the largest one's size → (H, W, 3) uint8."""
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), BACKGROUND, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        y = gap + row * (height + gap) + (height - picture.shape[0]) // 2
        x = gap + column * (width + gap) + (width - picture.shape[1]) // 2
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def save_picture(path: Path | str, picture: np.ndarray) -> None:
    """Writes an RGB picture as PNG, complete or not at all, which no command takes for a radiograph."""
    with complete(Path(path)) as temporary:
        temporary.write_bytes(of_own(encoded(picture)))


def encoded(picture: np.ndarray, kind: str = ".png", quality: int = 95) -> bytes:
    """An RGB picture, (h, w, 3) uint8, as a file. kind: ".png" or ".jpg". quality: of JPEG, up to 100."""
    # Level 2 with one filter is a sixth of level 6's time for a tenth more bytes, level 3 with all filters a third.
    of_png = [cv2.IMWRITE_PNG_COMPRESSION, 2, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    options = of_png if kind == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    is_encoded, data = cv2.imencode(kind, picture[..., ::-1], options)
    if not is_encoded:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as {kind}")
    return data.tobytes()


def _scaled(pixels: np.ndarray, min_side: int, max_side: int) -> np.ndarray:
    side = max(pixels.shape)
    factor = min(max(side, min(min_side, max_side)), max_side) / side
    if factor != 1:
        size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_GRAY2RGB)


def _draw_region(picture: np.ndarray, region: Region, shape: tuple[int, int]) -> None:
    if region.mask.shape != shape:
        raise ValueError(f"a mask of {region.mask.shape} on a radiograph of {shape}: they must be of one size")
    height, width = picture.shape[:2]
    # Averaging before the cut keeps the contour smooth when the picture is smaller than the radiograph.
    soft = cv2.resize(region.mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    inside = soft > 127
    colour = np.array(ImageColor.getrgb(region.colour))
    if region.is_filled:
        picture[inside] = (picture[inside] * 0.78 + colour * 0.22).astype(np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line = _line_width(max(width, height))
    cv2.polylines(picture, contours, True, SHADOW, line + 1, cv2.LINE_AA)
    cv2.polylines(picture, contours, True, colour.tolist(), line, cv2.LINE_AA)


def _readable(marks: Sequence[Mark], threshold: float, top_k: int) -> tuple[list[Mark], list[str]]:
    """The marks to draw, surest first, and notes about the others."""
    truth = [mark for mark in marks if mark.score is None]
    scored = sorted((mark for mark in marks if mark.score is not None), key=lambda mark: -(mark.score or 0))
    sure = [mark for mark in scored if (mark.score or 0) >= threshold]
    notes = []
    if len(sure) > top_k:
        notes.append(f"+{len(sure) - top_k} more" + (f" above {threshold:.2f}" if threshold >= 0 else ""))
    if len(scored) > len(sure):
        notes.append(f"{len(scored) - len(sure)} boxes below {threshold:.2f} not drawn")
    return truth + sure[:top_k], notes


def _whole_pixels(box: np.ndarray, width: int, height: int) -> Rectangle:
    """The box on whole pixels of the picture, at least one pixel wide and high, and inside it."""
    x1, y1, x2, y2 = np.nan_to_num(box).round()
    x1, y1 = min(max(x1, 0), width - 2), min(max(y1, 0), height - 2)
    x2, y2 = min(max(x2, x1 + 1), width - 1), min(max(y2, y1 + 1), height - 1)
    return int(x1), int(y1), int(x2), int(y2)


def _draw_box(draw: ImageDraw.ImageDraw, box: Rectangle, mark: Mark, side: int) -> None:
    line = _line_width(side)
    x1, y1, x2, y2 = box
    # Dark lines on both sides let any colour stand out against bone and against lung.
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=SHADOW, width=line + 2)
    if not mark.dashed:
        draw.rectangle(box, outline=mark.colour, width=line)
        return
    dash = 5 * line
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2 - line + 1):
            draw.rectangle((x, y, min(x + dash, x2), y + line - 1), fill=mark.colour)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2 - line + 1):
            draw.rectangle((x, y, x + line - 1, min(y + dash, y2)), fill=mark.colour)


def _draw_tags(image: Image.Image, marks: Sequence[Mark], boxes: list[Rectangle], font_size: int) -> None:
    draw = ImageDraw.Draw(image)
    font = font_of(font_size)
    pad = max(2, font_size // 5)
    taken: list[Rectangle] = []
    for mark, box in zip(marks, boxes, strict=True):
        text = shortened(mark.text, image.width - 2 * pad, font)
        size = (round(font.getlength(text)) + 2 * pad, text_height(font) + pad)
        place = place_tag(size, box, boxes, taken, image.size)
        if place is None:
            continue  # the legend still names the finding
        taken.append(place)
        if not touch(place, box):
            draw.line((*nearest(place, box), *nearest(box, place)), fill=mark.colour, width=1)
        draw.rectangle(place, fill=mark.colour, outline=SHADOW)
        ink = SHADOW if _luminance(mark.colour) > 0.18 else (255, 255, 255)
        draw.text((place[0] + pad, (place[1] + place[3] + 1) / 2), text, fill=ink, font=font, anchor="lm")


def _padded(picture: np.ndarray, height: int) -> np.ndarray:
    below = np.full((height - picture.shape[0], *picture.shape[1:]), BACKGROUND, dtype=np.uint8)
    return np.concatenate([picture, below])


def _line_width(side: int) -> int:
    return max(2, round(side / 600))


def _luminance(colour: str) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2); above 0.18 black text has more contrast than white."""
    linear = [
        (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in np.array(ImageColor.getrgb(colour)) / 255
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
