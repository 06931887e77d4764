"""Grey radiographs that are stored as colour, as viewers export them: three samples that agree, or a grey palette.

True colour is refused: a photograph, a report, a picture with coloured marks. A pixel is coloured where
its red, green and blue differ by more than TINT: lossy codecs and conversions let equal samples differ by a little. A
picture is in colour where more than COLOURED_SHARE of its pixels are; fewer are read by their luma (ITU-R BT.601), as
all others are, with a warning.
"""

import numpy as np

from xray.radiographs.codestream import RadiographError
from xray.radiographs.elements import Elements
from xray.radiographs.grayscale import GreyMeaning, LookupTable, occurrences, white_level
from xray.radiographs.pixel_layout import PARTIAL_LUMA, Layout
from xray.radiographs.presentation import lookup_table

TINT = 8 / 255
"""Of the range. No eye sees it; near-lossless JPEG-LS and JPEG 2000 at usual rates stay below."""
COLOURED_SHARE = 1e-4
"""Some hundred pixels of a megapixel: a stray mark, but no text and no outline of a finding."""
FEW_COLOURED = "a few of its pixels are in colour, and were read by their luma"

BT_601 = np.array([0.299, 0.587, 0.114])
COLOURS = ("Red", "Green", "Blue")
PALETTE_KEYWORDS = tuple(
    name
    for colour in COLOURS
    for name in (
        f"{colour}PaletteColorLookupTableDescriptor",
        f"{colour}PaletteColorLookupTableData",
        f"Segmented{colour}PaletteColorLookupTableData",
    )
)
_ROWS = 2**20
"""Pixels that are compared at a time, to take little memory."""


def refused(photometric: str) -> RadiographError:
    """For true colour."""
    return RadiographError(
        f"its pixels are in colour ({photometric}), and a radiograph is grey: if it shows one, export it in grey "
        "(MONOCHROME2)"
    )


def grey_of_samples(words: np.ndarray, layout: Layout) -> tuple[np.ndarray, GreyMeaning, tuple[str, ...]]:
    """Three samples per pixel that mean grey → (H, W) words, how they become grey, and warnings.

    words: (H, W, 3) uint8 or uint16, or (H, W) where the compressed data has one sample only.
    The samples may be luma and chroma, or red, green and blue: headers do not always say which it is after compression.
    Raises RadiographError for true colour.
    """
    bits = layout.bits_stored
    below, mask = layout.high_bit + 1 - bits, 2**bits - 1
    if words.ndim == 3 and (below or mask < 256**words.dtype.itemsize - 1):
        words = words >> below & mask if below else words & mask
    if words.ndim == 2:
        return words, _shown_whole(0, 2**bits - 1, layout.high_bit, bits), ()
    tolerance = TINT * mask
    grey, n_coloured = _equal_samples(words, tolerance)
    low, high = 0, mask
    if n_coloured:
        # Luma, and chroma around the middle, whatever the header says: JPEG called RGB often stores that.
        n_tinted = _n_tinted(words, 2 ** (bits - 1), tolerance / 2)
        if n_tinted < n_coloured:
            grey, n_coloured = np.ascontiguousarray(words[..., 0]), n_tinted
            if layout.photometric in PARTIAL_LUMA:
                # ITU-R BT.601: 16 is black, 235 is white, of 8 bits.
                low, high = 16 * 2**bits // 256, 235 * 2**bits // 256
    if n_coloured > COLOURED_SHARE * grey.size:
        raise refused(layout.photometric)
    if bits > 8 and low == 0:
        high = white_level(int(grey.max()), bits)
    warnings = (FEW_COLOURED,) if n_coloured else ()
    return grey, _shown_whole(low, high, bits - 1, bits), warnings


def _shown_whole(low: int, high: int, high_bit: int, bits: int) -> GreyMeaning:
    """From `low` (black) to `high` (white): colour has neither a window nor padding."""
    window = ((low + high) / 2, float(high - low))
    return GreyMeaning(bits, high_bit, windows=(window,), voi_function="LINEAR_EXACT")


