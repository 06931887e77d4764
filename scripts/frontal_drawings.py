"""Drawn radiographs that are no frontal chests, pages and patterns, as coarse as a thumbnail of 64 pixels needs them.

Hands, limbs, skulls, pelves, spines, abdomens and lateral chests. All are (H, W) uint8 with a height of SIDE.
"""

import itertools

import cv2
import numpy as np

from xray.phantoms.shapes import closed_curve, curve, ellipse, smooth_noise

SIDE = 256
Rng = np.random.Generator


def film(rng: Rng, thickness: np.ndarray) -> np.ndarray:
    """cm of water → (H, W) uint8 as a display shows it, air black."""
    noise = smooth_noise(rng, thickness.shape, rng.uniform(2, 12)) * 0.25 + rng.standard_normal(thickness.shape) * 0.1
    shown = cv2.GaussianBlur(thickness.astype(np.float32), (0, 0), 0.9) + noise * np.clip(thickness, 0.02, 1)
    # Scattered rays brighten the air, more near the body.
    shown += cv2.GaussianBlur(shown, (0, 0), rng.uniform(10, 50)) * rng.choice([0, 0.02, 0.1])
    high = np.percentile(shown, 99.5)
    pixels = 1 / (1 + np.exp(-rng.uniform(3, 6) * (shown / max(high, 1e-6) - rng.uniform(0.35, 0.6))))
    pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-6)
    return (fogged(rng, pixels) * 255).clip(0, 255).astype(np.uint8)


