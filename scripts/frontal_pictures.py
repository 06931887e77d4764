"""Pictures to train and to test the network of xray/radiographs/frontal.py with: chests, and what is none.

Frontal chests are the real radiographs of a folder in the layout of COCO whose images have a `patient`, and drawn
phantoms. Real radiographs of other parts of the body are rare among what may be used, so these are drawn too: hands,
limbs, skulls, pelves, spines, abdomens and lateral chests, as coarse as a thumbnail of 64 pixels needs them. The others
are slices and scintigrams of pydicom's test files, photographs that scikit-learn and matplotlib bring along, pages of
text, test patterns, and parts of chests. All are (H, W) uint8 with sides of at most SIDE pixels.
"""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from xray.phantoms.drawing import draw_phantom
from xray.phantoms.shapes import closed_curve, curve, ellipse, smooth_noise

SIDE = 256
CHEST, OTHER = "chest", "other"
Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture. kind: CHEST or OTHER. group: all of one patient, or one origin, have one. source: for the tables."""

    pixels: np.ndarray
    kind: str
    group: str
    source: str


def real_chests(folder: Path) -> Iterator[Picture]:
    """The frontal radiographs of a COCO folder, whose images name their patients."""
    for image in json.loads((folder / "annotations.json").read_text())["images"]:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
        yield Picture(reduced(pixels), CHEST, f"patient {image['patient']}", "real")


def phantom_chests(n: int, seed: int) -> Iterator[Picture]:
    """Phantoms, each of the 14 findings in many of them."""
    rng = np.random.default_rng([seed, 14])
    for number in range(n):
        findings = sorted(set(rng.integers(0, 14, rng.integers(0, 5)).tolist()))
        height = 320
        width = round(height * rng.uniform(0.75, 1.25))
        pixels = draw_phantom((seed, number), width, height, findings).pixels
        yield Picture(reduced((pixels * 255).astype(np.uint8)), CHEST, f"phantom {number}", "phantom")


def test_files() -> Iterator[Picture]:
    """Slices, ultrasound and scintigrams of pydicom's test files; photographs of scikit-learn and matplotlib."""
    import matplotlib
    import pydicom.data
    import sklearn.datasets

    from xray.radiographs.radiograph import RadiographError, read_radiograph

    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels = read_radiograph(path).pixels
            except RadiographError:
                continue
        if min(pixels.shape) >= 60:
            yield Picture(reduced(pixels), OTHER, f"file {Path(path).stem[:8]}", "slices, ultrasound")
    photographs = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in sklearn.datasets.load_sample_images().images]
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    for suffix in ("png", "jpg"):
        for path in sorted(folder.glob(f"*.{suffix}")):
            photographs.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    for number, pixels in enumerate(photographs):
        yield Picture(reduced(pixels), OTHER, f"photograph {number}", "photographs")


def drawn_others(n: int, seed: int) -> Iterator[Picture]:
    """Other parts of the body, lateral chests, pages and patterns, drawn."""
    kinds: list[tuple[str, Callable[[Rng], np.ndarray]]] = [
        ("drawn hand", hand), ("drawn limb", limb), ("drawn skull", skull), ("drawn pelvis", pelvis),
        ("drawn spine", spine), ("drawn abdomen", abdomen), ("drawn lateral chest", lateral),
        ("drawn lateral chest", lateral), ("page", page), ("pattern", pattern),
    ]  # fmt: skip
    for number in range(n):
        name, draw = kinds[number % len(kinds)]
        rng = np.random.default_rng([seed, 5, number])
        yield Picture(draw(rng), OTHER, f"{name} {number}", name)


def reduced(pixels: np.ndarray) -> np.ndarray:
    """(H, W) → sides of at most SIDE."""
    scale = SIDE / max(pixels.shape)
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def film(rng: Rng, thickness: np.ndarray) -> np.ndarray:
    """cm of water → (H, W) uint8 as a display shows it, air black."""
    noise = smooth_noise(rng, thickness.shape, rng.uniform(2, 12)) * 0.25 + rng.standard_normal(thickness.shape) * 0.1
    shown = cv2.GaussianBlur(thickness.astype(np.float32), (0, 0), 0.9) + noise * np.clip(thickness, 0, 1)
    high = np.percentile(shown, 99.5)
    pixels = 1 / (1 + np.exp(-rng.uniform(3, 6) * (shown / max(high, 1e-6) - rng.uniform(0.35, 0.6))))
    pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-6)
    return (pixels * 255).astype(np.uint8)


def sheet(rng: Rng) -> np.ndarray:
    """An empty layer of a random shape."""
    return np.zeros((SIDE, round(SIDE * rng.uniform(0.55, 1.0))), np.float32)


