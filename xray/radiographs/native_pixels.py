"""Uncompressed pixel data → words (PS3.5 8.1)."""

import dataclasses

import numpy as np

from xray.radiographs.codestream import RadiographError
from xray.radiographs.pixel_layout import Layout

SHARED_CHROMA = ("YBR_FULL_422", "YBR_PARTIAL_422")


def native_size(layout: Layout, n_found: int) -> int:
    """Bytes of the pixels, of which `n_found` are there.

    Pairs of pixels that share their chroma have 2 samples per pixel, unless the file was decompressed to 3 and still
    says so.
    """
    if layout.photometric in SHARED_CHROMA and n_found < layout.n_bytes:
        return layout.n_bytes // 3 * 2
    return layout.n_bytes


def native_words(data: bytes, layout: Layout, is_big: bool, vr: str | None) -> np.ndarray:
    """(H, W), or (H, W, 3) of three samples, uint8, uint16 or uint32; without a copy where the byte order allows.

    data: as many bytes as `native_size` says, and the byte of padding behind an odd number.
    is_big: its byte order is big endian. vr: its type, None in implicit VR.
    Raises RadiographError for colour whose order is not defined.
    """
    if layout.photometric == "YBR_PARTIAL_420":
        raise RadiographError("YBR_PARTIAL_420 is for compressed pixels, and its are not: export it as MONOCHROME2")
    n_values = layout.rows * layout.columns * layout.samples
    n_stored = n_values // 3 * 2 if native_size(layout, len(data)) < layout.n_bytes else n_values
    if layout.bits_allocated not in (8, 16, 32):
        words = unpacked(_swapped(data, layout) if is_big else data, n_stored, layout.bits_allocated)
    elif not is_big:
        words = np.frombuffer(data, layout.dtype, count=n_stored)
    elif layout.bits_allocated > 8:
        words = np.frombuffer(data, layout.dtype.newbyteorder(">"), count=n_stored).astype(layout.dtype)
    elif vr == "OW":
        # Two 8-bit pixels share a big-endian word, the first one in its low byte (PS3.5 8.1.2).
        words = np.frombuffer(_swapped(data, layout), np.uint8, count=n_stored)
    else:
        words = np.frombuffer(data, np.uint8, count=n_stored)
    if layout.samples == 1:
        return words.reshape(layout.rows, layout.columns)
    if n_stored < n_values:
        return _with_chroma(words).reshape(layout.rows, layout.columns, 3)
    if layout.is_planar:
        return np.ascontiguousarray(words.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0))
    return words.reshape(layout.rows, layout.columns, 3)


def _swapped(data: bytes, layout: Layout) -> bytes:
    even = data + b"\0" * (len(data) % 2)
    return np.frombuffer(even, ">u2").astype("<u2").tobytes()


def _with_chroma(words: np.ndarray) -> np.ndarray:
    """Y1 Y2 Cb Cr of each pair of pixels → (N, 3) Y Cb Cr."""
    # With an odd number of columns a pair may lie on two rows: the standard does not say, and the last may be half.
    pairs = words[: len(words) // 4 * 4].reshape(-1, 4)
    full = np.empty((len(words) // 2, 3), words.dtype)
    n = 2 * len(pairs)
    full[:n:2, 0], full[1:n:2, 0] = pairs[:, 0], pairs[:, 1]
    full[:n:2, 1:] = full[1:n:2, 1:] = pairs[:, 2:]
    if n < len(full):
        full[n:] = [words[-2], *full[n - 1, 1:]] if n else words[-2]
    return full


def unpacked(data: bytes, n_values: int, bits: int) -> np.ndarray:
    """`n_values` values of 9 to 15 bits that stand one behind another, the lowest bit first → uint16.

    So do pixels of 12 bits allocated: two in three bytes (ACR-NEMA, and DICOM before 1998).
    """
    n_groups = -(-n_values // 8)
    # Eight values fill as many bytes as a value has bits; two more bytes, that the last one may be taken from three.
    groups = np.zeros((n_groups, bits + 2), np.uint8)
    flat = np.frombuffer(data, np.uint8)[: n_groups * bits]
    n_whole = len(flat) // bits
    groups[:n_whole, :bits] = flat[: n_whole * bits].reshape(-1, bits)
    if rest := len(flat) - n_whole * bits:
        groups[n_whole, :rest] = flat[n_whole * bits :]
    words = np.empty((n_groups, 8), np.uint16)
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        window = groups[:, first].astype(np.uint32)
        window |= groups[:, first + 1].astype(np.uint32) << 8
        window |= groups[:, first + 2].astype(np.uint32) << 16
        words[:, place] = (window >> shift) & (2**bits - 1)
    return words.ravel()[:n_values]


def narrowed(words: np.ndarray, layout: Layout) -> tuple[np.ndarray, Layout]:
    """Words of 32 bits, of which 16 at most are in use → uint16; others are left as they are."""
    if words.dtype.itemsize < 4:
        return words, layout
    below = layout.high_bit + 1 - layout.bits_stored
    narrow = np.empty(words.shape, np.uint16)
    for row, source in zip(narrow, words, strict=True):
        row[...] = (source >> below) & (2**layout.bits_stored - 1)
    return narrow, dataclasses.replace(layout, bits_allocated=16, high_bit=layout.bits_stored - 1)