def fogged(rng: Rng, pixels: np.ndarray) -> np.ndarray:
    """Values in 0–1 with what lies beside the body in a real radiograph: fog, grain, a cassette's frame, a marker.

    Ranks make the faintest fog visible: without it, empty ground alone would tell what is drawn.
    """
    if rng.random() < 0.25:
        return pixels
    shape = pixels.shape
    y, x = np.mgrid[: shape[0], : shape[1]] / SIDE
    ground = rng.uniform(0, 0.15) + rng.normal(0, 0.05) * x + rng.normal(0, 0.05) * y
    ground = ground + rng.uniform(0, 0.06) * smooth_noise(rng, shape, rng.uniform(3, 60))
    if rng.random() < 0.35:
        sides = np.array(shape[::-1]) * rng.uniform(0.7, 0.98, 2)
        box = (tuple(np.array(shape[::-1]) / 2 + rng.normal(0, 5, 2)), tuple(sides), float(rng.normal(0, 4)))
        frame = np.zeros(shape, np.uint8)
        cv2.fillPoly(frame, [cv2.boxPoints(box).astype(np.int32)], 1)
        ground = ground + rng.normal(0, 0.25) * frame + (rng.uniform(0, 0.3) if rng.random() < 0.5 else 0) * (1 - frame)
    ground = ground + rng.standard_normal(shape) * rng.uniform(0, 0.03)
    result: np.ndarray = ground + (1 - ground) * pixels
    if rng.random() < 0.5:
        left, top = rng.integers(0, shape[1] - 30), rng.integers(0, shape[0] - 30)
        wide, tall = rng.integers(8, 30, 2)
        result[top : top + tall, left : left + wide] = rng.uniform(0, 0.6)
        result[top + tall // 4 : top + tall * 3 // 4, left + wide // 4 : left + wide * 3 // 4] = rng.uniform(0.3, 1)
    return result


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
    """A hand or a foot seen from above, from the forearm to the fingertips, sometimes two of them.

    Its flesh is nearly as bright as its bones: at the size of a thumbnail it is a bright shape with fingers.
    """
    layer = sheet(rng)
    flesh = np.zeros_like(layer)
    places = [0.5 + rng.normal(0, 0.03)] if rng.random() < 0.75 else [0.27, 0.73]
    size = rng.uniform(0.95, 1.5) if len(places) == 1 else rng.uniform(0.55, 0.75)
    spread, plump, long = rng.uniform(0.08, 0.3), rng.uniform(0.85, 1.25), rng.uniform(0.8, 1.25)

    def cover(outline: np.ndarray, thick: float) -> None:
        one = np.zeros_like(layer)
        paint(one, outline, thick)
        np.maximum(flesh, one, out=flesh)

    for number, middle in enumerate(places):
        flip = -1 if number else 1
        knuckles = np.array([middle, rng.uniform(0.48, 0.62)])
        wrist = knuckles + np.array((0, rng.uniform(0.2, 0.26)))
        palm = [(-0.12, -0.02), (0.12, -0.02), (0.12, 0.1), (0.075, 0.27), (-0.075, 0.27), (-0.12, 0.1)]
        cover(closed_curve(np.array(palm) * (size * plump, 1) + knuckles), 5)
        arm = np.array([(-0.07, 0.22), (0.07, 0.22), (0.1, 0.8), (-0.1, 0.8)])
        cover(arm * (size * plump, 1) + knuckles, 5.5)
        for finger in range(5):
            off = finger - 2
            angle = flip * (off * spread + (-rng.uniform(0.2, 0.5) if finger == 0 else 0) + rng.normal(0, 0.03))
            towards = np.array([np.sin(angle) * size * 0.8, -np.cos(angle)])
            base = knuckles + np.array((flip * off * 0.06 * size, 0.13 if finger == 0 else 0.02 * abs(off)))
            length = (0.3 if finger == 0 else 0.44 - 0.04 * abs(off)) * long
            across = np.array([-towards[1], towards[0]]) * 0.038 * plump * np.array([size, 1]) * rng.uniform(0.8, 1.15)
            foot, tip = base - towards * 0.06, base + towards * length
            ends = [foot + across, foot - across, tip - 0.75 * across, tip + towards * 0.02, tip + 0.75 * across]
            cover(np.array(ends), rng.uniform(3, 4))
            bone(layer, wrist + np.array((flip * off * 0.025 * size, -0.03)), base, 0.035 * size, rng.uniform(0.5, 1.6))
            for one, other in itertools.pairwise([base + towards * length * part for part in (0.03, 0.48, 0.78, 1.0)]):
                bone(layer, one + (other - one) * 0.08, other, 0.033 * size, rng.uniform(0.5, 1.6))
        for side in (-1, 1):
            top, bottom = (wrist + np.array((side * x * size, y)) for x, y in ((0.04, 0.02), (0.045, 0.6)))
            bone(layer, top, bottom, 0.065 * size, rng.uniform(1, 2.5))
        for _ in range(int(rng.integers(2, 9))):
            where = (middle + rng.uniform(-0.07, 0.07) * size, wrist[1] + rng.uniform(-0.05, 0.01))
            paint(layer, ellipse(where, (0.025 * size, 0.02)), 1.2)
    layer += cv2.GaussianBlur(flesh, (0, 0), rng.uniform(1, 4)) * rng.uniform(0.4, 1.5)
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
    """A lateral chest: one dark field between breastbone and spine, the heart in front, two domes below.

    The trunk leans, and leaves air in front and behind; arms and shoulders lie over the top.
    """
    layer = sheet(rng)
    narrow, lean = rng.uniform(0.6, 1.1), rng.normal(0, 0.12)
    down = rng.normal(0, 0.04)

    def placed(points: np.ndarray | list[tuple[float, float]]) -> np.ndarray:
        x, y = np.asarray(points, float).T
        return np.column_stack([0.5 + (x - 0.5) * narrow + lean * (0.5 - y), y + down])

    body = [(0.3, -0.1), (0.62, -0.1), (0.8, 0.12), (0.93, 0.4), (0.9, 1.1), (0.14, 1.1), (0.06, 0.65), (0.16, 0.25)]
    depth = rng.uniform(12, 18)
    paint(layer, placed(closed_curve(np.array(body) + rng.normal(0, 0.03, (8, 2)))), depth, 5)
    lung = [(0.38, 0.12), (0.6, 0.06), (0.8, 0.25), (0.87, 0.55), (0.84, 0.88), (0.6, 0.78), (0.4, 0.68), (0.16, 0.7),
            (0.14, 0.48), (0.24, 0.25)]  # fmt: skip
    paint(
        layer, placed(closed_curve(np.array(lung) + rng.normal(0, 0.025, (10, 2)))), -depth * rng.uniform(0.25, 0.6), 4
    )
    if rng.random() < 0.6:  # the abdomen is thicker
        paint(layer, placed([(-0.2, 0.85), (0.4, 0.72), (1.2, 0.92), (1.2, 1.3), (-0.2, 1.3)]), rng.uniform(2, 7), 5)
    heart = ellipse((rng.uniform(0.3, 0.4), rng.uniform(0.54, 0.64)), (rng.uniform(0.13, 0.24), 0.17), 0.7)
    paint(layer, placed(heart), rng.uniform(1.5, 7), rng.uniform(4, 9))
    vessels = closed_curve([(0.35, 0.1), (0.52, 0.1), (0.55, 0.4), (0.42, 0.5), (0.34, 0.3)])
    paint(layer, placed(vessels), rng.uniform(1, 4), 8)
    bend, strong = rng.uniform(0.02, 0.06), rng.uniform(0.3, 4)
    for y in np.arange(0.02, 1.0, 0.07):
        paint(layer, placed(ellipse((0.76 + bend * np.sin(3 * y), y), (0.045, 0.028))), strong, 1)
    strong = rng.uniform(0.2, 1.0)
    for k in range(7):
        path = curve([(0.86, 0.15 + 0.09 * k), (0.55, 0.22 + 0.1 * k), (0.2, 0.36 + 0.08 * k)])
        paint(layer, placed(band(path, 0.008)), strong, 1)
    if rng.random() < 0.7:  # shoulders, and arms raised in front
        paint(layer, placed(ellipse((0.5, 0.0), (rng.uniform(0.2, 0.4), rng.uniform(0.1, 0.25)))), rng.uniform(3, 9), 8)
        paint(layer, placed([(0.4, -0.1), (0.6, 0.1), (0.05, rng.uniform(0, 0.3)), (-0.1, -0.1)]), rng.uniform(0, 7), 6)
    elif rng.random() < 0.5:  # arms that are not raised
        bone(layer, (rng.uniform(0.3, 0.6), -0.1), (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5)), 0.1, 3)
    if rng.random() < 0.3:
        breast = ellipse((rng.uniform(0.0, 0.1), rng.uniform(0.5, 0.65)), (0.14, 0.14))
        paint(layer, placed(breast), rng.uniform(2, 6), 3)
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
