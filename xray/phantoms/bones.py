"""The skeleton of a phantom's chest: ribs, spine, clavicles, shoulder blades, upper arms and breastbone."""

import numpy as np

from xray.phantoms.patient import LEFT, RIGHT, Patient
from xray.phantoms.shapes import LAYER_UNIT, View, closed_curve, curve, ellipse


def bones(patient: Patient, view: View, rng: np.random.Generator) -> np.ndarray:
    """All bones, (height, width) float32 in cm of water."""
    total: np.ndarray = _ribs(patient, view) + _spine(patient, view) + _shoulders(patient, view, rng)
    return total


def _ribs(patient: Patient, view: View) -> np.ndarray:
    """All ribs, in cm of water."""
    back, front = np.zeros(view.shape, np.uint8), np.zeros(view.shape, np.uint8)
    drops = [3.8, 6.2, 8.2, 9.8, 11.0, 12.0, 12.6, 12.4, 11.6, 10.2, 8.0]
    ends = [2.8, 4.3, 5.8, 6.9, 7.9, 9.2, 10.8, 12.0, 12.8, 13.2, 13.4]
    for sign in (RIGHT, LEFT):
        for number, (drop, end) in enumerate(zip(drops, ends, strict=True), start=1):
            top = _rib_height(patient, number)
            reach = float(patient.wall_at(top + drop / 2)) + (0.35 if number > 1 else -0.4)
            reach += 0.2 * patient.turn * sign
            # The first rib is a tight, steep ring; the others are long loops flattened at the side.
            flat, arch = (1.0, -0.3) if number == 1 else (0.8, 0.35)
            start = np.arcsin((1.9 / reach) ** 1.25)
            stop = np.pi - np.arcsin(min(0.97, end * patient.breadth / reach) ** 1.25)
            t = np.linspace(start, stop, 56)
            # A rib is close to an ellipse in a plane that slopes down to the front; seen from the front it becomes
            # a loop whose back limb rises a little at first and whose front limb falls.
            height = top + drop * (1 - np.cos(t)) / 2 - arch * np.sin(t) ** 2
            loop = np.stack([sign * reach * np.sin(t) ** flat, height], axis=1)
            loop[:, 0] += patient.scoliosis * np.sin(loop[:, 1] / 7)
            width = 0.48 + 0.13 * np.sin(t) ** 2 * (t > np.pi / 2) - 0.16 * np.sin(t) ** 10
            width *= 0.85 if number in (1, 11) else 1.0
            # Seen edge-on at the side of the chest, there is more bone in the path.
            value = 1.4 + 0.4 * np.sin(t) ** 10
            fade = np.clip((stop - t) / 0.22, 0, 1) ** 0.7
            middle = np.searchsorted(t, np.pi / 2) + 1
            view.ribbon(back, loop[:middle], width[:middle], value[:middle], cortex=0.13)
            last = slice(middle - 1, None)
            view.ribbon(front, loop[last], width[last], (0.85 * value * fade)[last], cortex=0.12)
    bones = back.astype(np.float32) + front
    return view.blur(bones, 0.055) * (patient.bone / LAYER_UNIT)


def _rib_height(patient: Patient, number: float) -> float:
    """Height of the vertebra that rib `number` (1–12, or beyond on either side) starts from."""
    step = number - 1
    return (0.1 + 2.02 * step + 0.028 * step * abs(step)) * (0.9 + 0.1 * patient.dome[0] / 20.5)


def _spine(patient: Patient, view: View) -> np.ndarray:
    layer = np.zeros(view.shape, np.uint8)
    details = np.zeros(view.shape, np.uint8)
    for number in range(-4, 18):
        y = _rib_height(patient, number) + 0.35
        size = float(np.interp(number, [-4, 0, 8, 12, 17], [1.05, 1.3, 1.55, 1.85, 2.2]))
        tall = 0.43 * (_rib_height(patient, number + 1) - _rib_height(patient, number))
        x = patient.scoliosis * np.sin(y / 7)
        corner = [(1.0, 0.92), (0.9, 0.0), (1.0, -0.92), (0.5, -1.0), (-0.5, -1.0)]
        corner += [(-1.0, -0.92), (-0.9, 0.0), (-1.0, 0.92), (-0.5, 1.0), (0.5, 1.0)]
        body = closed_curve(np.array(corner) * [size, tall] + [x, y], 4)
        inner = (body - [x, y]) * [0.88, 0.76] + [x, y]
        for outline, level in ((body, 2.3), (inner, 1.5)):
            view.paint(layer, outline, level)
        for sign in (RIGHT, LEFT):
            pedicle = ellipse((x + sign * 0.72 * size, y - 0.25 * tall), (0.24 * size, 0.42 * tall))
            view.paint(details, pedicle, 0.8)
            view.paint(details, ellipse((x + sign * 0.72 * size, y - 0.25 * tall), (0.14 * size, 0.28 * tall)), 0.35)
            transverse = np.array([(x + sign * size * 0.8, y - 0.2), (x + sign * (size + 1.2), y - 0.45)])
            view.ribbon(details, transverse, np.array([0.36, 0.28]), np.array([0.7, 0.6]))
        view.paint(details, ellipse((x + 0.25 * patient.turn, y + 0.55 * tall), (0.24, 0.75 * tall)), 0.9)
    # Arches, joints and ligaments behind the vertebrae fill the gaps between them.
    column = np.zeros(view.shape, np.uint8)
    heights = np.linspace(-10, 40, 60)
    path = np.stack([patient.scoliosis * np.sin(heights / 7), heights], axis=1)
    view.ribbon(column, path, np.interp(heights, [-10, 40], [1.0, 1.9]), np.full(60, 1.0))
    bones = 0.85 * view.shade(layer, 0.09) + view.shade(details, 0.09) + view.shade(column, 0.25)
    total: np.ndarray = bones * patient.bone
    return total


