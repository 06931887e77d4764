"""The healthy chest of a phantom: body, lungs, heart, bones and vessels as thicknesses along the X-rays' path.

A radiograph is nearly the logarithm of the transmitted X-rays, so shadows add: every structure is a layer in
centimetres of water (bone counts for more), air takes tissue away, and the picture is the sum. Sizes are those of an
adult's frontal radiograph.
"""

import dataclasses

import numpy as np

from xray.phantoms.bones import bones
from xray.phantoms.patient import LEFT, RIGHT, Patient, cavity_outline, diaphragm, heart_outline
from xray.phantoms.shapes import View, closed_curve, curve, dome, ellipse, smooth_noise, smoothstep
from xray.phantoms.vessels import vessels


@dataclasses.dataclass
class Chest:
    """One patient's layers on a grid, (height, width) float32 in cm of water unless said otherwise.

    The findings change `air`, `filling`, `lines`, `vessels` and `bone`; `project` adds everything up.
    """

    patient: Patient
    view: View
    body: np.ndarray
    air: np.ndarray
    """Length of the X-rays' path through the two lungs."""
    mediastinum: np.ndarray
    """Share (0–1) of that path taken by heart and great vessels."""
    abdomen: np.ndarray
    """Share (0–1) of that path taken by what lies under the diaphragm."""
    filling: np.ndarray
    """Share (0–1) of the remaining lung that holds no air."""
    vessels: np.ndarray
    texture: np.ndarray
    lines: np.ndarray
    """Whatever a finding adds on top."""
    bone: np.ndarray
    free_air: np.ndarray
    """Share (0–1) of the lung's path that is air without lung tissue."""
    cavities: dict[int, np.ndarray]
    """RIGHT, LEFT: bool, all a lung reaches, behind heart and diaphragm too."""
    lungs: dict[int, np.ndarray]
    """RIGHT, LEFT: bool, the lung a viewer sees: cavity without heart, mediastinum and abdomen."""
    heart: np.ndarray
    """bool, the heart's shadow."""
    knob: np.ndarray
    """bool, the aortic arch's shadow."""
    pneumothorax: np.ndarray
    """bool, free air between chest wall and lung."""

    def project(self) -> np.ndarray:
        """The total thickness in cm of water, float32 (height, width)."""
        path = self.air * (1 - self.mediastinum) * (1 - self.abdomen)
        aerated = np.clip(path / 7, 0, 1)
        # Lung weighs about a quarter of water; free air next to nothing.
        lack = 0.74 + 0.2 * self.free_air
        inside = (self.vessels + self.texture) * aerated * (1 - self.filling) * (1 - self.free_air)
        total: np.ndarray = self.body - lack * path * (1 - self.filling) + inside + self.lines + self.bone
        return total


def build_chest(patient: Patient, view: View, rng: np.random.Generator) -> Chest:
    """All layers of a healthy patient on a view's grid."""
    _, y = view.coordinates
    cavities = {side: view.fill(cavity_outline(patient, side)) for side in (RIGHT, LEFT)}
    mediastinum, heart, knob = _mediastinum(patient, view)
    abdomen = np.zeros(view.shape, np.float32)
    below = np.zeros(view.shape, bool)
    air = np.zeros(view.shape, np.float32)
    lungs = {}
    for side in (RIGHT, LEFT):
        under = below_diaphragm(patient, view, side)
        below |= under > 0
        abdomen = np.maximum(abdomen, abdomen_share(under))
        # The chest is deepest at its base and shallow at its apex.
        air += dome(cavities[side], 4.2 * view.scale) * (5.5 + 9.0 * smoothstep((y + 1) / 11)) * (patient.depth / 20)
        lungs[side] = cavities[side] & (under <= 0) & (mediastinum < 0.45)
    air = view.blur(air, 0.06)
    abdomen = view.blur(abdomen.astype(np.float32), 0.05)
    grain = np.zeros(view.shape, np.float32)
    for size, share in ((0.12, 0.10), (0.3, 0.10), (1.0, 0.10)):
        grain += share * smooth_noise(rng, view.shape, size * view.scale)
    body = _body(patient, view)
    # Gas in stomach and bowel lies in front of everything else.
    body = body - np.minimum(_gas(patient, view, rng), 0.6 * body) * below - _airway(patient, view)
    broad = (
        smooth_noise(rng, view.shape, 3.0 * view.scale) * 0.25 + smooth_noise(rng, view.shape, 0.8 * view.scale) * 0.08
    )
    body += broad * np.clip(body / 10, 0, 1)
    return Chest(
        patient=patient,
        view=view,
        body=body,
        air=air,
        mediastinum=mediastinum.astype(np.float32),
        abdomen=abdomen,
        filling=np.zeros(view.shape, np.float32),
        vessels=vessels(patient, view, rng, cavities),
        texture=grain,
        lines=np.zeros(view.shape, np.float32),
        bone=bones(patient, view, rng),
        free_air=np.zeros(view.shape, np.float32),
        cavities=cavities,
        lungs=lungs,
        heart=heart,
        knob=knob,
        pneumothorax=np.zeros(view.shape, bool),
    )


