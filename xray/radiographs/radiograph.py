"""Reading one radiograph, DICOM, PNG or JPEG, into display grey, and finding the radiographs of a folder."""

import dataclasses
import io
import os
import warnings
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from xray.errors import InputError
from xray.radiographs.dicom import RadiographError, StoredRadiograph, dicom_size, is_dicom, read_dicom
from xray.radiographs.file_kinds import LINK, Content, content_of, other_format
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.grayscale import display_grey, is_one_grey
from xray.radiographs.header_view import HeaderView
from xray.radiographs.jsrt import SIDE, SPACING, WHITE, is_jsrt, is_jsrt_name, read_jsrt
from xray.radiographs.names import WHAT_TO_DO, leads_out
from xray.radiographs.own_files import LEFT_OUT, own_folders, place_inside
from xray.radiographs.pictures import grey_to_white, picture_size, read_picture
from xray.radiographs.softcopy import Softcopy

__all__ = [
    "Radiograph", "RadiographError", "find_radiographs", "radiograph_of_dataset", "radiograph_size", "read_radiograph",
    "source_id",
]  # fmt: skip

MAX_FILE_BYTES = 2**30
DICOM_SUFFIXES = (".dicom", ".dcm")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES = DICOM_SUFFIXES + PICTURE_SUFFIXES

ONE_GREY = "nearly all of its pixels are of one grey"

EIGHT_BITS = "its pixels have 8 bits, which more cannot make finer"
_PNG = b"\x89PNG\r\n\x1a\n"
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
            pixels = grey_to_white(read_jsrt(path), WHITE, bits)
            return Radiograph(pixels, SPACING, path.name, warnings=_blank(pixels))
        pixels, said, is_fine = read_picture(path, kind, bits)
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
        return picture_size(path, kind)
    except RadiographError:
        raise
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
    if is_jsrt(path):
        return "JSRT"
    if name := other_format(head):
        raise RadiographError(f"{path.name}: {name}, which is not read: convert it to PNG")
    raise RadiographError(f"{path.name}: neither DICOM nor PNG nor JPEG")


def source_id(path: str | Path) -> str:
    """The source's own id of a radiograph: its file name without the suffix."""
    # Text alone: a Path for each of 400,000 files would take longer than all else that is done with their names.
    name = os.fspath(path).rstrip("/").rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    # The dots of a UID used as a name (1.2.840.1) are not the start of a suffix.
    return stem if stem and (f".{suffix.lower()}" in SUFFIXES or is_jsrt_name(name)) else name


def find_radiographs(
    folder: str | Path,
    root: str | Path | None = None,
    passed_over: list[FileWarning] | None = None,
    apart: Path | None = None,
) -> list[Path]:
    """All radiographs under a folder, sorted by file name.

    root: the data path that the folder is a part of; the folder itself if not given.
    passed_over: gets a warning for each file that is skipped though it may have been meant as a radiograph: pictures
        and data in formats that are not read, DICOMDIR, links out of the data path; `where` is relative to `root`.
    apart: a folder that is written to, whose files are none of them.

    These are the files with one of SUFFIXES in any case, those with any other suffix or none whose first bytes are
    DICOM's, and the raw files of the JSRT database; files of other well-known kinds, and text, are not looked into.
    Hidden files and folders are left out, and so are links that lead out of the data path, and the pictures and DICOM
    objects that lie beside predictions of xray. A single file gives itself.
    Raises InputError where the folder is missing or holds no radiograph.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder that holds the radiographs")
    root = folder if root is None else Path(root)
    radiographs, others = [], []
    inside = None if apart is None else place_inside(apart, folder)
    written = None if inside is None else folder / inside
    for parent, folders, names in os.walk(folder):
        own = own_folders(names, folders)
        others += [_left_out(Path(parent, name), root) for name in own]
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in own and (written is None or Path(parent, name) != written)
        ]
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
        is_linked = any(other.kind == LINK for other in others)
        needs = WHAT_TO_DO if is_linked else "it needs DICOM, PNG or JPEG files"
        raise InputError(f"no radiograph in {folder}{_said(others)}: {needs}")
    # By name, then by folder, part by part.
    return sorted(radiographs, key=lambda path: (path.name, str(path).split("/")))


def _left_out(folder: Path, root: Path) -> FileWarning:
    """The warning about a folder of results."""
    n = len(os.listdir(folder))
    return FileWarning(LEFT_OUT, f"{_below(folder, root)}/", f"{n} file{'s' * (n != 1)}")


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _said(others: list[FileWarning]) -> str:
    n_links = sum(other.kind == LINK for other in others)
    one, several = "1 link that leads nowhere or out of it is", f"{n_links} links that lead nowhere or out of it are"
    parts = [f"{one if n_links == 1 else several} left out"] if n_links else []
    if n_links < len(others):
        first = min(other.where for other in others if other.kind != LINK)
        parts.append(f"{len(others) - n_links} other files, such as {first}, are no radiographs that can be read")
    return f" ({'; '.join(parts)})" if parts else ""
