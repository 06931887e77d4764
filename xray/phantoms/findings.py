"""The 14 findings drawn into a chest: where they sit, what they look like, and how far they are seen.

Two of them change the anatomy itself (`altered`, before the chest is built); the others change its layers (`add`).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from xray.findings import FINDINGS
from xray.phantoms import calcium, collapse, opacities
from xray.phantoms.chest import Chest
from xray.phantoms.patient import LEFT, RIGHT, Patient
from xray.phantoms.shapes import (
    closed_curve,
    curve,
    distance_inside,
    dome,
    ellipse,
    smooth_noise,
    smoothstep,
)

AORTIC_ENLARGEMENT = FINDINGS.index("Aortic enlargement")
CARDIOMEGALY = FINDINGS.index("Cardiomegaly")


@dataclasses.dataclass(frozen=True)
class Mark:
    """One finding as drawn: its class id (0–13) and the bool (height, width) pixels of the grid where it is seen."""

    class_id: int
    mask: np.ndarray


def altered(patient: Patient, class_ids: tuple[int, ...], rng: np.random.Generator) -> Patient:
    """The patient with the anatomy that cardiomegaly and aortic enlargement bring."""
    ratio, radius = float(rng.uniform(0.55, 0.66)), float(rng.uniform(2.1, 2.9))
    if CARDIOMEGALY in class_ids:
        patient = dataclasses.replace(patient, heart_ratio=ratio)
    if AORTIC_ENLARGEMENT in class_ids:
        patient = dataclasses.replace(patient, knob_radius=radius)
    return patient


def add(chest: Chest, class_id: int, rng: np.random.Generator, taken: np.ndarray) -> list[Mark]:
    """Draws one finding into the chest's layers and tells where it is seen.

    taken: bool (height, width), where findings lie already; a new one avoids it if it can, and is added to it.
    """
    marks = [Mark(class_id, mask) for mask in _DRAW[class_id](chest, rng, taken) if mask.any()]
    for mark in marks:
        taken |= mark.mask
    return marks


def _aortic_enlargement(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    return [chest.knob.copy()]


def _cardiomegaly(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    # The heart's lower edge is hidden by what lies under the diaphragm.
    return [chest.heart & (chest.abdomen < 0.9)]


def _other_lesion(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    view = chest.view
    kind = rng.choice(["cyst", "hernia", "mediastinal mass", "cavity", "pacemaker"], p=[0.3, 0.2, 0.2, 0.15, 0.15])
    if kind in ("cyst", "cavity"):
        radius = rng.uniform(1.2, 3.0)
        _, middle = opacities.lung_point(chest, rng, taken, radius, (0.05, 0.8))
        wall = rng.uniform(0.12, 0.25) if kind == "cyst" else rng.uniform(0.4, 0.8)
        outline = ellipse(tuple(middle), (radius, radius * rng.uniform(0.8, 1.2)), rng.uniform(0, np.pi))
        outer = view.fill(outline)
        inner = view.fill(middle + (outline - middle) * (1 - wall / radius))
        ring = view.blur((outer & ~inner).astype(np.float32), 0.06)
        hole = view.blur(inner.astype(np.float32), 0.08)
        chest.lines += ring * (1.6 if kind == "cyst" else 2.6)
        chest.free_air = np.maximum(chest.free_air, 0.7 * hole)
        if kind == "cavity":  # fluid stands level in it
            fluid = inner & (view.coordinates[1] > middle[1] + 0.3 * radius)
            chest.lines += 2.4 * view.blur(fluid.astype(np.float32), 0.05)
        return [outer]
    if kind == "hernia":  # part of the stomach, with its gas, behind the heart
        radius = rng.uniform(2.2, 3.4)
        centre = (rng.uniform(0.8, 2.6), chest.patient.dome[1] - 0.8 * radius)
        sac = view.fill(ellipse(centre, (radius * 1.15, radius)))
        gas = sac & view.fill(ellipse(centre, (radius, 0.86 * radius)))
        gas &= view.coordinates[1] < centre[1] + 0.1 * radius
        chest.lines += view.blur(1.8 * dome(sac, 0.7 * view.scale) - 4.2 * dome(gas, 0.8 * view.scale), 0.06)
        return [sac]
    if kind == "mediastinal mass":
        side = int(rng.choice([RIGHT, LEFT]))
        centre = (side * rng.uniform(2.6, 3.4), rng.uniform(3.4, 7.0) if side == RIGHT else rng.uniform(2.2, 4.4))
        mass = view.fill(ellipse(centre, (rng.uniform(1.6, 2.6), rng.uniform(2.0, 3.2))))
        grown = 0.85 * view.blur(dome(mass, 1.2 * view.scale), 0.06)
        chest.mediastinum = 1 - (1 - chest.mediastinum) * (1 - grown)
        return [mass & (chest.lungs[side] | (np.abs(view.coordinates[0]) > 1.5))]
    # A pacemaker's box under the clavicle, its lead running to the heart.
    side = LEFT if rng.random() < 0.85 else RIGHT
    place = np.array([side * rng.uniform(8.5, 10.5), rng.uniform(4.2, 5.6)])
    layer = np.zeros(view.shape, np.uint8)
    case = closed_curve(np.array([(-1.9, -1.3), (1.7, -1.5), (2.1, 0.2), (1.5, 1.6), (-1.6, 1.6), (-2.1, 0.2)]) + place)
    view.paint(layer, case, 4.0)
    start = (float(place[0]), float(place[1]) - 1.4)
    vein = (-1.2 if side == LEFT else -2.2, 4.6)
    lead = curve([start, (side * 5.5, 2.4), vein, (-2.4, 10), (-1.5, 15), (3.5, 19.0)])
    view.line(layer, lead, 0.12, 3.4)
    metal = view.shade(layer, 0.03)
    chest.lines += 1.6 * metal
    return [view.fill(case)]


def _pleural_effusion(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """Fluid that fills the costophrenic angle and climbs the chest wall in a meniscus."""
    view = chest.view
    side = int(rng.choice([RIGHT, LEFT]))
    x, y = view.coordinates
    floor = chest.patient.dome[0 if side == RIGHT else 1]
    angle_y, reach = floor + 3.5, float(chest.patient.wall_at(floor + 2))
    height = rng.uniform(3.6, 10.0)
    inward = np.clip((reach - side * x) / reach, 0, 1)
    # Highest at the side, falling steeply, then almost level towards the heart.
    surface = angle_y - height * (0.5 + 0.5 * np.exp(-inward / 0.13))
    depth = y - surface
    share = 0.93 * smoothstep((depth + 0.25) / 1.1) * (x * side > 0.5)
    share = np.where(chest.cavities[side], share, 0).astype(np.float32)
    opacities.fill(chest, view.blur(share, 0.08))
    chest.abdomen = np.maximum(chest.abdomen, np.where(depth > 0.6, share, 0) * (y > floor))
    seen = chest.lungs[side] & (share > 0.4)
    return [seen]


def _pleural_thickening(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    view = chest.view
    marks = []
    sides = [RIGHT, LEFT] if rng.random() < 0.3 else [int(rng.choice([RIGHT, LEFT]))]
    for side in sides:
        lung = chest.lungs[side]
        room = distance_inside(chest.cavities[side]) / view.scale
        x, y = view.coordinates
        lateral = x * side > 4.2
        uneven = 1 + 0.18 * smooth_noise(rng, view.shape, 1.6 * view.scale)
        if rng.random() < 0.6:  # a cap on the apex
            thick, limit = rng.uniform(0.7, 1.6), rng.uniform(2.0, 3.6)
            along = smoothstep((limit - y) / 1.2) * (x * side > 2.2)
        else:
            thick = rng.uniform(0.5, 1.1)
            start = rng.uniform(5, 11)
            stop = start + rng.uniform(5, 9)
            along = smoothstep((y - start) / 1.5) * smoothstep((stop - y) / 1.5) * lateral
        band = along * smoothstep((thick * uneven - room) / 0.25)
        share = 0.85 * band * chest.cavities[side]
        opacities.fill(chest, share)
        chest.lines += (0.9 * share * lung).astype(np.float32)
        marks.append(opacities.seen(share, lung, 0.35))
    return marks


def _pneumothorax(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """Air between chest wall and lung: no vessels, darker, and the lung's edge as a thin bright line."""
    view = chest.view
    side = int(rng.choice([RIGHT, LEFT]))
    cavity = chest.cavities[side]
    x, y = view.coordinates
    # Distance to the chest wall alone: towards the midline the lung has no free edge.
    room = distance_inside(cavity | ((x * side < 4.0 * chest.patient.breadth) & (y > 0))) / view.scale
    gap = rng.uniform(1.3, 4.6)
    end = rng.uniform(8, 22)
    # Upright, air gathers at the apex; the gap narrows downwards and towards the mediastinum.
    width = gap * smoothstep((end - y) / (0.6 * end)) * (1 + 0.06 * smooth_noise(rng, view.shape, 3 * view.scale))
    inset = np.where(cavity, width - room, -1)
    inset = view.blur(inset.astype(np.float32), 0.15)
    free = cavity & (inset > 0) & (width > 0.15)
    line = np.exp(-((inset / 0.07) ** 2)) * (width > 0.3) * cavity
    chest.free_air = np.maximum(chest.free_air, view.blur(free.astype(np.float32), 0.03))
    chest.lines += 1.5 * view.blur((line * (1 - chest.mediastinum)).astype(np.float32), 0.02)
    # The lung that lost air is a little denser.
    opacities.fill(chest, (0.05 + 0.02 * gap) * (cavity & ~free).astype(np.float32))
    chest.pneumothorax = chest.pneumothorax | (free & (chest.mediastinum < 0.45) & (chest.abdomen < 0.5))
    return [chest.pneumothorax.copy()]


# In the order of FINDINGS.
_DRAW: tuple[Callable[[Chest, np.random.Generator, np.ndarray], list[np.ndarray]], ...] = (
    _aortic_enlargement,
    collapse.atelectasis,
    calcium.calcification,
    _cardiomegaly,
    opacities.consolidation,
    opacities.ild,
    opacities.infiltration,
    opacities.lung_opacity,
    opacities.nodule,
    _other_lesion,
    _pleural_effusion,
    _pleural_thickening,
    _pneumothorax,
    opacities.pulmonary_fibrosis,
)