def paint(layer: np.ndarray, outline: np.ndarray, value: float, blur: float = 0.0) -> None:
    """Adds a closed outline, in shares of the layer's sides, filled with a thickness."""
    mask = np.zeros(layer.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * layer.shape[::-1] * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    shape = mask.astype(np.float32) / 255
    layer += value * (cv2.GaussianBlur(shape, (0, 0), blur) if blur else shape)


def bone(layer: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, value: float = 2.0) -> None:
    """A long bone with a cortex and heads, between two points in shares of the sides."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    path = np.linspace(start, end, 24)
    across = np.array([-(end - start)[1], (end - start)[0]]) / max(float(np.linalg.norm(end - start)), 1e-6)
    half = width * (0.5 + 0.45 * np.abs(np.linspace(-1, 1, 24)) ** 4)[:, None]
    paint(layer, np.concatenate([path + across * half, (path - across * half)[::-1]]), value)
    paint(layer, np.concatenate([path + across * half * 0.55, (path - across * half * 0.55)[::-1]]), -0.45 * value)


def band(path: np.ndarray, half: float) -> np.ndarray:
    """The outline of a band along a path, so much above and below it."""
    shift = np.array((0, half))
    return np.concatenate([path - shift, (path + shift)[::-1]])


def hand(rng: Rng) -> np.ndarray:
    """A hand or a foot seen from above, sometimes two of them."""
    layer = sheet(rng)
    places = [0.5] if rng.random() < 0.6 else [0.27, 0.73]
    size = 0.9 if len(places) == 1 else 0.5
    for number, middle in enumerate(places):
        flip = -1 if number else 1
        wrist, top = np.array([middle, rng.uniform(0.85, 0.95)]), rng.uniform(0.1, 0.25)
        paint(layer, ellipse((middle, 0.72), (0.2 * size, 0.17)), 2.5, 6)
        for finger in range(5):
            angle = flip * ((finger - 2) * rng.uniform(0.16, 0.24) + rng.normal(0, 0.03))
            length = (0.72 - top) * (0.55 if finger == 0 else 0.95 - 0.06 * abs(finger - 2))
            towards = np.array([np.sin(angle) * size, -np.cos(angle)])
            base = np.array([middle + flip * (finger - 2) * 0.065 * size, 0.72])
            joints = [base + towards * length * share for share in (0.0, 0.42, 0.72, 0.9, 1.0)]
            for one, other in itertools.pairwise(joints):
                tissue = np.array([[-0.035 * size, 0], [0.035 * size, 0]])
                paint(layer, np.concatenate([one + tissue, (other + tissue)[::-1]]), 1.3, 3)
                bone(layer, one + (other - one) * 0.06, other, 0.035 * size, rng.uniform(1.2, 2.0))
        for side in (-1, 1):
            ends = wrist + np.array([(side * 0.06 * size, 0.12), (side * 0.05 * size, -0.08)])
            bone(layer, ends[0], ends[1], 0.06 * size)
        for _ in range(7):
            where = (middle + rng.uniform(-0.1, 0.1) * size, rng.uniform(0.75, 0.82))
            paint(layer, ellipse(where, (0.03 * size, 0.02)), 1.2)
    return film(rng, layer)


def limb(rng: Rng) -> np.ndarray:
    """A knee, an elbow, a thigh, a forearm: bones in a tube of soft tissue, from edge to edge."""
    layer = sheet(rng)
    lean, joint = rng.normal(0, 0.08), rng.uniform(0.3, 0.7)
    width = rng.uniform(0.18, 0.42)
    left = [(0.5 - width + lean * (y - 0.5) + 0.03 * np.sin(6 * y), y) for y in np.linspace(-0.1, 1.1, 9)]
    right = [(0.5 + width + lean * (y - 0.5) + 0.03 * np.sin(5 * y), y) for y in np.linspace(1.1, -0.1, 9)]
    paint(layer, np.array(left + right), rng.uniform(4, 9), 8)
    thick = rng.uniform(0.07, 0.16)
    bone(layer, (0.5 - lean / 2, -0.2), (0.5 + rng.normal(0, 0.02), joint - 0.01), thick, rng.uniform(2, 4))
    bends = rng.normal(0, 0.12)
    pair = rng.random() < 0.6
    bone(layer, (0.5 - 0.05 * pair, joint + 0.02), (0.5 - 0.05 * pair + bends, 1.2), thick * 0.9, rng.uniform(2, 4))
    if pair:
        bone(layer, (0.5 + thick, joint + 0.06), (0.5 + thick + bends, 1.2), thick * 0.45, rng.uniform(1.5, 3))
    if rng.random() < 0.5:
        paint(layer, ellipse((0.5, joint - 0.08), (0.05, 0.05)), 1.5)
    return film(rng, layer)


def skull(rng: Rng) -> np.ndarray:
    """A skull from the front or the side."""
    layer = sheet(rng)
    wide, tall = rng.uniform(0.3, 0.4), rng.uniform(0.3, 0.38)
    paint(layer, ellipse((0.5, 0.42), (wide + 0.03, tall + 0.02)), 6, 5)
    paint(layer, ellipse((0.5, 0.42), (wide, tall)), 5)
    paint(layer, ellipse((0.5, 0.42), (wide * 0.93, tall * 0.93)), -3, 3)
    paint(layer, np.array([(0.38, 0.7), (0.62, 0.7), (0.6, 1.1), (0.4, 1.1)]), 5, 6)
    if rng.random() < 0.5:
        for side in (-1, 1):
            paint(layer, ellipse((0.5 + side * wide * 0.42, 0.5), (wide * 0.26, 0.07)), -2.2, 2)
        paint(layer, ellipse((0.5, 0.6), (0.05, 0.08)), -2, 3)
        paint(layer, ellipse((0.5, 0.77), (wide * 0.6, 0.09)), 4, 2)
    else:
        side = rng.choice((-1, 1))
        paint(layer, ellipse((0.5 + side * wide * 0.6, 0.72), (wide * 0.45, 0.08), side * 0.3), 4, 3)
        paint(layer, ellipse((0.5 + side * wide * 0.75, 0.5), (0.06, 0.05)), -2, 2)
    for number in range(4):
        paint(layer, ellipse((0.5, 0.84 + 0.05 * number), (0.06, 0.018)), 2.5)
    return film(rng, layer)


def pelvis(rng: Rng) -> np.ndarray:
    """A pelvis with both hips."""
    layer = sheet(rng)
    paint(layer, np.array([(0.02, -0.1), (0.98, -0.1), (1.0, 1.1), (0.0, 1.1)]), 14, 10)
    paint(layer, np.array([(0.46, 0.7), (0.54, 0.7), (0.53, 1.1), (0.47, 1.1)]), -6, 6)
    wide = rng.uniform(0.3, 0.4)
    for side in (-1, 1):
        wing = [(0.08, 0.35), (0.55, 0.12), (0.98, 0.2), (0.95, 0.4), (0.6, 0.55), (0.2, 0.5)]
        paint(layer, closed_curve([(0.5 + side * wide * x, y) for x, y in wing]), rng.uniform(2, 4), 1.5)
        paint(layer, ellipse((0.5 + side * wide * 0.3, 0.68), (0.1, 0.12)), 3.5, 1)
        paint(layer, ellipse((0.5 + side * wide * 0.3, 0.7), (0.055, 0.075)), -4, 1)
        paint(layer, ellipse((0.5 + side * wide * 0.75, 0.58), (0.06, 0.06)), 4, 1)
        bone(layer, (0.5 + side * wide * 0.95, 0.62), (0.5 + side * wide * 0.85, 1.2), 0.1, 5)
    column(layer, rng, 0.5, -0.05, 0.4, 0.09)
    return film(rng, layer)


def column(layer: np.ndarray, rng: Rng, x: float, top: float, bottom: float, width: float, bend: float = 0.0) -> None:
    """Vertebrae from top to bottom."""
    step = rng.uniform(0.065, 0.09)
    for y in np.arange(top, bottom, step):
        middle = x + bend * np.sin(3 * (y - top))
        paint(layer, ellipse((middle, y), (width / 2, step * 0.42)), rng.uniform(2.5, 4), 0.8)
        paint(layer, ellipse((middle, y), (width / 5, step * 0.2)), 1.5, 0.8)


def spine(rng: Rng) -> np.ndarray:
    """A cervical or lumbar spine from the front or the side."""
    layer = sheet(rng)
    paint(layer, ellipse((0.5, 0.5), (rng.uniform(0.3, 0.6), 0.8)), rng.uniform(6, 12), 12)
    column(layer, rng, 0.5, -0.05, 1.05, rng.uniform(0.14, 0.28), rng.normal(0, 0.06))
    for side in (-1, 1):
        if rng.random() < 0.5:
            for y in np.arange(0.05, 1, 0.09):
                bone(layer, (0.5, y), (0.5 + side * rng.uniform(0.16, 0.22), y + 0.01), 0.02, 1.2)
    return film(rng, layer)


def abdomen(rng: Rng) -> np.ndarray:
    """An abdomen with the spine, the tops of the hips and gas in the bowel."""
    layer = sheet(rng)
    paint(layer, np.array([(0.06, -0.1), (0.94, -0.1), (0.97, 1.1), (0.03, 1.1)]), 14, 12)
    column(layer, rng, 0.5, -0.05, 0.8, 0.11, rng.normal(0, 0.02))
    for side in (-1, 1):
        for k in range(3):
            rib = curve([(0.5 + side * 0.08, 0.02 + 0.06 * k), (0.5 + side * 0.3, 0.1 + 0.07 * k),
                         (0.5 + side * 0.4, 0.2 + 0.08 * k)])  # fmt: skip
            paint(layer, band(rib, 0.012), 1.5, 0.8)
        wing = closed_curve([(0.5 + side * x, y) for x, y in [(0.08, 0.9), (0.25, 0.78), (0.38, 0.85), (0.36, 1.1)]])
        paint(layer, wing, 3, 1.5)
    for _ in range(int(rng.integers(3, 14))):
        where, size = rng.uniform(0.15, 0.85, 2), rng.uniform(0.02, 0.09, 2)
        paint(layer, ellipse((where[0], where[1]), (size[0], size[1]), rng.uniform(0, 3)), -rng.uniform(2, 6), 3)
    return film(rng, layer)


def lateral(rng: Rng) -> np.ndarray:
    """A lateral chest: one dark field between breastbone and spine, the heart in front, two domes below."""
    layer = sheet(rng)
    body = [(0.2, -0.05), (0.7, -0.05), (0.88, 0.2), (0.93, 0.6), (0.9, 1.1), (0.1, 1.1), (0.06, 0.6), (0.12, 0.2)]
    paint(layer, closed_curve(body), rng.uniform(14, 18), 6)
    lung = [(0.38, 0.1), (0.6, 0.06), (0.8, 0.25), (0.85, 0.55), (0.82, 0.86), (0.6, 0.78), (0.4, 0.68), (0.18, 0.66),
            (0.16, 0.45), (0.24, 0.25)]  # fmt: skip
    paint(layer, closed_curve(np.array(lung) + rng.normal(0, 0.015, (10, 2))), -rng.uniform(6, 10), 4)
    heart = ellipse((rng.uniform(0.3, 0.38), rng.uniform(0.54, 0.62)), (rng.uniform(0.13, 0.2), 0.15), 0.7)
    paint(layer, heart, rng.uniform(4, 8), 5)
    paint(layer, closed_curve([(0.35, 0.1), (0.52, 0.1), (0.55, 0.4), (0.42, 0.5), (0.34, 0.3)]), rng.uniform(1, 4), 8)
    bend = rng.uniform(0.02, 0.06)
    for y in np.arange(0.02, 1.0, 0.07):
        x = 0.74 + bend * np.sin(3 * y)
        paint(layer, ellipse((x, y), (0.045, 0.028)), rng.uniform(2, 4), 1)
    for k in range(7):
        path = curve([(0.84, 0.15 + 0.09 * k), (0.55, 0.22 + 0.1 * k), (0.2, 0.36 + 0.08 * k)])
        paint(layer, band(path, 0.008), 0.9, 1)
    if rng.random() < 0.5:  # arms that are not raised
        bone(layer, (rng.uniform(0.3, 0.6), -0.1), (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5)), 0.1, 3)
    pixels = film(rng, layer)
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def page(rng: Rng) -> np.ndarray:
    """A page of text or a table, white or black."""
    pixels = np.full((SIDE, round(SIDE * rng.uniform(0.6, 1.0))), 255, np.uint8)
    for y in range(12, SIDE - 4, int(rng.integers(8, 16))):
        text = "".join(rng.choice(list("abcdefghij klmno 0123456789"), int(rng.integers(5, 40))))
        cv2.putText(pixels, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.3, int(rng.integers(0, 90)), 1, cv2.LINE_AA)
    return pixels if rng.random() < 0.6 else 255 - pixels


def pattern(rng: Rng) -> np.ndarray:
    """Noise, a ramp, steps, bars, blobs: what test patterns and failed exposures look like."""
    shape = (SIDE, round(SIDE * rng.uniform(0.6, 1.0)))
    y, x = np.mgrid[: shape[0], : shape[1]] / SIDE
    kind = rng.integers(0, 6)
    if kind == 0:
        values = rng.standard_normal(shape)
    elif kind == 1:
        values = x * rng.normal() + y * rng.normal() + rng.standard_normal(shape) * 0.02
    elif kind == 2:
        values = np.floor(x * rng.integers(3, 12)) * rng.normal() + np.floor(y * rng.integers(1, 8)) * rng.normal()
    elif kind == 3:
        values = np.sin(x * rng.uniform(5, 60)) + np.sin(y * rng.uniform(5, 60))
    elif kind == 4:
        values = smooth_noise(rng, shape, rng.uniform(8, 80)) + rng.standard_normal(shape) * 0.05
    else:
        values = -np.hypot(x - rng.uniform(0.3, 0.6), y - rng.uniform(0.3, 0.7)) + rng.standard_normal(shape) * 0.02
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