def below_diaphragm(patient: Patient, view: View, side: int, lift: float = 0.0) -> np.ndarray:
    """How many cm each pixel lies below a hemidiaphragm's edge, (height, width); not positive above it, -1 beside it.

    lift: how far its dome is raised, in cm; where it meets the chest wall and the midline it stays.
    """
    x, y = view.coordinates
    edge = diaphragm(patient, side)
    height = edge[:, 1] - lift * np.sin(np.pi * np.clip(edge[:, 0] / edge[0, 0], 0, 1))
    order = np.argsort(edge[:, 0])
    floor = np.interp(x, edge[order, 0], height[order]).astype(np.float32)
    return np.where(x * side > 0, y - floor, -1)


def abdomen_share(under: np.ndarray) -> np.ndarray:
    """Share (0–1) of the X-rays' path through the lung that is taken `under` cm below the diaphragm's edge."""
    share: np.ndarray = (under > 0) * (0.72 * np.sqrt(np.clip(under / 0.9, 0, 1)) + 0.28 * smoothstep(under / 4.0))
    return share


def _mediastinum(patient: Patient, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of the lungs' path taken by the mediastinum, and the masks of heart and aortic arch."""
    broad = 1.18 if patient.supine else 1.0
    right = [(-2.0, -9), (-2.1, -2), (-2.2, 1.5), (-2.5, 4.5), (-2.75, 7.5), (-2.85, 10), (-3.0, 12.5), (-2.4, 15)]
    left = [(2.2, 15), (3.3, 12.5), (3.6, 11), (3.75, 9.9), (3.0, 8.6), (2.5, 7.0), (2.3, 4.5), (2.0, 2)]
    left += [(1.9, -2), (1.9, -9)]
    trunk = np.array([*right, *left]) * [broad, 1]
    trunk[:, 0] += 0.3 * patient.turn
    heart = view.fill(heart_outline(patient))
    radius = patient.knob_radius
    # The wider the aorta, the further the arch unfolds to the left and upwards.
    knob_centre = (2.35 * broad + 0.35 * (radius - 1.3), 6.5 - 0.35 * (radius - 1.3))
    t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    lower = np.where(np.sin(t) > 0, 1.08, 1.0)
    arch = np.stack([knob_centre[0] + radius * np.cos(t), knob_centre[1] + radius * lower * np.sin(t)], axis=1)
    knob = view.fill(closed_curve(arch))
    descending = curve([knob_centre, (knob_centre[0] - 0.1, 10), (1.3, 15), (1.0, 22), (0.9, 26)])
    aorta = np.zeros(view.shape, np.uint8)
    view.ribbon(aorta, descending, np.full(len(descending), radius * 0.85), np.full(len(descending), 1.0))
    ascending = np.zeros(view.shape, bool)
    if radius > 1.8:
        bulge = radius - 1.8
        ascending = view.fill(ellipse((-1.9 - 0.45 * bulge, 9.0), (1.4 + 0.6 * bulge, 4.4)))
    rim = view.scale
    clear = 1 - 0.93 * view.blur(dome(view.fill(closed_curve(trunk)), 1.1 * rim), 0.06)
    clear *= 1 - 0.86 * view.blur(dome(heart, 1.5 * rim), 0.07)
    clear *= 1 - 0.85 * view.blur(dome(knob, 0.9 * rim), 0.05)
    clear *= 1 - 0.28 * view.blur((aorta > 0).astype(np.float32), 0.06)
    clear *= 1 - 0.7 * view.blur(dome(ascending, 1.3 * rim), 0.07)
    return 1 - clear, heart, knob | ascending


def _body(patient: Patient, view: View) -> np.ndarray:
    """Soft tissue of trunk, neck, arms and breasts, front to back."""
    x, y = view.coordinates
    wall = patient.wall
    edge = float(patient.wall_at(12)) + wall
    half = [
        (4.9, -14), (5.0, -6.5), (5.6, -4.6), (7.6, -3.4), (11.5, -2.5), (16, -2.0), (19.5, -0.6), (21.8, 2.5),
        (21.4, 6.5), (edge + 2.6, 10.0), (edge + 0.9, 13), (edge + 0.5, 18), (edge + 0.4, 24), (edge, 50),
    ]  # fmt: skip
    side = curve(half)
    trunk = view.fill(np.concatenate([side, side[::-1] * [-1, 1]]))
    thick = patient.depth * dome(trunk, 9.0 * view.scale)
    thick *= 0.55 + 0.45 * smoothstep((y + 5) / 11)
    # Below the lungs the belly is thicker than the chest.
    thick *= 1 + 0.08 * smoothstep((y - patient.dome[0]) / 8)
    for sign in (RIGHT, LEFT):
        bow = patient.arm_angle
        reach = 8 + 16 * bow
        arm = curve([(18.5, 2.5), (20.5, 7), (20.5 + reach * 0.45, 15), (20.5 + reach, 27)]) * [sign, 1]
        layer = np.zeros(view.shape, np.uint8)
        view.ribbon(layer, arm, np.linspace(4.6, 3.6, len(arm)), np.ones(len(arm)))
        thick = np.maximum(thick, 9.5 * dome(layer > 0, 4.2 * view.scale))
        if patient.breasts:
            centre_x, centre_y = 8.2 * patient.breadth * sign, 14.2 + 0.8 * patient.breasts
            u, v = (x - centre_x) / 6.4, (y - centre_y) / np.where(y > centre_y, 4.6, 8.5)
            thick += patient.breasts * np.sqrt(np.clip(1 - u * u - v * v, 0, 1)) * (trunk | (layer > 0))
    # Folds of the armpit and muscles leave broad shades that differ from side to side.
    return view.blur(thick, 0.12)


def _airway(patient: Patient, view: View) -> np.ndarray:
    """Air in windpipe and main bronchi, in cm."""
    layer = np.zeros(view.shape, np.uint8)
    carina = 8.2 + 0.05 * patient.dome[0]
    bend = -0.25 - 0.35 * max(0.0, patient.knob_radius - 1.3)
    trachea = curve([(0.05, -9), (0.0, -2), (-0.1, 3), (bend, 6.3), (-0.15, carina - 0.4)])
    view.ribbon(layer, trachea, np.full(len(trachea), 0.82), np.full(len(trachea), 2.6))
    right = curve([(-0.35, carina - 0.8), (-1.5, carina + 1.2), (-2.7, carina + 3.6)])
    left = curve([(0.2, carina - 0.7), (1.9, carina + 0.9), (3.6, carina + 2.2)])
    view.ribbon(layer, right, np.linspace(0.72, 0.5, len(right)), np.linspace(1.7, 0.6, len(right)))
    view.ribbon(layer, left, np.linspace(0.6, 0.45, len(left)), np.linspace(1.6, 0.5, len(left)))
    return view.shade(layer, 0.12)


def _gas(patient: Patient, view: View, rng: np.random.Generator) -> np.ndarray:
    """The stomach bubble under the left dome and gas in the bowel, in cm of missing tissue."""
    gas = np.zeros(view.shape, np.float32)
    width = patient.stomach
    top = patient.dome[1]
    places = rng.uniform(-1, 1, (6, 4))
    if width:
        centre = (5.6 + 0.8 * places[0, 0], top + 1.5 + 0.42 * width)
        bubble = view.fill(ellipse(centre, (width, 0.62 * width), 0.15 * places[0, 1]))
        if places[0, 2] > -0.4:  # upright, the gas stands on a level of fluid
            bubble &= view.coordinates[1] < centre[1] + 0.25 * width
        gas += 5.5 * dome(bubble, 0.8 * width * view.scale)
    for k in range(1, 6):
        if places[k, 3] > -0.3:
            continue
        centre = (7.0 * places[k, 0] + 3 * np.sign(places[k, 0]), top + 6.5 + 2.5 * places[k, 1])
        loop = dome(view.fill(ellipse(centre, (2.0 + 0.6 * places[k, 2], 1.4), places[k, 2])), 1.4 * view.scale)
        folds = 0.6 + 0.45 * smooth_noise(rng, view.shape, 0.6 * view.scale)
        gas += 1.6 * loop * np.clip(folds, 0, 1.2)
    return view.blur(gas, 0.14)
