"""Stored DICOM values → display grey, through one lookup table.

The steps of the DICOM grayscale pipeline (PS3.3 C.11, PS3.4 N.2) are composed for every value that a pixel can store,
at most 65,536 of them, and the resulting table is applied to the pixels once. The arithmetic is float64 and costs the
same for any size of radiograph.
"""

import dataclasses

import cv2
import numpy as np

_WIDE_TABLES = int(cv2.__version__.split(".")[0]) >= 5
"""Whether OpenCV applies tables to 16-bit words."""
STRIP = 1 << 20
"""Pixels that are worked on at a time: numpy makes indices of 8 bytes of them."""


@dataclasses.dataclass(frozen=True)
class LookupTable:
    """A DICOM lookup table (PS3.3 C.11.1.1.1, C.11.2.1.1).

    first: the input value that the first entry belongs to.
    entries: (N,) uint16; inputs below the table get its first entry, inputs above it the last one.
    bits: bits per entry, as its descriptor says.
    """

    first: int
    entries: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Input values, float64 of any shape → the entries they point at, float64."""
        # The index is held inside the table here, in float64: no integer type can wrap around on the way.
        index = np.clip(np.rint(values - self.first), 0, len(self.entries) - 1).astype(np.int64)
        entries: np.ndarray = self.entries[index]
        return entries.astype(np.float64)

    @property
    def white(self) -> int:
        """The entry that means white.

        By the standard this is 2^bits - 1 (tables that fill it, as a 16-bit one from 0 to 65535 does, come out
        unchanged). Some devices announce 16 bits and write entries of 10 or 12: read by the letter, the radiograph
        would be nearly black. A table that leaves at least three quarters of its range unused is taken for one of
        those; one that exceeds its announced range is taken at its true width.
        """
        return white_level(int(self.entries.max()), self.bits)


def white_level(maximum: int, bits: int) -> int:
    """The largest value of the range that values up to `maximum` were made for, stored in `bits` bits.

    That is 2^bits - 1, unless all values fit into 8, 10, 12 or 14 bits and into a quarter of the range.
    """
    bits = max(bits, maximum.bit_length())
    for fewer in (8, 10, 12, 14):
        if maximum < 2**fewer and fewer <= bits - 2:
            return (1 << fewer) - 1
    return (1 << bits) - 1


@dataclasses.dataclass(frozen=True)
class GreyMeaning:
    """What a DICOM header says about the meaning of its stored values.

    bits_stored, high_bit: which bits of a word hold the value (PS3.5 8.1.1); the others are ignored.
    is_signed: the value is in two's complement.
    is_inverted: the largest value is the darkest one.
    slope, intercept: of the linear modality transformation.
    modality_lut: takes the place of slope and intercept.
    voi_lut: takes the place of the windows.
    windows: (center, width) in modality units, the first usable one counts.
    voi_function: LINEAR, LINEAR_EXACT or SIGMOID.
    padding: first and last stored value, both included, that lie outside the radiograph (PS3.3 C.7.5.1.1.2).
    """

    bits_stored: int
    high_bit: int
    is_signed: bool = False
    is_inverted: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    windows: tuple[tuple[float, float], ...] = ()
    voi_function: str = "LINEAR"
    padding: tuple[int, int] | None = None


def display_grey(words: np.ndarray, meaning: GreyMeaning, bits: int = 8) -> np.ndarray:
    """Stored words, (H, W) uint8 or uint16 → display grey, (H, W) uint8 (bits 8) or uint16 (bits 16), 0 is black."""
    words = np.ascontiguousarray(words)
    return look_up(words, grey_table(words, meaning, bits))


def look_up(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 or uint16 words → their entries in an (N,) table of uint8 or uint16: (H, W) of the table's type."""
    if words.dtype == np.uint8 or _WIDE_TABLES:
        # Six times faster than numpy's indexing; OpenCV wants an entry for every word that there may be.
        whole = np.zeros(256**words.dtype.itemsize, dtype=table.dtype)
        whole[: len(table)] = table
        return cv2.LUT(words, whole).reshape(words.shape)
    result, flat = np.empty(words.size, dtype=table.dtype), words.reshape(-1)
    for start in range(0, len(flat), STRIP):
        result[start : start + STRIP] = table[flat[start : start + STRIP]]
    return result.reshape(words.shape)


