"""Findings within the lungs, drawn into a chest; each function returns where what it drew is seen.

They take the chest, whose layers they change, a random generator, and a bool (height, width) mask of where findings
lie already, and return bool (height, width) masks on the grid, one for each box.
"""

import cv2
import numpy as np

from xray.phantoms.chest import Chest
from xray.phantoms.patient import LEFT, RIGHT
from xray.phantoms.shapes import closed_curve, curve, distance_inside, dome, smooth_noise, smoothstep


def lung_point(
    chest: Chest, rng: np.random.Generator, taken: np.ndarray, radius: float,
    zone: tuple[float, float] = (0.0, 1.0), side: int | None = None,
) -> tuple[int, np.ndarray]:  # fmt: skip
    """A side and a point in cm at least `radius` cm inside a lung, where possible, away from other findings.

    zone: upper and lower limit as shares of the lung's height.
    """
    side = int(rng.choice([RIGHT, LEFT])) if side is None else side
    lung = chest.lungs[side]
    room = distance_inside(lung)
    rows = np.flatnonzero(lung.any(axis=1))
    top, bottom = rows[0], rows[-1]
    first, last = top + zone[0] * (bottom - top), top + zone[1] * (bottom - top)
    in_zone = np.zeros_like(lung)
    in_zone[int(first) : int(np.ceil(last)) + 1] = True
    candidates = lung & in_zone
    wanted = min(radius * chest.view.scale, 0.85 * float(room[candidates].max()))
    rows, columns = np.nonzero(candidates & (room >= wanted))
    pick = rng.integers(0, len(rows), 12)
    # Of twelve places the one farthest from other findings.
    away = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 3) if taken.any() else np.ones(lung.shape)
    best = pick[np.argmax(np.minimum(away[rows[pick], columns[pick]], radius * 1.5 * chest.view.scale))]
    return side, chest.view.centimetres(np.array([[columns[best], rows[best]]]))[0]


