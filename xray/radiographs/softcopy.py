"""What a viewer needs to show a DICOM image's stored values as `read_radiograph` does.

It is what a presentation state holds (PS3.3 C.11.1, C.11.6, C.11.8): the modality transformation, one window or VOI
lookup table, and whether the largest value is the darkest. LINEAR_EXACT windows become LINEAR ones, which every viewer
knows, and so does the range from the darkest to the brightest value where a header gives no window. SIGMOID ones become
a table, as dcmtk 3.6.7, for one, shows them as LINEAR.
"""

import dataclasses
from fractions import Fraction

import numpy as np

from xray.radiographs.grayscale import GreyMeaning, LookupTable, grey_range, usable_window, windowed

MOST = 1000
"""Largest number that an aspect ratio is written with."""


@dataclasses.dataclass(frozen=True)
class Softcopy:
    """How stored values become grey.

    slope, intercept: of the linear modality transformation; modality_lut takes their place.
    window: (centre, width) in modality units, LINEAR (PS3.3 C.11.2.1.2.1); None where voi_lut takes its place, whose
        white is 65535.
    is_inverted: the largest value is the darkest.
    aspect: (height, width) of a pixel in whole numbers, (1, 1) where it is square or not known.
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    window: tuple[float, float] | None = None
    is_inverted: bool = False
    aspect: tuple[int, int] = (1, 1)


def softcopy_of(words: np.ndarray, meaning: GreyMeaning, aspect: float | None = None) -> Softcopy:
    """What shows an image as `display_grey` does, padding apart, which is black there.

    words: (H, W) uint8 or uint16; its values are looked at only where the header gives no usable window.
    aspect: height of a pixel as a multiple of its width.
    """
    whole = whole_ratio(aspect or 1.0)
    if meaning.voi_lut is None and meaning.voi_function == "SIGMOID" and usable_window(meaning) is not None:
        # Of stored values, so that what is between two modality values cannot get lost.
        return Softcopy(voi_lut=_table(words, meaning), is_inverted=meaning.is_inverted, aspect=whole)
    return Softcopy(
        slope=meaning.slope,
        intercept=meaning.intercept,
        modality_lut=meaning.modality_lut,
        voi_lut=None if meaning.voi_lut is None else _whole_range(meaning.voi_lut),
        window=_linear(words, meaning) if meaning.voi_lut is None else None,
        is_inverted=meaning.is_inverted,
        aspect=whole,
    )


def whole_ratio(aspect: float) -> tuple[int, int]:
    """A ratio as two whole numbers, (1, 1) where it is none that a pixel can have."""
    if not 1 / MOST <= aspect <= MOST:
        return 1, 1
    # The denominator is bounded by the library, the numerator by turning what is above 1.
    if aspect > 1:
        width, height = whole_ratio(1 / aspect)
        return height, width
    ratio = Fraction(aspect).limit_denominator(MOST)
    return ratio.numerator, ratio.denominator


def _linear(words: np.ndarray, meaning: GreyMeaning) -> tuple[float, float]:
    """(centre, width) of the LINEAR window that has the same greys as the one that is used."""
    window = usable_window(meaning)
    if window is None:
        low, high = grey_range(words, meaning)
        # LINEAR reaches from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2.
        return (low + high) / 2 + 0.5, high - low + 1
    centre, width = window
    return (centre + 0.5, width + 1) if meaning.voi_function == "LINEAR_EXACT" else (centre, width)


def _table(words: np.ndarray, meaning: GreyMeaning) -> LookupTable:
    """Stored value, from the lowest to the highest that pixels have → grey, 65535 is white."""
    plain = dataclasses.replace(meaning, slope=1.0, intercept=0.0, modality_lut=None)
    low, high = (int(value) for value in grey_range(words, plain))
    shares = windowed(np.arange(low, high + 1, dtype=np.float64), meaning)
    return LookupTable(low, np.rint(65535 * shares).astype(np.uint16), 16)


def _whole_range(table: LookupTable) -> LookupTable:
    """The table with entries from 0 (black) to 65535 (white); see `LookupTable.white`."""
    return LookupTable(table.first, np.rint(table.entries * (65535 / table.white)).astype(np.uint16), 16)
