"""The bytes of a DICOM file's pixels, or their compressed data, from wherever in the file they are (PS3.5 annex A)."""

import io
import struct
from typing import BinaryIO

from pydicom import uid

from xray.radiographs.codestream import RadiographError, found_syntax, syntax_name
from xray.radiographs.elements import UNDEFINED_LENGTH, Place
from xray.radiographs.pixel_layout import Layout, native_size

MAX_FRAGMENTS = 65_536
"""Pieces that the compressed pixels may come in."""

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
GE_PRIVATE = "1.2.840.113619.5.2"
"""Implicit VR little endian whose pixels are big endian."""
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
OTHER_NATIVE = (GE_PRIVATE, ENCAPSULATED_UNCOMPRESSED)
"""Read from files; no sender offers them."""
UNCOMPRESSED = (*NATIVE, *OTHER_NATIVE)


def pixels_of(file: BinaryIO, syntax: str, place: Place, layout: Layout) -> tuple[bytes, str]:
    """The bytes of the uncompressed pixels, or the codestream; and the transfer syntax that they are in.

    syntax: what the header says, or what is guessed where it says nothing. Compressed data tells by itself what it is,
    and is believed: files are met that lost their meta information, or were compressed under the old name.
    Raises RadiographError where the pixels are not all there.
    """
    is_native, is_encapsulated = syntax in UNCOMPRESSED, place.n_bytes == UNDEFINED_LENGTH
    n_bytes = native_size(layout, place.n_bytes)
    if not is_encapsulated and (place.n_bytes < n_bytes or not is_native):
        # Some senders give the length of encapsulated data, which must be undefined; the items are there nevertheless.
        file.seek(place.start)
        is_encapsulated = file.read(4) == b"\xfe\xff\x00\xe0"
    if is_encapsulated:
        data = _fragments(file, place)
        found = found_syntax(data, syntax)
        if not is_native:
            return data, found or syntax
        n_bytes = native_size(layout, len(data))
        # A byte of padding, and what follows the first frame, are of no interest.
        if syntax in NATIVE and len(data) not in (n_bytes, n_bytes + 1):
            if found is None:
                kind = syntax_name(syntax)
                raise RadiographError(f"its pixels are encapsulated, though {kind} has them uncompressed")
            return data, found
    else:
        # A system on the way decompressed it and left the name of the transfer syntax.
        is_native = is_native or place.n_bytes - n_bytes in (0, n_bytes % 2)
        file.seek(place.start)
        data = file.read(min(place.n_bytes, n_bytes + n_bytes % 2) if is_native else place.n_bytes)
        if (not is_native or place.n_bytes < n_bytes) and (found := found_syntax(data, syntax)) is not None:
            # A codestream that stands in no items.
            return data, found
        if not is_native:
            raise RadiographError(f"its pixels are not encapsulated, as {syntax_name(syntax)} needs them to be")
    if len(data) < n_bytes:
        of = f" of {layout.samples} samples" if layout.samples > 1 else ""
        raise RadiographError(
            f"truncated: {layout.columns} x {layout.rows} pixels{of} of {layout.bits_allocated} bits need {n_bytes} "
            f"bytes, found {len(data)}"
        )
    return data, syntax if syntax in UNCOMPRESSED else uid.ExplicitVRLittleEndian


def _fragments(file: BinaryIO, place: Place) -> bytes:
    """Encapsulated pixel data (PS3.5 A.4): all fragments behind the offset table, joined."""
    fragments: list[bytes] = []
    is_offset_table = True
    end = file.seek(0, io.SEEK_END)
    if place.n_bytes != UNDEFINED_LENGTH:
        end = min(end, place.start + place.n_bytes)
    file.seek(place.start)
    while file.tell() < end and len(item := file.read(8)) == 8:
        group, element, n_bytes = struct.unpack("<HHL", item)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000):
            raise RadiographError("damaged: something stands between the fragments of its pixel data")
        n_left = end - file.tell()
        if n_bytes > n_left:
            raise RadiographError(f"truncated: {n_bytes} bytes of its pixel data are announced, {n_left} are left")
        fragment = file.read(n_bytes)
        if not is_offset_table:
            fragments.append(fragment)
            if len(fragments) > MAX_FRAGMENTS:
                raise RadiographError(f"its pixel data comes in more than {MAX_FRAGMENTS} pieces")
        is_offset_table = False
    if not any(fragments):
        raise RadiographError("truncated: its pixel data is empty")
    return b"".join(fragments)
