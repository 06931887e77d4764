"""Compressed pixel data of one DICOM frame → its stored words."""

import io
import re
import struct
from typing import NamedTuple

import gdcm
import jpeg_ls
import numpy as np
import PIL.Image
from pydicom import uid
from pydicom.uid import UID_dictionary
from rle.utils import decode_pixel_data

from xray.errors import InputError

JPEG = (
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1,
    # Spectral selection and full progression, retired: pydicom has no names for them.
    uid.UID("1.2.840.10008.1.2.4.53"), uid.UID("1.2.840.10008.1.2.4.55"),
)  # fmt: skip
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
COMPRESSED = (*JPEG, *JPEG_LS, *JPEG_2000, uid.RLELossless)
LOSSLESS = (
    uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL, uid.RLELossless,
)  # fmt: skip

NEWER_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.113619.5.2": "Implicit VR Big Endian (GE, private)",
}
"""Transfer syntaxes that pydicom has no name for."""

SIZ, CAP, COD, SOT, EOC = 0x51, 0x50, 0x52, 0x90, b"\xff\xd9"
EOI = b"\xff\xd9"
"""What ends JPEG and JPEG-LS."""
KEPT = (SIZ, COD, 0x53, 0x5C, 0x5D, 0x5E, 0x5F, 0x60)
"""Second bytes of the markers in JPEG 2000's main header that say how to decode: SIZ, COD, COC, QCD, QCC, RGN, POC and
PPM (T.800 A.2)."""
LEFT_OUT = (0x55, 0x56, 0x57, 0x59, 0x63, 0x64)
"""Markers that help to find tiles, name profiles, or hold comments: TLM, PRF, PLM, CPF, CRG and COM."""
PART_15 = 0x00020000
"""The bit of CAP that says High Throughput (T.814 A.3); other bits are of other parts of the standard."""
MAX_TILE_PARTS = 2**20
MAX_FILLED = 3
"""Zeros by which the scan of JPEG-LS may be filled up."""

# Messages of the decoder about damaged data would stand unordered between the lines of a command.
gdcm.Trace.DebugOff()
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


class RadiographError(InputError):
    """A file cannot be read as a radiograph. The message says what was found, and names the file, not its folder."""


def syntax_name(syntax: str) -> str:
    """A transfer syntax for people; the file's own text, which may be anything, is repeated only where it is a UID."""
    if syntax in UID_dictionary:
        return UID_dictionary[syntax][0]
    if syntax in NEWER_SYNTAXES:
        return NEWER_SYNTAXES[syntax]
    return syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "that is no UID"


def found_syntax(codestream: bytes, syntax: str) -> str | None:
    """What compressed data is in, by its first bytes: `syntax` where that is of the same kind; None for what is not
    known, as uncompressed pixels are."""
    if codestream.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return syntax if syntax in JPEG_2000 else uid.JPEG2000Lossless
    if codestream.startswith(b"\xff\xd8\xff"):
        try:
            size = jpeg_size(codestream)
        except (RadiographError, struct.error, IndexError):
            return None
        if size.marker == 0xF7:
            return syntax if syntax in JPEG_LS else uid.JPEGLSLossless
        return syntax if syntax in JPEG else uid.JPEGExtended12Bit if size.is_cosine else uid.JPEGLossless
    # How many segments, and where each begins (PS3.5 G.5).
    n, *places = struct.unpack_from("<16L", codestream.ljust(64, b"\0"))
    if 1 <= n <= 15 and places[0] == 64 and sorted(places[:n]) == places[:n] and not any(places[n:]):
        return uid.RLELossless if places[n - 1] < len(codestream) else None
    return None


class Frame(NamedTuple):
    """A decoded frame.

    words: (H, W), or (H, W, 3) of three samples, uint8 or uint16. Of colour JPEG, they are as stored: luma and chroma
        where that is what it stores.
    precision: how many of their low bits the codestream stores.
    is_signed: they are in two's complement.
    is_lossy: they need not be what was encoded, as the transfer syntax or the codestream itself says.
    """

    words: np.ndarray
    precision: int
    is_signed: bool
    is_lossy: bool


