"""One DICOM file → its stored pixel words and what they mean, without trusting the file.

Everything that could make a small file cost much time or memory is bounded before it happens: the transfer syntax is
read first and must be on a list, inflated data and the bytes spent on the header have a limit, and rows and columns are
held against the limits and against what the compressed data itself says.
"""

import dataclasses
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from xray.radiographs.attributes import plain_attributes
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.codestream import COMPRESSED, JPEG, RadiographError, decode_codestream, syntax_name
from xray.radiographs.colour import PALETTE_KEYWORDS, grey_of_palette, grey_of_samples
from xray.radiographs.elements import (
    MAX_HEADER_BYTES,
    MAX_HEADER_READS,
    Elements,
    LimitedFile,
    Place,
    Walker,
    guess_syntax,
    meta_syntax,
    tag_of,
)
from xray.radiographs.grayscale import GreyMeaning, with_window_that_shows
from xray.radiographs.header_view import KEYWORDS as OF_VIEW
from xray.radiographs.header_view import HeaderView, header_view
from xray.radiographs.pixel_data import GE_PRIVATE, MAX_FRAGMENTS, NATIVE, UNCOMPRESSED, pixels_of
from xray.radiographs.pixel_layout import PALETTE, Layout, layout_of, narrowed, native_words, refuse_frames
from xray.radiographs.presentation import KEYWORDS, aspect_of, meaning_of, spacing_of, with_functional_groups
from xray.radiographs.softcopy import Softcopy, softcopy_of

__all__ = [
    "MAX_FRAGMENTS", "MAX_HEADER_BYTES", "MAX_HEADER_READS", "MAX_PIXELS", "NATIVE", "RadiographError",
    "StoredRadiograph", "check_dicom", "dicom_size", "is_dicom", "read_dicom", "read_elements",
    "read_header_view",
]  # fmt: skip

MAX_RATIO = 1024
"""How many times smaller than its pixels a compressed frame of more than 16 MiB may be; radiographs are 2 to 100."""
MAX_INFLATED_BYTES = 64 * 2**20
"""Size of a Deflated file's data set."""

WINDOW_MISSED = "its window shows all of it as one grey: shown from its darkest to its brightest value instead"

_T = TypeVar("_T")
_READ = frozenset((*UNCOMPRESSED, *COMPRESSED))

_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_KEYWORDS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("ViewPosition", "PatientSex", "PatientAge", "Manufacturer"),
    *OF_VIEW,
    *KEYWORDS,
    *PALETTE_KEYWORDS,
)


