"""The work of decoding workers on an uploaded file beside its canvas: the grey levels for a display, the size.

A display gets the stored values, of up to 16 bits, so that window and level work on all of them, and the table that
turns them into the grey that the models see.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from xray.radiographs.dicom import is_dicom, read_dicom
from xray.radiographs.grayscale import GreyMeaning, grey_table, look_up
from xray.radiographs.radiograph import read_radiograph

MEDIA_TYPE = "application/vnd.xray.pixels"
MAGIC = b"XRPX"
FORMAT = """The grey levels of one DICOM, PNG or JPEG file as they are stored, for a display with window and level.

Bytes 0 to 3 are "XRPX", 4 to 7 the number N of bytes of the description (uint32, little-endian). Then follow

- the description, N bytes of JSON: `width`, `height`; `bits` of a sample; `offset`, `slope`, `intercept`: a sample s
  means (s + offset) × slope + intercept; `inverted`: the largest value is the darkest; `padding`: first and last sample
  that lie outside the radiograph, or null; `windows`: [centre, width] of linear windows in these values; `spacing`:
  distance of rows and of columns in mm, or null;
- 2^bits bytes: the grey, 0 to 255, of each sample, as the file asks for it and the models see it;
- width × height samples, row by row, of one byte each, or where `bits` is above 8 of two, little-endian.
"""


def pixels_of(path: Path) -> bytes:
    """The radiograph's samples and what they mean, laid out as FORMAT says. Raises RadiographError."""
    with path.open("rb") as file:
        head = file.read(132)
    if is_dicom(head):
        stored = read_dicom(path)
        samples, greys = dicom_samples(stored.words, stored.meaning)
        description = _described(stored.meaning) | {"spacing": stored.spacing}
    else:
        samples, greys = picture_samples(read_radiograph(path, bits=16).pixels)
        description = {"bits": 8 * samples.dtype.itemsize, "offset": 0, "slope": 1, "intercept": 0, "inverted": False}
        description |= {"padding": None, "windows": [], "spacing": None}
    height, width = samples.shape
    text = json.dumps({"width": width, "height": height, **description}).encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 8)
    little = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
    return b"".join((MAGIC, len(text).to_bytes(4, "little"), text, greys.tobytes(), np.ascontiguousarray(little).data))


def dicom_samples(words: np.ndarray, meaning: GreyMeaning) -> tuple[np.ndarray, np.ndarray]:
    """Stored words → samples that count up from 0, (H, W) uint8 or uint16, and the grey of each, (2^bits,) uint8."""
    n = 2**meaning.bits_stored
    below = meaning.high_bit + 1 - meaning.bits_stored
    # Two's complement with its sign bit inverted counts up from the lowest value.
    sign = n // 2 if meaning.is_signed else 0
    all_words = np.arange(256**words.dtype.itemsize, dtype=np.int64)
    of_word = (((all_words >> below) & (n - 1)) ^ sign).astype(np.uint8 if n <= 256 else np.uint16)
    greys = grey_table(words, meaning)[(np.arange(n) ^ sign) << below]
    return look_up(words, of_word), greys


def picture_samples(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """16-bit display grey → samples and the grey of each: of 8 bits where the picture had no more."""
    if not (pixels % 257).any():
        return (pixels // 257).astype(np.uint8), np.arange(256, dtype=np.uint8)
    return pixels, np.rint(np.arange(65536) / 257).astype(np.uint8)


def _described(meaning: GreyMeaning) -> dict[str, Any]:
    offset = -(2 ** (meaning.bits_stored - 1)) if meaning.is_signed else 0
    # A table has no slope: values are then those stored.
    has_line = meaning.modality_lut is None
    is_linear = has_line and meaning.voi_lut is None and meaning.voi_function.startswith("LINEAR")
    last = 2**meaning.bits_stored - 1
    padding = None
    if meaning.padding is not None:
        padding = [int(min(max(edge - offset, 0), last)) for edge in meaning.padding]
    return {
        "bits": meaning.bits_stored,
        "offset": offset,
        "slope": meaning.slope if has_line else 1,
        "intercept": meaning.intercept if has_line else 0,
        "inverted": meaning.is_inverted,
        "padding": padding,
        "windows": [list(window) for window in meaning.windows if window[1] >= 1] if is_linear else [],
    }
