"""From a phantom's anatomy to its film: cables and tubes, exposure, noise, display processing, markers, shutters."""

import dataclasses

import cv2
import numpy as np

from xray.phantoms.chest import Chest
from xray.phantoms.patient import LEFT, RIGHT, Patient
from xray.phantoms.shapes import curve, ellipse


@dataclasses.dataclass(frozen=True)
class Exposure:
    """How a radiograph was taken and processed for display."""

    low: float
    high: float
    """Thickness in cm of water shown black and white."""
    steepness: float
    compression: float
    """Share of the broad differences in brightness that processing takes away."""
    sharpening: float
    dose: float
    """X-ray quanta per grid pixel behind no tissue at all; their number sets the noise."""
    unsharpness: float
    """Blur in cm, of motion and of the X-ray tube's focus."""
    gradient: tuple[float, float]
    """Uneven exposure, in cm of water per cm."""


def sample_exposure(rng: np.random.Generator, patient: Patient) -> Exposure:
    """A random way to expose and process a radiograph."""
    centre, span = rng.uniform(13.6, 16.0), rng.uniform(21, 28)
    return Exposure(
        low=centre - span / 2,
        high=centre + span / 2,
        steepness=rng.uniform(3.7, 4.8),
        compression=rng.uniform(0.0, 0.45),
        sharpening=rng.uniform(0.0, 0.7),
        dose=float(np.exp(rng.uniform(np.log(4e3), np.log(3e4)))) * (0.5 if patient.supine else 1.0),
        unsharpness=rng.uniform(0.01, 0.03),
        gradient=(rng.normal(0, 0.03), rng.normal(0, 0.03)),
    )


def dress(chest: Chest, rng: np.random.Generator) -> None:
    """Adds what patients carry: cables and electrodes of a monitor, tubes. None of it is a finding."""
    view, patient = chest.view, chest.patient
    layer = np.zeros(view.shape, np.uint8)
    kind, places = rng.random(), rng.uniform(-1, 1, (6, 4))
    floor = patient.dome[1]
    likely = 0.55 if patient.supine else 0.07
    if kind < likely:
        for k in range(3):
            side = (-1, 1, 1)[k]
            end = np.array([side * (9.5 + 2 * places[k, 0]), (3.5, 4.0, floor + 1)[k] + 1.5 * places[k, 1]])
            away = np.array([side * (16 + 3 * places[k, 2]), floor + 12])
            middle = (end + away) / 2 + [3 * places[k, 3], 4 * places[k, 2]]
            view.line(layer, curve([end, middle, away]), 0.13, 2.2)
            view.paint(layer, ellipse(tuple(end), (0.55, 0.55)), 1.4)
            view.paint(layer, ellipse(tuple(end), (0.28, 0.28)), 3.6)
    if kind < 0.45 * likely:  # a tube in the windpipe, one in the stomach
        view.line(layer, curve([(0.1, -12), (0.0, 0), (-0.1, 5.5)]), 0.75, 0.5)
        view.line(layer, curve([(0.3, -12), (0.25, 0), (0.2, 5.5)]), 0.12, 1.9)
        gullet = [(-0.4, -12), (-0.5, 2), (0.3, 9), (0.9, 16), (1.6, floor), (4.5, floor + 4)]
        view.line(layer, curve(gullet), 0.35, 0.6)
        view.line(layer, curve(gullet), 0.1, 1.6)
    chest.lines += view.shade(layer, 0.03)


