"""The elements of a DICOM data set, walked through without trusting it (PS3.5 chapter 7).

Only what is asked for is kept, and what is read is bounded: a file of a few MiB could otherwise keep a reader busy for
minutes and make it take gigabytes. What writers do in practice is understood: implicit VR where explicit is announced,
inside sequences too, and sequences called UN, whose content is implicit little endian wherever they stand.
"""

import dataclasses
import io
import math
import struct
from collections.abc import Collection
from typing import BinaryIO

import numpy as np
from pydicom import uid
from pydicom.datadict import keyword_dict

from xray.radiographs.codestream import RadiographError

MAX_HEADER_BYTES = 4 * 2**20
"""Header bytes that are parsed; elements that are skipped do not count."""
MAX_HEADER_READS = 40_000
"""Steps in which they are parsed, one to three for each element or item."""
MAX_DEPTH = 60
"""Sequences within sequences; real ones go some five deep."""

UNDEFINED_LENGTH = 0xFFFFFFFF

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Types whose length takes four bytes, behind two of padding."""
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


class HeaderTooLargeError(RadiographError):
    """More of a header than may be read."""


class LimitedFile:
    """A file of which only a header's worth may be read; skipping costs nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self._reads_left = file, MAX_HEADER_BYTES, MAX_HEADER_READS
        self.tell, self.seek = file.tell, file.seek

    def read(self, n_bytes: int) -> bytes:
        """Up to so many bytes. Raises HeaderTooLargeError."""
        data = self._file.read(min(n_bytes, self._left + 1))
        self._left -= len(data)
        self._reads_left -= 1
        if self._left < 0 or self._reads_left < 0:
            raise HeaderTooLargeError(
                f"its header is larger than {MAX_HEADER_BYTES >> 20} MiB or {MAX_HEADER_READS} parts"
            )
        return data


def meta_syntax(file: LimitedFile) -> str:
    """The transfer syntax that the file meta information names, "" without; the file then stands at its data set.

    The first one counts: some archives store the elements of another file's meta information once more, at the
    beginning of the data set.
    """
    named = b""
    while True:
        start = file.tell()
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\0" or head[3] > 2:
            file.seek(start)
            return named.decode("ascii", "replace").strip(" \0")
        if not head[4:6].isalpha():
            n_bytes = struct.unpack_from("<L", head, 4)[0]
        elif head[4:6] in (b"OB", b"UN"):
            n_bytes = struct.unpack("<L", file.read(4).ljust(4, b"\0"))[0]
        else:
            n_bytes = struct.unpack_from("<H", head, 6)[0]
        if head[2:4] == b"\x10\0" and not named:
            named = file.read(n_bytes)
        else:
            file.seek(n_bytes, io.SEEK_CUR)


def guess_syntax(file: LimitedFile) -> str:
    """For a data set whose file meta names no transfer syntax: DICOM's default, unless it shows explicit types."""
    start = file.tell()
    head = file.read(6)
    file.seek(start)
    if not head[4:6].isalpha():
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if head[:1] == b"\0" else uid.ExplicitVRLittleEndian


@dataclasses.dataclass(frozen=True)
class Element:
    """One element.

    vr: its type; None in implicit VR.
    head: its tag, type and length as they stand in the file.
    value: its bytes; of a sequence, its items.
    order: of its bytes, "<" or ">".
    """

    vr: str | None
    head: bytes
    value: "bytes | list[Elements]"
    order: str


