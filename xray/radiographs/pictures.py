"""PNG and JPEG files → display grey."""

import contextlib
import functools
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.codestream import jpeg_size
from xray.radiographs.dicom import RadiographError
from xray.radiographs.grayscale import look_up, white_level

MOST_PER_BYTE = {"PNG": 8 * 1100, "JPEG": 1024, "MPO": 1024}
"""Pixels that a byte of a file can stand for: deflate packs 1,032 bytes of 8 pixels into one, and JPEG has at least a
bit for a block of 64. What is missing would be filled in, and take the time and memory of a whole picture."""
IN_COLOUR = "its pixels are in colour, of which only the brightness is read"
MOST_APART, MOST_COLOURED = 8, 1e-4
"""Levels of 255 by which red, green and blue may differ in a grey picture, and the share of pixels beyond that."""
TURNED = "its EXIF orientation is ignored: what was drawn on it as viewers turn it lies elsewhere"
_ORIENTATION = 0x0112

OWN_PICTURE = "a picture made by xray, and no radiograph"
_BEHIND_SIZE = 33
"""Bytes of a PNG file up to the end of its first chunk, IHDR."""
_FULL_RANGE = b"\0\0\0\1sBIT\x10" + zlib.crc32(b"sBIT\x10").to_bytes(4, "big")
"""The chunk which says that all 16 bits of a grey PNG count, so that its white is 65535."""
SOFTWARE = "xray"
"""What a PNG file that xray has drawn names as its software."""
_TEXT = b"tEXt" + f"Software\0{SOFTWARE}".encode()
_HEAD = 1024
"""Bytes of a PNG file in which the mark stands, behind what else its writer says of it."""
_OWN = (len(_TEXT) - 4).to_bytes(4, "big") + _TEXT + zlib.crc32(_TEXT).to_bytes(4, "big")


def picture_size(path: Path, kind: str) -> tuple[int, int]:
    """(width, height) of a picture, no pixel being decoded. Raises RadiographError, and what Pillow does."""
    with _opened(path, kind) as picture:
        return picture.size


def read_picture(path: Path, kind: str, bits: int) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """A file → (H, W) display grey, what its user should know, and whether its pixels have more than 8 bits.

    kind: "PNG" or "JPEG". bits: of the grey, 8 or 16. Raises RadiographError.
    """
    try:
        with _opened(path, kind) as picture:
            pixels = _grey(picture, bits, kind == "PNG" and _has_full_range(path))
            said = ((IN_COLOUR, _is_coloured(picture)), (TURNED, _is_turned(picture)))
            return pixels, tuple(text for text, is_so in said if is_so), picture.mode.startswith("I")
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # whatever Pillow raises on damaged bytes
        # Pillow names the file with its folder, which may name a patient.
        what = str(error).replace(str(path), path.name)
        raise RadiographError(f"{path.name}: damaged {kind} file ({type(error).__name__}: {what})") from None


@contextlib.contextmanager
def _opened(path: Path, kind: str) -> Iterator[PIL.Image.Image]:
    """A picture of which the header alone has been read, and its size checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=[kind]) as picture:
                if picture.info.get("Software") == SOFTWARE:
                    raise RadiographError(f"{path.name}: {OWN_PICTURE}")
                _check_size(picture, path)
                yield picture
    except (RadiographError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise RadiographError(f"{path.name}: its pixels are more than {MAX_PIXELS // 10**6} million") from None
    except Exception:
        _refuse_other_jpeg(path, kind)
        raise


def _refuse_other_jpeg(path: Path, kind: str) -> None:
    """Raises RadiographError for JPEG that is not damaged, but of a kind that is read inside DICOM only."""
    if kind != "JPEG":
        return
    try:
        with open(path, "rb") as file:
            size = jpeg_size(file.read(2**20))
    except (OSError, RadiographError, struct.error, IndexError):
        return
    if size.marker == 0xF7:
        what = "JPEG-LS"
    elif size.marker & 3 == 3:
        what = f"lossless JPEG of {size.precision} bits"
    elif size.precision != 8:
        what = f"JPEG of {size.precision} bits"
    else:
        return
    raise RadiographError(f"{path.name}: {what}, which is read inside of DICOM files only: convert it to PNG")


def _check_size(picture: PIL.Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise RadiographError(f"{path.name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")
    n_bytes = path.stat().st_size
    if width * height > MOST_PER_BYTE[str(picture.format)] * n_bytes:
        raise RadiographError(f"{path.name}: truncated: {width} x {height} pixels cannot be in {n_bytes} bytes")


def _is_coloured(picture: PIL.Image.Image) -> bool:
    """Whether red, green and blue differ by more than noise in more than a few pixels, as in no radiograph."""
    if not {"R", "P", "C", "Y"} & set(picture.getbands()):
        return False
    channels = cv2.split(np.asarray(picture.convert("RGB")))
    highest, lowest = (functools.reduce(extreme, channels) for extreme in (cv2.max, cv2.min))
    return int(np.count_nonzero(cv2.subtract(highest, lowest) > MOST_APART)) > MOST_COLOURED * highest.size


def _is_turned(picture: PIL.Image.Image) -> bool:
    """Whether EXIF data says that viewers turn or mirror the picture; what cannot be read says nothing."""
    try:
        return picture.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # whatever Pillow raises on damaged EXIF data, which has no pixels
        return False


def _grey(picture: PIL.Image.Image, bits: int, has_full_range: bool) -> np.ndarray:
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        values = values if values.dtype == np.uint16 else values.clip(0, 65535).astype(np.uint16)
        return grey_to_white(values, 65535, bits) if has_full_range else grey_of_words(values, bits)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "black"), picture)
    values = np.asarray(picture.convert("L"))
    if bits == 8:
        return values
    return look_up(np.ascontiguousarray(values), (np.arange(256) * 257).astype(np.uint16))


def of_own(content: bytes) -> bytes:
    """A PNG file with the mark by which it is not taken for a radiograph."""
    return content[:_BEHIND_SIZE] + _OWN + content[_BEHIND_SIZE:]


def is_own_picture(path: Path) -> bool:
    """Whether a file is a PNG that xray has drawn."""
    try:
        with open(path, "rb") as file:
            return _OWN in file.read(_HEAD)
    except OSError:
        return False


def of_full_range(content: bytes) -> bytes:
    """A PNG file of 16 bits whose white is read as 65535, however dark all of its values are."""
    return content[:_BEHIND_SIZE] + _FULL_RANGE + content[_BEHIND_SIZE:]


def _has_full_range(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(_BEHIND_SIZE + len(_FULL_RANGE)).endswith(_FULL_RANGE)


def grey_of_words(values: np.ndarray, bits: int = 8) -> np.ndarray:
    """(H, W) uint16 values of a picture, 0 is black → display grey of 8 or 16 bits.

    White is 65535, or 2^k - 1 where all values fit into k = 8, 10, 12 or 14 bits and into a quarter of the range.
    """
    return grey_to_white(values, white_level(int(values.max()), 16), bits)


def grey_to_white(values: np.ndarray, white_value: int, bits: int) -> np.ndarray:
    """(H, W) uint16 → display grey; white_value: that of white, larger ones are white too."""
    white = 2**bits - 1
    table = np.rint(np.minimum(np.arange(65536) * (white / white_value), white))
    return look_up(np.ascontiguousarray(values), table.astype(np.uint8 if bits == 8 else np.uint16))
