"""Which files of a folder are radiographs, which may have been meant as such, and which are something else.

The suffix decides where it is a well-known one; else the first bytes of the file are read, and no more.
"""

import enum
import struct
from collections.abc import Collection
from pathlib import Path

from xray.radiographs.jsrt import is_jsrt

HEAD_BYTES = 512

OTHER_PICTURES = (
    ".avif", ".bmp", ".dng", ".exr", ".gif", ".hdr", ".heic", ".j2k", ".jfif", ".jls", ".jp2", ".jpe", ".jpf",
    ".jph", ".jxl", ".mha", ".mhd", ".mrxs", ".nef", ".nii", ".nrrd", ".pgm", ".ppm", ".svs", ".tga", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
NO_PICTURES = (
    ".7z", ".avi", ".bat", ".bz2", ".c", ".cfg", ".ckpt", ".conf", ".cpp", ".css", ".csv", ".db", ".doc",
    ".docx", ".eps", ".feather", ".gz", ".h", ".h5", ".hdf5", ".htm", ".html", ".ini", ".ipynb", ".joblib",
    ".js", ".json", ".jsonl", ".lock", ".log", ".lst", ".mat", ".md", ".mkv", ".mov", ".mp4", ".mpg",
    ".msgpack", ".npy", ".npz", ".odt", ".onnx", ".parquet", ".pb", ".pdf", ".pickle", ".pkl", ".ppt", ".pptx",
    ".ps", ".pt", ".pth", ".py", ".pyc", ".r", ".rar", ".rst", ".rtf", ".safetensors", ".sh", ".sqlite", ".svg",
    ".tar", ".tex", ".tfrecord", ".tgz", ".toml", ".tsv", ".txt", ".wav", ".xls", ".xlsx", ".xml", ".xz",
    ".yaml", ".yml", ".zip", ".zst",
)  # fmt: skip
"""Suffixes of files that are surely no radiographs: they are not opened."""

_DIRECTORY = b"1.2.840.10008.1.3.10"
_OTHER_FORMATS = (
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 4, b"JXL \r\n\x87\n"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("GIF", 0, b"GIF8"),
    ("WebP", 8, b"WEBP"),
)
"""Name, place and first bytes of formats that are not read."""
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class Content(enum.Enum):
    """What a file is in a search for radiographs; of files that are skipped, the kind of the warning about them."""

    RADIOGRAPH = "a radiograph"
    NOTHING = "a file of another kind, which needs no warning"
    DIRECTORY = "DICOMDIR, a list of files, was passed over"
    NAMED_OTHERWISE = "a PNG or JPEG file under another suffix was passed over: rename it to .png or .jpg"
    UNREAD = "neither DICOM nor PNG nor JPEG, passed over"


LINK = "a link that leads nowhere or out of the data path was left out"


def content_of(path: Path, suffixes: Collection[str]) -> Content:
    """What the file is. suffixes: those of radiographs, in lower case, which are trusted."""
    # Text alone, as for `source_id`.
    stem, _, suffix = path.name.rpartition(".")
    stem, suffix = (stem, f".{suffix.lower()}") if stem and suffix else (path.name, "")
    if stem.upper() == "DICOMDIR" and suffix in ("", *suffixes):
        return Content.DIRECTORY
    if suffix in suffixes or is_jsrt(path):
        return Content.RADIOGRAPH
    is_packed = suffix == ".gz" and Path(path.stem).suffix.lower() in (*suffixes, ".nii")
    if suffix in NO_PICTURES and not is_packed:
        return Content.NOTHING
    if suffix in OTHER_PICTURES or is_packed:
        return Content.UNREAD
    try:
        if not path.is_file():
            return Content.NOTHING
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return Content.NOTHING
    if head[128:132] == b"DICM" or begins_with_elements(head):
        return Content.DIRECTORY if _DIRECTORY in head else Content.RADIOGRAPH
    if head.startswith(_PICTURES):
        return Content.NAMED_OTHERWISE
    # Text has no zeros: a README beside radiographs needs no warning.
    return Content.UNREAD if b"\0" in head else Content.NOTHING


def other_format(head: bytes) -> str | None:
    """The name of a format of pictures that is not read, by a file's first bytes; None where they are of no known."""
    return next((name for name, at, start in _OTHER_FORMATS if head[at:].startswith(start)), None)


def begins_with_elements(head: bytes) -> bool:
    """Whether the first bytes of a file are a data set's without preamble: two elements of group 2 or 8, in order."""
    return any(_elements(head, order) for order in "<>")


def _elements(head: bytes, order: str) -> bool:
    at, last = 0, 0
    for number in range(2):
        if at + 8 > len(head):
            # Behind a long first value.
            return number == 1 and at > len(head)
        group, element = struct.unpack_from(order + "HH", head, at)
        kind = head[at + 4 : at + 6]
        if group not in (0x0002, 0x0008) or (number and (group << 16 | element) <= last):
            return False
        last = group << 16 | element
        if not (kind.isalpha() and kind.isupper()):
            length, value = struct.unpack_from(order + "L", head, at + 4)[0], at + 8
        elif kind in (b"OB", b"SQ", b"UN", b"UT"):
            length, value = struct.unpack_from(order + "L", head.ljust(at + 12, b"\0"), at + 8)[0], at + 12
        else:
            length, value = struct.unpack_from(order + "H", head, at + 6)[0], at + 8
        if length % 2 or length > 4096:
            return False
        at = value + length
    return True