def decode_codestream(
    codestream: bytes, syntax: str, rows: int, columns: int, bits_allocated: int, is_signed: bool, samples: int = 1
) -> Frame:
    """Decodes one compressed frame.

    syntax: one of COMPRESSED. The other arguments are those of the DICOM header; rows x columns x samples must be
    within limits. A codestream of one sample is taken for grey where the header has three.
    Raises RadiographError where the codestream is truncated, damaged, or of another size or number of samples; on
    damaged data the decoders may raise anything else, too.
    """
    if syntax == uid.RLELossless:
        words = _run_length_words(codestream, rows, columns, bits_allocated, samples)
        return Frame(words, bits_allocated, is_signed, is_lossy=False)
    # The decoders allocate what the codestream announces, so it must announce what was checked in the header.
    is_lossy = syntax not in LOSSLESS
    if syntax in JPEG_2000:
        codestream = plain_jpeg_2000(codestream)
        is_lossy = is_lossy or _is_irreversible(codestream)
        size = _jpeg_2000_size(codestream)
        # The headers of some writers (Toshiba) say otherwise, which would turn dark into bright.
        is_signed = is_signed or size.is_signed
    else:
        size = jpeg_size(codestream)
        is_lossy = is_lossy or size.is_cosine
    if (size.rows, size.columns) != (rows, columns):
        raise RadiographError(
            f"its header announces {columns} x {rows} pixels, its compressed data {size.columns} x {size.rows}"
        )
    if size.samples not in (1, samples) or not 2 <= size.precision <= max(8, bits_allocated):
        raise RadiographError(
            f"its compressed data has {size.samples} samples of {size.precision} bits per pixel, its header announces "
            f"{samples} of {bits_allocated}: export it again"
        )
    if syntax in JPEG_LS:
        words = _jpeg_ls_words(codestream, size)
    elif syntax in JPEG and size.is_cosine and size.precision == 8 and size.samples == 1:
        try:
            with PIL.Image.open(io.BytesIO(codestream), formats=["JPEG"]) as picture:
                words = np.asarray(picture)
        except OSError:
            raise RadiographError(f"its {syntax_name(syntax)} data is damaged or truncated") from None
    else:
        words = _gdcm_words(codestream, syntax, size, is_signed)
    words = words.reshape((rows, columns) if size.samples == 1 else (rows, columns, size.samples))
    return Frame(words, size.precision, is_signed, is_lossy)


def _run_length_words(codestream: bytes, rows: int, columns: int, bits_allocated: int, samples: int) -> np.ndarray:
    n_bytes = rows * columns * bits_allocated // 8 * samples
    # Two bytes of PackBits stand for 128 at most: a header that announces more is an attack on memory.
    if n_bytes > 64 * len(codestream):
        raise RadiographError(f"truncated: {n_bytes} bytes of pixels cannot be in {len(codestream)} bytes of RLE")
    try:
        data = decode_pixel_data(codestream, version=2, rows=rows, columns=columns, bits_allocated=bits_allocated)
    except BaseException as error:
        # A panic of the decoder, written in Rust, is no Exception, and cannot be pickled out of a worker either.
        if type(error).__name__ != "PanicException":
            raise
        raise RadiographError("damaged: its run lengths do not fit its size") from None
    words = np.frombuffer(data, f"<u{bits_allocated // 8}")
    if samples == 1:
        return words.reshape(rows, columns)
    # Run lengths are always by plane (PS3.5 G.2).
    return np.ascontiguousarray(words.reshape(samples, rows, columns).transpose(1, 2, 0))


class StreamSize(NamedTuple):
    """What a codestream announces. marker: second byte of the marker that begins JPEG's frame header."""

    rows: int
    columns: int
    samples: int
    precision: int
    is_signed: bool = False
    marker: int = 0

    @property
    def is_cosine(self) -> bool:
        """It is JPEG by the discrete cosine transform, neither lossless nor JPEG-LS."""
        return 0xC0 <= self.marker <= 0xCF and self.marker & 3 != 3


def jpeg_size(codestream: bytes) -> StreamSize:
    """What the frame header of JPEG or JPEG-LS announces (T.81 B.2.2, T.87 C.2.2). Raises RadiographError."""
    at = 2
    while codestream[at : at + 1] == b"\xff":
        marker = codestream[at + 1]
        if marker == 0xFF:
            at += 1
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", codestream, at + 4)
            return StreamSize(rows, columns, samples, precision, marker=marker)
        else:
            at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    raise RadiographError("damaged: its JPEG data has no frame header")


def _jpeg_ls_words(codestream: bytes, size: StreamSize) -> np.ndarray:
    # GDCM 3.2.6 gives nothing for 6 and 7 bits, nor for parameters other than the default ones.
    data, parameters = _decoded_jpeg_ls(codestream)
    words = np.frombuffer(data, np.uint8 if size.precision <= 8 else "<u2")
    if size.samples == 1:
        return words.reshape(size.rows, size.columns)
    if parameters["interleave_mode"] == 0:
        by_plane = words.reshape(size.samples, size.rows, size.columns)
        return np.ascontiguousarray(by_plane.transpose(1, 2, 0))
    return words.reshape(size.rows, size.columns, size.samples)


def _decoded_jpeg_ls(codestream: bytes) -> tuple[bytearray, dict[str, int]]:
    # Where data is cut and no marker ends it, CharLS counts bits that are not there for seconds.
    candidates, end = [codestream + EOI], codestream.rfind(EOI)
    # Some encoders fill the scan up with zeros, which CharLS 2.4 takes for a damaged marker: without them, one by one,
    # as a zero may belong to the scan.
    while end > 0 and codestream[end - 1] == 0 and len(candidates) <= MAX_FILLED:
        end -= 1
        candidates.append(codestream[:end] + EOI)
    for candidate in candidates:
        try:
            decoded: tuple[bytearray, dict[str, int]] = jpeg_ls.decode_buffer(candidate)
            return decoded
        except RuntimeError:
            continue
    raise RadiographError("its JPEG-LS data is damaged or truncated")


