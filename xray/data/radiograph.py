"""Reading one radiograph, DICOM, PNG or JPEG, into display grey, and finding the radiographs of a folder."""

import dataclasses
import os
import warnings
from pathlib import Path

import numpy as np
import PIL.Image

from xray.command import InputError
from xray.data.canvas import MAX_PIXELS
from xray.data.dicom import RadiographError, dicom_size, is_dicom, read_dicom
from xray.data.grayscale import display_grey, look_up, white_level
from xray.data.names import leads_out

__all__ = ["Radiograph", "RadiographError", "find_radiographs", "radiograph_size", "read_radiograph", "source_id"]

MAX_FILE_BYTES = 2**30
MOST_PER_BYTE = {"PNG": 8 * 1100, "JPEG": 1024, "MPO": 1024}
"""Pixels that a byte of a file can stand for: deflate packs 1,032 bytes of 8 pixels into one, and JPEG has at least a
bit for a block of 64. What is missing would be filled in, and take the time and memory of a whole picture."""
SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A radiograph as a display shows it.

    pixels: (H, W) uint8 or uint16 over the full range of the type, 0 is black.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    source: name of the file it was read from, without its folder.
    attributes: view, sex, age and manufacturer, as far as the file has them, see `xray.data.attributes`.
    warnings: what its user should know although it is read; a few fixed texts, to count by.
    """

    pixels: np.ndarray
    spacing: tuple[float, float] | None
    source: str
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.pixels.shape[0]


def read_radiograph(path: str | Path, bits: int = 8) -> Radiograph:
    """Reads a radiograph as display grey of 8 or 16 bits.

    The content of the file, not its name, tells what it is. Colour PNG and JPEG become grey by their luma (ITU-R
    BT.601), transparency is laid on black, and an EXIF orientation is ignored, as annotations are drawn on the pixels
    as stored. White of a 16-bit PNG is 65535, or 2^k - 1 where all its values fit into k = 8, 10, 12 or 14 bits and
    into a quarter of the range.

    Raises RadiographError, naming the file, where it is no radiograph, is damaged or too large.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, not {bits}")
    path = Path(path)
    try:
        kind = _kind(path)
        if kind == "DICOM":
            stored = read_dicom(path)
            pixels = display_grey(stored.words, stored.meaning, bits)
            return Radiograph(pixels, stored.spacing, path.name, stored.attributes)
        return Radiograph(_read_picture(path, kind, bits), None, path.name)
    except OSError as error:
        raise RadiographError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    except MemoryError:
        raise RadiographError(f"{path.name}: reading it needs more memory than there is") from None


def radiograph_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels as the file's header has them, no pixel being decoded. Raises RadiographError."""
    path = Path(path)
    try:
        kind = _kind(path)
        if kind == "DICOM":
            return dicom_size(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=[kind]) as picture:
                return _checked_size(picture, path)
    except RadiographError:
        raise
    except PIL.Image.DecompressionBombError:
        raise RadiographError(f"{path.name}: its pixels are more than {MAX_PIXELS // 10**6} million") from None
    except Exception as error:  # whatever Pillow raises on damaged bytes
        raise RadiographError(f"{path.name}: its size cannot be read ({type(error).__name__})") from None


def _kind(path: Path) -> str:
    if not path.exists():
        raise RadiographError(f"{path.name}: there is no such file")
    if not path.is_file():
        raise RadiographError(f"{path.name}: not a file")
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise RadiographError(f"{path.name}: the file is empty")
    if n_bytes > MAX_FILE_BYTES:
        raise RadiographError(f"{path.name}: {n_bytes >> 20} MiB are more than the {MAX_FILE_BYTES >> 20} MiB allowed")
    with open(path, "rb") as file:
        head = file.read(132)
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith(_JPEG):
        return "JPEG"
    if is_dicom(head):
        return "DICOM"
    raise RadiographError(f"{path.name}: neither DICOM nor PNG nor JPEG")


def _read_picture(path: Path, kind: str, bits: int) -> np.ndarray:
    """PNG or JPEG → (H, W) display grey."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Opening reads the header alone.
            with PIL.Image.open(path, formats=[kind]) as picture:
                _checked_size(picture, path)
                return _grey(picture, bits)
    except (RadiographError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise RadiographError(f"{path.name}: its pixels are more than {MAX_PIXELS // 10**6} million") from None
    except Exception as error:  # whatever Pillow raises on damaged bytes
        # Pillow names the file with its folder, which may name a patient.
        what = str(error).replace(str(path), path.name)
        raise RadiographError(f"{path.name}: damaged {kind} file ({type(error).__name__}: {what})") from None


def _checked_size(picture: PIL.Image.Image, path: Path) -> tuple[int, int]:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise RadiographError(f"{path.name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")
    n_bytes = path.stat().st_size
    if width * height > MOST_PER_BYTE[str(picture.format)] * n_bytes:
        raise RadiographError(f"{path.name}: truncated: {width} x {height} pixels cannot be in {n_bytes} bytes")
    return width, height


def _grey(picture: PIL.Image.Image, bits: int) -> np.ndarray:
    white = 2**bits - 1
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        values = values if values.dtype == np.uint16 else values.clip(0, 65535).astype(np.uint16)
        scale = white / white_level(int(values.max()), 16)
        table = np.rint(np.minimum(np.arange(65536) * scale, white))
    else:
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "black"), picture)
        values = np.asarray(picture.convert("L"))
        if bits == 8:
            return values
        table = np.arange(256) * (white // 255)
    return look_up(np.ascontiguousarray(values), table.astype(np.uint8 if bits == 8 else np.uint16))


def source_id(path: str | Path) -> str:
    """The source's own id of a radiograph: its file name without the suffix."""
    path = Path(path)
    # The dots of a UID used as a name (1.2.840.1) are not the start of a suffix.
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def find_radiographs(folder: str | Path, root: str | Path | None = None) -> list[Path]:
    """All radiographs under a folder, sorted by file name.

    root: the data path that the folder is a part of; the folder itself if not given.

    These are the files with one of SUFFIXES in any case, and files without a suffix that carry DICOM's preamble.
    Hidden files and folders are left out, and so are links that lead out of the data path. A single file gives itself.
    Raises InputError where the folder is missing or holds no radiograph.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder that holds the radiographs")
    root = folder if root is None else Path(root)
    found, n_links = [], 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or not _may_be_radiograph(path):
                continue
            if leads_out(path, root):
                n_links += 1
                continue
            found.append(path)
    if not found:
        links = f" ({n_links} links that lead nowhere or out of it are left out)" if n_links else ""
        raise InputError(f"no radiograph in {folder}{links}: it needs files named {', '.join(SUFFIXES)}")
    return sorted(found, key=lambda path: (path.name, path))


def _may_be_radiograph(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
