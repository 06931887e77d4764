"""Label Studio's brush: run lengths of an RGBA picture, packed bit by bit (the format of thi.ng/rle-pack) → a mask.

32 bits: how many values follow. 5 bits: bits of a value, less 1. Four times 4 bits: bits of a run's length, less 1, in
each of four sizes. Then come runs: a bit that says whether all values of the run are one; two bits for the size of its
length; the length, less 1; and that value once, or each. The values are those of width × height pixels, four each, of
which the fourth, opacity, is the mask.
"""

import numpy as np

from xray.radiographs.canvas import MAX_PIXELS
from xray.structures.masks import MaskError
from xray.structures.rle import MALFORMED


class _Bits:
    """Reads numbers of some bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, n_bits: int) -> int:
        """The next number, of at most 32 bits. Raises MaskError at the end."""
        start, self._at = self._at, self._at + n_bits
        if self._at > 8 * len(self._data):
            raise MaskError("the brush's run lengths end in the middle", MALFORMED)
        first, last = start // 8, (self._at + 7) // 8
        number = int.from_bytes(self._data[first:last], "big")
        return number >> (8 * last - self._at) & ((1 << n_bits) - 1)

    def read_all(self, count: int, n_bits: int) -> np.ndarray:
        """The next `count` numbers of as many bits each, (count,) int64."""
        return np.array([self.read(n_bits) for _ in range(count)], dtype=np.int64)


def decode_brush(rle: object, width: int, height: int) -> np.ndarray:
    """A brush's list of bytes → (height, width) uint8 of 0 and 1, what is not wholly transparent.

    Raises MaskError for what is no list of bytes, for another size, and for one that is cut short.
    """
    if width * height > MAX_PIXELS:
        raise MaskError(f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million")
    try:
        bits = _Bits(bytes(rle))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        raise MaskError("a brush's run lengths are a list of bytes", MALFORMED) from None
    n_values, n_bits = bits.read(32), bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    if n_values != 4 * width * height:
        raise MaskError(f"a brush of {n_values} values, the picture has {width} x {height} pixels of four")
    values = np.zeros(n_values, dtype=bool)
    at = 0
    while at < n_values:
        is_run = bits.read(1)
        end = at + 1 + bits.read(lengths[bits.read(2)])
        if end > n_values:
            raise MaskError("a brush's run lengths go beyond the picture", MALFORMED)
        values[at:end] = bits.read(n_bits) != 0 if is_run else bits.read_all(end - at, n_bits) != 0
        at = end
    return values[3::4].reshape(height, width).astype(np.uint8)
