"""Which side marker a frontal chest radiograph carries: a letter R or L, readable or mirrored, and on which side it is.

Markers are bright letters beside the chest, of some 1.5 to 4 % of the radiograph's shorter side, of lead or written by
the device. What is brighter than all that lies around it and about as large as a letter is cut out in the strips at the
left and at the right, and shown to a small network, as it is and mirrored. It says how much a piece looks like an
upright R, and like an upright L; the four numbers, and a zero for "none of these", become probabilities by a softmax,
so that a mirrored radiograph gets the mirrored answer.

Other letters are not read: a mirrored D is a D upside down, and E and G are rare. Nor are letters that lie on a side,
are upside down, touch something as bright, or are cut off by the edge. The weights and the threshold are in
side_marker.npz; scripts/train_side_marker.py makes it.
"""

import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xray.radiographs.frontal import network, read_weights

WORK = 448
"""Shorter side at which letters are looked for; a radiograph with less is looked at as it is."""
LEAST_WORK = 200
"""Shorter side below which no letter could be read."""
REACH = 0.25
"""Share of the width, from the left and from the right edge, in which markers are looked for."""
STROKE = 7
"""What is narrower than this at WORK, in pixels, may be a stroke."""
HEIGHTS = (0.014, 0.065)
"""Least and largest height of a letter, of the shorter side."""
SHARE_DARK, CONTRASTS = 98.5, (14, 60)
"""Percentage of the pixels that are no strokes; limits, of 255 greys, of how much brighter a stroke must be."""
MOST = 8
"""So many pieces of a radiograph are looked at, those that stand out most."""
SIDE = 28
"""Of a piece, in pixels; the letter fills the middle half."""
WEIGHTS = Path(__file__).with_name("side_marker.npz")


LETTERS = (("R", False), ("L", False), ("R", True), ("L", True))
"""What the columns of `probabilities` stand for: letter, and whether it is mirrored."""
DOUBT = 0.5
"""Probability from which a letter speaks against another one."""


@dataclasses.dataclass(frozen=True)
class SideMarker:
    """A letter that was read.

    letter: "R" or "L". is_mirrored: whether the letter itself is. x, y: its middle, in pixels of the radiograph.
    is_at_left: whether it stands at the picture's left. certainty: probability of the letter, in [0, 1].
    """

    letter: str
    is_mirrored: bool
    x: float
    y: float
    is_at_left: bool
    certainty: float

    @property
    def is_on_its_side(self) -> bool:
        """Whether R is at the picture's left, or L at its right, as on every frontal radiograph that lies right."""
        return self.is_at_left == (self.letter == "R")


def read_marker(pixels: np.ndarray, middle: float = 0.5) -> SideMarker | None:
    """The side marker of (H, W) uint8 or uint16 display grey, upright and no negative.

    middle: of the chest, as a share of the width. Returns the surest letter, None where none is read or another one
    speaks against it.
    """
    markers = letters_of(pixels, middle)
    if not markers or markers[0].certainty < float(weights()["threshold"]):
        return None
    agree = all(marker.is_on_its_side == markers[0].is_on_its_side for marker in markers)
    return markers[0] if agree else None


def letters_of(pixels: np.ndarray, middle: float = 0.5) -> list[SideMarker]:
    """All letters whose probability is DOUBT at least, the surest first; pixels, middle: as of `read_marker`."""
    boxes = candidates(pixels)
    if not len(boxes):
        return []
    shares = probabilities(pieces(pixels, boxes), weights())
    found = []
    for (left, top, width, height), of_forms in zip(boxes.tolist(), shares, strict=True):
        of_letters = of_forms[:2] + of_forms[2:]
        letter, is_mirrored = LETTERS[int(of_forms.argmax())]
        certainty = float(of_letters["RL".index(letter)])
        if certainty >= DOUBT:
            x, y = left + width / 2, top + height / 2
            found.append(SideMarker(letter, is_mirrored, x, y, x < middle * pixels.shape[1], certainty))
    return sorted(found, key=lambda marker: -marker.certainty)


