"""Calcification: small, very dense and sharp; granulomas, lymph nodes, plaques of the pleura, the aortic arch's rim."""

import numpy as np

from xray.phantoms.chest import Chest
from xray.phantoms.opacities import lung_point
from xray.phantoms.patient import LEFT, RIGHT, diaphragm
from xray.phantoms.shapes import bounding_box, closed_curve, ellipse

DENSITY = 1.35
"""What a layer's centimetre counts for: with up to 4.2 in an 8-bit layer, more than two ribs that cross."""


KINDS = {
    "granulomas": (0.45, (0.4, 0.35, 0.25)),
    "nodes": (0.27, (0.5, 0.5)),
    "plaque": (0.16, (0.4, 0.35, 0.25)),
    "arch": (0.12, (1.0,)),
}
"""Kind → how often it occurs, and in how many places: the chances of one, two and three."""


def calcification(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """One to three calcified places of one kind, each a few millimetres thick.

    What scarred is seldom alone: granulomas lie in several places, nodes at both hila, plaques on both sides.
    Arguments and result are those of the functions in `xray.phantoms.opacities`.
    """
    kind = str(rng.choice(list(KINDS), p=[share for share, _ in KINDS.values()]))
    draw = {"granulomas": _granulomas, "nodes": _nodes, "plaque": _plaque, "arch": _arch}[kind]
    chances = KINDS[kind][1]
    first = int(rng.choice([RIGHT, LEFT]))
    marks: list[np.ndarray] = []
    for number in range(int(rng.choice(len(chances), p=chances)) + 1):
        layer = np.zeros(chest.view.shape, np.uint8)
        draw(chest, rng, taken, layer, first * (-1) ** number)  # RIGHT and LEFT are signs
        calcium = DENSITY * chest.view.shade(layer, 0.035)
        mark = calcium > 0.4 * calcium.max()
        # Places that touch would be one.
        if any((mark & other).any() for other in marks):
            continue
        chest.lines += calcium
        marks.append(mark)
        taken |= mark
    return marks


def _spot(chest: Chest, rng: np.random.Generator, layer: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """One irregular grain."""
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    wobble = radius * rng.uniform(0.75, 1.25, 8)
    outline = closed_curve(np.stack([np.cos(angle), np.sin(angle)], axis=1) * wobble[:, None] + centre, 4)
    chest.view.paint(layer, outline, rng.uniform(2.8, 4.2))


def _granulomas(chest: Chest, rng: np.random.Generator, taken: np.ndarray, layer: np.ndarray, side: int) -> None:
    """Three to ten grains of 2 to 6 mm within 1 to 4 cm of lung."""
    _, centre = lung_point(chest, rng, taken, 1.5, side=side)
    spread = rng.uniform(0.5, 1.1)
    for _ in range(int(rng.integers(3, 11))):
        place = centre + np.clip(rng.normal(0, spread, 2), -1.8, 1.8)
        _spot(chest, rng, layer, place, rng.uniform(0.11, 0.3))


def _nodes(chest: Chest, rng: np.random.Generator, taken: np.ndarray, layer: np.ndarray, side: int) -> None:
    """Two to five lymph nodes of 6 to 12 mm at a hilum, grainy throughout or, like an eggshell, along their rim."""
    view = chest.view
    stretch = chest.patient.dome[0] / 20.5
    centre = np.array([side * rng.uniform(3.2, 4.8), rng.uniform(9.0, 12.5) * stretch])
    shell = rng.random() < 0.5
    for number in range(int(rng.integers(2, 6))):
        middle = centre + (rng.normal(0, 0.25, 2) if number == 0 else rng.uniform(-1, 1, 2) * [1.0, 1.6])
        radius = rng.uniform(0.3, 0.6)
        if shell:
            rim = ellipse(tuple(middle), (radius, radius * rng.uniform(0.7, 1.0)), rng.uniform(0, np.pi), 40)
            view.line(layer, np.concatenate([rim, rim[:1]]), rng.uniform(0.13, 0.2), rng.uniform(3.2, 4.2))
        else:
            for _ in range(int(rng.integers(4, 8))):
                place = middle + np.clip(rng.normal(0, 0.45, 2), -0.8, 0.8) * radius
                _spot(chest, rng, layer, place, rng.uniform(0.12, 0.24))


def _plaque(chest: Chest, rng: np.random.Generator, taken: np.ndarray, layer: np.ndarray, side: int) -> None:
    """A broken plate of 2.5 to 6 cm on the pleura of chest wall or diaphragm, 2 to 6 mm thick."""
    view, patient = chest.view, chest.patient
    length = rng.uniform(2.5, 6.0)
    if rng.random() < 0.6:
        top = rng.uniform(6.0, patient.dome[0] - length)
        y = np.linspace(top, top + length, 40)
        path = np.stack([side * (patient.wall_at(y) - rng.uniform(0.25, 0.6)), y], axis=1)
    else:
        edge = diaphragm(patient, side)
        middle = side * rng.uniform(0.3, 0.7) * float(patient.wall_at(patient.dome[0]))
        x = middle + np.linspace(-0.5, 0.5, 40) * length
        order = np.argsort(edge[:, 0])
        path = np.stack([x, np.interp(x, edge[order, 0], edge[order, 1]) - 0.1], axis=1)
    t = np.linspace(0, 1, 40)
    waves = sum(np.sin(rate * t + rng.uniform(0, 6)) for rate in rng.uniform(8, 40, 4))
    thick = rng.uniform(0.12, 0.22) * (1 + 0.2 * waves)
    level = rng.uniform(2.8, 4.2) * rng.uniform(0.75, 1, 40)
    # Plaques are broken: one gap or two, and thin ends.
    for gap in rng.uniform(0.2, 0.8, int(rng.integers(1, 3))):
        level[np.abs(t - gap) < 0.04] = 0
    view.ribbon(layer, path, thick * np.clip(6 * np.minimum(t, 1 - t), 0.3, 1), level)


def _arch(chest: Chest, rng: np.random.Generator, taken: np.ndarray, layer: np.ndarray, side: int) -> None:
    """A rim of 1 to 2 mm along part of the aortic arch's left edge."""
    view = chest.view
    box = bounding_box(chest.knob & (view.coordinates[0] > 0))
    middle = view.centimetres(np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]]))[0]
    radius = 0.86 * (box[2] - box[0]) / 2 / view.scale
    start, extent = rng.uniform(-1.3, -0.4), rng.uniform(1.2, 2.2)
    t = np.linspace(start, start + extent, 25)
    path = middle + radius * np.stack([np.cos(t), np.sin(t)], axis=1)
    for piece in (path[:9], path[8:17], path[16:]):  # not everywhere equally thick
        view.line(layer, piece, rng.uniform(0.1, 0.18), rng.uniform(2.6, 4.2))
