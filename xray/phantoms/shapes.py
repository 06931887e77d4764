"""Drawing primitives of the phantoms: a view of the body, smooth curves, ribbons and random textures.

All anatomy is given in centimetres in the patient's frame as a viewer sees it: x grows to the viewer's right (the
patient's left) from the midline, y grows downward from the lungs' apices.
"""

import dataclasses
import functools
from collections.abc import Sequence

import cv2
import numpy as np

Points = np.ndarray | Sequence[np.ndarray | tuple[float, float]]
"""(N, 2) x and y in cm."""

LAYER_UNIT = 60
"""Grey levels of an 8-bit drawing layer that stand for one centimetre of water."""


@dataclasses.dataclass(frozen=True)
class View:
    """The affine map from the patient's centimetres to a grid of pixels.

    width, height: of the grid, in pixels.
    scale: pixels per centimetre.
    tilt: rotation of the patient in the image plane, in radians.
    origin: (x, y) of the patient's (0, 0) on the grid, in pixels.
    """

    width: int
    height: int
    scale: float
    tilt: float
    origin: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        return self.height, self.width

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 2) in cm → (N, 2) float64 on the grid."""
        cos, sin = np.cos(self.tilt) * self.scale, np.sin(self.tilt) * self.scale
        places: np.ndarray = np.asarray(points, dtype=np.float64) @ np.array([[cos, sin], [-sin, cos]]) + self.origin
        return places

    def centimetres(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 2) on the grid → (N, 2) float64 in cm."""
        cos, sin = np.cos(self.tilt) / self.scale, np.sin(self.tilt) / self.scale
        places: np.ndarray = (np.asarray(points, dtype=np.float64) - self.origin) @ np.array([[cos, -sin], [sin, cos]])
        return places

    @functools.cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y in cm of every grid pixel's centre, two float32 (height, width) arrays."""
        columns = np.arange(self.width, dtype=np.float32) - np.float32(self.origin[0])
        rows = np.arange(self.height, dtype=np.float32)[:, None] - np.float32(self.origin[1])
        cos, sin = np.float32(np.cos(self.tilt) / self.scale), np.float32(np.sin(self.tilt) / self.scale)
        return columns * cos + rows * sin, rows * cos - columns * sin

    def blur(self, image: np.ndarray, sigma_cm: float) -> np.ndarray:
        """Gaussian blur with a standard deviation in cm."""
        return blur(image, sigma_cm * self.scale)

    def fill(self, outline: np.ndarray) -> np.ndarray:
        """A closed outline (N, 2) in cm → bool mask (height, width)."""
        mask = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(mask, [fixed_point(self.pixels(outline))], 1, shift=4)
        return mask.astype(bool)

    def paint(self, layer: np.ndarray, outline: np.ndarray, value: float) -> None:
        """Fills a closed outline (N, 2) in cm in an 8-bit layer with `value` cm of water."""
        cv2.fillPoly(layer, [fixed_point(self.pixels(outline))], min(255.0, value * LAYER_UNIT), shift=4)

    def shade(self, layer: np.ndarray, sigma_cm: float) -> np.ndarray:
        """An 8-bit layer as cm of water (float32), its edges softened."""
        return self.blur(layer.astype(np.float32), sigma_cm) / LAYER_UNIT

    def ribbon(
        self, layer: np.ndarray, centre: np.ndarray, half_width: np.ndarray, value: np.ndarray, cortex: float = 0.0
    ) -> None:
        """Draws a band along a curve into an 8-bit layer, overwriting what is there.

        centre: (N, 2) in cm. half_width: (N,) in cm. value: (N,) in cm of water at the band's edge.
        cortex: half_width of the denser rim in cm; 0 for a band that is alike throughout. Inside the rim the value
            falls to 55 %, as in a bone's marrow.
        """
        points = self.pixels(centre)
        direction = np.gradient(points, axis=0)
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
        passes = [(0.0, 1.0)] if cortex <= 0 else [(0.0, 1.0), (cortex, 0.55)]
        for rim, share in passes:
            offset = normal * (np.maximum(half_width - rim, 0) * self.scale)[:, None]
            one, other = points + offset, points - offset
            quads = np.stack([one[:-1], one[1:], other[1:], other[:-1]], axis=1)
            levels = np.clip((value[:-1] + value[1:]) / 2 * share * LAYER_UNIT, 0, 255).round()
            for quad, level in zip(fixed_point(quads), levels.tolist(), strict=True):
                cv2.fillConvexPoly(layer, quad, level, shift=4)

    def line(self, layer: np.ndarray, points: np.ndarray, width_cm: float, value: float) -> None:
        """Draws a smooth thin line (N, 2) in cm into an 8-bit layer; thinner than a pixel, it becomes fainter."""
        width = width_cm * self.scale
        thickness = max(1, round(width))
        level = float(np.clip(value * LAYER_UNIT * min(1.0, width / thickness), 0, 255))
        cv2.polylines(layer, [fixed_point(self.pixels(points))], False, level, thickness, cv2.LINE_AA, shift=4)


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixel coordinates → the integers with 4 fractional bits that OpenCV's drawing calls take."""
    return np.round(points * 16).astype(np.int32)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a standard deviation in pixels; wide ones run on a smaller copy, which looks the same."""
    if sigma < 0.3:
        return image
    shrink = int(sigma // 4)
    if shrink >= 2:
        height, width = image.shape
        small_size = (max(1, width // shrink), max(1, height // shrink))
        small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def smoothstep(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a smooth cubic between."""
    value = np.clip(value, 0, 1)
    result: np.ndarray = value * value * (3 - 2 * value)
    return result


def curve(points: Points, n: int = 12) -> np.ndarray:
    """A smooth open curve through points (N, 2): n steps between neighbours, Catmull–Rom with end tangents."""
    points = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    a, b, c, d = (padded[k : len(padded) - 3 + k, None] for k in range(4))
    t = (np.arange(n) / n)[None, :, None]
    path = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([path.reshape(-1, 2), points[-1:]])


def closed_curve(points: Points, n: int = 12) -> np.ndarray:
    """A smooth closed curve through points (N, 2), without its starting point repeated at the end."""
    points = np.asarray(points, dtype=np.float64)
    path = curve(np.concatenate([points[-2:], points, points[:2]]), n)
    return path[2 * n : -(n + 1)]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, n: int = 72) -> np.ndarray:
    """The outline (n, 2) of an ellipse; angle in radians."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos], axis=1)


def distance_inside(mask: np.ndarray) -> np.ndarray:
    """float32 distance in pixels of each pixel inside a bool mask to the mask's edge; 0 outside.

    The image's border is no edge: what leaves the picture continues beyond it.
    """
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)


def dome(mask: np.ndarray, rim: float) -> np.ndarray:
    """A rounded thickness 0–1 (float32): steep at the mask's edge, 1 from `rim` pixels inside it."""
    depth = np.clip(distance_inside(mask) / max(rim, 1e-6), 0, 1)
    return np.sqrt(1 - (1 - depth) ** 2)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """A random field of mean 0 and standard deviation about 1 with structures of `sigma` pixels (float32)."""
    step = max(1.0, sigma)
    coarse = (int(np.ceil(shape[0] / step)) + 4, int(np.ceil(shape[1] / step)) + 4)
    field: np.ndarray = rng.standard_normal(coarse, dtype=np.float32)
    size = (int(coarse[1] * step), int(coarse[0] * step))
    field = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    offset = int(step * 1.5)
    return field[offset : offset + shape[0], offset : offset + shape[1]] * 1.4


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """(x1, y1, x2, y2) float64 around the true pixels, of which there is one at least, edges included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