def cloud(
    chest: Chest, rng: np.random.Generator, centre: np.ndarray, radii: tuple[float, float],
    ragged: float, softness: float, angle: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """A ragged soft patch, 0–1 float32: 1 inside, falling over `softness` (a share of its radius) at its edge."""
    view = chest.view
    size = min(radii) * view.scale
    noise = 0.8 * smooth_noise(rng, view.shape, 0.5 * size)
    noise += 0.25 * smooth_noise(rng, view.shape, 0.2 * size)
    # Farther from the centre there is nothing of it; most of the grid is.
    reach = max(radii) * (1 + ragged * max(0.0, float(noise.max()))) * view.scale + 1
    (column, row) = view.pixels(centre[None])[0]
    window = tuple(slice(max(0, int(place - reach)), max(0, int(place + reach) + 2)) for place in (row, column))
    x, y = (coordinate[window] for coordinate in view.coordinates)
    u, v = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    radius = np.hypot((u * cos + v * sin) / radii[0], (v * cos - u * sin) / radii[1])
    patch = np.zeros(view.shape, np.float32)
    patch[window] = smoothstep((1 - radius + ragged * noise[window]) / softness)
    return patch


def fill(chest: Chest, share: np.ndarray) -> None:
    """Takes the air out of a share (0–1) of the lung, (height, width), beside what is filled already."""
    chest.filling = 1 - (1 - chest.filling) * (1 - share.astype(np.float32))


def seen(share: np.ndarray, lung: np.ndarray, part: float = 0.35) -> np.ndarray:
    """Where an opacity shows: inside the lung and above a part of its strongest."""
    inside = share * lung
    is_seen: np.ndarray = inside > part * max(float(inside.max()), 1e-6)
    return is_seen


def network(chest: Chest, rng: np.random.Generator, cell: float, width: float) -> np.ndarray:
    """A random mesh of lines, 0–1 float32, with meshes of about `cell` cm: the borders between random cells."""
    view = chest.view
    step = cell * view.scale
    # Lines where two smooth random fields change sign look like a mesh and cost two resizes.
    mesh = np.zeros(view.shape, np.float32)
    for _ in range(3):
        field = smooth_noise(rng, view.shape, step)
        across, down = (cv2.Sobel(field, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
        steep = np.hypot(across, down)
        distance = np.abs(field) / np.maximum(steep, 0.25 / step)
        mesh = np.maximum(mesh, np.clip(1.3 - distance / max(width * view.scale, 0.6), 0, 1))
    return mesh * np.clip(0.75 + 0.4 * smooth_noise(rng, view.shape, 2.5 * step), 0.2, 1.4)


def consolidation(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    view = chest.view
    radii = (rng.uniform(2.2, 4.2), rng.uniform(2.2, 4.2))
    side, centre = lung_point(chest, rng, taken, 0.7 * min(radii), (0.25, 1.0))
    share = cloud(chest, rng, centre, radii, 0.13, 0.8, rng.uniform(0, np.pi)) * rng.uniform(0.72, 0.88)
    # Bronchi stay open inside the airless lung and show as dark branches.
    layer = np.zeros(view.shape, np.uint8)
    hilum = np.array([side * 3.4, 10.8])
    for _ in range(3):
        goal = centre + rng.normal(0, 0.5, 2) * radii
        start = centre + (hilum - centre) * min(1.0, 1.1 * max(radii) / (float(np.linalg.norm(hilum - centre)) + 1e-6))
        bend = (start + goal) / 2 + rng.normal(0, 0.4, 2)
        view.line(layer, curve([start, bend, goal]), 0.24, 2.0)
        view.line(layer, curve([bend, bend + rng.normal(0, 1.0, 2)]), 0.16, 2.0)
    tubes = np.clip(view.shade(layer, 0.06) / 2, 0, 1)
    fill(chest, share * (1 - 0.22 * tubes))
    return [seen(share, chest.lungs[side])]


def ild(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """A fine net of lines with small knots, mostly low and on both sides."""
    both = rng.random() < 0.75
    sides = (RIGHT, LEFT) if both else (int(rng.choice([RIGHT, LEFT])),)
    net = network(chest, rng, cell=0.3, width=0.05)
    strength = rng.uniform(1.9, 2.7)
    marks = []
    for side in sides:
        _, centre = lung_point(chest, rng, taken, 3.0, (0.55, 0.85), side)
        zone = cloud(chest, rng, centre, (rng.uniform(3.8, 5.5), rng.uniform(4.5, 6.5)), 0.1, 0.6)
        chest.lines += strength * zone * net * chest.lungs[side]
        fill(chest, 0.10 * zone)
        marks.append(seen(zone, chest.lungs[side], 0.3))
    return marks


def infiltration(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """A patchy haze without a border, with thickened strands and open bronchi running through it from the hilum."""
    view = chest.view
    side, centre = lung_point(chest, rng, taken, 2.0, (0.15, 0.9))
    radii = (rng.uniform(2.6, 4.6), rng.uniform(2.6, 4.6))
    zone = cloud(chest, rng, centre, radii, 0.18, 1.0, rng.uniform(0, np.pi))
    # Thinner than a consolidation and, unlike the even haze of a lung opacity, in blotches that run together.
    uneven = 0.5 * smooth_noise(rng, view.shape, 0.9 * view.scale) + 0.35 * smooth_noise(
        rng, view.shape, 0.4 * view.scale
    )
    uneven += 0.25 * smooth_noise(rng, view.shape, 0.15 * view.scale)
    share = zone * (0.2 + rng.uniform(0.4, 0.6) * smoothstep(0.5 + 0.42 * uneven))
    strands, bronchi = np.zeros(view.shape, np.uint8), np.zeros(view.shape, np.uint8)
    hilum = np.array([side * 3.4, 10.8])
    away = centre - hilum
    along = away / max(float(np.linalg.norm(away)), 1e-6)
    across = np.array([-along[1], along[0]])
    for _ in range(int(rng.integers(5, 9))):
        start = centre - 0.9 * max(radii) * along + rng.normal(0, 0.5) * min(radii) * across
        goal = start + rng.uniform(1.0, 1.8) * max(radii) * along + rng.normal(0, 0.5) * min(radii) * across
        bend = (start + goal) / 2 + rng.normal(0, 0.35, 2)
        twig = bend + 0.4 * max(radii) * along + rng.normal(0, 0.4) * min(radii) * across
        for path in (curve([start, bend, goal]), curve([bend, twig])):
            view.line(strands, path, 0.3, rng.uniform(0.6, 1.0))
            view.line(bronchi, path, 0.13, 2.0)
    tubes = np.clip(view.shade(bronchi, 0.05) / 2, 0, 1)
    fill(chest, share * (1 - 0.45 * tubes))
    chest.lines += view.shade(strands, 0.08) * (1 - tubes) * zone * chest.lungs[side]
    return [seen(zone, chest.lungs[side], 0.3)]


def lung_opacity(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """A large even haze through which vessels are still seen."""
    radii = (rng.uniform(3.0, 5.2), rng.uniform(3.5, 7.0))
    side, centre = lung_point(chest, rng, taken, 2.5, (0.15, 0.9))
    share = cloud(chest, rng, centre, radii, 0.1, 0.8, rng.normal(0, 0.3)) * rng.uniform(0.32, 0.5)
    fill(chest, share)
    return [seen(share, chest.lungs[side])]


def nodule(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """One to three round masses, 8 to 60 mm wide, mostly small."""
    view = chest.view
    marks = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.65, 0.23, 0.12]))):
        radius = float(np.exp(rng.uniform(np.log(0.45), np.log(2.9))))
        _, centre = lung_point(chest, rng, taken, radius)
        angle = np.linspace(0, 2 * np.pi, 11)[:-1]
        lobes = radius * rng.uniform(0.88, 1.1, 10)
        outline = closed_curve(np.stack([np.cos(angle), np.sin(angle)], axis=1) * lobes[:, None] + centre)
        mask = view.fill(outline)
        ball = view.blur(dome(mask, 0.9 * radius * view.scale), 0.05 + 0.03 * radius)
        # A small nodule must be denser than water to be seen among vessels, and those that are seen are.
        chest.lines += ball * (0.9 + 1.25 * min(2 * radius, 3.2)) * 0.9
        if radius > 0.8 and rng.random() < 0.4:  # spicules
            layer = np.zeros(view.shape, np.uint8)
            for turn in rng.uniform(0, 2 * np.pi, 14):
                direction = np.array([np.cos(turn), np.sin(turn)])
                ends = (0.8 * radius, rng.uniform(1.1, 1.45) * radius)
                view.line(layer, np.array([centre + end * direction for end in ends]), 0.08, 1.0)
            chest.lines += view.shade(layer, 0.05)
        seen = ball > 0.25
        marks.append(seen)
        taken |= seen
    return marks


def pulmonary_fibrosis(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """Coarse scars drawn towards the hilum, with small holes between them, high or low in a lung."""
    view = chest.view
    zone = (0.05, 0.4) if rng.random() < 0.6 else (0.65, 0.95)
    side, centre = lung_point(chest, rng, taken, 1.8, zone)
    hilum = np.array([side * 3.2, 10.6])
    layer = np.zeros(view.shape, np.uint8)
    radii = (rng.uniform(1.8, 3.2), rng.uniform(2.2, 3.8))
    for _ in range(int(rng.integers(16, 30))):
        start = centre + rng.normal(0, 0.5, 2) * radii
        toward = (hilum - start) / (float(np.linalg.norm(hilum - start)) + 1e-6)
        length = rng.uniform(0.8, 2.6)
        middle = start + 0.5 * length * toward + rng.normal(0, 0.25, 2)
        strand = curve([start, middle, start + length * toward + rng.normal(0, 0.3, 2)])
        view.line(layer, strand, rng.uniform(0.1, 0.24), rng.uniform(1.4, 2.8))
    area = cloud(chest, rng, centre, (radii[0] * 1.15, radii[1] * 1.15), 0.12, 0.6)
    strands = view.shade(layer, 0.05)
    mesh = 1.2 * network(chest, rng, cell=0.75, width=0.12)
    chest.lines += (np.maximum(strands, mesh) * area * chest.lungs[side]).astype(np.float32)
    fill(chest, 0.22 * area)
    return [seen(area, chest.lungs[side], 0.35)]
