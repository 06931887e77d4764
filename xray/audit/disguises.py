"""Copies of radiographs as other tools make them: resized, windowed, cropped, compressed, mirrored."""

from collections.abc import Callable

import cv2
import numpy as np

Disguise = Callable[[np.ndarray], np.ndarray]


def disguises(random: np.random.Generator) -> dict[str, Disguise]:
    """Name → what makes such a copy of a radiograph, (H, H) uint8 both, with strengths drawn anew for each."""

    def windowed(picture: np.ndarray) -> np.ndarray:
        low, high = random.uniform(0, 50), random.uniform(190, 255)
        return np.asarray(((picture - low) / (high - low) * 255).clip(0, 255).astype(np.uint8))

    def resized(picture: np.ndarray) -> np.ndarray:
        factor = random.uniform(0.4, 0.8)
        less = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(less, picture.shape[::-1], interpolation=cv2.INTER_LINEAR))

    def cropped(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape
        left, top, right, bottom = (random.uniform(0, 0.06, 4) * (width, height, width, height)).astype(int).tolist()
        part = np.ascontiguousarray(picture[top : height - bottom, left : width - right])
        return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))

    def compressed(picture: np.ndarray) -> np.ndarray:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 60))])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))

    def mirrored(picture: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(picture[:, ::-1])

    return {
        "another window": windowed,
        "resized": resized,
        "cropped": cropped,
        "compressed": compressed,
        "mirrored": mirrored,
        "all of these": lambda picture: compressed(windowed(cropped(resized(mirrored(picture))))),
    }
