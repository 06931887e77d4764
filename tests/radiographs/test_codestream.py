"""JPEG 2000 as the decoder gets it: what decodes, and nothing that it could stumble over."""

import contextlib
import io
import struct

import dicom_cases as cases
import jpeg_ls
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from xray.radiographs import codestream
from xray.radiographs.codestream import KEPT, RadiographError, decode_codestream, plain_jpeg_2000

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


@pytest.mark.parametrize(
    "change",
    [
        cases.with_comment,
        lambda data: cases.with_comment(cases.with_comment(data, b"one"), b"x" * 3000),
        lambda data: cases.with_comment(data) + bytes(64),
        lambda data: cases.with_comment(data)[:-2],
        lambda data: data[:-2] + bytes(20) + b"\xff\xd9",
        lambda data: data[:-2] + b"\xff\x30\xff\x3f\xff\xd9",
    ],
    ids=["one", "two", "zeros behind", "no end", "zeros before the end", "reserved markers"],
)
@pytest.mark.parametrize("original", [TILED, encode(no_jp2=True)], ids=["tiles", "one tile"])
def test_comments_behind_the_last_tile_part_do_not_reach_the_decoder(change, original, handed):
    np.testing.assert_array_equal(decode(change(original)), PIXELS)
    assert take_apart(handed[0])[1] == take_apart(original)[1]


def test_what_stands_behind_the_last_tile_part_and_is_no_comment_is_left_to_the_decoder(handed):
    for more in (b"words", b"\xff\x52\0\x05\0\0\0", b"\xff\x64\0\1", b"\xff\x30" * 2000):
        data = TILED[:-2] + more + b"\xff\xd9"
        with contextlib.suppress(RadiographError):
            decode(data)
        assert handed.pop().endswith(more + b"\xff\xd9")


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
@pytest.mark.parametrize("change", [bytes, cases.with_comment])
def test_high_throughput(syntax, change):
    frame = decode_codestream(change(cases.HIGH_THROUGHPUT), syntax, 6, 7, 16, False)
    np.testing.assert_array_equal(frame.words, cases.HIGH_THROUGHPUT_VALUES)
    assert frame[1:] == (16, False, syntax == uid.HTJ2K)
    colour = decode_codestream(change(cases.HIGH_THROUGHPUT_COLOUR), syntax, 6, 7, 8, False, samples=3)
    np.testing.assert_array_equal(colour.words, np.dstack([cases.HIGH_THROUGHPUT_COLOUR_VALUES] * 3))


@pytest.mark.parametrize(("rows", "columns", "samples"), [(7, 7, 1), (6, 700, 1), (6, 7, 3)])
def test_high_throughput_of_another_size_is_refused(rows, columns, samples, handed):
    code = cases.HIGH_THROUGHPUT_COLOUR if samples == 3 else cases.HIGH_THROUGHPUT
    with pytest.raises(RadiographError, match=r"its header announces|its compressed data has 3 samples"):
        decode_codestream(code, uid.HTJ2K, rows, columns, 16, False)
    assert not handed


def test_high_throughput_with_capabilities_of_other_parts_is_refused():
    data = cases.HIGH_THROUGHPUT.replace(b"\xff\x50\0\x08\0\2\0\0", b"\xff\x50\0\x08\0\3\0\0")
    with pytest.raises(RadiographError, match="misplaced marker, 0xff50"):
        decode_codestream(data, uid.HTJ2K, 6, 7, 16, False)


@pytest.mark.parametrize("near", [0, 1])
@pytest.mark.parametrize("bits", range(2, 17))
def test_jpeg_ls_of_any_depth(bits, near):
    top = 2**bits - 1
    values = np.add.outer(np.arange(40), np.arange(30)) * top // 68
    code = bytes(jpeg_ls.encode_array(values.astype(np.uint8 if bits <= 8 else np.uint16), lossy_error=near))
    frame = decode_codestream(code, uid.JPEGLSNearLossless, 40, 30, 8 if bits <= 8 else 16, False)
    assert frame.precision == bits
    assert np.abs(frame.words.astype(int) - values).max() <= near


@pytest.mark.parametrize("bits", [6, 12])
def test_jpeg_ls_that_is_cut_is_ended_for_its_decoder(bits, monkeypatch):
    """Without a marker behind what is cut, CharLS 2 counts bits that are not there for seconds."""
    values = np.random.default_rng(0).integers(0, 2**bits, (40, 30)).astype(np.uint8 if bits <= 8 else np.uint16)
    code = bytes(jpeg_ls.encode_array(values))
    handed, decode_buffer = [], jpeg_ls.decode_buffer
    monkeypatch.setattr(jpeg_ls, "decode_buffer", lambda data: handed.append(data) or decode_buffer(data))
    for kept in (30, len(code) // 2, len(code) - 20):
        with pytest.raises(RadiographError, match="its JPEG-LS data is damaged or truncated"):
            decode_codestream(code[:kept], uid.JPEGLSLossless, 40, 30, 16, False)
        assert handed.pop() == code[:kept] + b"\xff\xd9"


@pytest.mark.parametrize("n_zeros", [1, 2, 3])
def test_jpeg_ls_that_is_filled_up_with_zeros(n_zeros):
    """As an encoder of the sample images of DICOM's working group 4 fills it up to an even length."""
    values = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
    code = bytes(jpeg_ls.encode_array(values))
    assert code.endswith(b"\xff\xd9")
    for behind in (b"", b"\0"):
        filled = code[:-2] + n_zeros * b"\0" + code[-2:] + behind
        frame = decode_codestream(filled, uid.JPEGLSLossless, 40, 30, 16, False)
        np.testing.assert_array_equal(frame.words, values)
    with pytest.raises(RadiographError, match="its JPEG-LS data is damaged or truncated"):
        decode_codestream(code[:-40] + n_zeros * b"\0" + code[-2:], uid.JPEGLSLossless, 40, 30, 16, False)


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
