"""One DICOM file → its stored pixel words and what they mean, without trusting the file.

pydicom walks the header; everything that could make a small file cost much time or memory is bounded before it
happens: the transfer syntax is read first and must be on a list, inflated data and the bytes spent on the header have
a limit, and rows and columns are held against the limits and against what the compressed data itself says.
"""

import dataclasses
import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from xray.data.attributes import plain_attributes
from xray.data.canvas import MAX_PIXELS
from xray.data.codestream import COMPRESSED, RadiographError, decode_codestream, syntax_name
from xray.data.grayscale import GreyMeaning, LookupTable

COLOURS = (
    "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
    "HSV", "ARGB", "CMYK",
)  # fmt: skip
"""Photometric interpretations of PS3.3 C.7.6.3 that are not grey. Others are not repeated: they may be any text."""
MAX_HEADER_BYTES = 4 * 2**20
"""Header bytes that are parsed; elements that are skipped do not count."""
MAX_HEADER_READS = 40_000
"""Steps in which they are parsed, one or two for each element or item."""
MAX_FRAGMENTS = 65_536
"""Pieces that the compressed pixels may come in."""
MAX_RATIO = 1024
"""How many times smaller than its pixels a compressed frame of more than 16 MiB may be; radiographs are 2 to 100."""
MAX_INFLATED_BYTES = 64 * 2**20
"""Size of a Deflated file's data set."""

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)

_T = TypeVar("_T")

_TRANSFER_SYNTAX = 0x00020010
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TAGS = [
    tag_for_keyword(keyword)
    for keyword in (
        *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
        *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
        *("ViewPosition", "PatientSex", "PatientAge", "Manufacturer"),
    )
]


@dataclasses.dataclass(frozen=True)
class StoredRadiograph:
    """The pixels of a DICOM file as they are stored.

    words: (H, W) uint8 or uint16.
    meaning: how they become grey.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    attributes: view, sex, age and manufacturer, as far as they are known, by `plain_attributes`; nothing that names
        the patient is read.
    """

    words: np.ndarray
    meaning: GreyMeaning
    spacing: tuple[float, float] | None
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with these (at least 132) bytes may be DICOM, with or without the preamble."""
    return head[128:132] == b"DICM" or _starts_with_element(head)


def read_dicom(path: Path) -> StoredRadiograph:
    """Reads a single-frame grey DICOM file.

    Raises RadiographError where the file is something else, is damaged, or exceeds the limits of this module.
    """
    return _open(path, _read)


def dicom_size(path: Path) -> tuple[int, int]:
    """(width, height) of a single-frame grey DICOM file, from its header alone. Raises as `read_dicom` does."""
    layout = _open(path, lambda file: _layout(_read_header(file)))
    return layout.columns, layout.rows


def check_dicom(path: Path) -> str:
    """Whether a single-frame grey DICOM file has all of its pixel data → its transfer syntax; nothing is decoded.

    Raises as `read_dicom` does.
    """

    def check(file: BinaryIO) -> str:
        header = _read_header(file)
        layout = _layout(header)
        if header.syntax in NATIVE:
            _native_words(header, layout)
        else:
            _single_frame(header)
        return header.syntax

    return _open(path, check)


def read_elements(path: Path, keywords: Sequence[str]) -> Dataset:
    """The named elements of a DICOM file that stand before its pixels; pydicom converts each when it is looked at.

    Raises RadiographError where the file is something else, is damaged, or its header exceeds the limits.
    """
    return _open(path, lambda file: _read_header(file, [tag_for_keyword(keyword) for keyword in keywords]).elements)


def _open(path: Path, read: Callable[[BinaryIO], _T]) -> _T:
    """What `read` makes of the file; every error names it."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
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
        # Not what they say: that may be a piece of the file, and so the patient's name.
        raise RadiographError(f"{path.name}: damaged DICOM file ({type(error).__name__})") from error


def _read(file: BinaryIO) -> StoredRadiograph:
    header = _read_header(file)
    layout = _layout(header)
    if header.syntax in NATIVE:
        words = _native_words(header, layout)
    else:
        codestream = _single_frame(header)
        if layout.n_bytes > max(2**24, MAX_RATIO * len(codestream)):
            raise RadiographError(
                f"truncated: {layout.n_bytes} bytes of pixels cannot be in {len(codestream)} bytes of "
                f"{syntax_name(header.syntax)}"
            )
        words, precision, _ = decode_codestream(
            codestream, header.syntax, layout.rows, layout.columns, layout.bits_allocated, layout.is_signed
        )
        layout = layout.at_precision(precision)
    return StoredRadiograph(words, _meaning(header, layout), _spacing(header), _attributes(header))


