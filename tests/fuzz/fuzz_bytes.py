"""Mutations of radiograph files: of their bytes, and of what DICOM, PNG and JPEG are made of.

A mutation is decided by (seed, kind, number) alone, so that any of millions can be made again.
"""

import random
import struct
import zlib
from collections.abc import Callable

from fuzz_files import png

NUMBERS = (0, 1, 2, 3, 7, 8, 12, 16, 17, 24, 32, 64, 255, 256, 1000, 4095, 9999, 16384, 32767, 32768, 65534, 65535)
LENGTHS = (0, 1, 2, 3, 7, 8, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
VRS = b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV ZZ"
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.1.98", "1.2.840.113619.5.2", "", "x" * 64,
)  # fmt: skip
TEXTS = (
    b"",
    b"0",
    b"-1",
    b"1e308",
    b"1e-308",
    b"nan",
    b"inf",
    b"-inf",
    b"0x10",
    b"\\",
    b"1\\2\\3\\4",
    b"9" * 400,
    b"\xff\xfe",
    b"1.2.3",
)
TAGS = (
    0x00080016, 0x00180050, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056,
    0x00280006, 0x00281101, 0x00281102, 0x00281201, 0x00281221, 0x00289132, 0x00289145, 0x52009229, 0x52009230,
    0x00283000, 0x00283002, 0x00283006, 0x00283010, 0x20500020, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0xFFFEE000,
    0xFFFEE00D, 0xFFFEE0DD, 0x00020010, 0x60003000,
)  # fmt: skip
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_NUMERIC = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120)

Random = random.Random
Element = tuple[int, bytes, int, int, int]  # tag, VR, place of the element, place of its value, length


def mutated(original: bytes, kind: str, seed: int, number: int) -> bytes:
    """The numbered mutation of a file of this kind ("dicom …", "png …", "jpeg …")."""
    rng = random.Random(f"{seed} {kind} {number}")
    data = original
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        if rng.random() < 0.35:
            data = any_bytes(data, rng)
            continue
        # What an earlier mutation damaged may no longer be taken apart: then its bytes are mutated.
        try:
            data = _STRUCTURED[kind.split()[0]](data, rng, kind)
        except (struct.error, IndexError, ValueError, OverflowError, zlib.error):
            data = any_bytes(data, rng)
    return data[: 2**22]


def any_bytes(data: bytes, rng: Random) -> bytes:
    """Flips, sets, inserts, cuts, doubles, swaps or fills some bytes, more often near the beginning."""
    if not data:
        return rng.randbytes(rng.randrange(200))
    at = int(rng.random() ** rng.choice((1, 3)) * len(data))
    n = rng.choice((1, 1, 2, 4, 8, 16, 64, 512))
    what = rng.randrange(10)
    if what == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if what == 1:
        return data[:at] + rng.randbytes(n) + data[at + n :]
    if what == 2:
        return data[:at] + rng.randbytes(n) + data[at:]
    if what == 3:
        return data[:at] + data[at + n :]
    if what == 4:
        return data[:at]
    if what == 5:
        return data[:at] + data[at : at + n] * rng.choice((2, 3, 100)) + data[at + n :]
    if what == 6:
        other = rng.randrange(len(data))
        first, second = sorted((at, other))
        return (
            data[:first]
            + data[second : second + n]
            + data[first + n : second]
            + data[first : first + n]
            + data[second + n :]
        )
    if what == 7:
        return data[:at] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * n + data[at + n :]
    if what == 8:
        kind = rng.choice(["<H", ">H", "<L", ">L"])
        value = rng.choice(NUMBERS if kind[1] == "H" else LENGTHS)
        return data[:at] + struct.pack(kind, value) + data[at + struct.calcsize(kind) :]
    return data + rng.randbytes(n)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def dicom(data: bytes, rng: Random, kind: str) -> bytes:
    """One mutation of a DICOM file's elements."""
    start = 132 + 12 + struct.unpack_from("<L", data, 140)[0] if data[128:132] == b"DICM" else 0
    meta, body = data[:start], data[start:]
    deflated = "deflated" in kind
    if deflated and rng.random() < 0.9:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        body = inflater.decompress(body, 2**20)
    else:
        deflated = False
    order, implicit = (">" if "big" in kind else "<"), "implicit" in kind
    if rng.random() < 0.1:
        meta = _meta(meta, rng)
    else:
        body = _body(body, rng, order, implicit)
    if deflated:
        deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
        if rng.random() < 0.05:
            body = any_bytes(body, rng)
    return meta + body


