"""Reading one radiograph, DICOM, PNG or JPEG, into display grey, and finding the radiographs of a folder."""

import dataclasses
import functools
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.codestream import jpeg_size
from xray.radiographs.dicom import RadiographError, StoredRadiograph, dicom_size, is_dicom, read_dicom
from xray.radiographs.file_kinds import LINK, Content, content_of, other_format
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.grayscale import display_grey, is_one_grey, look_up, white_level
from xray.radiographs.header_view import HeaderView
from xray.radiographs.jsrt import SIDE, SPACING, WHITE, is_jsrt, is_jsrt_name, read_jsrt
from xray.radiographs.names import leads_out
from xray.radiographs.softcopy import Softcopy

__all__ = [
    "Radiograph", "RadiographError", "find_radiographs", "grey_of_words", "of_full_range", "radiograph_of_dataset",
    "radiograph_size", "read_radiograph", "source_id",
]  # fmt: skip

MAX_FILE_BYTES = 2**30
MOST_PER_BYTE = {"PNG": 8 * 1100, "JPEG": 1024, "MPO": 1024}
"""Pixels that a byte of a file can stand for: deflate packs 1,032 bytes of 8 pixels into one, and JPEG has at least a
bit for a block of 64. What is missing would be filled in, and take the time and memory of a whole picture."""
DICOM_SUFFIXES = (".dicom", ".dcm")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES = DICOM_SUFFIXES + PICTURE_SUFFIXES

IN_COLOUR = "its pixels are in colour, of which only the brightness is read"
MOST_APART, MOST_COLOURED = 8, 1e-4
"""Levels of 255 by which red, green and blue may differ in a grey picture, and the share of pixels beyond that."""
ONE_GREY = "nearly all of its pixels are of one grey"

EIGHT_BITS = "its pixels have 8 bits, which more cannot make finer"
TURNED = "its EXIF orientation is ignored: what was drawn on it as viewers turn it lies elsewhere"
_ORIENTATION = 0x0112

_PNG = b"\x89PNG\r\n\x1a\n"
_BEHIND_SIZE = 33
"""Bytes of a PNG file up to the end of its first chunk, IHDR."""
_FULL_RANGE = b"\0\0\0\1sBIT\x10" + zlib.crc32(b"sBIT\x10").to_bytes(4, "big")
"""The chunk which says that all 16 bits of a grey PNG count, so that its white is 65535."""
_JPEG = b"\xff\xd8\xff"


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A radiograph as a display shows it.

    pixels: (H, W) uint8 or uint16 over the full range of the type, 0 is black.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    source: name of the file it was read from, without its folder.
    attributes: view, sex, age and manufacturer, as far as the file has them, see `xray.radiographs.attributes`.
    warnings: what its user should know although it is read; a few fixed texts, to count by.
    softcopy: how a viewer shows the values of a grey DICOM file as these pixels; None of every other.
    header: what a DICOM header says of the part of the body and the view; None of every other file.
    """

    pixels: np.ndarray
    spacing: tuple[float, float] | None
    source: str
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    softcopy: Softcopy | None = None
    header: HeaderView | None = None

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])


def read_radiograph(path: str | Path, bits: int = 8) -> Radiograph:
    """Reads a radiograph as display grey of 8 or 16 bits.

    The content of the file, not its name, tells what it is. Colour PNG and JPEG become grey by their luma (ITU-R
    BT.601), transparency is laid on black, and an EXIF orientation is ignored, with a warning, as annotations are drawn
    on the pixels as stored. White of a 16-bit PNG is 65535, or 2^k - 1 where all its values fit into k = 8, 10, 12 or
    14 bits and into a quarter of the range, unless `of_full_range` wrote it. Raw files of the JSRT database are known
    by their names and size, see `xray.radiographs.jsrt`.

    Raises RadiographError, naming the file, where it is no radiograph, is damaged or too large.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, not {bits}")
    path = Path(path)
    try:
        kind = _kind(path)
        if kind == "DICOM":
            return _shown(read_dicom(path), path.name, bits)
        if kind == "JSRT":
            pixels = _grey_of(read_jsrt(path), WHITE, bits)
            return Radiograph(pixels, SPACING, path.name, warnings=_blank(pixels))
        pixels, said, is_fine = _read_picture(path, kind, bits)
        coarse = (EIGHT_BITS,) if bits > 8 and not is_fine else ()
        return Radiograph(pixels, None, path.name, warnings=(*said, *coarse, *_blank(pixels)))
    except OSError as error:
        raise RadiographError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    except MemoryError:
        raise RadiographError(f"{path.name}: reading it needs more memory than there is") from None