class _HeaderFile:
    """A file of which only a header's worth may be read; skipping costs nothing.

    pydicom builds an object for every item of a sequence, wanted or not: a file of a few MiB could keep it busy for
    minutes and make it take gigabytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._reads_left = file, MAX_HEADER_BYTES, MAX_HEADER_READS
        self.tell, self.seek = file.tell, file.seek

    def read(self, n_bytes: int) -> bytes:
        data = self._file.read(min(n_bytes, self._left + 1))
        self._left -= len(data)
        self._reads_left -= 1
        if self._left < 0 or self._reads_left < 0:
            raise RadiographError(f"its header is larger than {MAX_HEADER_BYTES >> 20} MiB or {MAX_HEADER_READS} parts")
        return data


@dataclasses.dataclass
class _Header:
    """The elements of a data set before its pixels, and where those are.

    file: holds the data set: the file itself, or its inflated copy.
    tag: of the pixel data; None where there is none.
    vr: type of the pixel data; None in implicit VR.
    start, n_bytes: of the pixel data's value.
    """

    file: BinaryIO
    syntax: str
    elements: Dataset = dataclasses.field(default_factory=Dataset)
    tag: int | None = None
    vr: str | None = None
    start: int = 0
    n_bytes: int = 0

    def numbers(self, keyword: str, signed: bool = False, of: Dataset | None = None) -> np.ndarray:
        """The 16-bit integers (VR US, SS or OW) of an element, as they stand in the file; none where it is missing."""
        value = self._bytes(keyword, of)
        order = ">" if self.syntax == uid.ExplicitVRBigEndian else "<"
        return np.frombuffer(value, f"{order}{'i' if signed else 'u'}2", count=len(value) // 2).astype(np.int64)

    def number(self, keyword: str, default: int = 0) -> int:
        """The first of an element's `numbers`."""
        numbers = self.numbers(keyword)
        return int(numbers[0]) if len(numbers) else default

    def texts(self, keyword: str) -> list[str]:
        """The values of a text element."""
        return [text.strip(" \0") for text in self._bytes(keyword).decode("ascii", "replace").split("\\")]

    def decimals(self, keyword: str) -> list[float]:
        """The values of a decimal or integer string (VR DS, IS); NaN for what is not a number."""
        values = []
        for text in self.texts(keyword):
            try:
                values.append(float(text))
            except ValueError:
                values.append(math.nan)
        return values

    def items(self, keyword: str) -> list[Dataset]:
        """The items of a sequence."""
        return [item for item in self.elements.get(keyword) or () if isinstance(item, Dataset)]

    def _bytes(self, keyword: str, of: Dataset | None = None) -> bytes:
        # pydicom's own conversion would guess at types, warn and raise; the bytes say all that is needed.
        raw = (self.elements if of is None else of).get_item(keyword)
        value = getattr(raw, "value", None)
        return value if isinstance(value, bytes) else b""


def _starts_with_element(head: bytes) -> bool:
    """Whether the bytes look like the first element of a data set: a tag of group 2 or 8, and a plausible length."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHL", head[:8])
        if group in (0x0002, 0x0008) and element <= 0x0200:
            return head[4:6].isalpha() or length < 4096
    return False


def _read_header(file: BinaryIO, tags: Sequence[int] = _TAGS) -> _Header:
    """Reads the elements with these tags, up to the pixel data, where the file then stands."""
    limited = _HeaderFile(file)
    head = limited.read(132)
    file.seek(132 if head[128:] == b"DICM" else 0)
    meta = read_dataset(
        limited, False, True, stop_when=lambda tag, vr, n_bytes: tag.group != 2, specific_tags=[_TRANSFER_SYNTAX]
    )
    named = getattr(meta.get_item(_TRANSFER_SYNTAX), "value", None) or b""
    syntax = named.decode("ascii", "replace").strip(" \0") or _guess_syntax(limited)
    if syntax not in NATIVE + COMPRESSED:
        raise RadiographError(f"transfer syntax {syntax_name(syntax)} is not supported")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        file = io.BytesIO(_inflate(file))
        limited = _HeaderFile(file)

    header = _Header(file, syntax)

    def at_pixels(tag: int, vr: str | None, n_bytes: int) -> bool:
        if tag not in (_PIXEL_DATA, *_FLOAT_PIXEL_DATA):
            return False
        header.tag, header.vr, header.start, header.n_bytes = tag, vr, file.tell(), n_bytes
        return True

    is_implicit, is_little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    header.elements = read_dataset(limited, is_implicit, is_little, stop_when=at_pixels, specific_tags=list(tags))
    file.seek(header.start)
    return header


def _guess_syntax(file: _HeaderFile) -> str:
    """For a data set whose file meta names no transfer syntax: DICOM's default, unless it shows explicit types."""
    start = file.tell()
    head = file.read(6)
    file.seek(start)
    if not head[4:6].isalpha():
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if head[:1] == b"\0" else uid.ExplicitVRLittleEndian


