"""Which values of a picture of a mask are mask: greys, colours, palettes, transparency, soft edges, JPEG."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.datasets.sources.mask_values import looks_like_mask, read_values
from xray.radiographs.radiograph import RadiographError

SIZE = 160


def lungs(scale=1):
    """Two lungs and a line 2 pixels wide, apart from them: 0, 1, 2, 3."""
    y, x = np.mgrid[: SIZE * scale, : SIZE * scale] / scale
    drawn = np.zeros(x.shape, dtype=np.uint8)
    drawn[((x - 48) / 26) ** 2 + ((y - 84) / 52) ** 2 < 1] = 1
    drawn[((x - 112) / 26) ** 2 + ((y - 84) / 52) ** 2 < 1] = 2
    drawn[(np.abs(x - 80) < 1.1) & (y > 30) & (y < 140)] = 3
    return drawn


DRAWN = lungs()
IS_MASK = DRAWN > 0


def grey(*values, kind=np.uint8):
    return PIL.Image.fromarray(np.array(values, dtype=kind)[DRAWN])


def colour(*values):
    return PIL.Image.fromarray(np.array(values, dtype=np.uint8)[DRAWN])


def palette(colours, values=(0, 1, 2, 3), **info):
    picture = PIL.Image.fromarray(np.array(values, dtype=np.uint8)[DRAWN], "L")
    table = [0] * 768
    for index, own in colours.items():
        table[3 * index : 3 * index + 3] = own
    picture = PIL.Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(table)
    picture.info.update(info)
    return picture


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3
HEX = ["#FF0000", "#00FF00", "#0000FF"]
VOC = {0: BLACK, 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 255: (224, 224, 192)}


def indexed(first, *colours):
    return [f"{first + place} ({HEX[colour]})" for place, colour in enumerate(colours)]


LOSSLESS = {
    "one grey": (grey(0, 255, 255, 255), ["255"]),
    "numbered": (grey(0, 1, 2, 3), ["1", "2", "3"]),
    "greys": (grey(0, 85, 170, 255), ["85", "170", "255"]),
    "dark and white": (grey(0, 1, 255, 255), ["1", "255"]),
    "16 bits, numbered": (grey(0, 1, 2, 3, kind=np.uint16), ["1", "2", "3"]),
    "16 bits": (grey(0, 20000, 40000, 65535, kind=np.uint16), ["20000", "40000", "65535"]),
    "1 bit": (grey(0, 255, 255, 255).convert("1"), ["1"]),
    "black on white": (grey(255, 0, 0, 0), ["0"]),
    "greys on white": (grey(255, 0, 100, 200), ["0", "100", "200"]),
    "numbered from 1": (grey(1, 2, 3, 4), ["2", "3", "4"]),
    "colours": (colour(BLACK, RED, GREEN, BLUE), HEX),
    "dark colours": (colour(BLACK, (1, 0, 0), (0, 0, 1), (3, 3, 3)), ["#010000", "#000001", "3"]),
    "colours on white": (colour(WHITE, RED, BLUE, BLACK), ["#FF0000", "#0000FF", "0"]),
    "colours on grey": (colour((70, 70, 80), RED, GREEN, BLUE), HEX),
    "black on nothing": (colour((9, 9, 9, 0), (*BLACK, 255), (*BLACK, 255), (*BLACK, 255)), ["0"]),
    "colours on nothing": (colour((0, 0, 0, 0), (*RED, 255), (*WHITE, 255), (*BLUE, 255)), ["255", *HEX[::2]]),
    "half transparent": (
        colour((0, 0, 0, 0), (*RED, 90), (*GREEN, 90), (*BLUE, 90)), [f"{own} at 90 of 255" for own in HEX]
    ),
    "opaque RGBA": (colour((*BLACK, 255), (*RED, 255), (*RED, 255), (*BLUE, 255)), HEX[::2]),
    "never opaque": (colour((*BLACK, 0), (*RED, 0), (*RED, 0), (*BLUE, 0)), HEX[::2]),
    "grey and alpha": (PIL.Image.fromarray(np.array([[7, 0], [0, 255], [0, 255], [0, 255]], np.uint8)[DRAWN]), ["0"]),
    "VOC": (palette(VOC), ["1 (#800000)", "2 (#008000)", "3 (#808000)"]),
    "VOC's border": (palette(VOC, (0, 1, 2, 2)), ["1 (#800000)", "2 (#008000)"]),
    "first index is no black": (palette({0: (120, 120, 120), 1: RED, 2: BLUE, 3: GREEN}), indexed(1, 0, 2, 1)),
    "black is not the first index": (palette({3: BLACK, 0: RED, 1: BLUE, 2: GREEN}, (3, 0, 1, 2)), indexed(0, 0, 2, 1)),
    "palette without colours": (palette({}), ["1", "2", "3"]),
    "transparent index": (
        palette({0: RED, 1: BLACK, 2: BLACK, 3: BLACK}, transparency=0), [f"{n} (#000000)" for n in (1, 2, 3)]
    ),
}  # fmt: skip


TONES = {
    "one grey": "white on black", "1 bit": "white on black", "black on white": "black on white",
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSLESS)
def test_all_that_is_not_background_is_mask(tmp_path, kind):
    picture, names = LOSSLESS[kind]
    picture.save(tmp_path / "mask.png", **picture.info)
    found = read_values(tmp_path / "mask.png")
    np.testing.assert_array_equal(found.labels > 0, IS_MASK)
    assert sorted(found.names) == sorted(names)
    # Each value is where it was drawn: as many pairs of drawn and found as there are values drawn.
    assert len(set(zip(DRAWN[IS_MASK].tolist(), found.labels[IS_MASK].tolist(), strict=True))) == 3
    assert found.tones == TONES.get(kind, "")
    assert not found.has_void
    assert looks_like_mask(tmp_path / "mask.png")


def test_borders_of_voc_are_no_object(tmp_path):
    palette(VOC, (0, 1, 2, 255)).save(tmp_path / "mask.png")
    found = read_values(tmp_path / "mask.png")
    assert found.has_void
    np.testing.assert_array_equal(found.labels > 0, IS_MASK & (DRAWN < 3))
    # Alone it is a colour like another.
    palette(VOC, (0, 255, 255, 255)).save(tmp_path / "mask.png")
    found = read_values(tmp_path / "mask.png")
    assert not found.has_void
    np.testing.assert_array_equal(found.labels > 0, IS_MASK)


def png(width, height, bits, rows):
    """A grey PNG file of 1, 2 or 4 bits, written by its specification: packed rows, each behind a filter of 0."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = b""
    for row in rows:
        digits = "".join(format(value, f"0{bits}b") for value in row)
        packed += b"\0" + bytes(int(digits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_are_called_as_they_are_stored(tmp_path, bits):
    rows = [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    (tmp_path / "mask.png").write_bytes(png(5, 4, bits, rows))
    found = read_values(tmp_path / "mask.png")
    assert found.names == ("1",)
    assert found.labels.tolist() == rows


@pytest.mark.parametrize(
    ("picture", "is_full", "tones"),
    [
        (PIL.Image.new("L", (9, 7), 0), False, "black"),
        (PIL.Image.new("L", (9, 7), 255), True, "white"),
        (PIL.Image.new("L", (9, 7), 1), True, ""),
        (PIL.Image.new("RGBA", (9, 7), (255, 0, 0, 255)), True, ""),
        (PIL.Image.new("RGBA", (9, 7), (0, 0, 0, 0)), False, "black"),
        (PIL.Image.new("P", (9, 7), 0), False, ""),
    ],
)
def test_pictures_of_one_value(tmp_path, picture, is_full, tones):
    if picture.mode == "P":
        picture.putpalette([120, 120, 120, 255, 0, 0])
    picture.save(tmp_path / "mask.png")
    found = read_values(tmp_path / "mask.png")
    assert (bool(found.labels.all()), found.labels.any(), found.tones) == (is_full, is_full, tones)
    assert found.labels.shape == (7, 9)


def shrunk(picture, times=4):
    """Soft edges, as of a picture drawn larger: the mean of times x times pixels."""
    return picture.reduce(times)


def jpeg(picture, **options):
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return PIL.Image.open(io.BytesIO(file.getvalue()))


def drawn(*values, scale=1):
    return PIL.Image.fromarray(np.array(values, dtype=np.uint8)[lungs(scale)])


SOFT = {
    "means of 2 x 2": shrunk(drawn(0, 255, 255, 255, scale=2), 2),
    "means of 4 x 4": shrunk(drawn(0, 255, 255, 255, scale=4), 4),
    "dark": shrunk(drawn(0, 100, 100, 100, scale=4), 4),
    "of two greys": shrunk(drawn(0, 85, 170, 170, scale=4), 4),
    "many of colours": shrunk(drawn(BLACK, RED, BLUE, BLUE, scale=4), 4),
    "enlarged": drawn(0, 255, 255, 255).resize((100, 100)).resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR),
    "on nothing": shrunk(drawn((0, 0, 0, 0), (*BLACK, 255), (*BLACK, 255), (*BLACK, 255), scale=4), 4),
    "16 bits": PIL.Image.fromarray(np.asarray(shrunk(drawn(0, 255, 255, 255, scale=4), 4)).astype(np.uint16) * 257),
    "black on white": shrunk(drawn(255, 0, 0, 0, scale=4), 4),
    "a lossy copy": PIL.Image.fromarray(np.asarray(jpeg(drawn(0, 255, 255, 255), quality=80))),
}


@pytest.mark.parametrize("kind", SOFT)
def test_soft_edges_count_to_the_nearer_side(tmp_path, kind):
    SOFT[kind].save(tmp_path / "mask.png")
    found = read_values(tmp_path / "mask.png")
    _assert_close(found.labels > 0)
    assert len(found.names) == (2 if "of" in kind.split() and "means" not in kind else 1)


LOSSY = {
    "white": (drawn(0, 255, 255, 255), 1),
    "grey": (drawn(0, 100, 100, 100), 1),
    "two greys": (drawn(0, 85, 170, 170), 2),
    "red": (drawn(BLACK, RED, RED, WHITE), 2),
    "red and blue": (drawn(BLACK, RED, BLUE, WHITE), 3),
    # As bright as what it was drawn on, or no brighter than others.
    "yellow and purple on white": (drawn(WHITE, (255, 255, 0), (128, 0, 128), (128, 0, 128)), 2),
    "red and green on blue": (drawn(BLUE, RED, (0, 255, 0), RED), 2),
    "black on white": (drawn(255, 0, 0, 0), 1),
}


@pytest.mark.parametrize("quality", [75, 85, 95])
@pytest.mark.parametrize("kind", LOSSY)
def test_jpeg(tmp_path, kind, quality):
    picture, n = LOSSY[kind]
    picture.save(tmp_path / "mask.jpg", quality=quality)
    found = read_values(tmp_path / "mask.jpg")
    _assert_close(found.labels > 0)
    assert n == len(found.names)
    assert looks_like_mask(tmp_path / "mask.jpg")


@pytest.mark.parametrize("mark", [RED, (40, 60, 200)])
@pytest.mark.parametrize("noise", [0, 6])
def test_a_radiograph_with_something_drawn_on_it_is_no_mask(tmp_path, mark, noise):
    y, x = np.mgrid[:300, :280]
    film = 110 + 60 * np.sin(x / 60) + 40 * np.cos(y / 50) + np.random.default_rng(0).normal(0, noise, x.shape)
    pixels = np.dstack([film.clip(0, 255).astype(np.uint8)] * 3)
    pixels[20:60, 20:60] = mark
    PIL.Image.fromarray(pixels).save(tmp_path / "film.jpg", quality=90)
    assert not looks_like_mask(tmp_path / "film.jpg")


def _assert_close(is_mask):
    """The mask, but for pixels beside its edge."""
    square = np.ones((3, 3), dtype=np.uint8)
    inner, outer = cv2.erode(IS_MASK.astype(np.uint8), square), cv2.dilate(IS_MASK.astype(np.uint8), square)
    assert is_mask[inner > 0].all()
    assert not is_mask[outer == 0].any()


def test_probabilities_are_cut_at_half_of_white(tmp_path):
    y, x = np.mgrid[:200, :200]
    for top in (255, 200):
        bump = np.rint(top * np.exp(-((x - 100) ** 2 + (y - 100) ** 2) / 3000)).astype(np.uint8)
        assert cv2.imwrite(str(tmp_path / "mask.png"), bump)
        np.testing.assert_array_equal(read_values(tmp_path / "mask.png").labels > 0, bump > 127)
        assert cv2.imwrite(str(tmp_path / "mask.png"), bump.astype(np.uint16) * 257)
        np.testing.assert_array_equal(read_values(tmp_path / "mask.png").labels > 0, bump > 127)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_objects_numbered_one_by_one(tmp_path, kind):
    n = 20 if kind is np.uint16 else 12
    numbers = np.zeros((n * 12, n * 12), dtype=kind)
    for place in range(n * n):
        row, column = divmod(place, n)
        numbers[12 * row + 2 : 12 * row + 10, 12 * column + 2 : 12 * column + 10] = place + 1
    assert cv2.imwrite(str(tmp_path / "mask.png"), numbers)
    found = read_values(tmp_path / "mask.png")
    np.testing.assert_array_equal(found.labels, numbers)
    assert found.names == tuple(str(number) for number in range(1, n * n + 1))


def test_no_background(tmp_path):
    halves = np.full((20, 20), 100, dtype=np.uint8)
    halves[:, 10:] = 200
    assert cv2.imwrite(str(tmp_path / "mask.png"), halves)
    with pytest.raises(RadiographError, match=r"mask\.png: which of its 2 values is the background cannot be told"):
        read_values(tmp_path / "mask.png")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 255), min_size=3, max_size=3), st.booleans(), st.sampled_from(["L", "RGB", "P", "I;16"]))
def test_any_greys_are_mask(tmp_path_factory, values, is_thin, mode):
    path = tmp_path_factory.mktemp("greys") / "mask.png"
    table = np.array([0, *values], dtype=np.uint8)
    pixels = table[DRAWN * (DRAWN == 3) if is_thin else DRAWN]
    picture = PIL.Image.fromarray(pixels.astype(np.uint16) if mode == "I;16" else pixels)
    (picture if mode == "I;16" else picture.convert(mode)).save(path)
    np.testing.assert_array_equal(read_values(path).labels > 0, pixels > 0)


@pytest.mark.parametrize("seed", range(3))
def test_radiographs_do_not_look_like_masks(tmp_path, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :200]
    film = (120 + 80 * np.sin(x / 40 + seed) * np.cos(y / 50) + rng.normal(0, 4, x.shape)).clip(0, 255)
    film[:, : 40 * seed] = 0  # beside the collimated field
    for picture in (film, film // 16 * 16, cv2.GaussianBlur(film, (9, 9), 0)):
        for name in ("film.png", "film.jpg"):
            assert cv2.imwrite(str(tmp_path / name), picture.astype(np.uint8))
            assert not looks_like_mask(tmp_path / name)