@dataclasses.dataclass(frozen=True)
class StoredRadiograph:
    """The pixels of a DICOM file as they are stored.

    words: (H, W) uint8 or uint16.
    meaning: how they become grey.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    attributes: view, sex, age and manufacturer, as far as they are known, by `plain_attributes`; nothing that names
        the patient is read.
    warnings: what its user should know although it is read; a few fixed texts.
    softcopy: how a viewer shows its values in the same way; None of colours and palettes.
    header: what the header says of the part of the body, the view and the modality.
    """

    words: np.ndarray
    meaning: GreyMeaning
    spacing: tuple[float, float] | None
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    softcopy: Softcopy | None = None
    header: HeaderView = dataclasses.field(default_factory=HeaderView)


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these (at least 132) bytes may be DICOM, with or without the preamble."""
    return head[128:132] == b"DICM" or _starts_with_element(head)


def read_dicom(path: Path, content: bytes | None = None) -> StoredRadiograph:
    """Reads a single-frame DICOM file that shows grey.

    content: of the file, where it is in memory; the path then only names it in messages.
    Raises RadiographError where the file is something else, is damaged, or exceeds the limits of this module.
    """
    return _open(path, _read, content)


def dicom_size(path: Path) -> tuple[int, int]:
    """(width, height) of a single-frame DICOM file, from its header alone. Raises as `read_dicom` does."""
    layout = _open(path, lambda file: _read_header(file, _TAGS).layout())
    return layout.columns, layout.rows


def read_header_view(path: Path) -> HeaderView:
    """What the header of a DICOM file says of its picture. Raises as `read_dicom` does, though not for its pixels."""
    return _open(path, lambda file: header_view(_read_header(file, _TAGS_OF_VIEW).elements))


def check_dicom(path: Path) -> str:
    """Whether a single-frame DICOM file has all of its pixel data → its transfer syntax; nothing is decoded.

    Raises as `read_dicom` does.
    """

    def check(file: BinaryIO) -> str:
        header = _read_header(file, _TAGS)
        return pixels_of(header.file, header.syntax, header.pixel_data, header.layout())[1]

    return _open(path, check)


def read_elements(path: Path, keywords: Sequence[str]) -> Dataset:
    """The named elements of a DICOM file that stand before its pixels; pydicom converts each when it is looked at.

    keywords: of elements that are no sequences. SpecificCharacterSet and PixelRepresentation come with them: texts
    need the one, and in Implicit VR the sign of values such as PixelPaddingValue stands in the other alone (pydicom
    3.0.2 gives 63536 for -2000 without it, see findings/pydicom-specific-tags-lose-the-sign.sh).
    Raises RadiographError where the file is something else, is damaged, or its header exceeds the limits.
    """

    def read(file: BinaryIO) -> Dataset:
        header = _read_header(file, _tags((*keywords, "SpecificCharacterSet", "PixelRepresentation")))
        elements = [element for _, element in sorted(header.elements.by_tag.items())]
        values = [(one.vr, one.head + one.value) for one in elements if isinstance(one.value, bytes)]
        content = io.BytesIO(b"".join(element for _, element in values))
        is_implicit = any(vr is None for vr, _ in values)
        return read_dataset(content, is_implicit, header.syntax != uid.ExplicitVRBigEndian)

    return _open(path, read)


def _open(path: Path, read: Callable[[BinaryIO], _T], content: bytes | None = None) -> _T:
    """What `read` makes of the file; every error names it."""
    try:
        with open(path, "rb") if content is None else io.BytesIO(content) as file, warnings.catch_warnings():
            # pydicom warns about each deviation from the standard; what matters is checked here.
            warnings.simplefilter("ignore")
            return read(file)
    except RadiographError as error:
        raise RadiographError(f"{path.name}: {error}") from None
    except OSError as error:
        raise RadiographError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    except MemoryError:
        raise RadiographError(f"{path.name}: reading it needs more memory than there is") from None
    except Exception as error:  # whatever pydicom and the decoders raise on damaged bytes
        # Without their text: that may be a part of the file, such as the patient's name.
        raise RadiographError(f"{path.name}: damaged DICOM file ({type(error).__name__})") from error


def _read(file: BinaryIO) -> StoredRadiograph:
    header = _read_header(file, _TAGS)
    try:
        return _read_pixels(header)
    except RadiographError as error:
        # What cannot be read as a radiograph often is none.
        if modality := header_view(header.elements).modality:
            raise RadiographError(f"its header says {modality}, and {error}") from error
        raise


def _read_pixels(header: "_Header") -> StoredRadiograph:
    layout = header.layout()
    elements = with_functional_groups(header.elements)
    words, layout = _words(header, layout)
    softcopy = None
    if layout.samples == 3:
        words, meaning, warning_kinds = grey_of_samples(words, layout)
    elif layout.photometric == PALETTE:
        meaning, warning_kinds = grey_of_palette(words, elements, layout)
    else:
        meaning, is_missed = with_window_that_shows(words, meaning_of(elements, layout))
        warning_kinds = (WINDOW_MISSED,) if is_missed else ()
        softcopy = softcopy_of(words, meaning, aspect_of(elements))
    about = (_attributes(elements), warning_kinds, softcopy, header_view(elements))
    return StoredRadiograph(words, meaning, spacing_of(elements), *about)


@dataclasses.dataclass
class _Header:
    """The elements of a data set before its pixels, and where those are.

    file: holds the data set: the file itself, or its inflated copy.
    place: of the pixel data; None where there is none.
    """

    file: BinaryIO
    syntax: str
    elements: Elements
    place: Place | None

    def layout(self) -> Layout:
        """The layout of the pixels. Raises RadiographError where there are none, they are not those of a radiograph, or
        their transfer syntax is not read."""
        if self.syntax not in _READ:
            raise _not_read(self.syntax)
        are_floats = self.place is not None and self.place.tag in _FLOAT_PIXEL_DATA
        return layout_of(self.elements, self.place is not None, are_floats)

    @property
    def pixel_data(self) -> Place:
        """Where the pixels are, of which `layout` found that there are some."""
        assert self.place is not None
        return self.place


def _tags(keywords: Iterable[str]) -> frozenset[int]:
    return frozenset(tag_of(keyword) for keyword in keywords)


_TAGS, _TAGS_OF_VIEW = _tags(_KEYWORDS), _tags(OF_VIEW)


def _starts_with_element(head: bytes) -> bool:
    """Whether the bytes look like the first element of a data set: a tag of group 2 or 8, and a plausible length."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHL", head[:8])
        if group in (0x0002, 0x0008) and element <= 0x0200:
            return head[4:6].isalpha() or length < 4096
    return False