def _inflate(file: BinaryIO) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(file.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise RadiographError(f"its deflated data set is larger than {MAX_INFLATED_BYTES >> 20} MiB")
    return inflated


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the pixels lie in the file."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    photometric: str

    def at_precision(self, precision: int) -> "_Layout":
        """The layout of decoded words, whose codestream stores so many bits."""
        # Signed values come sign-extended or not, depending on the format: below the precision both are the same.
        stored = min(self.bits_stored, precision)
        high = self.high_bit if stored <= self.high_bit + 1 <= precision else stored - 1
        return dataclasses.replace(self, bits_stored=stored, high_bit=high)

    @property
    def n_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.bits_allocated == 8 else np.uint16)


def _layout(header: _Header) -> _Layout:
    """Reads and checks the image pixel module (PS3.3 C.7.6.3)."""
    rows, columns = header.number("Rows"), header.number("Columns")
    if header.tag in _FLOAT_PIXEL_DATA:
        raise RadiographError("its pixels are floating-point numbers, not grey levels of a detector")
    if header.tag is None or not rows or not columns:
        raise RadiographError("DICOM file without an image (no pixel data): a report or another object?")
    n_frames = header.decimals("NumberOfFrames")[0]
    if n_frames > 1:
        raise RadiographError(f"it has {n_frames:.0f} frames, a radiograph has one: export the frame that is meant")
    if rows * columns > MAX_PIXELS:
        raise RadiographError(f"{columns} x {rows} pixels are more than {MAX_PIXELS // 10**6} million")
    samples = header.number("SamplesPerPixel", default=1)
    photometric = header.texts("PhotometricInterpretation")[0].upper() or "MONOCHROME2"
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        kind = photometric if photometric in COLOURS else "of an unknown kind"
        raise RadiographError(f"its pixels are colour ({kind}, {samples} samples), a radiograph is grey")
    allocated = header.number("BitsAllocated", default=16)
    if allocated not in (8, 16):
        raise RadiographError(f"{allocated} bits per pixel are not supported (8 or 16)")
    stored = header.number("BitsStored")
    if not 1 <= stored <= allocated:
        stored = allocated
    high = header.number("HighBit")
    if not stored - 1 <= high < allocated:
        high = stored - 1
    return _Layout(rows, columns, allocated, stored, high, header.number("PixelRepresentation") == 1, photometric)


def _native_words(header: _Header, layout: _Layout) -> np.ndarray:
    """The words of uncompressed pixel data, without a copy where the byte order allows."""
    # An odd number of bytes is padded to an even one; what follows the first frame is of no interest.
    data = header.file.read(layout.n_bytes)
    n_found = min(len(data), header.n_bytes)
    if n_found < layout.n_bytes:
        raise RadiographError(
            f"truncated: {layout.columns} x {layout.rows} pixels of {layout.bits_allocated} bits need "
            f"{layout.n_bytes} bytes, found {n_found}"
        )
    words = np.frombuffer(data, layout.dtype)
    if header.syntax == uid.ExplicitVRBigEndian:
        if layout.bits_allocated == 16:
            words = words.byteswap()
        elif header.vr == "OW":
            # Two 8-bit pixels share a big-endian word, the first one in its low byte (PS3.5 8.1.2).
            words = np.frombuffer(data + header.file.read(len(data) % 2), ">u2").astype("<u2").view(np.uint8)
            words = words[: layout.rows * layout.columns]
    return words.reshape(layout.rows, layout.columns)