def _shoulders(patient: Patient, view: View, rng: np.random.Generator) -> np.ndarray:
    """Clavicles, shoulder blades, upper arms and the breastbone."""
    total = np.zeros(view.shape, np.float32)
    for sign in (RIGHT, LEFT):
        lift = float(rng.normal(0, 0.5))
        front = patient.turn * sign
        layer = np.zeros(view.shape, np.uint8)
        inner = [(1.7 + front, 3.9), (4.0 + front, 3.7)]
        outer = np.array([(7.2, 2.0), (10.6, 0.5), (14.2, -0.5), (17.6, -0.2)])
        path = curve(np.concatenate([inner, outer + np.array([0, lift])]))
        half_width = np.interp(np.linspace(0, 1, len(path)), [0, 0.12, 0.45, 0.8, 1], [1.05, 0.78, 0.6, 0.66, 0.85])
        view.ribbon(layer, path * [sign, 1], half_width, np.full(len(path), 2.0), cortex=0.15)
        total += view.shade(layer, 0.06)

        layer = np.zeros(view.shape, np.uint8)
        inward = 2.6 if patient.supine else float(rng.uniform(-0.6, 0.8))
        spine_side = [(13.6, 0.2), (13.4, 3.5), (14.0, 8), (15.0, 12.6)]
        arm_side = [(15.9, 11.2), (16.9, 7), (18.2, 4.2), (17.6, 2.2), (15.5, 0.6)]
        blade = np.array(spine_side + arm_side)
        blade = closed_curve(blade - [inward, -0.3 - lift / 2]) * [sign, 1]
        view.paint(layer, blade, 0.45)
        edge = np.concatenate([blade, blade[:1]])
        view.ribbon(layer, edge, np.full(len(edge), 0.13), np.full(len(edge), 0.95))
        total += view.shade(layer, 0.08)

        layer = np.zeros(view.shape, np.uint8)
        ridge = curve([(13.7 - inward, 3.6), (16.0 - inward / 2, 1.6), (18.6, -0.4 + lift), (20.4, -0.1 + lift)])
        ridge[:, 0] *= sign
        view.ribbon(layer, ridge, np.linspace(0.35, 0.75, len(ridge)), np.full(len(ridge), 1.1), cortex=0.14)
        view.paint(layer, ellipse((sign * (16.7 - inward / 2), 2.0 + lift), (0.6, 0.95), 0.4 * sign), 1.4)
        total += view.shade(layer, 0.07)

        layer = np.zeros(view.shape, np.uint8)
        reach = 8 + 16 * patient.arm_angle
        shaft = curve([(20.2, 3.0), (21.3, 7), (20.7 + reach * 0.45, 15), (20.5 + reach, 27)]) * [sign, 1]
        half_width = np.interp(np.linspace(0, 1, len(shaft)), [0, 0.25, 1], [1.9, 1.25, 1.1])
        view.ribbon(layer, shaft, half_width, np.full(len(shaft), 2.6), cortex=0.4)
        view.paint(layer, ellipse((sign * 19.8, 2.6), (2.5, 2.6)), 2.3)
        view.paint(layer, ellipse((sign * 19.8, 2.6), (2.25, 2.35)), 1.8)
        total += view.shade(layer, 0.07)
    layer = np.zeros(view.shape, np.uint8)
    breastbone = np.array([(-2.9, 3.6), (2.9, 3.6), (2.0, 8.2), (1.7, 17), (-1.7, 17), (-2.0, 8.2)])
    breastbone[:, 0] += patient.turn
    view.paint(layer, breastbone, 0.45)
    total += view.shade(layer, 0.15)
    return total * patient.bone
