"""Atelectasis: airless lung and the volume that is lost with it, as plates or as the collapse of a lobe."""

import numpy as np

from xray.phantoms.chest import Chest, abdomen_share, below_diaphragm
from xray.phantoms.opacities import fill, lung_point, seen
from xray.phantoms.patient import LEFT, RIGHT
from xray.phantoms.shapes import curve, smooth_noise, smoothstep


def atelectasis(chest: Chest, rng: np.random.Generator, taken: np.ndarray) -> list[np.ndarray]:
    """Plates above the diaphragm, a lower lobe's triangle beside the spine, or a right upper lobe under its fissure.

    Arguments and result are those of the functions in `xray.phantoms.opacities`.
    """
    kind = rng.choice(["plates", "lower lobe", "upper lobe"], p=[0.5, 0.3, 0.2])
    side = RIGHT if kind == "upper lobe" or rng.random() < 0.55 else LEFT
    # Where lung is lost, the diaphragm follows: less for a segment, more for a lobe.
    _raise_diaphragm(chest, side, rng.uniform(0.3, 1.3) if kind == "plates" else rng.uniform(0.6, 1.8))
    if kind == "plates":
        return [_plates(chest, rng, taken, side)]
    return [_lower_lobe(chest, rng, side) if kind == "lower lobe" else _upper_lobe(chest, rng)]


def _raise_diaphragm(chest: Chest, side: int, lift: float) -> None:
    under = below_diaphragm(chest.patient, chest.view, side, lift)
    raised = chest.view.blur(abdomen_share(under).astype(np.float32), 0.05)
    chest.abdomen = np.maximum(chest.abdomen, raised)
    chest.lungs[side] = chest.lungs[side] & (under <= 0)


def _plates(chest: Chest, rng: np.random.Generator, taken: np.ndarray, side: int) -> np.ndarray:
    """One to three airless bands, 4 to 8 cm long and some millimetres thick, low and nearly level."""
    view, lung = chest.view, chest.lungs[side]
    _, centre = lung_point(chest, rng, taken, 2.6, (0.6, 0.95), side)
    layer = np.zeros(view.shape, np.uint8)
    t = np.linspace(-0.5, 0.5, 24)
    # They lie above one another in the same lung and lean the same way.
    lean = rng.normal(0, 0.16)
    height = centre[1]
    for _ in range(int(rng.choice([1, 2, 3], p=[0.2, 0.45, 0.35]))):
        length, slope = rng.uniform(4.0, 8.0), side * (lean + rng.normal(0, 0.07))
        middle = centre[0] + rng.normal(0, 0.6)
        path = np.stack([middle + length * t, height + slope * length * t + rng.uniform(-1, 1) * t**2], axis=1)
        uneven = 1 + 0.25 * np.sin(rng.uniform(5, 12) * t + rng.uniform(0, 6))
        half = rng.uniform(0.13, 0.32) * uneven * np.clip(5 * (0.5 - np.abs(t)), 0.1, 1) ** 0.7
        view.ribbon(layer, path, half, np.full(24, 1.0))
        height -= rng.uniform(0.9, 1.9)
    share = np.clip(view.shade(layer, 0.07), 0, 1) * rng.uniform(0.3, 0.65)
    fill(chest, share)
    chest.lines += 0.4 * share * lung
    return seen(share, lung, 0.4)


def _lower_lobe(chest: Chest, rng: np.random.Generator, side: int) -> np.ndarray:
    """A triangle on the diaphragm beside the spine, its apex at the hilum: the sail, on the left behind the heart."""
    view, patient = chest.view, chest.patient
    x, _ = view.coordinates
    floor = patient.dome[0 if side == RIGHT else 1]
    apex = np.array([side * rng.uniform(2.2, 3.4), rng.uniform(0.5, 0.6) * floor])
    # It must reach beyond the heart to be seen in the lung.
    heart = float((x * side)[chest.heart].max())
    reach = min(max(rng.uniform(5.0, 8.5), heart + rng.uniform(0.8, 2.6)), 0.85 * float(patient.wall_at(floor)))
    foot = np.array([side * reach, floor + 1.2])
    bow = rng.uniform(-0.5, 0.3)
    edge = curve([apex, (apex + foot) / 2 + [side * bow, 0], foot])
    wedge = view.fill(np.concatenate([edge, [(side * 0.9, floor + 1.6), (side * 0.9, apex[1])]]))
    share = view.blur(wedge.astype(np.float32), 0.06) * rng.uniform(0.6, 0.85)
    share = np.clip(share * (1 + 0.05 * smooth_noise(rng, view.shape, view.scale)), 0, 0.92).astype(np.float32)
    fill(chest, share)
    # Behind the heart little air is left to lose, yet the collapsed lobe shows through it.
    behind = share * chest.cavities[side] * chest.mediastinum * (1 - chest.abdomen)
    chest.lines += rng.uniform(1.2, 2.2) * behind
    return seen(share, chest.cavities[side] & (chest.abdomen < 0.5), 0.4)


def _upper_lobe(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """The right upper lobe, shrunk against apex and mediastinum; the minor fissure is its sharp, hollow lower edge."""
    view, patient = chest.view, chest.patient
    x, y = view.coordinates
    stretch = patient.dome[0] / 20.5
    medial, lateral = rng.uniform(7.5, 10.8) * stretch, rng.uniform(2.2, 7.5) * stretch
    away = np.clip((-x - 2.5) / (float(patient.wall_at(lateral)) - 2.5), 0, 1.2)
    fissure = medial + (lateral - medial) * away ** rng.uniform(0.6, 0.9)
    share = smoothstep((fissure - y) / 0.2 + 0.5) * chest.cavities[RIGHT] * rng.uniform(0.4, 0.8)
    share = np.clip(share * (1 + 0.05 * smooth_noise(rng, view.shape, view.scale)), 0, 0.9).astype(np.float32)
    fill(chest, share)
    return seen(share, chest.lungs[RIGHT], 0.4)
