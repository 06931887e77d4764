"""What a DICOM header says about the meaning of its stored values: modality LUT, VOI LUT, padding and spacing."""

import math

import numpy as np

from xray.radiographs.elements import Elements, tag_of
from xray.radiographs.grayscale import GreyMeaning, LookupTable
from xray.radiographs.pixel_layout import Layout

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "FramePixelDataPropertiesSequence": ("ImagerPixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}
"""Functional groups (PS3.3 C.7.6.16.2) → the elements of theirs that say how pixels are shown."""
KEYWORDS = (
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape", "NominalScannedPixelSpacing"),
    "PixelAspectRatio",
    *(keyword for keywords in MACROS.values() for keyword in keywords),
    *("LUTDescriptor", "LUTData"),
    *(*GROUPS, *MACROS),
)
"""Elements that this module looks at."""


def with_functional_groups(elements: Elements) -> Elements:
    """The elements of an enhanced object's only frame, as those of another object would stand.

    Where a functional group is there, for all frames or for the first, it takes the place of what stands outside.
    """
    groups = [item for keyword in GROUPS for item in elements.items(keyword)[:1]]
    if not groups:
        return elements
    by_tag = dict(elements.by_tag)
    for macro, keywords in MACROS.items():
        for item in (item for group in groups for item in group.items(macro)[:1]):
            for keyword in keywords:
                by_tag.pop(tag_of(keyword), None)
            by_tag |= {tag_of(keyword): item.by_tag[tag_of(keyword)] for keyword in keywords if keyword in item}
    return Elements(by_tag)


def meaning_of(elements: Elements, layout: Layout) -> GreyMeaning:
    """The modality LUT, VOI LUT and presentation modules (PS3.3 C.11.1, C.11.2, C.11.6)."""
    shape = elements.texts("PresentationLUTShape")[0].upper()
    is_inverted = shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else layout.photometric == "MONOCHROME1"
    slope, intercept = elements.decimals("RescaleSlope")[0], elements.decimals("RescaleIntercept")[0]
    slope = slope if _is_sane(slope) and slope else 1.0
    intercept = intercept if _is_sane(intercept) else 0.0
    # Whether a table's first value is signed follows from what goes into it (PS3.3 C.11.1.1, C.11.2.1.1).
    modality_lut = _first_table(elements, "ModalityLUTSequence", signed=layout.is_signed)
    lowest = -(2 ** (layout.bits_stored - 1)) if layout.is_signed else 0
    highest = lowest + 2**layout.bits_stored - 1
    is_negative = modality_lut is None and min(lowest * slope, highest * slope) + intercept < 0
    voi_lut = _first_table(elements, "VOILUTSequence", signed=is_negative)
    windows = zip(elements.decimals("WindowCenter"), elements.decimals("WindowWidth"), strict=False)
    return GreyMeaning(
        bits_stored=layout.bits_stored,
        high_bit=layout.high_bit,
        is_signed=layout.is_signed,
        is_inverted=is_inverted,
        slope=slope,
        intercept=intercept,
        modality_lut=modality_lut,
        voi_lut=voi_lut,
        windows=tuple((c, w) for c, w in windows if _is_sane(c) and _is_sane(w)),
        voi_function=elements.texts("VOILUTFunction")[0].upper() or "LINEAR",
        padding=_padding(elements, layout),
    )


def _is_sane(value: float) -> bool:
    # No detector's scale needs more; float64 keeps its precision up to here. NaN is not sane.
    return abs(value) < 1e9


def _first_table(elements: Elements, keyword: str, signed: bool) -> LookupTable | None:
    """The first usable table of a sequence."""
    tables = (lookup_table(item, "LUTDescriptor", item.numbers("LUTData"), signed) for item in elements.items(keyword))
    return next((table for table in tables if table is not None), None)


def lookup_table(elements: Elements, descriptor: str, entries: np.ndarray, signed: bool) -> LookupTable | None:
    """The table that a descriptor (PS3.3 C.11.1.1.1) and these 16-bit words make; None where it is unusable.

    signed: what goes into it may be negative.
    """
    numbers = elements.numbers(descriptor)
    if len(numbers) != 3 or not 1 <= numbers[2] <= 16:
        return None
    # 0 stands for 65,536, which 16 bits cannot hold.
    n_entries, first, bits = int(numbers[0]) or 65536, int(numbers[1]), int(numbers[2])
    if first >= 32768 and (signed or elements.vr_of(descriptor) == "SS"):
        first -= 65536
    if bits <= 8 and len(entries) < n_entries <= 2 * len(entries):
        # Two 8-bit entries share a word, the first one in its low byte.
        entries = entries.astype("<u2").view(np.uint8)
    return LookupTable(first, entries[:n_entries].astype(np.uint16), bits) if len(entries) else None


def _padding(elements: Elements, layout: Layout) -> tuple[int, int] | None:
    first = elements.numbers("PixelPaddingValue", signed=layout.is_signed)
    limit = elements.numbers("PixelPaddingRangeLimit", signed=layout.is_signed)
    if not len(first):
        return None
    edges = (int(first[0]), int(limit[0]) if len(limit) else int(first[0]))
    return min(edges), max(edges)


def spacing_of(elements: Elements) -> tuple[float, float] | None:
    """(row, column) distance of pixel centres in mm: calibrated to the patient where that is known."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = elements.decimals(keyword)
        if len(spacing) == 2 and all(math.isfinite(value) and value > 0 for value in spacing):
            return spacing[0], spacing[1]
    return None


def aspect_of(elements: Elements) -> float | None:
    """Height of a pixel as a multiple of its width, by its spacing or its aspect ratio; None where neither is known."""
    spacing = spacing_of(elements)
    if spacing is not None:
        return spacing[0] / spacing[1]
    ratio = elements.decimals("PixelAspectRatio")
    is_ratio = len(ratio) == 2 and all(math.isfinite(value) and value > 0 for value in ratio)
    return ratio[0] / ratio[1] if is_ratio else None