def grey_table(words: np.ndarray, meaning: GreyMeaning, bits: int = 8) -> np.ndarray:
    """The table from each possible word, 256 or 65,536 of them, to its display grey: uint8 or uint16.

    words: (H, W) uint8 or uint16; its values are looked at only where the header gives no usable window.
    """
    stored = _stored_values(meaning)
    padded = _padded(stored, meaning)
    modality = _modality(stored, meaning)
    with np.errstate(over="ignore"):  # a window of next to no width is a threshold: infinity clips to black or white
        grey = _voi(modality, meaning)
    if grey is None:
        grey = _min_max(modality, *_range(modality, (occurrences(words, meaning) > 0) & ~padded))
    if meaning.is_inverted:
        grey = 1 - grey
    table = np.rint(grey * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    # Padding is black on the display, whatever value it has and whichever way the grey scale runs.
    table[padded] = 0
    # Every word that holds the same value in its stored bits gets that value's grey: this masks overlay bits.
    return np.ascontiguousarray(np.broadcast_to(table[:, None], _word_shape(words.dtype, meaning))).ravel()


def _stored_values(meaning: GreyMeaning) -> np.ndarray:
    """The value of each code in the stored bits, (2^bits,) float64."""
    stored = np.arange(2**meaning.bits_stored, dtype=np.float64)
    if meaning.is_signed:
        stored[len(stored) // 2 :] -= len(stored)
    return stored


def _padded(stored: np.ndarray, meaning: GreyMeaning) -> np.ndarray:
    """Which of the values lie outside the radiograph."""
    if meaning.padding is None:
        return np.zeros(len(stored), dtype=bool)
    return (stored >= meaning.padding[0]) & (stored <= meaning.padding[1])


def with_window_that_shows(words: np.ndarray, meaning: GreyMeaning) -> tuple[GreyMeaning, bool]:
    """The meaning, without its windows and VOI LUT where they show all pixels as one grey; and whether that is so.

    Such a window lies beside all of the pixels' values, as after a faulty encoder, or is far too wide for them. By the
    letter the radiograph would be a single grey: from its darkest to its brightest value it can be seen.
    """
    if meaning.voi_lut is None and not meaning.windows:
        return meaning, False
    # A few pixels that differ tell that the window shows something, at no cost.
    step = max(1, int((words.size / 1024) ** 0.5))
    below = meaning.high_bit + 1 - meaning.bits_stored
    seen = (words[::step, ::step].astype(np.int64) >> below) & (2**meaning.bits_stored - 1)
    if not _is_one_grey(np.unique(seen), meaning):
        return meaning, False
    occurring = np.flatnonzero(occurrences(words, meaning))
    if not _is_one_grey(occurring, meaning):
        return meaning, False
    stored = _stored_values(meaning)
    values = np.unique(
        _modality(stored[~_padded(stored, meaning) & np.isin(np.arange(len(stored)), occurring)], meaning)
    )
    if len(values) < 2:
        return meaning, False
    return dataclasses.replace(meaning, windows=(), voi_lut=None), True


def _is_one_grey(codes: np.ndarray, meaning: GreyMeaning) -> bool:
    """Whether these codes, without padding, have one display grey of 256; without a window they have not."""
    stored = _stored_values(meaning)[codes]
    with np.errstate(over="ignore"):
        grey = _voi(_modality(stored[~_padded(stored, meaning)], meaning), meaning)
    return grey is not None and len(np.unique(np.rint(255 * grey))) < 2


def is_one_grey(pixels: np.ndarray) -> bool:
    """Whether 999 of 1000 pixels of the (H, W) uint8 or uint16 display grey have one of 256 levels."""
    shift = 8 * (pixels.dtype.itemsize - 1)
    step = max(1, int((pixels.size / 1024) ** 0.5))
    sample = pixels[::step, ::step] >> shift
    if np.bincount(sample.ravel()).max() < 0.98 * sample.size:
        return False
    return bool(np.bincount((pixels >> shift).ravel(), minlength=256).max() >= 0.999 * pixels.size)


def _modality(stored: np.ndarray, meaning: GreyMeaning) -> np.ndarray:
    """PS3.3 C.11.1: a lookup table, or a line."""
    if meaning.modality_lut is not None:
        return meaning.modality_lut.apply(stored)
    return stored * meaning.slope + meaning.intercept


def _voi(values: np.ndarray, meaning: GreyMeaning) -> np.ndarray | None:
    """PS3.3 C.11.2: modality values → 0 (lower edge of the window) to 1; None where the header has nothing usable."""
    if meaning.voi_lut is not None:
        return meaning.voi_lut.apply(values) / meaning.voi_lut.white
    window = usable_window(meaning)
    if window is None:
        return None
    center, width = window
    if meaning.voi_function == "SIGMOID":
        # C.11.2.1.3.1; beyond +-700 float64's exp overflows, and the grey level no longer changes.
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if meaning.voi_function == "LINEAR_EXACT":
        # C.11.2.1.3.2
        return np.clip((values - center) / width + 0.5, 0, 1)
    # C.11.2.1.2.1; a width of 1 is a threshold.
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def usable_window(meaning: GreyMeaning) -> tuple[float, float] | None:
    """(center, width) of the first window that its function allows (PS3.3 C.11.2.1.2, C.11.2.1.3), None without one."""
    for center, width in meaning.windows:
        if (meaning.voi_function in ("SIGMOID", "LINEAR_EXACT") and width > 0) or (
            meaning.voi_function == "LINEAR" and width >= 1
        ):
            return center, width
    return None


def windowed(stored: np.ndarray, meaning: GreyMeaning) -> np.ndarray:
    """Stored values, float64 of any shape → 0 (lower edge of the window) to 1, before any inversion.

    meaning: with a usable window or VOI LUT.
    """
    shares = _voi(_modality(stored, meaning), meaning)
    if shares is None:
        raise ValueError("the header gives no usable window")
    return shares


def grey_range(words: np.ndarray, meaning: GreyMeaning) -> tuple[float, float]:
    """The lowest and the highest value of the pixels that are no padding, in modality units.

    words: (H, W) uint8 or uint16.
    """
    stored = _stored_values(meaning)
    return _range(_modality(stored, meaning), (occurrences(words, meaning) > 0) & ~_padded(stored, meaning))


def _range(values: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    if not seen.any():
        # All are dark then.
        return float(values.max()), float(values.max())
    return float(values[seen].min()), float(values[seen].max())


def _min_max(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The darkest of the values → 0, the brightest → 1."""
    shares: np.ndarray = (values - low) / (high - low or 1)
    return shares.clip(0, 1)


def occurrences(words: np.ndarray, meaning: GreyMeaning) -> np.ndarray:
    """How many pixels have each code in their stored bits: (2^bits_stored,) float64."""
    n_words = 256**words.dtype.itemsize
    counts = cv2.calcHist([np.ascontiguousarray(words)], [0], None, [n_words], [0, n_words])
    result: np.ndarray = counts.astype(np.float64).reshape(_word_shape(words.dtype, meaning)).sum(axis=(0, 2))
    return result


def _word_shape(dtype: np.dtype, meaning: GreyMeaning) -> tuple[int, int, int]:
    """All words of a dtype as (bits above the stored ones, stored bits, bits below)."""
    below = meaning.high_bit + 1 - meaning.bits_stored
    above = 8 * dtype.itemsize - meaning.high_bit - 1
    return 2**above, 2**meaning.bits_stored, 2**below
