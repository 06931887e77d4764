"""Original pixels ↔ the square canvas that every model sees.

A radiograph is letterboxed: scaled by one factor until its longer side fills the canvas, centred, and padded with
black. Boxes and masks go both ways through the same geometry, so a detection's error from the round trip stays far
below a pixel.
"""

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 100_000_000
"""Pixels of the largest radiograph that is read; 50 µm detectors of 43 x 43 cm have 74 million."""


ASPECT_TOLERANCE = 0.02
"""A resized file's aspect may differ from the original's by this share, as rounding to whole pixels makes it."""


@dataclasses.dataclass(frozen=True)
class Canvas:
    """The place of one radiograph on its canvas.

    width, height: of the radiograph, in original pixels.
    size: side of the square canvas, in canvas pixels.
    """

    width: int
    height: int
    size: int

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"a canvas needs sides of at least 1 pixel, not {self}")

    @property
    def content(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the radiograph on the canvas, in whole canvas pixels."""
        scale = self.size / max(self.width, self.height)
        width = min(self.size, max(1, round(self.width * scale)))
        height = min(self.size, max(1, round(self.height * scale)))
        left, top = (self.size - width) // 2, (self.size - height) // 2
        return left, top, left + width, top + height

    def _transform(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # The content has whole pixels, so the two axes may differ by a fraction of a percent: scale each by its own.
        left, top, right, bottom = self.content
        scale = np.array([(right - left) / self.width, (bottom - top) / self.height])
        return np.tile(scale, 2), np.array([left, top, left, top], dtype=np.float64)

    def to_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy in original pixels → (N, 4) float64 in canvas pixels."""
        scale, offset = self._transform()
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale + offset

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy in canvas pixels → (N, 4) float64 in original pixels, clipped to the radiograph."""
        scale, offset = self._transform()
        boxes = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - offset) / scale
        return boxes.clip(0, [self.width, self.height, self.width, self.height])

    def letterbox(self, pixels: np.ndarray, is_mask: bool = False) -> np.ndarray:
        """(height, width) pixels → (size, size) of the same dtype; masks keep their values (nearest neighbour)."""
        if pixels.shape != (self.height, self.width):
            raise ValueError(f"pixels are {pixels.shape}, the canvas was made for {(self.height, self.width)}")
        left, top, right, bottom = self.content
        if is_mask:
            interpolation = cv2.INTER_NEAREST_EXACT
        else:
            # Area averaging keeps fine structures free of aliasing when shrinking; enlarging it is nearest neighbour.
            shrinks = right - left <= self.width and bottom - top <= self.height
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        canvas = np.zeros((self.size, self.size), dtype=pixels.dtype)
        canvas[top:bottom, left:right] = cv2.resize(pixels, (right - left, bottom - top), interpolation=interpolation)
        return canvas

    def unletterbox(self, canvas: np.ndarray) -> np.ndarray:
        """(size, size) values on the canvas → (height, width) in original pixels, by linear interpolation."""
        if canvas.shape != (self.size, self.size):
            raise ValueError(f"the canvas is {canvas.shape}, expected {(self.size, self.size)}")
        left, top, right, bottom = self.content
        content = np.ascontiguousarray(canvas[top:bottom, left:right])
        return cv2.resize(content, (self.width, self.height), interpolation=cv2.INTER_LINEAR)


def rescaled(canvas: np.ndarray, size: int) -> np.ndarray:
    """A canvas (S, S) → (size, size); the same array where S is that already."""
    if len(canvas) == size:
        return canvas
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA if size < len(canvas) else cv2.INTER_LINEAR)


def in_8_bits(pixels: np.ndarray) -> NDArray[np.uint8]:
    """uint8 or uint16 display grey of any shape → the nearest of 256 levels; uint8 stays what it is."""
    if pixels.dtype == np.uint8:
        return pixels
    # Rounded: v / 257 lies halfway between two levels for no whole v.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def in_levels(pixels: np.ndarray) -> np.ndarray:
    """What networks look at: uint16 becomes float32 in the units of uint8, 0 to 255 with fractions; others stay."""
    return pixels / np.float32(257) if pixels.dtype == np.uint16 else pixels


def is_resized(file: tuple[int, int], original: tuple[int, int], squashed: bool) -> bool:
    """Whether a file of one (width, height) can be the whole radiograph of another.

    squashed: whether a square file may be a radiograph whose aspect was not kept.
    """
    ratio = (original[0] / original[1]) / (file[0] / file[1])
    return abs(ratio - 1) <= ASPECT_TOLERANCE or (squashed and file[0] == file[1])


def reshaped(canvas: np.ndarray, of_file: Canvas, wanted: Canvas) -> np.ndarray:
    """The (S, S) canvas of a file, stretched to what the canvas of the original radiograph holds.

    of_file: the place of the file on it, wanted: that of the radiograph, whose aspect the file may not have kept.
    """
    if of_file.content == wanted.content:
        return canvas
    left, top, right, bottom = of_file.content
    content = np.ascontiguousarray(canvas[top:bottom, left:right])
    left, top, right, bottom = wanted.content
    result = np.zeros_like(canvas)
    result[top:bottom, left:right] = cv2.resize(content, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return result