def _read_header(file: BinaryIO, tags: frozenset[int]) -> _Header:
    """Reads the elements with these tags, up to the pixel data."""
    limited = LimitedFile(file)
    head = limited.read(132)
    file.seek(132 if head[128:] == b"DICM" else 0)
    syntax = meta_syntax(limited) or guess_syntax(limited)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        file = io.BytesIO(_inflate(file))
        limited = LimitedFile(file)
    meta_syntax(limited)
    walker = Walker(limited, tags, (_PIXEL_DATA, *_FLOAT_PIXEL_DATA))
    is_implicit = syntax in (uid.ImplicitVRLittleEndian, GE_PRIVATE)
    try:
        place = walker.walk(is_implicit, ">" if syntax == uid.ExplicitVRBigEndian else "<")
    except Exception as error:
        # A header may be encoded otherwise, too, where pixels are by rules that are not known here.
        if syntax not in _READ:
            raise _not_read(syntax) from None
        if not isinstance(error, RadiographError):
            raise
        # A header is too large, or was cut, because of what it says of every frame.
        refuse_frames(walker.elements)
        raise
    return _Header(file, syntax, walker.elements, place)


def _not_read(syntax: str) -> RadiographError:
    return RadiographError(
        f"transfer syntax {syntax_name(syntax)} is not supported: export it uncompressed, or as JPEG, JPEG-LS or JPEG "
        "2000"
    )


def _inflate(file: BinaryIO) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(file.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise RadiographError(f"its deflated data set is larger than {MAX_INFLATED_BYTES >> 20} MiB")
    return inflated


def _words(header: _Header, layout: Layout) -> tuple[np.ndarray, Layout]:
    """(H, W), or (H, W, 3) of three samples, uint8 or uint16; and the layout that they have."""
    data, syntax = pixels_of(header.file, header.syntax, header.pixel_data, layout)
    if syntax in UNCOMPRESSED:
        is_big = header.syntax in (uid.ExplicitVRBigEndian, GE_PRIVATE)
        return narrowed(native_words(data, layout, is_big, header.pixel_data.vr), layout)
    if layout.n_bytes > max(2**24, MAX_RATIO * len(data)):
        raise RadiographError(
            f"truncated: {layout.n_bytes} bytes of pixels cannot be in {len(data)} bytes of {syntax_name(syntax)}"
        )
    words, precision, is_signed, is_lossy = decode_codestream(
        data, syntax, layout.rows, layout.columns, layout.word_bits, layout.is_signed, layout.samples
    )
    layout = dataclasses.replace(layout, is_signed=is_signed and layout.samples == 1)
    if words.dtype.itemsize > 2:
        return narrowed(words, layout)
    # Lossy JPEG has no 16 bits: GDCM writes 12 bits in this way, with an offset in the bits above.
    is_odd = syntax in JPEG and precision > 12
    if precision > layout.bits_stored == layout.high_bit + 1 and is_lossy and not is_odd:
        words = _clipped(words, precision, layout)
    return words, layout.at_precision(precision)


def _clipped(words: np.ndarray, precision: int, layout: Layout) -> np.ndarray:
    """Words of a lossy codestream of more bits than are stored: what went beyond black or white is just that."""
    white = 2**layout.bits_stored - 1
    if not layout.is_signed:
        return words.clip(max=np.array(white, words.dtype))
    unused = 8 * words.dtype.itemsize - precision
    # The sign bit of the codestream to the top and back fills the bits above.
    values: np.ndarray = (words << unused).view(f"i{words.dtype.itemsize}") >> unused
    return values.clip(-(white + 1) // 2, white // 2).view(words.dtype)


def _attributes(elements: Elements) -> dict[str, str]:
    keywords = {"view": "ViewPosition", "sex": "PatientSex", "age": "PatientAge", "manufacturer": "Manufacturer"}
    return plain_attributes({name: elements.texts(keyword)[0] for name, keyword in keywords.items()})