def _strips(words: np.ndarray) -> list[slice]:
    step = max(1, _ROWS // words.shape[1])
    return [slice(start, start + step) for start in range(0, len(words), step)]


def _equal_samples(words: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    """(H, W) luma of red, green and blue, and how many pixels are coloured."""
    grey, n_coloured = np.empty(words.shape[:2], words.dtype), 0
    for rows in _strips(words):
        red, green, blue = np.moveaxis(words[rows], 2, 0)
        highest = np.maximum(np.maximum(red, green), blue)
        spread = highest - np.minimum(np.minimum(red, green), blue)
        if not spread.any():
            grey[rows] = red
            continue
        n_coloured += int(np.count_nonzero(spread > tolerance))
        grey[rows] = np.rint(words[rows] @ BT_601)
    return grey, n_coloured


def _n_tinted(words: np.ndarray, middle: int, tolerance: float) -> int:
    """How many pixels have chroma that is not neutral."""
    n_tinted = 0
    for rows in _strips(words):
        chroma = words[rows, :, 1:].astype(np.int32) - middle
        n_tinted += int(np.count_nonzero((np.abs(chroma) > tolerance).any(axis=2)))
    return n_tinted


def grey_of_palette(words: np.ndarray, elements: Elements, layout: Layout) -> tuple[GreyMeaning, tuple[str, ...]]:
    """How indices into a grey palette become grey, and warnings (PS3.3 C.7.9).

    Raises RadiographError for a palette that is in colour, as far as pixels use it, or that is damaged.
    """
    tables = [_palette(elements, colour, layout.is_signed) for colour in COLOURS]
    white = white_level(max(int(table.entries.max()) for table in tables), max(table.bits for table in tables))
    stored = np.arange(2**layout.bits_stored) - (2 ** (layout.bits_stored - 1) if layout.is_signed else 0)
    colours = np.stack([table.apply(stored) for table in tables], axis=1) / white
    counts = occurrences(words, GreyMeaning(layout.bits_stored, layout.high_bit))
    if layout.is_signed:
        counts = np.roll(counts, len(counts) // 2)
    n_coloured = int(counts[np.ptp(colours, axis=1) > TINT].sum())
    if n_coloured > COLOURED_SHARE * words.size:
        raise refused(layout.photometric)
    greys = np.rint(colours @ BT_601 * 65535).astype(np.uint16)
    table = LookupTable(int(stored[0]), greys, 16)
    meaning = GreyMeaning(
        layout.bits_stored, layout.high_bit, layout.is_signed, modality_lut=table, windows=((65535 / 2, 65535.0),),
        voi_function="LINEAR_EXACT",
    )  # fmt: skip
    return meaning, (FEW_COLOURED,) if n_coloured else ()


def _palette(elements: Elements, colour: str, signed: bool) -> LookupTable:
    descriptor = f"{colour}PaletteColorLookupTableDescriptor"
    entries = elements.numbers(f"{colour}PaletteColorLookupTableData")
    if not len(entries):
        segments = elements.numbers(f"Segmented{colour}PaletteColorLookupTableData")
        if elements.numbers(descriptor)[2:].tolist() == [8]:
            segments = segments.astype("<u2").view(np.uint8)
        entries = expanded(segments.tolist())
    table = lookup_table(elements, descriptor, entries, signed)
    if table is None:
        raise RadiographError("its palette is missing or damaged")
    return table


def expanded(segments: list[int]) -> np.ndarray:
    """Segmented palette data (PS3.3 C.7.9.2) → its entries, int64, 65,536 at most.

    segments: bytes or 16-bit words. Raises RadiographError where they are damaged, or indirect, as no known writer has
    them.
    """
    entries: list[float] = []
    at = 0
    while at + 2 < len(segments) and len(entries) < 65536:
        kind, n = segments[at : at + 2]
        if kind == 0:
            entries += segments[at + 2 : at + 2 + n]
            at += 2 + n
        elif kind == 1 and entries:
            entries += np.rint(np.linspace(entries[-1], segments[at + 2], n + 1)[1:]).tolist()
            at += 3
        elif kind == 2:
            raise RadiographError(
                "its palette repeats parts of itself, which is not supported: export it as MONOCHROME2"
            )
        else:
            raise RadiographError("its palette is missing or damaged")
    return np.array(entries[:65536], dtype=np.int64)
