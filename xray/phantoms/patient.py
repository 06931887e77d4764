"""The measures of one phantom's healthy chest, and the outlines of its lungs, diaphragm and heart."""

import dataclasses

import numpy as np

from xray.phantoms.shapes import closed_curve, curve

RIGHT, LEFT = -1, 1
"""The patient's sides as the sign of x: the patient's right is on the viewer's left."""


@dataclasses.dataclass(frozen=True)
class Patient:
    """What differs between two healthy chests; lengths in cm."""

    female: bool
    age: int
    supine: bool
    """Taken AP in bed: larger heart, shallow breath, shoulder blades over the lungs."""
    breadth: float
    """Factor on all widths."""
    dome: tuple[float, float]
    """y of the right and of the left hemidiaphragm's top."""
    heart_ratio: float
    """Heart's width over the inner chest's width."""
    knob_radius: float
    turn: float
    """How far the front of the chest is turned towards the viewer's right."""
    scoliosis: float
    depth: float
    """Front-to-back thickness of the trunk."""
    wall: float
    """Thickness of the chest wall beside the lungs."""
    breasts: float
    """Thickness of the breasts; 0 for none."""
    bone: float
    """Factor on bone density."""
    vessels: float
    """Factor on the lung vessels."""
    stomach: float
    """Width of the stomach bubble; 0 for none."""
    arm_angle: float

    def wall_at(self, y: np.ndarray | float) -> np.ndarray:
        """Distance from the midline to the lung's lateral edge at height y."""
        stretch = 20.5 / self.dome[0]
        heights = [-0.5, 0.0, 0.9, 3.2, 6.6, 10.5, 14.5, 18.5, 24.0, 40.0]
        widths = [3.8, 4.9, 6.3, 8.6, 10.6, 12.0, 12.9, 13.3, 13.5, 13.2]
        return np.interp(np.asarray(y) * stretch, heights, widths) * self.breadth


def sample_patient(rng: np.random.Generator) -> Patient:
    """A random healthy adult."""
    female = bool(rng.random() < 0.47)
    age = int(np.clip(rng.normal(52, 17), 18, 92))
    supine = bool(rng.random() < 0.2)
    dome_right = rng.normal(18.6, 0.8) if supine else rng.normal(20.6, 0.9)
    dome_right = float(np.clip(dome_right, 16.8, 22.6))
    return Patient(
        female=female,
        age=age,
        supine=supine,
        breadth=float(np.clip(rng.normal(0.97 if female else 1.03, 0.04), 0.88, 1.12)),
        dome=(dome_right, dome_right + float(rng.uniform(0.6, 2.0))),
        heart_ratio=float(rng.uniform(0.41, 0.475)),
        knob_radius=float(rng.uniform(1.15, 1.55)) + 0.15 * (age > 60),
        turn=float(rng.normal(0, 0.35)),
        scoliosis=float(rng.normal(0, 0.25)),
        depth=float(np.clip(rng.normal(20, 1.8), 16.5, 25)),
        wall=float(np.clip(rng.normal(2.6, 0.7), 1.5, 4.5)),
        breasts=float(rng.uniform(1.2, 3.6)) if female and rng.random() < 0.85 else 0.0,
        bone=float(rng.uniform(0.85, 1.2)) * (1.0 if age < 65 else 0.88),
        vessels=float(rng.uniform(0.85, 1.25)),
        stomach=float(rng.uniform(1.6, 3.4)) if rng.random() < 0.8 else 0.0,
        arm_angle=float(rng.uniform(0.15, 0.55)),
    )


def cavity_outline(patient: Patient, side: int) -> np.ndarray:
    """(N, 2): a whole lung with its recess behind the diaphragm."""
    y_floor = patient.dome[0 if side == RIGHT else 1]
    angle = y_floor + 3.6
    apex = curve([(1.1, 3.2), (1.5, 1.6), (2.4, 0.4), (3.9, 0.0), (5.6, 0.5)]) * [patient.breadth, y_floor / 20.5]
    y = np.linspace(1.3 * y_floor / 20.5, angle, 40)
    wall = np.stack([patient.wall_at(y), y], axis=1)
    recess = curve([wall[-1], (10.5, angle + 1.3), (6, angle + 1.9), (2.2, angle + 1.2), (0.7, angle - 1.5)])
    outline = np.concatenate([apex, wall, recess[1:]])
    outline[:, 0] *= side
    return outline


def diaphragm(patient: Patient, side: int) -> np.ndarray:
    """(N, 2) from lateral to medial: the edge of a hemidiaphragm."""
    top = patient.dome[0 if side == RIGHT else 1]
    reach = float(patient.wall_at(top + 3.6))
    share = np.array([1.12, 1.0, 0.93, 0.84, 0.7, 0.5, 0.3, 0.1, -0.02])
    drop = np.array([5.6, 3.55, 2.05, 1.05, 0.33, 0.0, 0.25, 0.8, 1.1])
    edge = curve(np.stack([share * reach, top + drop], axis=1))
    edge[:, 0] *= side
    return edge


def heart_outline(patient: Patient) -> np.ndarray:
    """(N, 2): the heart from the right atrium to the apex at the viewer's right."""
    right = [(-2.0, 10.6), (-3.2, 12.4), (-3.9, 14.4), (-4.15, 16.6), (-3.9, 18.8), (-3.0, 20.8)]
    bottom = [(0.5, 22.0), (3.5, 22.3), (5.8, 21.9)]
    left = [(7.5, 20.8), (8.3, 19.2), (8.25, 17.7), (7.6, 15.8), (6.5, 13.8), (5.2, 12.0), (4.0, 10.6)]
    left += [(1.8, 9.4), (-0.6, 9.5)]
    outline = closed_curve(right + bottom + left)
    # The outline is 12.5 cm wide; the chest's inner width is that of the two lungs at the right dome.
    chest_width = 2 * float(patient.wall_at(patient.dome[0] + 1.5))
    stretch = patient.heart_ratio * chest_width / (outline[:, 0].max() - outline[:, 0].min())
    outline[:, 0] *= stretch
    # A large heart grows to the left and down more than to the right, and its left border becomes rounder.
    excess = max(0.0, stretch - 1.1)
    outline[:, 0] += 1.2 * excess * (outline[:, 0] > 0) * np.sin(np.clip((outline[:, 1] - 9) / 12, 0, 1) * np.pi)
    outline[:, 0] *= patient.heart_ratio * chest_width / (outline[:, 0].max() - outline[:, 0].min())
    outline[:, 0] += 0.5 * patient.turn
    outline[:, 1] = 9.4 + (outline[:, 1] - 9.4) * (patient.dome[1] + 1.7 - 9.4) / 12.8
    return outline