def _meta(meta: bytes, rng: Random) -> bytes:
    what = rng.randrange(6)
    if what == 0:
        return b""
    if what == 1:
        return meta[132:]
    if what == 2:
        return meta[:140] + struct.pack("<L", rng.choice(LENGTHS)) + meta[144:]
    if what == 3:
        return any_bytes(meta, rng)
    at = meta.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack_from("<H", meta, at + 6)[0]
    name = rng.choice(SYNTAXES).encode()
    name += b"\0" * (len(name) % 2)
    return meta[:at] + b"\x02\x00\x10\x00UI" + struct.pack("<H", len(name)) + name + meta[at + 8 + length :]


def elements_of(body: bytes, order: str, implicit: bool) -> list[Element]:
    """The elements of a data set that can be walked through."""
    found, at = [], 0
    while at + 8 <= len(body) and len(found) < 200:
        group, element = struct.unpack_from(order + "HH", body, at)
        vr = b"" if implicit else body[at + 4 : at + 6]
        if implicit:
            value, length = at + 8, struct.unpack_from(order + "L", body, at + 4)[0]
        elif vr in _LONG:
            value, length = at + 12, struct.unpack_from(order + "L", body, at + 8)[0]
        else:
            value, length = at + 8, struct.unpack_from(order + "H", body, at + 6)[0]
        if length == 2**32 - 1:
            end = b"\xfe\xff\xdd\xe0" if order == "<" else b"\xff\xfe\xe0\xdd"
            length = max(0, body.find(end, value) + 8 - value)
        found.append((group << 16 | element, vr, at, value, length))
        at = value + length
    return found


def _body(body: bytes, rng: Random, order: str, implicit: bool) -> bytes:
    elements = elements_of(body, order, implicit)
    _, vr, at, value, length = rng.choice(elements)
    end = value + length
    what = rng.randrange(16)
    if what <= 1:  # the length of an element
        width = 4 if implicit or vr in _LONG else 2
        new = rng.choice((*LENGTHS, length + 1, max(0, length - 1), length * 2, len(body))) % 256**width
        return body[: value - width] + struct.pack(order + ("L" if width == 4 else "H"), new) + body[value:]
    if what == 2 and not implicit:  # its type
        return body[: at + 4] + rng.choice((*VRS.split(), rng.randbytes(2))) + body[at + 6 :]
    if what == 3:  # its tag
        other = rng.choice((*TAGS, rng.randrange(2**32)))
        return body[:at] + struct.pack(order + "HH", other >> 16, other & 0xFFFF) + body[at + 4 :]
    if what == 4:  # two tags swapped
        other_at = rng.choice(elements)[2]
        first, second = sorted((at, other_at))
        return (
            body[:first]
            + body[second : second + 4]
            + body[first + 4 : second]
            + body[first : first + 4]
            + body[second + 4 :]
        )
    if what == 5:  # doubled, taken away, or moved to the front
        return rng.choice((body[:end] + body[at:], body[:at] + body[end:], body[at:end] + body[:at] + body[end:]))
    if what in (6, 7):  # numbers of the image pixel module
        chosen = [found for found in elements if found[0] in _NUMERIC and found[4] == 2] or [elements[0]]
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.choice(chosen)[3]
            body = body[:place] + struct.pack(order + "H", rng.choice(NUMBERS)) + body[place + 2 :]
        return body
    if what == 8:  # a text or a number in place of any value
        new = rng.choice((*TEXTS, rng.randbytes(rng.choice((2, 6, 60)))))
        new = new[:length].ljust(length, rng.choice((b" ", b"\0")))
        return body[:value] + new + body[end:]
    if what == 9:  # a sequence within a sequence within …
        return body[:at] + _nested(rng, order, implicit) + body[at:]
    if what == 10:  # an element that is not expected
        other, n = rng.choice(TAGS), rng.choice((0, 1, 2, 4, 600))
        return body[:at] + _element(other, rng.choice(VRS.split()), rng.randbytes(n), order, implicit) + body[at:]
    if what == 11:  # frames
        count = rng.choice((b"0", b"2", b"1000000", b"-1", b"2147483648", b"1e9 "))
        return body[:at] + _element(0x00280008, b"IS", count, order, implicit) + body[at:]
    if what in (12, 13):
        return _inflated_size(body, elements, rng, order)
    pixels = next((found for found in elements if found[0] == 0x7FE00010), elements[-1])
    return _fragments(body, pixels, rng)


def _element(tag: int, vr: bytes, value: bytes, order: str, implicit: bool) -> bytes:
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(order + "L", len(value)) + value
    if vr in _LONG:
        return head + vr + b"\0\0" + struct.pack(order + "L", len(value)) + value
    return head + vr + struct.pack(order + "H", len(value) % 65536) + value