class Elements:
    """Elements by their tags, and what they mean in DICOM's terms. A missing one is empty."""

    def __init__(self, by_tag: dict[int, Element] | None = None) -> None:
        self.by_tag: dict[int, Element] = {} if by_tag is None else by_tag

    def __contains__(self, keyword: str) -> bool:
        return tag_of(keyword) in self.by_tag

    def numbers(self, keyword: str, signed: bool = False) -> np.ndarray:
        """The 16-bit integers (VR US, SS or OW) of an element as they stand in the file: (N,) int64."""
        value = self.bytes_of(keyword)
        kind = f"{self.order_of(keyword)}{'i' if signed else 'u'}2"
        return np.frombuffer(value, kind, count=len(value) // 2).astype(np.int64)

    def number(self, keyword: str, default: int = 0) -> int:
        """The first of an element's `numbers`."""
        value = self.bytes_of(keyword)
        return struct.unpack_from(self.order_of(keyword) + "H", value)[0] if len(value) >= 2 else default

    def texts(self, keyword: str) -> list[str]:
        """The values of a text element; one empty text where it is missing."""
        return [text.strip(" \0") for text in self.bytes_of(keyword).decode("ascii", "replace").split("\\")]

    def decimals(self, keyword: str) -> list[float]:
        """The values of a decimal or integer string (VR DS, IS); NaN for what is not a number."""
        values = []
        for text in self.texts(keyword):
            try:
                values.append(float(text))
            except ValueError:
                values.append(math.nan)
        return values

    def items(self, keyword: str) -> "list[Elements]":
        """The items of a sequence."""
        element = self.by_tag.get(tag_of(keyword))
        return element.value if element is not None and isinstance(element.value, list) else []

    def bytes_of(self, keyword: str) -> bytes:
        """The value of an element that is no sequence."""
        element = self.by_tag.get(tag_of(keyword))
        return element.value if element is not None and isinstance(element.value, bytes) else b""

    def vr_of(self, keyword: str) -> str:
        """The type that an element says it has; "" in implicit VR."""
        element = self.by_tag.get(tag_of(keyword))
        return "" if element is None or element.vr is None else element.vr

    def order_of(self, keyword: str) -> str:
        """The order of an element's bytes, "<" or ">"."""
        element = self.by_tag.get(tag_of(keyword))
        return "<" if element is None else element.order


def tag_of(keyword: str) -> int:
    """The tag of a standard element."""
    return keyword_dict[keyword]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an element stands that is not read. start, n_bytes: of its value."""

    tag: int
    vr: str | None
    start: int
    n_bytes: int


class Walker:
    """Walks through one data set.

    file: stands at its first element.
    wanted: tags to keep, in the data set and in the items of wanted sequences. until: tags at which to stop.
    """

    def __init__(self, file: LimitedFile, wanted: Collection[int], until: Collection[int] = ()) -> None:
        self._file, self._wanted, self._until = file, frozenset(wanted), frozenset(until)
        self.elements = Elements()
        """Those found so far, also where the walk ended with an error."""

    def walk(self, is_implicit: bool, order: str) -> Place | None:
        """Up to the first of the tags `until`, or to the end of the file; where that tag stands.

        Raises RadiographError where a sequence is damaged, HeaderTooLargeError beyond the limits.
        """
        is_implicit = self._is_implicit(is_implicit)
        while (element_head := self._next(is_implicit, order)) is not None:
            tag, vr, n_bytes, head = element_head
            if tag in self._until:
                return Place(tag, vr, self._file.tell(), n_bytes)
            self._take(self.elements, tag, vr, n_bytes, head, is_implicit, order, 0)
        return None

    def _next(self, is_implicit: bool, order: str) -> tuple[int, str | None, int, bytes] | None:
        """Tag, type, length and the bytes of these; None at the end of the file."""
        head = self._file.read(8)
        if len(head) < 8:
            return None
        group, number = struct.unpack_from(order + "HH", head)
        kind = head[4:6]
        if not is_implicit and kind in _LONG:
            head += self._file.read(4)
            if len(head) < 12:
                return None
            return group << 16 | number, kind.decode(), struct.unpack_from(order + "L", head, 8)[0], head
        # A type that is unknown, but may be one, has the short form; anything else is implicit VR.
        if not is_implicit and (kind in _SHORT or b"AA" <= kind <= b"ZZ"):
            vr = kind.decode("latin-1")
            return group << 16 | number, vr, struct.unpack_from(order + "H", head, 6)[0], head
        return group << 16 | number, None, struct.unpack_from(order + "L", head, 4)[0], head

    def _take(
        self, into: Elements, tag: int, vr: str | None, n_bytes: int, head: bytes, is_implicit: bool, order: str,
        depth: int,
    ) -> None:  # fmt: skip
        """Keeps the value of an element, or skips it; the file then stands behind it."""
        is_wanted, start = tag in self._wanted, self._file.tell()
        if n_bytes == UNDEFINED_LENGTH and tag not in (ITEM_END, SEQUENCE_END):
            # CP-246: what is called UN is implicit; and so is all within implicit VR.
            items = self._items(None, is_wanted, is_implicit or vr == "UN", order, depth + 1)
            if is_wanted:
                into.by_tag[tag] = Element(vr, head, items, order)
        elif is_wanted and (vr in ("SQ", "UN", None)) and tag in _SEQUENCES:
            try:
                items = self._items(start + n_bytes, True, is_implicit or vr == "UN", order, depth + 1)
                into.by_tag[tag] = Element(vr, head, items, order)
            except HeaderTooLargeError:
                raise
            except RadiographError:
                # What pixels do not need to be shown must not keep them from being shown.
                if tag not in _DISPENSABLE:
                    raise
            self._file.seek(start + n_bytes)
        elif is_wanted:
            into.by_tag[tag] = Element(vr, head, self._file.read(n_bytes), order)
        elif n_bytes:
            self._file.seek(start + n_bytes)

    def _items(self, end: int | None, is_wanted: bool, is_implicit: bool, order: str, depth: int) -> list[Elements]:
        """The items of a sequence, or the fragments of pixel data within one, up to `end` or the delimiter."""
        if depth > MAX_DEPTH:
            raise RadiographError(f"damaged: its sequences are nested more than {MAX_DEPTH} deep")
        items: list[Elements] = []
        while end is None or self._file.tell() < end:
            head = self._file.read(8)
            if len(head) < 8:
                return items
            # Where a sequence is called UN, its bytes are little endian, whatever the file's are.
            order = {b"\xfe\xff": "<", b"\xff\xfe": ">"}.get(head[:2], order)
            group, number, n_bytes = struct.unpack(order + "HHL", head)
            tag, start = group << 16 | number, self._file.tell()
            if tag == SEQUENCE_END:
                return items
            if tag != ITEM:
                raise RadiographError("damaged: something stands between the items of a sequence")
            item, stop = Elements(), None if n_bytes == UNDEFINED_LENGTH else start + n_bytes
            if is_wanted or stop is None:
                self._item(item, stop, is_implicit, order, depth)
            if stop is not None:
                self._file.seek(stop)
            if is_wanted:
                items.append(item)
        return items

    def _item(self, into: Elements, stop: int | None, is_implicit: bool, order: str, depth: int) -> None:
        is_implicit = self._is_implicit(is_implicit)
        while stop is None or self._file.tell() < stop:
            if (element_head := self._next(is_implicit, order)) is None or element_head[0] == ITEM_END:
                return
            tag, vr, n_bytes, head = element_head
            self._take(into, tag, vr, n_bytes, head, is_implicit, order, depth)

    def _is_implicit(self, announced: bool) -> bool:
        """Whether elements from here on have no types, as the first of them shows."""
        start = self._file.tell()
        kind = self._file.read(6)[4:]
        self._file.seek(start)
        if announced:
            # A length that looks like a type would be one of 16 kB and more.
            return kind not in _LONG | _SHORT
        return len(kind) == 2 and not kind.isupper()


_DISPENSABLE = frozenset(tag_of(keyword) for keyword in ("AnatomicRegionSequence", "ViewCodeSequence"))
"""Sequences that only say what the picture is of."""
_SEQUENCES = _DISPENSABLE | frozenset(
    tag_of(keyword)
    for keyword in (
        *("ModalityLUTSequence", "VOILUTSequence"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameVOILUTSequence"),
        *("PixelValueTransformationSequence", "PixelMeasuresSequence", "FramePixelDataPropertiesSequence"),
    )
)
"""Tags whose value is walked into where its length is defined, which says nothing of what it is in implicit VR."""