def candidates(pixels: np.ndarray, most: int = MOST) -> NDArray[np.float32]:
    """Left, top, width and height, in pixels of the radiograph, of what may be a letter: (N, 4), N up to `most`."""
    height, width = pixels.shape
    if min(height, width) < LEAST_WORK:
        return np.zeros((0, 4), np.float32)
    # Every so many pixels are enough to find letters; they are read from all of them.
    step = max(1, min(height, width) // WORK)
    reach = round(width * REACH)
    scale = min(1.0, WORK * step / min(height, width))
    boxes, contrasts = [], []
    for start in (0, width - reach):
        strip = _eight_bits(pixels[::step, start : start + reach : step])
        if scale < 1:
            strip = cv2.resize(strip, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        found, contrast = _letters_in(strip, min(height, width) * scale / step)
        boxes.append(found * (step / scale) + (start, 0, 0, 0))
        contrasts.append(contrast)
    order = np.argsort(-np.concatenate(contrasts), kind="stable")[:most]
    return np.concatenate(boxes)[order].astype(np.float32)


def _eight_bits(strip: np.ndarray) -> np.ndarray:
    strip = np.ascontiguousarray(strip)
    if strip.dtype == np.uint8:
        return strip
    low, high = int(strip.min()), int(strip.max())
    scale = 255 / max(high - low, 1)
    return cv2.convertScaleAbs(strip, alpha=scale, beta=-low * scale)


def _letters_in(strip: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Of (h, w) uint8, the boxes (N, 4) of what has the size of a letter, and how much brighter each is (N,).

    side: of the whole radiograph, the shorter one, in pixels of the strip.
    """
    stroke = max(3, round(STROKE * side / WORK) | 1)
    # What a square of the width of a stroke does not fit into.
    top = cv2.morphologyEx(strip, cv2.MORPH_TOPHAT, np.ones((stroke, stroke), np.uint8))
    least = float(np.clip(np.percentile(top[::3, ::3], SHARE_DARK), *CONTRASTS))
    bright = cv2.threshold(top, least, 255, cv2.THRESH_BINARY)[1]
    outlines, levels = cv2.findContours(bright, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lowest, highest = HEIGHTS[0] * side, HEIGHTS[1] * side
    boxes, contrasts = [], []
    for number, outline in enumerate(outlines):
        # An outline goes up and down again. One within another is that of a hole.
        if len(outline) < 2 * lowest or levels[0, number, 3] >= 0:
            continue
        x, y, width, height = cv2.boundingRect(outline)
        if lowest <= height <= highest and 0.3 * height <= width <= 1.25 * height:
            boxes.append((x, y, width, height))
            contrasts.append(int(top[y : y + height, x : x + width].max()))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(contrasts, np.float64)


def pieces(pixels: np.ndarray, boxes: np.ndarray, side: int = SIDE, share: float = 0.5) -> NDArray[np.float32]:
    """Squares around boxes, (N, side, side) float32 grey; the longer side of the box fills `share` of it."""
    result = np.empty((len(boxes), side, side), np.float32)
    for number, (left, top, width, height) in enumerate(boxes.tolist()):
        size = max(width, height) / share
        x, y = left + (width - size) / 2, top + (height - size) / 2
        result[number] = _cut_out(pixels, x, y, size, side)
    return result


def _cut_out(pixels: np.ndarray, left: float, top: float, size: float, side: int) -> np.ndarray:
    """A square, in which the edge goes on beyond the picture, reduced to `side`."""
    x1, y1, x2, y2 = round(left), round(top), round(left + size), round(top + size)
    height, width = pixels.shape
    # Two pixels for one are enough; the mean of all of a large radiograph's would be slower than the rest.
    step = max(1, (x2 - x1) // (2 * side))
    inside = np.ascontiguousarray(pixels[max(y1, 0) : min(y2, height) : step, max(x1, 0) : min(x2, width) : step])
    above, below = max(-y1, 0) // step, max(y2 - height, 0) // step
    before, behind = max(-x1, 0) // step, max(x2 - width, 0) // step
    if above or below or before or behind:
        inside = cv2.copyMakeBorder(inside, above, below, before, behind, cv2.BORDER_REPLICATE)
    interpolation = cv2.INTER_AREA if min(inside.shape) > side else cv2.INTER_LINEAR
    small: np.ndarray = cv2.resize(inside, (side, side), interpolation=interpolation)
    return small.astype(np.float32)


def probabilities(squares: np.ndarray, values: dict[str, np.ndarray]) -> NDArray[np.float32]:
    """(N, SIDE, SIDE) → (N, 4): what each is, by LETTERS; the rest up to 1 is that it is none of them."""
    squares = standardized(squares)
    both = np.concatenate([squares, squares[:, :, ::-1]])[:, None]
    logits = network(both, values)
    logits = np.concatenate([logits[: len(squares)], logits[len(squares) :], np.zeros((len(squares), 1))], axis=1)
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (logits / logits.sum(axis=1, keepdims=True))[:, :4].astype(np.float32)
    return shares


def standardized(squares: np.ndarray) -> NDArray[np.float32]:
    """Pieces without their mean and of deviation 1 in the middle, where the letter is."""
    edge = squares.shape[1] // 5
    middle = squares[:, edge:-edge, edge:-edge]
    mean, deviation = middle.mean(axis=(1, 2), keepdims=True), middle.std(axis=(1, 2), keepdims=True)
    result: NDArray[np.float32] = ((squares - mean) / np.maximum(deviation, 1e-3)).clip(-4, 4)
    return result


@functools.lru_cache(maxsize=1)
def weights() -> dict[str, np.ndarray]:
    """Name → values, float32, of the network; and the "threshold" from which a letter counts as read."""
    return read_weights(WEIGHTS)
