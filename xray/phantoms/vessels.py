"""The vessels of a phantom's lungs, which branch and taper from the hila to the edge."""

import cv2
import numpy as np

from xray.phantoms.patient import LEFT, RIGHT, Patient
from xray.phantoms.shapes import LAYER_UNIT, View, curve, distance_inside, fixed_point


def vessels(patient: Patient, view: View, rng: np.random.Generator, cavities: dict[int, np.ndarray]) -> np.ndarray:
    """Arteries and veins branching from the hila to the lungs' edge."""
    segments = []
    for side in (RIGHT, LEFT):
        room = distance_inside(cavities[side])
        hilum = np.array([side * (3.1 if side == RIGHT else 3.3), 11.4 if side == RIGHT else 10.4])
        hilum[1] *= patient.dome[0] / 20.5
        # Angle 0 points away from the midline, positive angles down; the lower lobes' arteries are the widest.
        angles = np.array([-1.25, -0.85, -0.4, 0.05, 0.45, 0.85, 1.2, 1.45, -1.05, 0.25, 0.65, 1.05])
        radii = np.array([0.44, 0.4, 0.3, 0.32, 0.38, 0.5, 0.68, 0.6, 0.26, 0.2, 0.24, 0.3])
        angles = angles + rng.normal(0, 0.1, len(angles))
        starts = hilum + np.stack([side * rng.uniform(-0.6, 0.5, len(angles)), np.sin(angles) * 1.3], axis=1)
        segments.append(_grow(rng, view, room, side, hilum, starts, angles, radii * patient.vessels))
    ends, radii = (np.concatenate(part) for part in zip(*segments, strict=True))
    layer = np.zeros(view.shape, np.uint8)
    stretch = patient.dome[0] / 20.5
    paths = (
        ([(-2.6, 9.4), (-3.7, 10.6), (-4.5, 12.8), (-5.1, 15.6)], 0.72),
        ([(-3.0, 10.0), (-3.9, 9.0), (-4.9, 7.2)], 0.42),
        ([(2.8, 9.0), (4.0, 9.6), (4.9, 11.6), (5.6, 14.6)], 0.70),
        ([(3.4, 9.3), (4.4, 8.2), (5.3, 6.6)], 0.42),
    )
    hazy, trunks = np.zeros(view.shape, np.uint8), np.zeros(view.shape, np.uint8)
    for points, half in paths:
        path = curve(np.array(points) * [patient.breadth, stretch] + rng.normal(0, 0.15, (1, 2)))
        width = np.linspace(half, 0.45 * half, len(path)) * patient.vessels
        view.ribbon(trunks, path, width, np.linspace(2.6, 1.6, len(path)))
        view.ribbon(hazy, path, 1.7 * width, np.linspace(1.6, 0.4, len(path)))
    thickness = 2 * radii * view.scale
    whole = np.maximum(1, np.round(thickness)).astype(int)
    # Fine vessels lie several deep in the path, so they show more than one of them alone would.
    level = np.clip(
        (0.25 + 7.5 * radii / (1 + 1.2 * radii)) * np.minimum(1, thickness / whole + 0.25) * LAYER_UNIT, 0, 255
    )
    drawn = fixed_point(view.pixels(ends.reshape(-1, 2))).reshape(-1, 2, 2)
    # From thin to thick; neighbours of one grey level and thickness, some thirty, are drawn by one call.
    order = np.argsort(radii)
    wide = radii > 0.26
    alike = np.stack([np.rint(level), whole, wide], axis=1).astype(int)[order]
    for run in np.split(order, np.flatnonzero(np.diff(alike, axis=0).any(axis=1)) + 1):
        k = run[0]
        lines = list(drawn[run])
        target = trunks if wide[k] else layer
        cv2.polylines(target, lines, False, float(np.rint(level[k])), int(whole[k]), cv2.LINE_AA, shift=4)
    tree = layer.astype(np.float32) / LAYER_UNIT
    tree = 0.95 * view.blur(tree, 0.03) + 0.35 * view.blur(tree, 0.3)
    total: np.ndarray = np.maximum(tree, view.shade(trunks, 0.13)) + 0.7 * view.shade(hazy, 0.45)
    return total


def _grow(
    rng: np.random.Generator, view: View, room: np.ndarray, side: int, hilum: np.ndarray,
    positions: np.ndarray, angles: np.ndarray, radii: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """All segments (K, 2, 2) in cm and their radii (K,) of vessels that start at `positions` and fork as they go."""
    segments, widths = [], []
    for _ in range(46):
        away = positions - hilum
        outward = np.arctan2(away[:, 1], np.abs(away[:, 0]) + 0.3)
        angles = angles + 0.07 * np.clip(outward - angles, -1, 1) + rng.normal(0, 0.13, len(angles))
        ahead = positions + 0.45 * np.stack([side * np.cos(angles), np.sin(angles)], axis=1)
        column, row = np.round(view.pixels(ahead)).astype(int).T
        inside = (column >= 0) & (column < view.width) & (row >= 0) & (row < view.height)
        alive = inside.copy()
        alive[inside] = room[row[inside], column[inside]] > 0.25 * view.scale
        segments.append(np.stack([positions, ahead], axis=1)[alive])
        widths.append(radii[alive])
        positions, angles, radii = ahead[alive], angles[alive], radii[alive] * 0.955
        fork = rng.random(len(radii)) < 0.17
        spread = rng.uniform(0.25, 0.7, len(radii)) * rng.choice([-1, 1], len(radii))
        share = rng.uniform(0.55, 0.85, len(radii))
        positions = np.concatenate([positions, positions[fork]])
        angles = np.concatenate([np.where(fork, angles - 0.35 * spread, angles), (angles + spread)[fork]])
        radii = np.concatenate([np.where(fork, radii * 0.88, radii), (radii * share)[fork]])
        keep = radii > 0.03
        positions, angles, radii = positions[keep], angles[keep], radii[keep]
        if len(radii) == 0:
            break
    return np.concatenate(segments), np.concatenate(widths)