def develop(chest: Chest, exposure: Exposure, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """From thickness to the displayed picture: blur, processing, enlargement, quantum noise, contrast curve."""
    view = chest.view
    x, y = view.coordinates
    thickness = chest.project() + np.float32(exposure.gradient[0]) * x + np.float32(exposure.gradient[1]) * (y - 12)
    thickness = view.blur(np.maximum(thickness, 0).astype(np.float32), exposure.unsharpness)
    inside = np.clip(chest.body / 6, 0, 1)
    # Multi-scale processing flattens broad differences in brightness and lifts fine ones, as in modern systems.
    broad = view.blur(np.maximum(thickness, 3), 3.0)
    shown: np.ndarray = thickness - exposure.compression * (broad - 14) * inside
    shown += exposure.sharpening * (thickness - view.blur(thickness, 0.5)) * inside
    # Poisson statistics: the fewer quanta get through, the noisier; 0.16 per cm attenuates a filtered beam.
    sigma: np.ndarray = np.sqrt(np.exp(0.16 * thickness) / exposure.dose) / 0.16
    enlarging = width > view.width
    interpolation = cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA
    shown = cv2.resize(shown, (width, height), interpolation=interpolation)
    sigma = cv2.resize(sigma.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal((height, width), dtype=np.float32)
    # A larger detector element would see more quanta; noise per pixel grows as pixels shrink, up to a point.
    grain = float(np.clip(width / view.width, 0.6, 2.0))
    shown += sigma * (cv2.GaussianBlur(noise, (0, 0), 0.55) * np.float32(1.5 * grain))
    share = (shown - exposure.low) * np.float32(1 / (exposure.high - exposure.low))
    pixels = 1 / (1 + np.exp(np.float32(-exposure.steepness) * (share - np.float32(0.5))))
    black = 1 / (1 + np.exp(exposure.steepness * 0.58))
    shown = (pixels - np.float32(black)) * np.float32(1 / (1 - 2 * black))
    return shown.clip(0, 1)


def mark_side(pixels: np.ndarray, patient: Patient, rng: np.random.Generator) -> None:
    """Lays a side marker, a letter with or without a frame, into an upper corner."""
    if rng.random() < 0.1:
        return
    height, width = pixels.shape
    letter = "R" if rng.random() < 0.5 else "L"
    size = float(rng.uniform(0.032, 0.05)) * height
    share = rng.uniform(0.045, 0.1)
    centre_x = width * (share if letter == "R" else 1 - share)
    centre_y = height * rng.uniform(0.05, 0.2)
    half = int(size * 0.95)
    x1 = int(np.clip(centre_x - half, 0, width - 2 * half - 1))
    y1 = int(np.clip(centre_y - half, 0, height - 2 * half - 1))
    patch = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    thick = max(1, round(size * 0.11))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), _ = cv2.getTextSize(letter, font, 1.0, 1)
    scale = size / text_height
    where = (round(half - text_width * scale / 2), round(half + size / 2))
    cv2.putText(patch, letter, where, font, scale, 255, thick, cv2.LINE_AA)
    style = rng.integers(0, 4)
    if style == 1:
        cv2.rectangle(patch, (thick, thick), (2 * half - thick, 2 * half - thick), 255, max(1, thick // 2), cv2.LINE_AA)
    elif style == 2:
        cv2.circle(patch, (half, half), half - thick, 255, max(1, thick // 2), cv2.LINE_AA)
    area = pixels[y1 : y1 + 2 * half + 1, x1 : x1 + 2 * half + 1]
    if style == 3:  # a plate that darkens what lies under it
        area *= 0.45
    np.maximum(area, patch * np.float32(0.97 / 255), out=area)
    if rng.random() < 0.35:
        text = "AP SUPINE" if patient.supine else "PA"
        baseline = (x1 if letter == "R" else max(0, width - int(0.17 * width)), y1 + 2 * half + round(0.7 * size))
        canvas = np.zeros(pixels.shape, np.uint8)
        cv2.putText(canvas, text, baseline, font, 0.4 * scale, 245, max(1, thick // 2), cv2.LINE_AA)
        np.maximum(pixels, canvas * np.float32(1 / 255), out=pixels)


def collimate(pixels: np.ndarray, chest: Chest, rng: np.random.Generator) -> None:
    """Now and then, shutters black out the borders, always beyond the lungs."""
    shutters, slant = rng.uniform(0.15, 0.85, 4), rng.normal(0, 0.006)
    if rng.random() > 0.22:
        return
    height, width = pixels.shape
    view = chest.view
    lungs = chest.lungs[LEFT] | chest.lungs[RIGHT]
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    room = np.array([columns[0], rows[0], view.width - columns[-1], view.height - rows[-1]]) / view.scale
    room -= [2.2, 1.6, 2.2, 2.2]
    left, top, right, bottom = np.maximum(room * shutters, 0) * view.scale * width / view.width
    corners = np.array([(left, top), (width - right, top), (width - right, height - bottom), (left, height - bottom)])
    middle = np.array([width / 2, height / 2])
    corners = (corners - middle) @ np.array([[np.cos(slant), np.sin(slant)], [-np.sin(slant), np.cos(slant)]]) + middle
    open_field = np.zeros(pixels.shape, np.uint8)
    cv2.fillPoly(open_field, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    pixels *= open_field * np.float32(1 / 255)