def plain_jpeg_2000(data: bytes) -> bytes:
    """JPEG 2000 data → its codestream, with nothing in the main header but what decoding needs, nor behind the tiles.

    Some writers leave the boxes of a JP2 file around the codestream; they go. So do the lengths of tiles (TLM), by
    which OpenJPEG 2.5.3 and 2.5.4 can be made to write beyond their memory (OSV-2025-219), as GDCM 3.2.6 has it; and
    comments behind the last tile, for which it refuses the whole.
    Raises RadiographError where there is no codestream, or its main header holds anything that neither Part 1 nor Part
    15 (High Throughput) of the standard knows: decoders look for the next marker in such a place, each in its own way.
    """
    begin = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if begin < 0:
        raise RadiographError("damaged: its JPEG 2000 data has no size marker")
    at, parts = begin + 2, [data[begin : begin + 2]]
    while True:
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if len(marker) < 2 or marker[0] != 0xFF or length < 2 or at + 2 + length > len(data):
            raise RadiographError("damaged: the main header of its JPEG 2000 data does not come to an end")
        if marker[1] == SOT:
            return b"".join([*parts, *_tile_parts(data, at)])
        content = data[at + 4 : at + 2 + length]
        is_high_throughput = marker[1] == CAP and len(content) == 6 and int.from_bytes(content[:4], "big") == PART_15
        if (marker[1] in KEPT or is_high_throughput) and (marker[1] == SIZ) == (len(parts) == 1):
            parts.append(data[at : at + 2 + length])
        elif marker[1] not in LEFT_OUT:
            raise RadiographError(f"the main header of its JPEG 2000 data has a misplaced marker, 0x{marker.hex()}")
        at += 2 + length


def _tile_parts(data: bytes, start: int) -> tuple[bytes, ...]:
    """The tile-parts from `start` on and the end marker, without the comments between them."""
    at = start
    for _ in range(MAX_TILE_PARTS):
        if data[at : at + 2] != bytes([0xFF, SOT]):
            return (data[start:at], EOC) if _is_idle(data, at) else (data[start:],)
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        # A last part of length 0 goes on to the end (T.800 A.4.2); others are damaged, which decoders tell best.
        if length < 14 or at + length > len(data):
            break
        at += length
    return (data[start:],)


def _is_idle(data: bytes, at: int) -> bool:
    """Whether nothing stands from here to the end marker but comments, reserved markers (T.800 A.1) and zeros."""
    for _ in range(1000):
        zeros = _ZEROS.match(data, at)
        assert zeros is not None  # none at all match, too
        at = zeros.end()
        marker = data[at : at + 2]
        if not marker or marker == EOC:
            return True
        if len(marker) == 2 and marker[0] == 0xFF and 0x30 <= marker[1] <= 0x3F:
            at += 2
        elif marker in (b"\xff\x64", b"\xff\x63") and (length := int.from_bytes(data[at + 2 : at + 4], "big")) >= 2:
            at += 2 + length
        else:
            return False
    return False


_ZEROS = re.compile(rb"\0*", re.DOTALL)


def _jpeg_2000_size(codestream: bytes) -> StreamSize:
    """What the SIZ marker of JPEG 2000 announces (T.800 A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">4L", codestream, 8)
    samples, precision = struct.unpack_from(">HB", codestream, 40)
    return StreamSize(bottom - top, right - left, samples, (precision & 0x7F) + 1, is_signed=precision > 0x7F)


def _is_irreversible(codestream: bytes) -> bool:
    """Whether a plain codestream says that its wavelets do not give back what went in (COD, T.800 A.6.1)."""
    at = 2
    while (marker := codestream[at + 1]) != SOT:
        if marker == COD:
            return codestream[at + 13] == 0
        at += 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
    return False


def _gdcm_words(codestream: bytes, syntax: str, size: StreamSize, is_signed: bool) -> np.ndarray:
    # pydicom's own way to GDCM refuses 12-bit JPEG, which GDCM reads.
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(codestream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((size.columns, size.rows, 1))
    image.SetDataElement(element)
    # Three samples called RGB come out as they are stored, by pixel.
    colours = gdcm.PhotometricInterpretation.MONOCHROME2 if size.samples == 1 else gdcm.PhotometricInterpretation.RGB
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(colours))
    image.SetPlanarConfiguration(0)
    # GDCM knows High Throughput and progressive JPEG by other names only.
    asked = uid.JPEG2000 if syntax in JPEG_2000 else syntax
    if syntax in JPEG and size.is_cosine:
        asked = uid.JPEGExtended12Bit
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(asked))))
    dtype = np.dtype(np.uint8 if size.precision <= 8 else np.uint16)
    bits = 8 * dtype.itemsize
    image.SetPixelFormat(gdcm.PixelFormat(size.samples, bits, size.precision, size.precision - 1, int(is_signed)))
    decoded = image.GetBuffer()
    if decoded is None:
        raise RadiographError(f"its {syntax_name(syntax)} data is damaged or truncated")
    # GDCM's wrapper hands its bytes over as text.
    words = np.frombuffer(decoded.encode("utf-8", "surrogateescape"), dtype)
    return words.reshape(size.rows, size.columns, size.samples)
