"""Pieces of radiographs to train and to test the network of xray/radiographs/side_marker.py with.

Radiographs are named by a table: `path`; `patient`; and `markers`, what a person saw on it, such as "R 0.05 0.10" or
"l 0.93 0.08; ? 0.9 0.3": R, L, and r, l where the letter is mirrored, ? for what cannot be told; then the middle, in
shares of width and height. Real radiographs hold few markers, so letters are drawn into them as well: R and L of many
fonts, sizes, slants and contrasts, bare, in a box, in a circle, on a plate; and what must not be taken for them:
other letters, digits, words, arrows, R and L that lie on a side or are upside down. All is found by
`side_marker.candidates`, as in any radiograph; what else it finds is no marker.
"""

import csv
import dataclasses
import functools
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xray.radiographs import side_marker

LARGEST = 1200
"""Shorter side to which radiographs are reduced."""
STORED = 40
"""Side of a piece; the network sees the middle 28."""
NONE, UNCLEAR = 4, -1
"""Classes beside those of side_marker.LETTERS."""
CLASSES = {"R": 0, "L": 1, "r": 2, "l": 3, "?": UNCLEAR}
Rng = np.random.Generator

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "cmss10", "cmr10", "cmb10", "cmtt10", "STIXGeneral",
    "STIXGeneralBol",
)  # fmt: skip
HERSHEY = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN)
OTHERS = list("ABCDEFGHIJKMNOPQSTUVWXYZ0123456789abdefhijkmnpqtu<>()/\\+-|[]{}=?!*&%#ΓΠΛДПЛ")
WORDS = (
    "PORTABLE", "ERECT", "SUPINE", "UPRIGHT", "AP", "PA", "AP SUPINE", "PORT", "LEFT", "RIGHT", "LIEGEND", "SITTING",
    "RL", "LL", "LAT", "RLD", "LLD", "MOBILE", "SEMI", "72 IN", "10:35", "ICU", "ER", "CXR", "BED", "L5", "R2", "Rx",
    "12.03", "kV", "GRID", "INSP", "EXP", "FULL", "STANDING", "DR", "CR", "Left", "Right", "liegend", "Aufnahme",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Piece:
    """What `candidates` found. pixels: (STORED, STORED) uint8. kind: a class. source: "real" or "drawn".

    path: of the radiograph. place: the middle, in shares of its sides.
    """

    pixels: np.ndarray
    kind: int
    patient: str
    source: str
    path: str
    place: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A radiograph of the table. markers: (class, x, y), in shares of the sides."""

    path: Path
    patient: str
    markers: tuple[tuple[int, float, float], ...]

    def read(self) -> np.ndarray:
        """(H, W) uint8."""
        pixels = cv2.imread(str(self.path), cv2.IMREAD_GRAYSCALE)
        scale = LARGEST / min(pixels.shape)
        return pixels if scale >= 1 else cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def read_table(path: Path) -> list[Row]:
    """The radiographs that a table names; paths beside the table, where they are relative."""
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            fields = [text.split() for text in line["markers"].split(";") if text.strip()]
            markers = tuple((CLASSES[name], float(x), float(y)) for name, x, y in fields)
            rows.append(Row(path.parent / line["path"], line["patient"], markers))
    return rows


def real_pieces(row: Row, pixels: np.ndarray) -> list[Piece]:
    """What a radiograph holds by itself."""
    height, width = pixels.shape
    boxes = side_marker.candidates(pixels)
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    kinds = np.full(len(boxes), NONE)
    for kind, x, y in row.markers:
        inside = np.flatnonzero((np.abs(middles - (x * width, y * height)) < boxes[:, 2:] / 2).all(axis=1))
        # A frame has its middle where its letter has it.
        kinds[inside] = UNCLEAR
        kinds[inside[np.argsort(boxes[inside, 3])[:1]]] = kind
    return [
        Piece(square, int(kind), row.patient, "real", str(row.path), (float(x / width), float(y / height)))
        for square, kind, (x, y) in zip(_squares(pixels, boxes), kinds, middles, strict=True)
    ]


def drawn_pieces(row: Row, pixels: np.ndarray, rng: Rng) -> tuple[list[Piece], int]:
    """What is found of letters drawn into a radiograph, and how many R and L were drawn."""
    drawn, marks = with_letters(pixels, rng)
    # More than are looked at otherwise: so many letters stand in no radiograph.
    boxes = side_marker.candidates(drawn, 3 * side_marker.MOST)
    result = []
    for box, square in zip(boxes.tolist(), _squares(drawn, boxes), strict=True):
        shares = [_overlap(box, mark) for mark, _ in marks]
        best = int(np.argmax(shares)) if shares else 0
        if shares and shares[best] > 0.6:
            result.append(Piece(square, marks[best][1], row.patient, "drawn", str(row.path), (0, 0)))
        elif shares and shares[best] > 0:
            # Parts of letters, words and frames.
            result.append(Piece(square, NONE, row.patient, "drawn", str(row.path), (0, 0)))
    return result, sum(kind < NONE for _, kind in marks)


def _squares(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    squares = side_marker.pieces(pixels, boxes, STORED, 0.5 * side_marker.SIDE / STORED)
    return squares.clip(0, 255).astype(np.uint8)


def _overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(across, 0) * max(down, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def with_letters(pixels: np.ndarray, rng: Rng) -> tuple[np.ndarray, list[tuple[list[float], int]]]:
    """A radiograph with letters drawn into its strips; for each its box (left, top, width, height) and its class."""
    values = pixels.astype(np.float32)
    height, width = pixels.shape
    side = min(pixels.shape)
    taken: list[tuple[float, float, float, float]] = []
    marks = []
    for _ in range(int(rng.integers(4, 9))):
        size = float(np.exp(rng.uniform(np.log(0.016), np.log(0.05)))) * side
        layer, box, kind = mark(size, rng)
        tall, wide = layer.shape
        x = rng.uniform(-0.1 * wide, max(side_marker.REACH * width - wide, 0))
        x = x if rng.random() < 0.5 else width - wide - x
        y = rng.uniform(-0.05 * tall, height - 0.9 * tall)
        place = (x - 4, y - 4, wide + 8, tall + 8)
        if any(_overlap(list(place), list(other)) > 0 for other in taken):
            continue
        taken.append(place)
        left, top = round(x), round(y)
        lay(values, layer, left, top, rng)
        box = [box[0] + left, box[1] + top, box[2], box[3]]
        is_whole = box[0] >= 1 and box[1] >= 1 and box[0] + box[2] < width and box[1] + box[3] < height
        marks.append((box, kind if is_whole else NONE))
    return values.clip(0, 255).astype(np.uint8), marks


def lay(values: np.ndarray, layer: np.ndarray, left: int, top: int, rng: Rng) -> None:
    """Lays a mark, -1 to 1, into a radiograph, as far as it lies within it."""
    tall, wide = layer.shape
    height, width = values.shape
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + wide, width), min(top + tall, height)
    if x2 - x1 < 3 or y2 - y1 < 3:
        return
    shown = layer[y1 - top : y2 - top, x1 - left : x2 - left]
    area = values[y1:y2, x1:x2]
    base = float(area.mean())
    bright = np.clip(base + np.exp(rng.uniform(np.log(18), np.log(230))), 0, 255)
    over = shown.clip(0, 1)
    if rng.random() < 0.5:  # lead: what lies under it does not show
        area += (bright - area) * over
    else:
        area += (bright - base) * over
    area -= area * (-shown).clip(0, 1)


def mark(size: float, rng: Rng) -> tuple[np.ndarray, list[float], int]:
    """A mark (h, w), 1 where it is bright, below 0 where it darkens; the box of its letter; its class."""
    kind, text, angle = NONE, "", float(np.clip(rng.normal(0, 6), -18, 18))
    mirrored = bool(rng.random() < 0.5)
    share = rng.random()
    if share < 0.58:
        text = str(rng.choice(["R", "L"]))
        kind = "RL".index(text) + 2 * mirrored
    elif share < 0.70:
        text = str(rng.choice(["R", "L"]))
        angle = float(rng.choice([90, 180, 270, rng.uniform(45, 315)])) + rng.normal(0, 4)
    elif share < 0.86:
        text = str(rng.choice(OTHERS))
    else:
        text = str(rng.choice(WORDS))
    glyph = letters(text, size, rng)
    if mirrored:
        glyph = np.ascontiguousarray(glyph[:, ::-1])
    glyph = turned(glyph, angle)
    rows, columns = np.flatnonzero((glyph > 0.4).any(axis=1)), np.flatnonzero((glyph > 0.4).any(axis=0))
    glyph = glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    tall, wide = glyph.shape
    around = round(max(tall, wide) * rng.uniform(0.25, 0.8)) + 2
    layer = np.pad(glyph, around)
    box = [float(around), float(around), float(wide), float(tall)]
    layer = framed(layer, around, rng)
    if rng.random() < 0.2:  # initials or a word beside it
        layer, box = beside(layer, box, size, rng)
    if rng.random() < 0.6:
        layer = cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.3, 0.03 * size + 0.5)))
    return layer, box, kind


def framed(layer: np.ndarray, around: int, rng: Rng) -> np.ndarray:
    """With a box, a circle, a plate that is brighter or darker than what lies around it, or nothing."""
    tall, wide = layer.shape
    style = rng.random()
    gap = max(1, round(around * rng.uniform(0.05, 0.6)))
    thick = max(1, round(around * rng.uniform(0.05, 0.2)))
    frame = np.zeros(layer.shape, np.float32)
    if style < 0.12:
        cv2.rectangle(frame, (gap, gap), (wide - 1 - gap, tall - 1 - gap), 1, thick)
    elif style < 0.27:
        cv2.circle(frame, (wide // 2, tall // 2), max(wide, tall) // 2 - gap, 1, thick, cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.circle(frame, (wide // 2, tall // 2), max(wide, tall) // 2 - gap, -float(rng.uniform(0.3, 0.95)), -1)
            cv2.circle(frame, (wide // 2, tall // 2), max(wide, tall) // 2 - gap, 1, thick, cv2.LINE_AA)
    elif style < 0.5:
        inner = float(rng.choice([rng.uniform(0.1, 0.5), -rng.uniform(0.2, 0.9)]))
        cv2.rectangle(frame, (gap, gap), (wide - 1 - gap, tall - 1 - gap), inner, -1)
    result: np.ndarray = np.where(layer > 0.05, np.maximum(layer, frame * (1 - layer) + layer), frame)
    return result


def beside(layer: np.ndarray, box: list[float], size: float, rng: Rng) -> tuple[np.ndarray, list[float]]:
    """Smaller text above or below."""
    text = letters(str(rng.choice([*WORDS, "JS", "MK", "A.B.", "123"])), size * rng.uniform(0.35, 0.7), rng)
    gap = np.zeros((max(1, round(size * rng.uniform(0.05, 0.4))), 1), np.float32)
    wide = max(layer.shape[1], text.shape[1])
    below = bool(rng.random() < 0.7)
    parts = [layer, gap, text] if below else [text, gap, layer]
    shifts = [int(rng.integers(0, wide - part.shape[1] + 1)) for part in parts]
    rows = [np.pad(part, ((0, 0), (s, wide - part.shape[1] - s))) for part, s in zip(parts, shifts, strict=True)]
    at = 0 if below else 2
    return np.vstack(rows), [box[0] + shifts[at], box[1] + (0 if below else len(text) + len(gap)), *box[2:]]


def turned(glyph: np.ndarray, angle: float) -> np.ndarray:
    """By degrees, in a layer that is large enough."""
    tall, wide = glyph.shape
    side = int(np.hypot(tall, wide)) + 3
    matrix = cv2.getRotationMatrix2D((wide / 2, tall / 2), angle, 1)
    matrix[:, 2] += (side - np.array([wide, tall])) / 2
    return cv2.warpAffine(glyph, matrix, (side, side), flags=cv2.INTER_LINEAR)


def letters(text: str, size: float, rng: Rng) -> np.ndarray:
    """A text of a height of about `size` pixels in any font, (h, w) float32 in [0, 1]."""
    large = 96
    if rng.random() < 0.3 and text.isascii():
        font, thick = int(rng.choice(HERSHEY)), int(rng.integers(5, 17))
        scale = large / max(1, cv2.getTextSize("R", font, 1, 1)[0][1])
        (wide, tall), _ = cv2.getTextSize(text, font, scale, thick)
        layer = np.zeros((tall + 3 * large, wide + 2 * large), np.uint8)
        cv2.putText(layer, text, (large, large + tall), font, scale, 255, thick, cv2.LINE_AA)
    else:
        font_of = _font(str(rng.choice(FONTS)), large + 36)
        box = font_of.getbbox(text)
        picture = Image.new("L", (round(box[2]) + 40, round(box[3]) + 40))
        weight = int(rng.choice([0, 0, 0, 1, 3, 5]))
        ImageDraw.Draw(picture).text((20, 20), text, 255, font_of, stroke_width=weight, stroke_fill=255)
        layer = np.asarray(picture)
    rows, columns = np.flatnonzero(layer.any(axis=1)), np.flatnonzero(layer.any(axis=0))
    if not len(rows):
        return np.ones((max(2, round(size)), max(1, round(0.2 * size))), np.float32)
    layer = layer[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    slant = float(rng.choice([0, 0, 0, rng.uniform(-0.08, 0.3)]))
    stretch = np.exp(rng.normal(0, 0.14))
    tall, wide = layer.shape
    scale = size / (tall if text in ("R", "L") else max(tall, large * 0.8))
    matrix = np.array([[scale * stretch, -slant * scale, slant * scale * tall if slant > 0 else 0], [0, scale, 0]])
    out = (int((wide * stretch + abs(slant) * tall) * scale) + 2, int(tall * scale) + 2)
    reduced = cv2.GaussianBlur(layer, (0, 0), max(0.3, 0.4 / scale)) if scale < 1 else layer
    return cv2.warpAffine(reduced, matrix, out, flags=cv2.INTER_LINEAR).astype(np.float32) / 255


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)
