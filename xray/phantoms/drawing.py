"""Draws one phantom: a chest radiograph whose findings, boxes and masks are known."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.phantoms.chest import Chest, build_chest
from xray.phantoms.film import collimate, develop, dress, mark_side, sample_exposure
from xray.phantoms.findings import Mark, add, altered
from xray.phantoms.patient import LEFT, RIGHT, Patient, sample_patient
from xray.phantoms.shapes import View, bounding_box

GRID = 768
"""Longest side in pixels at which anatomy is drawn; larger phantoms are enlarged from it before noise is added."""
SMALLEST_GRID = 384
"""Smaller phantoms are drawn this large and shrunk, since thin lines need pixels."""

# Rows of each finding in VinBigData's train.csv. A power of them keeps the order and lets the rarest occur two fifths
# as often as the most frequent, not one 32nd: some hundred radiographs would hold hardly an example of it.
_ROWS = np.array([7162, 279, 960, 5427, 556, 1000, 1247, 2483, 2580, 2203, 2476, 4842, 226, 4655])
FINDING_RATES = 3.6 * _ROWS**0.25 / (_ROWS**0.25).sum()
"""(14,) share of the radiographs with findings that show each of them: between three and four findings in each."""


@dataclasses.dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and the truth about it."""

    pixels: np.ndarray
    """(height, width) float32 in 0–1, as displayed: air black, bone bright."""
    boxes: np.ndarray
    """(N, 4) float64 x1, y1, x2, y2 in pixels, tight around what is visible."""
    class_ids: np.ndarray
    """(N,) int64, 0–13."""
    patient: Patient
    pixel_spacing: float
    """Side of a pixel in mm."""
    chest: Chest
    marks: list[Mark]
    """Of each box, where the finding is seen; like the chest's, its mask lies on the drawing grid."""

    def enlarged(self, mask: np.ndarray) -> np.ndarray:
        """A bool mask on the drawing grid → (height, width) bool."""
        height, width = self.pixels.shape
        return cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127

    @property
    def pneumothorax_mask(self) -> np.ndarray:
        """(height, width) bool: free air between chest wall and lung."""
        return self.enlarged(self.chest.pneumothorax)

    @property
    def lung_masks(self) -> tuple[np.ndarray, np.ndarray]:
        """The patient's left and right lung, (height, width) bool each.

        As drawn by those who outline lungs: without heart, mediastinum and what lies behind the diaphragm; with
        whatever a finding fills, and with a pneumothorax.
        """
        return self.enlarged(self.chest.lungs[LEFT]), self.enlarged(self.chest.lungs[RIGHT])


def random_findings(rng: np.random.Generator, normal_fraction: float = 0.7) -> tuple[int, ...]:
    """Class ids of the findings of one random radiograph; none with a probability of `normal_fraction`."""
    if rng.random() < normal_fraction:
        return ()
    present = np.flatnonzero(rng.random(len(FINDINGS)) < FINDING_RATES)
    if len(present) == 0:
        present = rng.choice(len(FINDINGS), 1, p=FINDING_RATES / FINDING_RATES.sum())
    return tuple(int(class_id) for class_id in present)


def draw_phantom(
    seed: int | Sequence[int],
    width: int,
    height: int,
    findings: Sequence[int] | None = (),
    patient: Patient | None = None,
) -> Phantom:
    """Draws a frontal chest radiograph.

    seed: one or several non-negative integers. The same seed, size and findings give the same phantom; with other
        findings it is the same patient, taken the same way.
    width, height: in pixels, at least 64.
    findings: class ids (0–13) to draw, each at most once; some of them may show in two or three places. None draws
        them at random: none in 70 % of the radiographs, as in VinBigData, and else by `FINDING_RATES`.
    patient: whose healthy chest it is; None for one that the seed decides.

    Raises ValueError for a class id or a size that is not possible.
    """
    if min(width, height) < 64 or max(width, height) > 3 * min(width, height):
        raise ValueError(f"a phantom of {width} × {height} pixels cannot be drawn: sides from 64, at most 1 to 3")
    streams = np.random.SeedSequence(seed).spawn(8)
    patient_rng, place_rng, chest_rng, dress_rng, film_rng, noise_rng, choice_rng = map(
        np.random.default_rng, streams[:7]
    )
    class_ids = random_findings(choice_rng) if findings is None else tuple(sorted(set(map(int, findings))))
    if any(not 0 <= class_id < len(FINDINGS) for class_id in class_ids):
        raise ValueError(f"findings are class ids from 0 to {len(FINDINGS) - 1}, not {class_ids}")
    finding_streams = streams[7].spawn(len(FINDINGS) + 1)

    patient = patient or sample_patient(patient_rng)
    view = _place(patient, width, height, place_rng)
    patient = altered(patient, class_ids, np.random.default_rng(finding_streams[-1]))
    chest = build_chest(patient, view, chest_rng)
    taken = np.zeros(view.shape, bool)
    marks: list[Mark] = []
    # Free air comes first: the others then keep out of it where they can.
    for class_id in sorted(class_ids, key=lambda class_id: class_id != PNEUMOTHORAX):
        marks += add(chest, class_id, np.random.default_rng(finding_streams[class_id]), taken)
    marks.sort(key=lambda mark: mark.class_id)
    dress(chest, dress_rng)
    exposure = sample_exposure(film_rng, patient)
    pixels = develop(chest, exposure, width, height, noise_rng)
    collimate(pixels, chest, film_rng)
    mark_side(pixels, patient, film_rng)

    stretch = np.array([width / view.width, height / view.height] * 2)
    boxes = np.array([bounding_box(mark.mask) for mark in marks], dtype=np.float64).reshape(-1, 4) * stretch
    return Phantom(
        pixels=pixels,
        boxes=boxes,
        class_ids=np.array([mark.class_id for mark in marks], dtype=np.int64),
        patient=patient,
        pixel_spacing=10 / (view.scale * width / view.width),
        chest=chest,
        marks=marks,
    )


def _place(patient: Patient, width: int, height: int, rng: np.random.Generator) -> View:
    """Where the patient stands in the picture, on a grid of the picture's shape."""
    longest = max(width, height)
    zoom = min(GRID, max(SMALLEST_GRID, longest)) / longest
    grid_width, grid_height = round(width * zoom), round(height * zoom)
    lungs_wide, lungs_tall = 2 * float(patient.wall_at(patient.dome[0] + 3)), patient.dome[1] + 3.7
    scale = min(grid_width * rng.uniform(0.78, 0.93) / lungs_wide, grid_height * rng.uniform(0.70, 0.84) / lungs_tall)
    spare = grid_height - lungs_tall * scale
    origin = (grid_width * (0.5 + rng.normal(0, 0.01)), spare * rng.uniform(0.4, 0.6))
    tilt = float(np.clip(rng.normal(0, 0.04 if patient.supine else 0.02), -0.09, 0.09))
    return View(grid_width, grid_height, scale, tilt, origin)