def radiograph_of_dataset(dataset: Dataset, name: str, bits: int = 8) -> Radiograph:
    """`read_radiograph` of a data set in memory, whose values stay as they are.

    dataset: with PixelData; its `file_meta` names the transfer syntax. Without one it is little endian, in the VR that
        it was read in, explicit where it was not read.
    name: for messages, and the `source` of the radiograph.
    Raises RadiographError where it shows no radiograph, is damaged or too large.
    """
    try:
        return _shown(read_dicom(Path(name), _dicom_content(dataset)), name, bits)
    except RadiographError:
        raise
    except MemoryError:
        raise RadiographError(f"{name}: reading it needs more memory than there is") from None
    except Exception as error:  # whatever pydicom raises on values that cannot be written, which may name the patient
        raise RadiographError(f"{name}: no data set that can be written ({type(error).__name__})") from None


def _dicom_content(dataset: Dataset) -> bytes:
    """The bytes of a DICOM file of the data set."""
    with warnings.catch_warnings():
        # pydicom warns about each deviation from the standard; the reader checks what matters.
        warnings.simplefilter("ignore")
        # Elements as they were read, of which not all need be understood.
        written = dataset[0x00030000:]
        written.file_meta = FileMetaDataset()
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        default = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
        written.file_meta.TransferSyntaxUID = syntax or default
        content = io.BytesIO()
        written.save_as(content)
        return content.getvalue()


def _shown(stored: StoredRadiograph, name: str, bits: int) -> Radiograph:
    pixels = display_grey(stored.words, stored.meaning, bits)
    coarse = (EIGHT_BITS,) if bits > 8 and stored.words.dtype == np.uint8 else ()
    kinds = (*stored.warnings, *coarse, *_blank(pixels))
    return Radiograph(pixels, stored.spacing, name, stored.attributes, kinds, stored.softcopy, stored.header)


def _blank(pixels: np.ndarray) -> tuple[str, ...]:
    return (ONE_GREY,) if is_one_grey(pixels) else ()


def radiograph_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels as the file's header has them, no pixel being decoded. Raises RadiographError."""
    path = Path(path)
    try:
        kind = _kind(path)
        if kind == "DICOM":
            return dicom_size(path)
        if kind == "JSRT":
            return SIDE, SIDE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=[kind]) as picture:
                return _checked_size(picture, path)
    except RadiographError:
        raise
    except PIL.Image.DecompressionBombError:
        raise RadiographError(f"{path.name}: its pixels are more than {MAX_PIXELS // 10**6} million") from None
    except Exception as error:  # whatever Pillow raises on damaged bytes
        _refuse_other_jpeg(path, kind)
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
    if is_jsrt(path):
        return "JSRT"
    if name := other_format(head):
        raise RadiographError(f"{path.name}: {name}, which is not read: convert it to PNG")
    raise RadiographError(f"{path.name}: neither DICOM nor PNG nor JPEG")


