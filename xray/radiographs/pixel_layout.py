"""How the pixels of a DICOM file are stored (PS3.3 C.7.6.3, PS3.5 8.1), and which of them are no radiograph."""

import dataclasses

import numpy as np

from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.codestream import RadiographError
from xray.radiographs.elements import Elements

PALETTE = "PALETTE COLOR"
SHARED_CHROMA = ("YBR_FULL_422", "YBR_PARTIAL_422")
PARTIAL_LUMA = ("YBR_PARTIAL_422", "YBR_PARTIAL_420")
THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", *PARTIAL_LUMA)
OTHER_COLOURS = ("HSV", "ARGB", "CMYK")
"""Photometric interpretations of PS3.3 C.7.6.3.1.2 that are not grey. Others are not repeated: they may be any text."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The image pixel module.

    samples: per pixel, 1 or 3. is_planar: of three samples, all of the first stand first.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    photometric: str
    samples: int = 1
    is_planar: bool = False

    def at_precision(self, precision: int) -> "Layout":
        """The layout of decoded words, whose codestream stores so many bits."""
        # Signed values come sign-extended or not, depending on the format: below the precision both are the same.
        stored = min(self.bits_stored, precision)
        high = self.high_bit if stored <= self.high_bit + 1 <= precision else stored - 1
        return dataclasses.replace(self, bits_stored=stored, high_bit=high)

    @property
    def n_bytes(self) -> int:
        """Bytes of uncompressed pixels, unless pairs of pixels share their chroma."""
        return -(-self.rows * self.columns * self.samples * self.bits_allocated // 8)

    @property
    def word_bits(self) -> int:
        """Bits of a decoded word."""
        return 8 if self.bits_allocated <= 8 else 16 if self.bits_allocated <= 16 else 32

    @property
    def dtype(self) -> np.dtype:
        """Of the words in little endian."""
        return np.dtype(f"<u{self.word_bits // 8}")


def refuse_frames(elements: Elements) -> None:
    """Raises RadiographError for more frames than one."""
    n_frames = elements.decimals("NumberOfFrames")[0]
    if n_frames > 1:
        raise RadiographError(f"it has {n_frames:.0f} frames, a radiograph has one: export the frame that is meant")


def layout_of(elements: Elements, has_pixels: bool, are_floats: bool) -> Layout:
    """Reads and checks the image pixel module.

    has_pixels: the file has pixel data. are_floats: as floating-point numbers.
    Raises RadiographError.
    """
    if are_floats:
        raise RadiographError("its pixels are floating-point numbers, not grey levels of a detector")
    if not has_pixels:
        raise RadiographError("DICOM file without an image (no pixel data): a report or another object?")
    refuse_frames(elements)
    rows, columns = elements.number("Rows"), elements.number("Columns")
    missing = [name for name, value in (("Rows", rows), ("Columns", columns)) if not value]
    if missing:
        raise RadiographError(f"its header does not say how large its image is ({' and '.join(missing)} missing or 0)")
    photometric = elements.texts("PhotometricInterpretation")[0].upper()
    samples = elements.number("SamplesPerPixel", default=3 if photometric in THREE_SAMPLES else 1)
    # Three samples of one grey are met under the name of what they show, too.
    if samples == 3 and photometric in ("", "MONOCHROME2"):
        photometric = "RGB"
    photometric = photometric or "MONOCHROME2"
    if rows * columns * samples > MAX_PIXELS:
        of = f" of {samples} samples" if samples > 1 else ""
        raise RadiographError(f"{columns} x {rows} pixels{of} are more than {MAX_PIXELS // 10**6} million")
    is_grey = samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2", PALETTE)
    if not is_grey and not (samples == 3 and photometric in THREE_SAMPLES):
        known = photometric in (*THREE_SAMPLES, *OTHER_COLOURS, PALETTE, "MONOCHROME1", "MONOCHROME2")
        kind = photometric if known else "an unknown kind"
        raise RadiographError(
            f"its header says {kind} of {samples} sample{'s' * (samples != 1)} per pixel, and a radiograph is grey: "
            "export it as MONOCHROME2"
        )
    allocated, stored, high = _bits(elements, samples)
    is_signed = elements.number("PixelRepresentation") == 1 and samples == 1
    is_planar = samples == 3 and elements.number("PlanarConfiguration") == 1
    return Layout(rows, columns, allocated, stored, high, is_signed, photometric, samples, is_planar)


def _bits(elements: Elements, samples: int) -> tuple[int, int, int]:
    """Bits allocated, stored, and the highest of these; grey of 32 bits may turn out to need 16 of them at most."""
    allocated = elements.number("BitsAllocated", default=16)
    if allocated == 1:
        raise RadiographError("it has 1 bit per pixel: a mask or an overlay, not a radiograph")
    if not 8 <= allocated <= 16 and allocated != 32:
        raise RadiographError(f"{allocated} bits per pixel are not supported (8 to 16, or 32 with up to 16 in use)")
    stored = elements.number("BitsStored")
    if not 1 <= stored <= allocated:
        stored = allocated
    if stored > 16 and samples > 1:
        raise RadiographError(f"{stored} of 32 bits per pixel in use are not supported (up to 16)")
    high = elements.number("HighBit")
    if not stored - 1 <= high < allocated:
        high = stored - 1
    return allocated, stored, high


def native_size(layout: Layout, n_found: int) -> int:
    """Bytes of the pixels, of which `n_found` are there.

    Pairs of pixels that share their chroma have 2 samples per pixel, unless the file was decompressed to 3 and still
    says so.
    """
    if layout.photometric in SHARED_CHROMA and n_found < layout.n_bytes:
        return layout.n_bytes // 3 * 2
    return layout.n_bytes


def native_words(data: bytes, layout: Layout, is_big: bool, vr: str | None) -> np.ndarray:
    """(H, W), or (H, W, 3) of three samples, uint8, uint16 or uint32; without a copy where the byte order allows.

    data: as many bytes as `native_size` says, and the byte of padding behind an odd number.
    is_big: its byte order is big endian. vr: its type, None in implicit VR.
    Raises RadiographError for colour whose order is not defined.
    """
    if layout.photometric == "YBR_PARTIAL_420":
        raise RadiographError("YBR_PARTIAL_420 is for compressed pixels, and its are not: export it as MONOCHROME2")
    n_values = layout.rows * layout.columns * layout.samples
    n_stored = n_values // 3 * 2 if native_size(layout, len(data)) < layout.n_bytes else n_values
    if layout.bits_allocated not in (8, 16, 32):
        words = unpacked(_swapped(data) if is_big else data, n_stored, layout.bits_allocated)
    elif not is_big:
        words = np.frombuffer(data, layout.dtype, count=n_stored)
    elif layout.bits_allocated > 8:
        words = np.frombuffer(data, layout.dtype.newbyteorder(">"), count=n_stored).astype(layout.dtype)
    elif vr == "OW":
        # Two 8-bit pixels share a big-endian word, the first one in its low byte (PS3.5 8.1.2).
        words = np.frombuffer(_swapped(data), np.uint8, count=n_stored)
    else:
        words = np.frombuffer(data, np.uint8, count=n_stored)
    if layout.samples == 1:
        return words.reshape(layout.rows, layout.columns)
    if n_stored < n_values:
        return _with_chroma(words).reshape(layout.rows, layout.columns, 3)
    if layout.is_planar:
        return np.ascontiguousarray(words.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0))
    return words.reshape(layout.rows, layout.columns, 3)


def _swapped(data: bytes) -> bytes:
    even = data + b"\0" * (len(data) % 2)
    return np.frombuffer(even, ">u2").astype("<u2").tobytes()


def _with_chroma(words: np.ndarray) -> np.ndarray:
    """Y1 Y2 Cb Cr of each pair of pixels → (N, 3) Y Cb Cr."""
    # With an odd number of columns a pair may lie on two rows: the standard does not say, and the last may be half.
    pairs = words[: len(words) // 4 * 4].reshape(-1, 4)
    full = np.empty((len(words) // 2, 3), words.dtype)
    n = 2 * len(pairs)
    full[:n:2, 0], full[1:n:2, 0] = pairs[:, 0], pairs[:, 1]
    full[:n:2, 1:] = full[1:n:2, 1:] = pairs[:, 2:]
    if n < len(full):
        full[n:] = [words[-2], *full[n - 1, 1:]] if n else words[-2]
    return full


def unpacked(data: bytes, n_values: int, bits: int) -> np.ndarray:
    """`n_values` values of 9 to 15 bits that stand one behind another, the lowest bit first → uint16.

    So do pixels of 12 bits allocated: two in three bytes (ACR-NEMA, and DICOM before 1998).
    """
    n_groups = -(-n_values // 8)
    # Eight values fill as many bytes as a value has bits; two more bytes, that the last one may be taken from three.
    groups = np.zeros((n_groups, bits + 2), np.uint8)
    flat = np.frombuffer(data, np.uint8)[: n_groups * bits]
    n_whole = len(flat) // bits
    groups[:n_whole, :bits] = flat[: n_whole * bits].reshape(-1, bits)
    if rest := len(flat) - n_whole * bits:
        groups[n_whole, :rest] = flat[n_whole * bits :]
    words = np.empty((n_groups, 8), np.uint16)
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        window = groups[:, first].astype(np.uint32)
        window |= groups[:, first + 1].astype(np.uint32) << 8
        window |= groups[:, first + 2].astype(np.uint32) << 16
        words[:, place] = (window >> shift) & (2**bits - 1)
    return words.ravel()[:n_values]


def _in_16_bits(words: np.ndarray, layout: Layout) -> Layout:
    """The layout by which the lowest 16 of the stored bits hold the values."""
    unused = 32 - layout.bits_stored
    below = layout.high_bit + 1 - layout.bits_stored
    low, high = 2**32, -(2**32)
    for row in words:
        # The highest stored bit to the top and back: the bits above are filled, by the sign where there is one.
        top = row << (unused - below)
        values = (top.view(np.int32) if layout.is_signed else top) >> unused
        low, high = min(low, int(values.min())), max(high, int(values.max()))
    if low >= 0 and high < 2**16:
        is_signed = False
    elif low >= -(2**15) and high < 2**15:
        is_signed = True
    else:
        raise RadiographError(f"its values, {low} to {high} in {layout.bits_stored} bits, need more than 16 bits")
    return dataclasses.replace(layout, bits_stored=16, high_bit=below + 15, is_signed=is_signed)


def narrowed(words: np.ndarray, layout: Layout) -> tuple[np.ndarray, Layout]:
    """Words of 32 bits, of which 16 at most are in use → uint16; others are left as they are.

    Programs that compute in 32 bits say that they store as many, though a radiograph's values need fewer: then the
    values themselves decide. Raises RadiographError where they need more.
    """
    if words.dtype.itemsize < 4:
        return words, layout
    below = layout.high_bit + 1 - layout.bits_stored
    if layout.bits_stored > 16:
        layout = _in_16_bits(words, layout)
    narrow = np.empty(words.shape, np.uint16)
    for row, source in zip(narrow, words, strict=True):
        row[...] = (source >> below) & (2**layout.bits_stored - 1)
    return narrow, dataclasses.replace(layout, bits_allocated=16, high_bit=layout.bits_stored - 1)