def _nested(rng: Random, order: str, implicit: bool) -> bytes:
    depth, width = rng.choice(((1, 1), (3, 2), (50, 1), (1, 3000), (2000, 1), (10, 100)))
    tag = rng.choice((0x00283000, 0x00283010, 0x00081140, 0x00091001))
    open_sequence = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else b"SQ\0\0") + b"\xff" * 4
    item = struct.pack(order + "HH", 0xFFFE, 0xE000)
    closing = struct.pack(order + "HHL", 0xFFFE, 0xE00D, 0), struct.pack(order + "HHL", 0xFFFE, 0xE0DD, 0)
    empty = (item + bytes(4)) * (width - 1)
    inside = b"".join((open_sequence + empty + item + b"\xff" * 4) for _ in range(depth))
    if rng.random() < 0.5:
        inside += b"".join(closing) * depth
    return inside


def _inflated_size(body: bytes, elements: list[Element], rng: Random, order: str) -> bytes:
    """Rows and columns that are far too many, where it can be done in the codestream as well as in the header."""
    rows, columns = rng.choice(NUMBERS), rng.choice(NUMBERS)
    if rng.random() < 0.5:
        rows = columns = rng.choice((4096, 9999, 10000, 16384, 30000, 65535))
    for found in elements:
        if found[0] in (0x00280010, 0x00280011) and found[4] == 2:
            side = rows if found[0] == 0x00280010 else columns
            body = body[: found[3]] + struct.pack(order + "H", side) + body[found[3] + 2 :]
    if rng.random() < 0.7:
        at = body.find(b"\xff\x4f\xff\x51")
        if at >= 0:
            body = body[: at + 8] + struct.pack(">2L", columns, rows) + body[at + 16 :]
            if rng.random() < 0.7:
                # One tile as large as the picture, or very many small ones.
                side = rng.choice((1, 16, 1024, rows, columns))
                body = body[: at + 24] + struct.pack(">2L", side, side) + body[at + 32 :]
        for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
            at = body.find(bytes([0xFF, marker]), elements[-1][3])
            if at >= 0:
                body = body[: at + 5] + struct.pack(">HH", rows, columns) + body[at + 9 :]
                break
    return body


def _fragments(body: bytes, pixels: Element, rng: Random) -> bytes:
    """Pieces of encapsulated pixel data doubled, taken away, moved or damaged; or the bytes of plain pixels."""
    value, length = pixels[3], pixels[4]
    if body[value : value + 4] != b"\xfe\xff\x00\xe0":
        cut = value + rng.randrange(length + 1)
        return rng.choice((body[:cut], body[:value] + any_bytes(body[value:], rng), body + body[value:]))
    items, at = [], value
    while body[at : at + 4] == b"\xfe\xff\x00\xe0":
        size = struct.unpack_from("<L", body, at + 4)[0]
        items.append(body[at : at + 8 + size])
        at += 8 + size
    rest = body[at:]
    what = rng.randrange(8)
    if what == 0:
        items.insert(rng.randrange(len(items) + 1), rng.choice(items))
    elif what == 1:
        items.pop(rng.randrange(len(items)))
    elif what == 2:
        items.reverse()
    elif what == 3:
        items[-1:] = [b"\xfe\xff\x00\xe0\0\0\0\0" * rng.choice((1, 100, 20_000)), items[-1]]
    elif what == 4:
        rest = rng.choice((b"", rest[8:], rest * 2))
    elif what == 5:
        items[0] = b"\xfe\xff\x00\xe0" + struct.pack("<L", 8) + rng.randbytes(8)
    else:
        stream = items[-1][8:]
        for _ in range(rng.choice((1, 2, 8))):
            stream = any_bytes(stream, rng)
        items[-1] = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(stream)) + stream
    return body[:value] + b"".join(items) + rest