def _single_frame(header: _Header) -> bytes:
    """The codestream of encapsulated pixel data (PS3.5 A.4): all fragments behind the offset table, joined."""
    header.file.seek(header.start)
    # The length must be undefined; but what lies there as items was met with one, and is no less clear.
    if header.n_bytes != _UNDEFINED_LENGTH and header.file.read(4) != b"\xfe\xff\x00\xe0":
        raise RadiographError(f"its pixels are not encapsulated, as {syntax_name(header.syntax)} needs them to be")
    fragments: list[bytes] = []
    is_offset_table = True
    end = header.file.seek(0, io.SEEK_END)
    if header.n_bytes != _UNDEFINED_LENGTH:
        end = min(end, header.start + header.n_bytes)
    header.file.seek(header.start)
    while header.file.tell() < end and len(item := header.file.read(8)) == 8:
        group, element, n_bytes = struct.unpack("<HHL", item)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000):
            raise RadiographError("damaged: something stands between the fragments of its pixel data")
        n_left = end - header.file.tell()
        if n_bytes > n_left:
            raise RadiographError(f"truncated: {n_bytes} bytes of its pixel data are announced, {n_left} are left")
        fragment = header.file.read(n_bytes)
        if not is_offset_table:
            fragments.append(fragment)
            if len(fragments) > MAX_FRAGMENTS:
                raise RadiographError(f"its pixel data comes in more than {MAX_FRAGMENTS} pieces")
        is_offset_table = False
    if not any(fragments):
        raise RadiographError("truncated: its pixel data is empty")
    return b"".join(fragments)


def _meaning(header: _Header, layout: _Layout) -> GreyMeaning:
    """The modality LUT, VOI LUT and presentation modules (PS3.3 C.11.1, C.11.2, C.11.6)."""
    shape = header.texts("PresentationLUTShape")[0].upper()
    is_inverted = shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else layout.photometric == "MONOCHROME1"
    slope, intercept = header.decimals("RescaleSlope")[0], header.decimals("RescaleIntercept")[0]
    slope = slope if _is_sane(slope) and slope else 1.0
    intercept = intercept if _is_sane(intercept) else 0.0
    # Whether a table's first value is signed follows from what goes into it (PS3.3 C.11.1.1, C.11.2.1.1).
    modality_lut = _lookup_table(header, "ModalityLUTSequence", signed=layout.is_signed)
    lowest = -(2 ** (layout.bits_stored - 1)) if layout.is_signed else 0
    highest = lowest + 2**layout.bits_stored - 1
    is_negative = modality_lut is None and min(lowest * slope, highest * slope) + intercept < 0
    voi_lut = _lookup_table(header, "VOILUTSequence", signed=is_negative)
    windows = zip(header.decimals("WindowCenter"), header.decimals("WindowWidth"), strict=False)
    return GreyMeaning(
        bits_stored=layout.bits_stored,
        high_bit=layout.high_bit,
        is_signed=layout.is_signed,
        is_inverted=is_inverted,
        slope=slope,
        intercept=intercept,
        modality_lut=modality_lut,
        voi_lut=voi_lut,
        windows=tuple((c, w) for c, w in windows if _is_sane(c) and _is_sane(w)),
        voi_function=header.texts("VOILUTFunction")[0].upper() or "LINEAR",
        padding=_padding(header, layout),
    )


def _is_sane(value: float) -> bool:
    # No detector's scale needs more; float64 keeps its precision up to here. NaN is not sane.
    return abs(value) < 1e9


def _lookup_table(header: _Header, keyword: str, signed: bool) -> LookupTable | None:
    """The first usable table of a sequence."""
    for item in header.items(keyword):
        descriptor = header.numbers("LUTDescriptor", of=item)
        entries = header.numbers("LUTData", of=item)
        if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
            continue
        # 0 stands for 65,536, which 16 bits cannot hold.
        n_entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
        if first >= 32768 and (signed or getattr(item.get_item("LUTDescriptor"), "VR", "") == "SS"):
            first -= 65536
        if bits <= 8 and len(entries) < n_entries <= 2 * len(entries):
            # Two 8-bit entries share a word, the first one in its low byte.
            entries = entries.astype("<u2").view(np.uint8)
        if len(entries):
            return LookupTable(first, entries[:n_entries].astype(np.uint16), bits)
    return None


def _padding(header: _Header, layout: _Layout) -> tuple[int, int] | None:
    first = header.numbers("PixelPaddingValue", signed=layout.is_signed)
    limit = header.numbers("PixelPaddingRangeLimit", signed=layout.is_signed)
    if not len(first):
        return None
    edges = (int(first[0]), int(limit[0]) if len(limit) else int(first[0]))
    return min(edges), max(edges)


def _attributes(header: _Header) -> dict[str, str]:
    keywords = {"view": "ViewPosition", "sex": "PatientSex", "age": "PatientAge", "manufacturer": "Manufacturer"}
    return plain_attributes({name: header.texts(keyword)[0] for name, keyword in keywords.items()})


def _spacing(header: _Header) -> tuple[float, float] | None:
    # Calibrated to the patient where that is known, else at the detector.
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = header.decimals(keyword)
        if len(spacing) == 2 and all(math.isfinite(value) and value > 0 for value in spacing):
            return spacing[0], spacing[1]
    return None
