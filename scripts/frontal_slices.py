"""Drawn pictures that are no radiographs of a skeleton: slices of CT and MR, mammograms, ultrasound, photographs.

They are as coarse as a thumbnail of 64 pixels needs them. Slices of the chest matter most: in a window for lungs two
dark fields lie beside a bright middle, as in a frontal chest radiograph. All are (H, W) uint8.
"""

import cv2
import numpy as np

from xray.phantoms.shapes import closed_curve, ellipse, smooth_noise

SIDE = 192
Rng = np.random.Generator

AIR, LUNG, FAT, MUSCLE, BONE = -1000.0, -840.0, -100.0, 50.0, 500.0
"""In Hounsfield units."""


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Any values → uint8, what is not within a window cut off."""
    return ((values - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)


def inside(shape: tuple[int, int], outline: np.ndarray) -> np.ndarray:
    """A closed outline in shares of the sides → mask (H, W) bool."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * shape[::-1]).astype(np.int32)], 1)
    return mask.astype(bool)


def uneven(rng: Rng, outline: np.ndarray, much: float) -> np.ndarray:
    """An outline that is pressed in and bulged out here and there."""
    middle = outline.mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, len(outline), endpoint=False)
    waves = sum(rng.normal(0, much / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(2, 6))
    shape: np.ndarray = middle + (outline - middle) * (1 + waves)[:, None]
    return shape


def specks(rng: Rng, values: np.ndarray, where: np.ndarray, n: int, size: float, value: float) -> None:
    """Small ellipses of one value where a mask is, such as vessels."""
    rows, columns = np.nonzero(where)
    if not len(rows):
        return
    for place in rng.integers(0, len(rows), n):
        radii = tuple(int(r) for r in np.maximum(1, rng.exponential(size, 2)))
        spot = np.zeros(values.shape, np.uint8)
        centre = (int(columns[place]), int(rows[place]))
        cv2.ellipse(spot, centre, radii, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        values[(spot > 0) & where] = value


def windowed(rng: Rng, hounsfield: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Hounsfield units in a window for lungs, for soft parts, for bones, or as wide as they are."""
    middle, width = [(-600, 1500), (-500, 1000), (40, 400), (60, 300), (300, 1500), (-200, 1800)][
        rng.choice(6, p=(0.25, 0.2, 0.2, 0.1, 0.1, 0.15))
    ]
    middle, width = middle + rng.normal(0, 60), width * np.exp(rng.normal(0, 0.2))
    shown = stretched(hounsfield, middle - width / 2, middle + width / 2)
    if rng.random() < 0.25:
        # Archives that stretch what they store leave the outside grey, or white.
        shown[~body] = int(rng.choice([90, 128, 160, 255]))
    return shown


def table(rng: Rng, hounsfield: np.ndarray, body: np.ndarray) -> None:
    """The arc of the table below the patient, often."""
    if rng.random() < 0.6:
        arc = np.zeros(hounsfield.shape, np.uint8)
        height, width = hounsfield.shape
        size = (int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.05, 0.3)))
        cv2.ellipse(
            arc, (width // 2, int(height * rng.uniform(0.7, 0.85))), size, 0, 20, 160, 1, int(rng.integers(1, 4))
        )
        hounsfield[(arc > 0) & ~body] = rng.uniform(-500, 100)


def axial(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """The outline of a trunk, its fat and muscles and spine: Hounsfield units and the mask of the body."""
    shape = (SIDE, round(SIDE * rng.uniform(1.0, 1.45)))
    hounsfield = np.full(shape, AIR, np.float32)
    wide, tall = rng.uniform(0.36, 0.54), rng.uniform(0.3, 0.5)
    outline = uneven(rng, ellipse((0.5, 0.5), (wide, tall)), 0.03)
    body = inside(shape, outline)
    hounsfield[body] = FAT
    hounsfield[inside(shape, 0.5 + (outline - 0.5) * rng.uniform(0.78, 0.97))] = MUSCLE
    table(rng, hounsfield, body)
    low = 0.5 + tall * rng.uniform(0.45, 0.62)
    hounsfield[inside(shape, ellipse((0.5, low), (0.07, 0.07)))] = BONE
    hounsfield[inside(shape, ellipse((0.5, low + 0.09), (0.025, 0.07)))] = BONE
    for side in (-1, 1):
        for angle in rng.uniform(-1.2, 1.4, 4):
            where = (0.5 + side * wide * 0.85 * np.cos(angle), 0.5 + tall * 0.85 * np.sin(angle))
            hounsfield[inside(shape, ellipse(where, (0.012, 0.035), side * angle))] = BONE
    return hounsfield, body


def chest_slice(rng: Rng) -> np.ndarray:
    """CT of a chest, axial."""
    hounsfield, body = axial(rng)
    shape = hounsfield.shape
    # The lungs fill the ribs but for the heart, the vessels and the spine in the middle.
    rows, columns = np.nonzero(body)
    middle_y, middle_x = rows.mean() / shape[0], columns.mean() / shape[1]
    radii = (
        np.ptp(columns) / shape[1] / 2 * rng.uniform(0.72, 0.92),
        np.ptp(rows) / shape[0] / 2 * rng.uniform(0.7, 0.92),
    )
    lungs = inside(shape, uneven(rng, ellipse((middle_x, middle_y), radii), 0.03))
    x = np.mgrid[: shape[0], : shape[1]][1] / shape[1]
    y = (np.mgrid[: shape[0], : shape[1]][0] / shape[0] - middle_y) / radii[1]
    waist = rng.uniform(0.03, 0.12) + rng.uniform(0, 0.1) * np.abs(y - rng.normal(0, 0.4)) ** rng.uniform(1, 3)
    lungs &= np.abs(x - middle_x) > waist
    heart = uneven(
        rng, ellipse((rng.uniform(0.48, 0.58), rng.uniform(0.38, 0.5)), (rng.uniform(0.08, 0.18), 0.14)), 0.05
    )
    middle = inside(shape, heart) if rng.random() < 0.8 else np.zeros(shape, bool)
    lungs &= ~middle
    hounsfield[lungs] = LUNG + 60 * smooth_noise(rng, shape, 6)[lungs]
    hounsfield[middle] = MUSCLE + rng.choice([0, 0, 150, 250])
    specks(rng, hounsfield, lungs, int(rng.integers(10, 120)), rng.uniform(0.5, 2), 0.0)
    if rng.random() < 0.35:
        specks(rng, hounsfield, lungs, int(rng.integers(1, 12)), 9, rng.uniform(-600, 0))
    return windowed(rng, hounsfield + rng.normal(0, 20, shape), body)


def abdomen_slice(rng: Rng) -> np.ndarray:
    """CT of an abdomen or a pelvis, axial."""
    hounsfield, body = axial(rng)
    shape = hounsfield.shape
    hounsfield[inside(shape, uneven(rng, ellipse((0.34, 0.44), (0.17, 0.2)), 0.08))] = rng.uniform(60, 130)
    for side in (-1, 1):
        hounsfield[inside(shape, ellipse((0.5 + side * 0.15, 0.6), (0.05, 0.06)))] = rng.uniform(30, 220)
        if rng.random() < 0.3:
            wing = ellipse((0.5 + side * 0.2, 0.6), (0.03, 0.14), side * 0.7)
            hounsfield[inside(shape, wing)] = BONE
    specks(rng, hounsfield, body, int(rng.integers(0, 10)), 7, -900.0)
    specks(rng, hounsfield, body, int(rng.integers(0, 20)), 6, 80.0)
    return windowed(rng, hounsfield + rng.normal(0, 20, shape), body)


def coronal_slice(rng: Rng) -> np.ndarray:
    """CT of a chest, coronal: sharp vessels in black lungs, and no ribs across them."""
    shape = (SIDE, round(SIDE * rng.uniform(0.75, 1.1)))
    hounsfield = np.full(shape, MUSCLE, np.float32)
    body = inside(shape, closed_curve([(0.3, -0.1), (0.7, -0.1), (0.95, 0.2), (0.97, 1.1), (0.03, 1.1), (0.05, 0.2)]))
    hounsfield[~body] = AIR
    lungs = np.zeros(shape, bool)
    for side in (-1, 1):
        half = [(0.07, 0.12), (0.2, 0.1), (0.32, 0.35), (0.36, 0.75), (0.22, 0.7), (0.08, 0.74), (0.05, 0.4)]
        points = [(0.5 + side * x, y + rng.normal(0, 0.015)) for x, y in half]
        lungs |= inside(shape, closed_curve(points))
    hounsfield[lungs] = LUNG
    for _ in range(int(rng.integers(2, 7))):
        y = rng.uniform(0.1, 0.95)
        for side in (-1, 1):
            hounsfield[inside(shape, ellipse((0.5 + side * 0.42, y), (0.02, 0.012)))] = BONE
    specks(rng, hounsfield, lungs, int(rng.integers(40, 160)), 1.0, 0.0)
    return windowed(rng, hounsfield + rng.normal(0, 20, shape), body)


def head_slice(rng: Rng) -> np.ndarray:
    """CT or MR of a head, axial, coronal, or from the side."""
    shape = (SIDE, round(SIDE * rng.uniform(0.8, 1.1)))
    values = np.zeros(shape, np.float32)
    wide, tall = rng.uniform(0.26, 0.42), rng.uniform(0.34, 0.46)
    skin = uneven(rng, ellipse((0.5, 0.5), (wide, tall)), 0.02)
    skull, brain = (0.5 + (skin - 0.5) * share for share in (0.94, 0.85))
    levels = {"CT": (0.4, 1.0, 0.45), "T1": (0.9, 0.15, 0.55), "T2": (0.6, 0.1, 0.5)}
    name = str(rng.choice(list(levels)))
    for outline, level in zip((skin, skull, brain), levels[name], strict=True):
        values[inside(shape, outline)] = level
    within = inside(shape, brain)
    values += within * smooth_noise(rng, shape, rng.uniform(2, 6)) * 0.08
    dark = -0.25 if name != "T2" else 0.4
    for side in (-1, 1):
        values[inside(shape, ellipse((0.5 + side * 0.05, 0.48), (0.025, 0.11), -side * 0.3))] += dark
    if rng.random() < 0.5:
        values[inside(shape, uneven(rng, ellipse(tuple(rng.uniform(0.35, 0.65, 2)), (0.07, 0.06)), 0.1))] += 0.3
    if rng.random() < 0.35:
        neck = inside(shape, np.array([(0.35, 0.75), (0.65, 0.75), (0.7, 1.1), (0.35, 1.1)]))
        values[neck & (values == 0)] = 0.4
        face = inside(shape, closed_curve([(0.5, 0.5), (0.15, 0.55), (0.12, 0.8), (0.3, 0.95), (0.55, 0.85)]))
        values[face & ~within] = 0.5 + 0.3 * smooth_noise(rng, shape, 4)[face & ~within]
    values += rng.normal(0, 0.02, shape)
    return stretched(values, 0, rng.uniform(0.7, 1.1))


def breast_slice(rng: Rng) -> np.ndarray:
    """MR of breasts, axial: one or two humps above the wall of the chest."""
    shape = (SIDE, round(SIDE * rng.uniform(0.9, 1.3)))
    values = np.zeros(shape, np.float32)
    wall = rng.uniform(0.55, 0.8)
    tall, wide = rng.uniform(0.15, 0.55), rng.uniform(0.1, 0.2)
    for side in (-1, 1) if rng.random() < 0.9 else (1,):
        x = 0.5 + side * rng.uniform(0.16, 0.25)
        hump = [(x - wide, wall + 0.05), (x - wide * 0.9, wall - tall * 0.6), (x, wall - tall),
                (x + wide * 0.9, wall - tall * 0.6), (x + wide, wall + 0.05)]  # fmt: skip
        mask = inside(shape, uneven(rng, closed_curve(hump), 0.03))
        values[mask] = rng.uniform(0.5, 1.0)
        glands = mask & (smooth_noise(rng, shape, rng.uniform(2, 8)) > rng.uniform(0, 1.2))
        values[glands] *= rng.uniform(0.2, 0.7)
    chest = inside(shape, ellipse((0.5, wall + 0.35), (rng.uniform(0.4, 0.5), 0.36)))
    values += np.abs(smooth_noise(rng, shape, rng.uniform(1, 20))) * rng.uniform(0, 0.03)
    rim = chest & ~inside(shape, ellipse((0.5, wall + 0.37), (0.4, rng.uniform(0.28, 0.34))))
    values[rim] = np.maximum(values[rim], rng.uniform(0.1, 0.6))
    values[chest] += 0.1 * np.abs(smooth_noise(rng, shape, 3))[chest]
    return stretched(values + np.abs(rng.normal(0, 0.02, shape)), 0, rng.uniform(0.6, 1.1))


def mammogram(rng: Rng) -> np.ndarray:
    """A breast that hangs from one edge of the picture."""
    shape = (SIDE, round(SIDE * rng.uniform(0.55, 1.0)))
    reach, middle, half = rng.uniform(0.45, 0.95), rng.uniform(0.42, 0.58), rng.uniform(0.3, 0.5)
    outline = uneven(rng, ellipse((0.0, middle), (reach, half)), 0.02)
    breast = inside(shape, outline)
    depth = cv2.distanceTransform(breast.astype(np.uint8), cv2.DIST_L2, 3)
    values = 0.35 * np.minimum(depth / 15, 1) * breast
    glands = np.exp(-((smooth_noise(rng, shape, rng.uniform(3, 12)) - rng.uniform(0, 2)) ** 2))
    values += breast * np.minimum(depth / 25, 1) * glands * rng.uniform(0.1, 0.7)
    if rng.random() < 0.5:
        muscle = inside(shape, np.array([(0, 0), (rng.uniform(0.2, 0.5), 0), (0, rng.uniform(0.4, 0.9))]))
        values[muscle] += 0.35
    pixels = stretched(values + rng.normal(0, 0.01, shape), 0, rng.uniform(0.6, 1.0))
    if rng.random() < 0.4:
        cv2.putText(pixels, "R CC", (shape[1] - 45, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    if rng.random() < 0.2:
        pixels = np.hstack([pixels[:, ::-1], pixels])
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def ultrasound(rng: Rng) -> np.ndarray:
    """A sector or a rectangle of speckle on black."""
    shape = (SIDE, round(SIDE * rng.uniform(0.9, 1.4)))
    y, x = np.mgrid[: shape[0], : shape[1]] / SIDE
    depth = y + rng.uniform(0.1, 0.3)
    layers = np.sin(depth * rng.uniform(8, 40) + rng.choice([0.2, 0.6, 2]) * smooth_noise(rng, shape, 12))
    values = 0.4 + 0.2 * layers + 0.15 * smooth_noise(rng, shape, rng.uniform(3, 15))
    for _ in range(int(rng.integers(0, 4))):
        hole = ellipse(tuple(rng.uniform(0.25, 0.75, 2)), tuple(rng.uniform(0.04, 0.16, 2)), rng.uniform(0, 3))
        values[inside(shape, uneven(rng, hole, 0.05))] *= rng.uniform(0.05, 0.5)
    speckle = cv2.GaussianBlur(rng.rayleigh(1.0, shape), (0, 0), 0.8)
    values = np.maximum(values, 0) * speckle * np.exp(-rng.uniform(0, 1.5) * y)
    if rng.random() < 0.6:
        middle, top = shape[1] / SIDE / 2, rng.uniform(-0.15, 0.05)
        away = np.hypot(x - middle, y - top)
        sector = (np.abs(np.arctan2(x - middle, y - top)) < rng.uniform(0.4, 0.8)) & (away < rng.uniform(0.8, 1.0))
        values[~(sector & (away > rng.uniform(0.05, 0.2)))] = 0
    else:
        values[:, : rng.integers(0, 40)] = 0
        values[rng.integers(150, SIDE) :] = 0
    return stretched(values, 0, float(np.percentile(values, 99.5)))


def photograph(rng: Rng) -> np.ndarray:
    """Things that hide each other, lit from one side, in front of a smooth or a rough ground; or a person's bust."""
    shape = (SIDE, round(SIDE * rng.uniform(0.7, 1.5)))
    y, x = np.mgrid[: shape[0], : shape[1]] / SIDE
    values = (128 + 60 * rng.normal() * x + 60 * rng.normal() * y).astype(np.float32)
    values += smooth_noise(rng, shape, rng.uniform(2, 40)) * rng.uniform(0, 40)
    for _ in range(int(rng.integers(3, 60))):
        where = (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))
        size = np.minimum(rng.pareto(1.5, 2) * 8 + 3, 90)
        box = (where, (float(size[0]) * 2, float(size[1]) * 2), float(rng.uniform(0, 180)))
        mask = np.zeros(shape, np.uint8)
        if rng.random() < 0.5:
            cv2.ellipse(mask, box, 1, -1)
        else:
            cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
        shade = (
            rng.uniform(0, 255) + rng.normal(0, 30) * (x - where[0] / SIDE) + rng.normal(0, 30) * (y - where[1] / SIDE)
        )
        values[mask > 0] = shade[mask > 0]
    if rng.random() < 0.4:
        middle, top = rng.uniform(0.35, 0.65), rng.uniform(0.25, 0.4)
        skin, cloth = rng.uniform(60, 230), rng.uniform(0, 255)
        values[inside(shape, ellipse((middle, 1.0), (rng.uniform(0.25, 0.5), 0.35)))] = cloth
        for outline, level in (
            (ellipse((middle, top), (0.17, 0.24)), rng.uniform(0, 200)),
            (ellipse((middle, top + 0.04), (0.13, 0.19)), skin),
            (ellipse((middle - 0.05, top), (0.02, 0.012)), 30), (ellipse((middle + 0.05, top), (0.02, 0.012)), 30),
            (ellipse((middle, top + 0.13), (0.045, 0.015)), skin * 0.6),
        ):  # fmt: skip
            values[inside(shape, outline)] = level
    values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 2)) + rng.normal(0, 3, shape)
    return values.clip(0, 255).astype(np.uint8)