# --- PNG and JPEG ----------------------------------------------------------------------------------------------------


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, data) of a PNG file's chunks."""
    found, at = [], 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">L", data, at)[0]
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_chunks(data: bytes, rng: Random, kind: str) -> bytes:
    """One mutation of a PNG file's chunks, most often with the right checksums."""
    chunks = chunks_of(data)
    place = rng.randrange(len(chunks))
    name, content = chunks[place]
    what = rng.randrange(11)
    if what <= 1:
        head = list(struct.unpack(">LLBBBBB", chunks[0][1]))
        for _ in range(rng.choice((1, 1, 2, 3))):
            field = rng.randrange(7)
            sides = (*NUMBERS, 10_000, 20_000, 100_000, 10**8, 2**31 - 1, 2**31, 2**32 - 1)
            head[field] = rng.choice(sides) if field < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 32, 255))
        chunks[0] = (b"IHDR", struct.pack(">LLBBBBB", *head))
    elif what == 2:
        chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
    elif what == 3:
        chunks.pop(place)
    elif what == 4:
        rng.shuffle(chunks)
    elif what == 5:
        chunks[place] = (name, any_bytes(content, rng))
    elif what == 6:
        bomb = zlib.compress(bytes(rng.choice((10**5, 2 * 10**7))), 9)
        extra = rng.choice(
            ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb), (b"iTXt", b"a\0\1\0\0\0" + bomb), (b"IDAT", bomb))
        )
        chunks.insert(rng.randrange(1, len(chunks) + 1), extra)
    elif what == 7:
        extra = rng.choice(
            (
                (b"PLTE", rng.randbytes(rng.choice((0, 3, 7, 768, 900)))), (b"gAMA", rng.randbytes(4)),
                (b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 6, 300)))), (b"pHYs", rng.randbytes(9)),
                (b"acTL", struct.pack(">LL", rng.choice(LENGTHS), 0)), (b"fcTL", rng.randbytes(26)),
                (b"eXIf", rng.randbytes(40)), (b"cHRM", rng.randbytes(3)), (b"fdAT", rng.randbytes(60)),
                (b"sBIT", b""), (b"tEXt", b"\xff" * 3000), (b"zzZZ", b""), (b"\0\0\0\0", b"x"),
            )
        )  # fmt: skip
        chunks.insert(rng.randrange(1, len(chunks)), extra)
    else:
        bodies = [index for index, (own, _) in enumerate(chunks) if own == b"IDAT"]
        raw = zlib.decompress(b"".join(chunks[index][1] for index in bodies))
        raw = any_bytes(raw, rng)
        packed = zlib.compress(raw, rng.choice((0, 9)))
        chunks[bodies[0]] = (b"IDAT", packed)
        chunks = [chunk for index, chunk in enumerate(chunks) if index not in bodies[1:]]
    made = png(chunks)
    if rng.random() < 0.15:
        # The checksum, or the length, of a chunk.
        at = rng.randrange(8, len(made) - 4, 4)
        made = made[:at] + struct.pack(">L", rng.choice(LENGTHS)) + made[at + 4 :]
    return made


def jpeg_segments(data: bytes, rng: Random, kind: str) -> bytes:
    """One mutation of a JPEG file's segments."""
    segments, at = [], 2
    while data[at : at + 1] == b"\xff" and data[at + 1] not in (0xDA, 0xD9):
        length = struct.unpack_from(">H", data, at + 2)[0]
        segments.append(data[at : at + 2 + length])
        at += 2 + length
    rest = data[at:]
    place = rng.randrange(len(segments))
    what = rng.randrange(10)
    if what <= 2:
        for index, segment in enumerate(segments):
            if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
                head = list(struct.unpack_from(">BHHB", segment, 4))
                field = rng.randrange(4)
                head[field] = rng.choice((1, 8, 12, 16, 255)) if field in (0, 3) else rng.choice(NUMBERS)
                if rng.random() < 0.4:
                    head[1] = head[2] = rng.choice((9999, 10_001, 30_000, 65_500, 65_535))
                tail = any_bytes(segment[10:], rng) if rng.random() < 0.3 else segment[10:]
                marker = rng.choice(range(0xC0, 0xD0)) if rng.random() < 0.2 else segment[1]
                segments[index] = bytes([0xFF, marker]) + segment[2:4] + struct.pack(">BHHB", *head) + tail
    elif what == 3:
        segments.insert(rng.randrange(len(segments) + 1), rng.choice(segments))
    elif what == 4:
        segments.pop(place)
    elif what == 5:
        segments[place] = (
            segments[place][:2] + struct.pack(">H", rng.choice((0, 1, 2, 3, 255, 65535))) + segments[place][4:]
        )
    elif what == 6:
        segments[place] = segments[place][:4] + any_bytes(segments[place][4:], rng)
    elif what == 7:
        content = rng.choice((b"Exif\0\0", b"MPF\0", b"ICC_PROFILE\0", b"Adobe", b"JFIF\0", b""))
        content += rng.randbytes(rng.choice((7, 9, 50, 60_000)))
        marker = bytes([0xFF, rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDD))])
        segments.insert(rng.randrange(len(segments) + 1), marker + struct.pack(">H", len(content) + 2) + content)
    elif what == 8:
        rest = rest * rng.choice((0, 2, 30))
    else:
        rest = any_bytes(rest, rng)
    return data[:2] + b"".join(segments) + rest


_STRUCTURED: dict[str, Callable[[bytes, Random, str], bytes]] = {
    "dicom": dicom,
    "png": png_chunks,
    "jpeg": jpeg_segments,
}
