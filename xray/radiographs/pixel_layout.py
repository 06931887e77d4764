"""How the pixels of a DICOM file lie, and what of that is no radiograph (PS3.3 C.7.6.3)."""

import dataclasses

import numpy as np

from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.codestream import RadiographError
from xray.radiographs.elements import Elements

PALETTE = "PALETTE COLOR"
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
        """Bytes of uncompressed pixels, but for pairs of pixels that share their chroma."""
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
    allocated, stored, high = _bits(elements)
    is_signed = elements.number("PixelRepresentation") == 1 and samples == 1
    is_planar = samples == 3 and elements.number("PlanarConfiguration") == 1
    return Layout(rows, columns, allocated, stored, high, is_signed, photometric, samples, is_planar)


def _bits(elements: Elements) -> tuple[int, int, int]:
    """Bits allocated, stored, and the highest of these."""
    allocated = elements.number("BitsAllocated", default=16)
    if allocated == 1:
        raise RadiographError("it has 1 bit per pixel: a mask or an overlay, not a radiograph")
    if not 8 <= allocated <= 16 and allocated != 32:
        raise RadiographError(f"{allocated} bits per pixel are not supported (8 to 16, or 32 with up to 16 in use)")
    stored = elements.number("BitsStored")
    if not 1 <= stored <= allocated:
        stored = allocated
    if stored > 16:
        raise RadiographError(f"{stored} of 32 bits per pixel in use are not supported (up to 16)")
    high = elements.number("HighBit")
    if not stored - 1 <= high < allocated:
        high = stored - 1
    return allocated, stored, high