def _read_picture(path: Path, kind: str, bits: int) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """PNG or JPEG → (H, W) display grey, what its user should know, and whether its pixels have more than 8 bits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Opening reads the header alone.
            with PIL.Image.open(path, formats=[kind]) as picture:
                _checked_size(picture, path)
                pixels = _grey(picture, bits, kind == "PNG" and _has_full_range(path))
                said = ((IN_COLOUR, _is_coloured(picture)), (TURNED, _is_turned(picture)))
                return pixels, tuple(text for text, is_so in said if is_so), picture.mode.startswith("I")
    except (RadiographError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise RadiographError(f"{path.name}: its pixels are more than {MAX_PIXELS // 10**6} million") from None
    except Exception as error:  # whatever Pillow raises on damaged bytes
        _refuse_other_jpeg(path, kind)
        # Pillow names the file with its folder, which may name a patient.
        what = str(error).replace(str(path), path.name)
        raise RadiographError(f"{path.name}: damaged {kind} file ({type(error).__name__}: {what})") from None


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


def _checked_size(picture: PIL.Image.Image, path: Path) -> tuple[int, int]:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise RadiographError(f"{path.name}: {width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")
    n_bytes = path.stat().st_size
    if width * height > MOST_PER_BYTE[str(picture.format)] * n_bytes:
        raise RadiographError(f"{path.name}: truncated: {width} x {height} pixels cannot be in {n_bytes} bytes")
    return width, height


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
        return _grey_of(values, 65535, bits) if has_full_range else grey_of_words(values, bits)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "black"), picture)
    values = np.asarray(picture.convert("L"))
    if bits == 8:
        return values
    return look_up(np.ascontiguousarray(values), (np.arange(256) * 257).astype(np.uint16))


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
    return _grey_of(values, white_level(int(values.max()), 16), bits)


def _grey_of(values: np.ndarray, white_value: int, bits: int) -> np.ndarray:
    """(H, W) uint16 → display grey; white_value: that of white, larger ones are white too."""
    white = 2**bits - 1
    table = np.rint(np.minimum(np.arange(65536) * (white / white_value), white))
    return look_up(np.ascontiguousarray(values), table.astype(np.uint8 if bits == 8 else np.uint16))


def source_id(path: str | Path) -> str:
    """The source's own id of a radiograph: its file name without the suffix."""
    # Text alone: a Path for each of 400,000 files would take longer than all else that is done with their names.
    name = os.fspath(path).rstrip("/").rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    # The dots of a UID used as a name (1.2.840.1) are not the start of a suffix.
    return stem if stem and (f".{suffix.lower()}" in SUFFIXES or is_jsrt_name(name)) else name


def find_radiographs(
    folder: str | Path, root: str | Path | None = None, passed_over: list[FileWarning] | None = None
) -> list[Path]:
    """All radiographs under a folder, sorted by file name.

    root: the data path that the folder is a part of; the folder itself if not given.
    passed_over: gets a warning for each file that is skipped though it may have been meant as a radiograph: pictures
        and data in formats that are not read, DICOMDIR, links out of the data path; `where` is relative to `root`.

    These are the files with one of SUFFIXES in any case, those with any other suffix or none whose first bytes are
    DICOM's, and the raw files of the JSRT database; files of other well-known kinds, and text, are not looked into.
    Hidden files and folders are left out, and so are links that lead out of the data path. A single file gives itself.
    Raises InputError where the folder is missing or holds no radiograph.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder that holds the radiographs")
    root = folder if root is None else Path(root)
    radiographs, others = [], []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # Those within the data path are walked where they are.
        links = [path for name in folders if leads_out(path := Path(parent, name), root)]
        others += [FileWarning(LINK, _below(path, root)) for path in links]
        for name in names:
            if name.startswith("."):
                continue
            path = Path(parent, name)
            content = content_of(path, SUFFIXES)
            if content == Content.NOTHING:
                continue
            if leads_out(path, root):
                others.append(FileWarning(LINK, _below(path, root)))
            elif content == Content.RADIOGRAPH:
                radiographs.append(path)
            else:
                others.append(FileWarning(content.value, _below(path, root)))
    if passed_over is not None:
        passed_over += sorted(others)
    if not radiographs:
        raise InputError(f"no radiograph in {folder}{_said(others)}: it needs DICOM, PNG or JPEG files")
    # By name, then by folder, part by part.
    return sorted(radiographs, key=lambda path: (path.name, str(path).split("/")))


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _said(others: list[FileWarning]) -> str:
    n_links = sum(other.kind == LINK for other in others)
    parts = [f"{n_links} links that lead nowhere or out of it are left out"] if n_links else []
    if n_links < len(others):
        first = min(other.where for other in others if other.kind != LINK)
        parts.append(f"{len(others) - n_links} other files, such as {first}, are no radiographs that can be read")
    return f" ({'; '.join(parts)})" if parts else ""
