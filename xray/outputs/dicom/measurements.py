"""How large a finding is: in mm where the image says how far its pixels are apart, else in pixels.

A radiograph is a projection, so that a distance in it is larger at the detector than in the patient, by the distances
of both from the source. What a file says of its pixels is one or the other (PS3.3 10.7.1), and each size says which:

- Pixel Spacing is meant for the patient. Where it has been corrected or calibrated, Pixel Spacing Calibration Type says
  how: GEOMETRY or FIDUCIAL. Without that type, it has been if it differs from the spacing at the detector.
- Imager Pixel Spacing is that at the detector, Nominal Scanned Pixel Spacing that on a scanned film. Pixel Spacing has
  the same values where nothing was corrected. Estimated Radiographic Magnification Factor is by how much they are
  larger than in the patient.
- Pixel Spacing alone does not tell what it is.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom.objects import SPACINGS
from xray.structures.masks import decode_mask
from xray.structures.outlines import all_outlines

LARGEST_SIDE = 1000.0
"""mm; detectors for the chest have sides of up to 430. A side beyond comes of a spacing that is none, such as 1."""
SMALLEST_PIXEL = 0.01
"""mm; detectors have pixels of 0.05 to 0.2. What is below was written in another unit."""
DECIMALS = 3


@dataclasses.dataclass(frozen=True)
class Spacing:
    """row, column: mm between the centres of neighbouring rows, and of columns. method: where that is true, as a code.

    element: words for the element, or elements, of the file that it was taken from.
    """

    row: float
    column: float
    method: Code
    element: str

    @property
    def description(self) -> str:
        """A sentence for readers of a report."""
        meaning = self.method.meaning[:1].lower() + self.method.meaning[1:]
        return (
            f"Sizes in mm are measured {meaning}: {self.element}, {self.row:.4g} x {self.column:.4g} mm (row x column)."
        )


IN_PIXELS = "Sizes are in pixels: the image does not say how far these are apart in mm."
OF_MASKS = "Areas, and long axes beside them, are those of the masks; widths and heights are those of the boxes."


@dataclasses.dataclass(frozen=True)
class Size:
    """A number with its meaning. method: where it is true, None for pixels."""

    name: Code
    value: float
    unit: Code
    method: Code | None = None


def spacing_of(source: Dataset) -> Spacing | None:
    """What an image says of its pixels; None where that is nothing, or cannot be true.

    source: what `reduced` keeps of its data set.
    """
    pairs = {keyword: pair for keyword in SPACINGS if (pair := _pair(source, keyword)) is not None}
    patient = pairs.get("PixelSpacing")
    at_detector = pairs.get("ImagerPixelSpacing")
    uncorrected = at_detector or pairs.get("NominalScannedPixelSpacing")
    kind = str(source.get("PixelSpacingCalibrationType") or "")
    if patient is not None and kind in dicom_codes.CALIBRATIONS:
        return Spacing(*patient, dicom_codes.CALIBRATIONS[kind], f"Pixel Spacing, calibration type {kind}")
    if patient is not None and uncorrected is not None and not _are_equal(patient, uncorrected):
        return Spacing(*patient, dicom_codes.CALIBRATED, "Pixel Spacing, which differs from that of the detector")
    if uncorrected is not None:
        element = "Imager Pixel Spacing" if at_detector else "Nominal Scanned Pixel Spacing"
        factor = float(source.get("EstimatedRadiographicMagnificationFactor") or 1)
        if at_detector and factor > 1:
            row, column = (value / factor for value in at_detector)
            element = f"{element} divided by the Estimated Radiographic Magnification Factor {factor:g}"
            return Spacing(row, column, dicom_codes.DEMAGNIFIED, element)
        method = dicom_codes.AT_DETECTOR if at_detector else dicom_codes.ON_FILM
        return Spacing(*uncorrected, method, element)
    if patient is not None:
        return Spacing(*patient, dicom_codes.PLANE_NOT_SAID, "Pixel Spacing")
    return None


def sizes_of(box: Sequence[float], spacing: Spacing | None, mask: dict[str, Any] | None = None) -> tuple[Size, ...]:
    """Width and height of a finding's box, and with a mask its long axis and its area.

    box: (x1, y1, x2, y2) in pixels. mask: COCO RLE of the radiograph's size. The long axis is the longest distance of
    two points of the mask, corners of its pixels included; an empty mask has none.
    """
    x1, y1, x2, y2 = box
    row, column = (1.0, 1.0) if spacing is None else (spacing.row, spacing.column)
    method = None if spacing is None else spacing.method
    length, area = (
        (dicom_codes.PIXELS, dicom_codes.PIXELS) if spacing is None else (dicom_codes.MM, dicom_codes.SQUARE_MM)
    )
    numbers = [(dicom_codes.WIDTH, (x2 - x1) * column, length), (dicom_codes.HEIGHT, (y2 - y1) * row, length)]
    pixels = None if mask is None else decode_mask(mask)
    if pixels is not None and pixels.any():
        corners = np.concatenate(all_outlines(pixels)) * (column, row)
        numbers.append((dicom_codes.LONG_AXIS, _longest(corners), length))
        numbers.append((dicom_codes.AREA, int(np.count_nonzero(pixels)) * row * column, area))
    return tuple(Size(name, round(float(value), DECIMALS), unit, method) for name, value, unit in numbers)


def _longest(points: np.ndarray) -> float:
    """The longest distance of two of (N, 2) points."""
    # Two points of the hull; of its few hundred, all pairs are quickly tried.
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    distances = np.hypot(*(hull[:, None] - hull[None]).transpose(2, 0, 1))
    return float(distances.max())


def _pair(source: Dataset, keyword: str) -> tuple[float, float] | None:
    """(row, column) spacing in mm, None where it is missing or cannot be that of a radiograph."""
    value = source.get(keyword)
    if value is None or len(value) != 2:
        return None
    row, column = (float(number) for number in value)
    sides = (row * source.Rows, column * source.Columns)
    return (row, column) if min(row, column) >= SMALLEST_PIXEL and max(sides) <= LARGEST_SIDE else None


def _are_equal(one: tuple[float, float], two: tuple[float, float]) -> bool:
    # Decimals are written with more or fewer digits.
    return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(one, two, strict=True))
