"""Compressed pixel data of one DICOM frame → its stored words."""

import io
import re
import struct

import gdcm
import numpy as np
import PIL.Image
import rle
from pydicom import uid

from xray.command import InputError

JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
COMPRESSED = (*JPEG, *JPEG_LS, *JPEG_2000, uid.RLELossless)

SIZ, SOT = 0x51, 0x90
KEPT = (SIZ, 0x52, 0x53, 0x5C, 0x5D, 0x5E, 0x5F, 0x60)
"""Second bytes of the markers in JPEG 2000's main header that say how to decode: SIZ, COD, COC, QCD, QCC, RGN, POC and
PPM (T.800 A.2)."""
LEFT_OUT = (0x55, 0x57, 0x63, 0x64)
"""Of those that help to find tiles, or speak to people: TLM, PLM, CRG and COM."""

# Messages of the decoder about damaged data would stand unordered between the lines of a command.
gdcm.Trace.DebugOff()
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


class RadiographError(InputError):
    """A file cannot be read as a radiograph. The message says what was found, and names the file, not its folder."""


def syntax_name(syntax: str) -> str:
    """A transfer syntax for people; the file's own text, which may be anything, is repeated only where it is a UID."""
    if syntax in uid.UID_dictionary:
        return uid.UID_dictionary[syntax][0]
    return syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "that is no UID"


def decode_codestream(
    codestream: bytes, syntax: str, rows: int, columns: int, bits_allocated: int, is_signed: bool
) -> tuple[np.ndarray, int]:
    """One compressed frame → its words, (rows, columns) uint8 or uint16, and how many of their low bits it stores.

    syntax: one of COMPRESSED. The other arguments are those of the DICOM header; rows x columns must be within limits.
    Raises RadiographError where the codestream is truncated, damaged, in colour or of another size; on damaged data
    the decoders may raise anything else, too.
    """
    if syntax == uid.RLELossless:
        # Two bytes of PackBits stand for 128 at most: whoever claims more wants memory, not a picture.
        n_bytes = rows * columns * bits_allocated // 8
        if n_bytes > 64 * len(codestream):
            raise RadiographError(f"truncated: {n_bytes} bytes of pixels cannot be in {len(codestream)} bytes of RLE")
        try:
            data = rle.decode_pixel_data(
                codestream, version=2, rows=rows, columns=columns, bits_allocated=bits_allocated
            )
        except BaseException as error:
            # A panic of the decoder, written in Rust, is no Exception, and cannot be pickled out of a worker either.
            if type(error).__name__ != "PanicException":
                raise
            raise RadiographError("damaged: its run lengths do not fit its size") from None
        return np.frombuffer(data, f"<u{bits_allocated // 8}").reshape(rows, columns), bits_allocated

    # The decoders allocate what the codestream announces, so it must announce what was checked in the header.
    if syntax in JPEG_2000:
        codestream = plain_jpeg_2000(codestream)
        height, width, samples, precision = _jpeg_2000_size(codestream)
    else:
        height, width, samples, precision = _jpeg_size(codestream)
    if (height, width) != (rows, columns):
        raise RadiographError(f"its header announces {columns} x {rows} pixels, its compressed data {width} x {height}")
    if samples != 1 or not 2 <= precision <= bits_allocated:
        raise RadiographError(f"its compressed data has {samples} samples of {precision} bits per pixel")
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit) and precision == 8:
        with PIL.Image.open(io.BytesIO(codestream), formats=["JPEG"]) as picture:
            words = np.asarray(picture)
    else:
        words = _gdcm_words(codestream, syntax, rows, columns, precision, is_signed)
    return words.reshape(rows, columns), precision


def _jpeg_size(codestream: bytes) -> tuple[int, int, int, int]:
    """(rows, columns, samples per pixel, bits per sample) from the frame header of JPEG or JPEG-LS (T.81 B.2.2)."""
    at = 2
    while codestream[at : at + 1] == b"\xff":
        marker = codestream[at + 1]
        if marker == 0xFF:
            at += 1
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", codestream, at + 4)
            return rows, columns, samples, precision
        else:
            at += 2 + struct.unpack_from(">H", codestream, at + 2)[0]
    raise RadiographError("damaged: its JPEG data has no frame header")


def plain_jpeg_2000(data: bytes) -> bytes:
    """JPEG 2000 data → its codestream, with nothing in the main header but what decoding needs.

    Some writers leave the boxes of a JP2 file around the codestream; they go. So do the lengths of tiles (TLM), by
    which OpenJPEG 2.5.3 and 2.5.4 can be made to write beyond their memory (OSV-2025-219), as GDCM 3.2.6 has it.
    Raises RadiographError where there is no codestream, or its main header holds anything that Part 1 of the standard
    does not know: decoders look for the next marker in such a place, each in its own way.
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
            return b"".join([*parts, data[at:]])
        if marker[1] in KEPT and (marker[1] == SIZ) == (len(parts) == 1):
            parts.append(data[at : at + 2 + length])
        elif marker[1] not in LEFT_OUT:
            raise RadiographError(f"the main header of its JPEG 2000 data has a misplaced marker, 0x{marker.hex()}")
        at += 2 + length


def _jpeg_2000_size(codestream: bytes) -> tuple[int, int, int, int]:
    """(rows, columns, samples per pixel, bits per sample) from the SIZ marker of JPEG 2000 (T.800 A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">4L", codestream, 8)
    samples, precision = struct.unpack_from(">HB", codestream, 40)
    return bottom - top, right - left, samples, (precision & 0x7F) + 1


def _gdcm_words(codestream: bytes, syntax: str, rows: int, columns: int, precision: int, is_signed: bool) -> np.ndarray:
    # pydicom's own way to GDCM refuses 12-bit JPEG, which GDCM reads.
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(codestream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    dtype = np.dtype(np.uint8 if precision <= 8 else np.uint16)
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * dtype.itemsize, precision, precision - 1, int(is_signed)))
    decoded = image.GetBuffer()
    if decoded is None:
        raise RadiographError(f"its {syntax_name(syntax)} data is damaged or truncated")
    # GDCM's wrapper hands its bytes over as text.
    return np.frombuffer(decoded.encode("utf-8", "surrogateescape"), dtype)
