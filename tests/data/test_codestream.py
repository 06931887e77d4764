"""JPEG 2000 as the decoder gets it: what decodes, and nothing that it could stumble over."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from xray.data import codestream
from xray.data.codestream import KEPT, RadiographError, decode_codestream, plain_jpeg_2000

PIXELS = np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)
DECODING = {b"\xff" + bytes([marker]) for marker in KEPT}


def encode(**options) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(out, "JPEG2000", irreversible=False, **options)
    return out.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def take_apart(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The marker segments of the main header, and the tile-parts (T.800 A.4.2)."""
    at, segments, parts = 2, [], []
    while data[at : at + 2] != b"\xff\x90":
        length = 2 + struct.unpack_from(">H", data, at + 2)[0]
        segments.append(data[at : at + length])
        at += length
    while data[at : at + 2] == b"\xff\x90":
        length = struct.unpack_from(">L", data, at + 6)[0]
        parts.append(data[at : at + length])
        at += length
    assert data[at:] == b"\xff\xd9"
    return segments, parts


TILED = encode(no_jp2=True, tile_size=(64, 64))
SEGMENTS, PARTS = take_apart(TILED)


def put_together(segments: list[bytes], parts: list[bytes]) -> bytes:
    return b"".join([b"\xff\x4f", *segments, *parts, b"\xff\xd9"])


def tile_lengths(parts: list[bytes]) -> bytes:
    """TLM with a tile's number in two bytes and its length in four (T.800 A.7.1)."""
    entries = (part[4:6] + struct.pack(">L", len(part)) for part in parts)
    return segment(0x55, b"\0\x60" + b"".join(entries))


def decode(data: bytes) -> np.ndarray:
    return decode_codestream(data, uid.JPEG2000Lossless, *PIXELS.shape, 8, False)[0]


@pytest.fixture
def handed(monkeypatch) -> list[bytes]:
    """What the decoder was given."""
    given, words = [], codestream._gdcm_words
    monkeypatch.setattr(codestream, "_gdcm_words", lambda data, *rest: given.append(data) or words(data, *rest))
    return given


def test_lengths_of_tiles_and_comments_do_not_reach_the_decoder(handed):
    assert len(PARTS) == 4
    more = [tile_lengths(PARTS), segment(0x57, b"\0" * 9), segment(0x63, b"\0" * 4), segment(0x64, b"\0\1words")]
    np.testing.assert_array_equal(decode(put_together([*SEGMENTS, *more], PARTS)), PIXELS)
    assert {part[:2] for part in take_apart(handed[0])[0]} <= DECODING
    assert take_apart(handed[0])[1] == PARTS


def test_tiles_that_do_not_say_how_many_parts_they_have(handed):
    """With their lengths in the header, these are what OSV-2025-219 is about."""
    rest = [struct.pack(">2sHHLBB2s", b"\xff\x90", 10, 0, 14, number, 0, b"\xff\x93") for number in range(1, 200)]
    parts = [PARTS[0][:11] + b"\0" + PARTS[0][12:], *rest, *PARTS[1:]]
    np.testing.assert_array_equal(decode(put_together([*SEGMENTS, tile_lengths(parts)], parts)), PIXELS)
    assert b"\xff\x55" not in {part[:2] for part in take_apart(handed[0])[0]}


def test_the_boxes_of_a_jp2_file_do_not_reach_the_decoder(handed):
    whole = encode()
    assert whole[4:8] == b"jP  "
    np.testing.assert_array_equal(decode(whole), PIXELS)
    assert handed[0][:4] == b"\xff\x4f\xff\x51"
    assert whole.endswith(handed[0][-1000:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: [*s, segment(0x50, b"\0" * 6)], "misplaced marker, 0xff50"),  # capabilities of Part 15
        (lambda s: [*s, segment(0x74, b"\0" * 6)], "misplaced marker, 0xff74"),  # transforms of Part 2
        (lambda s: [*s, segment(0x93, b"\0" * 6)], "misplaced marker, 0xff93"),
        (lambda s: [s[0], *s], "misplaced marker, 0xff51"),  # a second size
        (lambda s: [*s, b"\xff\x30"], "does not come to an end"),
        (lambda s: [*s, b"\xff\x64\0\1"], "does not come to an end"),
        (lambda s: [*s, b"\0" * 8], "does not come to an end"),
        (lambda s: [*s, b"\xff\x64\xff\xff"], "does not come to an end"),
    ],
)
def test_what_part_1_does_not_know_is_refused(change, says):
    with pytest.raises(RadiographError, match=says):
        decode(put_together(change(SEGMENTS), PARTS))


def test_no_codestream():
    with pytest.raises(RadiographError, match="no size marker"):
        decode(b"\xff\x4f\xff\x52" + bytes(5000))
    with pytest.raises(RadiographError, match="does not come to an end"):
        decode(put_together(SEGMENTS, [])[:-2])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_header_is_plain_or_refused(data):
    """Whatever bytes change: nothing but segments that decode, up to the first tile, and then what was there."""
    n_header = len(TILED) - sum(map(len, PARTS)) - 2
    changed = bytearray(put_together([*SEGMENTS, tile_lengths(PARTS)], PARTS))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, n_header + 40), st.integers(0, 255)), max_size=8)):
        changed[at] = value
    try:
        plain = plain_jpeg_2000(bytes(changed))
    except RadiographError:
        return
    at, markers = 2, []
    while plain[at : at + 2] != b"\xff\x90":
        markers.append(plain[at : at + 2])
        at += 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
    assert set(markers) <= DECODING
    assert markers[0] == b"\xff\x51"
    assert markers.count(b"\xff\x51") == 1
    assert bytes(changed).endswith(plain[at:])
