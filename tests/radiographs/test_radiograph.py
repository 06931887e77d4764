"""Every kind of file that must be read, every kind that must be refused, and damaged ones by the hundred."""

import io
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import dicom_cases as cases
import numpy as np
import openjpeg
import PIL.Image
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid

from xray.errors import InputError
from xray.radiographs.dicom import MAX_PIXELS
from xray.radiographs.pictures import IN_COLOUR, TURNED
from xray.radiographs.radiograph import (
    RadiographError,
    find_radiographs,
    radiograph_size,
    read_radiograph,
    source_id,
)  # fmt: skip

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
]


def scaled(values: np.ndarray) -> np.ndarray:
    """Grey levels of values without a window, in float64."""
    values = values.astype(np.float64)
    return 255 * (values - values.min()) / (values.max() - values.min())


# --- transfer syntaxes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_lossless_syntaxes(syntax: uid.UID, bits: int, tmp_path: Path) -> None:
    values = cases.chest_values(98, 81, bits)
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, bits), syntax)
    radiograph = read_radiograph(path)
    assert np.abs(radiograph.pixels - scaled(values)).max() <= 0.5
    assert (radiograph.width, radiograph.height, radiograph.source) == (81, 98, "a.dcm")
    assert np.abs(read_radiograph(path, bits=16).pixels / 257 - scaled(values)).max() <= 0.5 / 257


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_values_in_lossless_syntaxes(syntax: uid.UID, bits: int, tmp_path: Path) -> None:
    values = cases.chest_values(98, 81, bits, signed=True)
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, bits, signed=True), syntax)
    assert np.abs(read_radiograph(path).pixels - scaled(values)).max() <= 0.5


@pytest.mark.parametrize(
    ("syntax", "bits", "tolerance"),
    [
        (uid.JPEGBaseline8Bit, 8, 12),
        (uid.JPEGExtended12Bit, 8, 12),
        (uid.JPEGExtended12Bit, 12, 4),
        (uid.JPEG2000, 12, 12),
        (uid.JPEGLSNearLossless, 12, 4),
    ],
)
def test_lossy_syntaxes(syntax: uid.UID, bits: int, tolerance: int, tmp_path: Path) -> None:
    values = cases.chest_values(98, 81, bits)
    window = {"WindowCenter": str(2 ** (bits - 1)), "WindowWidth": str(2**bits)}
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, bits, **window), syntax)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    difference = np.abs(read_radiograph(path).pixels - values * (255 / (2**bits - 1)))
    assert difference.max() <= tolerance


def test_two_decoders_agree_on_a_real_jpeg_2000_file(shared_data: Path) -> None:
    path = shared_data / "dicom" / "cr_chest_monochrome1_jpeg2000.dcm"
    ds = pydicom.dcmread(path)
    stored = openjpeg.decode(pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1))
    grey = 255 - np.clip((stored - (15000 - 0.5)) / (30000 - 1) + 0.5, 0, 1) * 255
    assert np.abs(read_radiograph(path).pixels - grey).max() <= 0.5


def test_real_files_look_like_radiographs(shared_data: Path) -> None:
    """Bone is white: the spine in the middle is brighter than the lungs beside it."""
    for name in ("cr_chest_monochrome1_jpeg2000.dcm", "dx_nih_implicit_vr.dcm"):
        pixels = read_radiograph(shared_data / "dicom" / name).pixels.astype(float)
        height, width = pixels.shape
        rows = slice(int(0.35 * height), int(0.5 * height))
        spine, right, left = (pixels[rows, int(x * width) : int((x + 0.06) * width)].mean() for x in (0.47, 0.24, 0.7))
        assert spine > max(right, left) + 30


@pytest.mark.parametrize("syntax", [*LOSSLESS[:5], uid.JPEGLSLossless, uid.JPEGBaseline8Bit], ids=lambda s: s.keyword)
def test_an_odd_number_of_bytes(syntax: uid.UID, tmp_path: Path) -> None:
    values = cases.chest_values(97, 81, bits=8)
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 8), syntax)
    assert np.abs(read_radiograph(path).pixels - scaled(values)).max() <= (
        12 if "JPEGBaseline" in syntax.keyword else 0.5
    )


def test_spacing(tmp_path: Path) -> None:
    values = cases.chest_values()
    for elements, expected in [
        ({"PixelSpacing": ["0.14", "0.15"], "ImagerPixelSpacing": ["0.2", "0.2"]}, (0.14, 0.15)),
        ({"ImagerPixelSpacing": ["0.2", "0.25"]}, (0.2, 0.25)),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.2", "0.25"]}, (0.2, 0.25)),
        ({}, None),
    ]:
        path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12, **elements))
        assert read_radiograph(path).spacing == expected


# --- unusual but usable files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("preamble", [True, False])
def test_without_file_meta(syntax: uid.UID, preamble: bool, tmp_path: Path) -> None:
    values = cases.chest_values()
    data = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12), syntax).read_bytes()
    first = 144 + struct.unpack("<L", data[140:144])[0]
    (tmp_path / "b").write_bytes((data[:132] if preamble else b"") + data[first:])
    assert np.abs(read_radiograph(tmp_path / "b").pixels - scaled(values)).max() <= 0.5


def test_without_preamble_or_transfer_syntax(tmp_path: Path) -> None:
    values = cases.chest_values()
    data = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12), uid.ImplicitVRLittleEndian).read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[132:])
    assert np.abs(read_radiograph(tmp_path / "b.dcm").pixels - scaled(values)).max() <= 0.5

    at = data.index(b"\x02\x00\x10\x00UI")
    length = 8 + struct.unpack("<H", data[at + 6 : at + 8])[0]
    (tmp_path / "c.dcm").write_bytes(data[:at] + data[at + length :])
    assert np.abs(read_radiograph(tmp_path / "c.dcm").pixels - scaled(values)).max() <= 0.5


def test_8_bit_pixels_in_big_endian_words(tmp_path: Path) -> None:
    values = cases.chest_values(bits=8)
    ds = cases.dataset(values, 8)
    ds["PixelData"].VR = "OW"
    path = cases.save(tmp_path / "a.dcm", ds, uid.ExplicitVRBigEndian)
    assert np.abs(read_radiograph(path).pixels - scaled(values)).max() <= 0.5


@pytest.mark.parametrize("bits", [8, 12])
def test_a_few_bits_in_a_wide_word(bits: int, tmp_path: Path) -> None:
    values = cases.chest_values(bits=bits)
    for syntax in (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless):
        ds = cases.dataset(values, bits, BitsAllocated=16)
        path = cases.save(tmp_path / f"{syntax.keyword}.dcm", ds, syntax)
        assert np.abs(read_radiograph(path).pixels - scaled(values)).max() <= 0.5


def test_several_fragments_and_trailing_bytes(tmp_path: Path) -> None:
    values = cases.chest_values()
    path = cases.save(tmp_path / "a.dcm", cases.dataset(values, 12), uid.JPEGLosslessSV1)
    ds = pydicom.dcmread(path)
    codestream = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = pydicom.encaps.encapsulate([codestream], fragments_per_frame=3)
    ds.save_as(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert np.abs(read_radiograph(path).pixels - scaled(values)).max() <= 0.5


def test_the_content_tells_the_kind_of_file(tmp_path: Path) -> None:
    values = cases.chest_values(bits=8)
    cases.save(tmp_path / "a.png", cases.dataset(values, 8))
    PIL.Image.fromarray(values.astype(np.uint8)).save(tmp_path / "b.dcm", "PNG")
    assert np.array_equal(read_radiograph(tmp_path / "a.png").pixels, values)
    assert np.array_equal(read_radiograph(tmp_path / "b.dcm").pixels, values)


# --- files that are no radiograph ------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The one-line reason for which a file is refused."""
    with pytest.raises(RadiographError) as caught:
        read_radiograph(path)
    message = str(caught.value)
    assert message.startswith(path.name), "the message names the file"
    assert str(path.parent) not in message, "and not its folder"
    assert "\n" not in message
    return message


def test_multi_frame_is_refused(tmp_path: Path) -> None:
    ds = cases.dataset(np.stack([cases.chest_values()] * 3), 12, NumberOfFrames=3)
    assert "3 frames" in refusal(cases.save(tmp_path / "a.dcm", ds))


@pytest.mark.parametrize("element", ["Rows", "Columns"])
def test_a_header_without_a_size(element: str, tmp_path: Path) -> None:
    ds = cases.dataset(cases.chest_values(), 12)
    delattr(ds, element)
    message = refusal(cases.save_header(tmp_path / "a.dcm", ds))
    assert f"how large its image is ({element} missing or 0)" in message


def test_truncated_pixels_are_counted(tmp_path: Path) -> None:
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(96, 80), 12))
    path.write_bytes(path.read_bytes()[:-1000])
    message = refusal(path)
    assert "15360" in message
    assert "14360" in message


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s.is_compressed], ids=lambda syntax: syntax.keyword)
def test_truncated_compressed_files(syntax: uid.UID, kept: float, tmp_path: Path) -> None:
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(), 12), syntax)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert refusal(path)


@pytest.mark.parametrize(
    ("syntax", "bits"), [(s, 12) for s in LOSSLESS if s.is_encapsulated] + [(uid.JPEGBaseline8Bit, 8)]
)
def test_truncated_codestreams(syntax: uid.UID, bits: int, tmp_path: Path) -> None:
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(bits=bits), bits), syntax)
    ds = pydicom.dcmread(path)
    codestream = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    for kept in (2, 30, len(codestream) // 2, len(codestream) - 40):
        cases.encapsulated(path, ds, syntax, [codestream[:kept]])
        assert refusal(path)


@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s.is_encapsulated], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("rows", "columns"), [(97, 80), (95, 80), (96, 81), (960, 800), (9000, 9000)])
def test_a_header_that_claims_another_size(syntax: uid.UID, rows: int, columns: int, tmp_path: Path) -> None:
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(96, 80), 12), syntax)
    ds = pydicom.dcmread(path)
    ds.Rows, ds.Columns = rows, columns
    ds.save_as(path)
    if syntax == uid.RLELossless and rows * columns < 96 * 80:
        pytest.skip("run lengths do not say where the picture ends")
    assert refusal(path)


def test_without_an_image(tmp_path: Path) -> None:
    ds = cases.dataset(cases.chest_values(), 12)
    del ds.PixelData
    assert "no pixel data" in refusal(cases.save_header(tmp_path / "a.dcm", ds))


def test_float_pixels_and_odd_depths_are_refused(tmp_path: Path) -> None:
    ds = cases.dataset(cases.chest_values(), 12)
    del ds.PixelData
    ds.FloatPixelData = b"\0" * 96 * 80 * 4
    assert "floating-point" in refusal(cases.save_header(tmp_path / "a.dcm", ds))
    ds = cases.dataset(cases.chest_values(), 12)
    ds.BitsAllocated = 32
    assert "32 bits" in refusal(cases.save_header(tmp_path / "b.dcm", ds))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3.4", "x" * 300, "\x1b[31m"])
def test_other_transfer_syntaxes_are_refused(syntax: str, tmp_path: Path) -> None:
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(), 12))
    data, old = path.read_bytes(), b"UI\x14\x001.2.840.10008.1.2.1\0"
    assert old in data
    new = syntax.encode() + b"\0" * (len(syntax) % 2)
    path.write_bytes(data.replace(old, b"UI" + struct.pack("<H", len(new)) + new))
    message = refusal(path)
    assert "transfer syntax" in message
    assert len(message) < 200
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.dcm", b"", "empty"),
        ("one.dcm", b"\x00", "neither"),
        ("text.dcm", b"image_id,class_name\n" * 100, "neither"),
        ("zeros.png", bytes(5000), "neither"),
        ("preamble.dcm", bytes(128) + b"DICM", "no pixel data"),
        ("archive.dcm", b"PK\x03\x04" + bytes(500), "neither"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "damaged PNG"),
        ("head.jpg", b"\xff\xd8\xff\xe0" + bytes(200), "damaged JPEG"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("syntax", "bits", "what"),
    [
        (uid.JPEGLSLossless, 12, "JPEG-LS"),
        (uid.JPEGLSLossless, 8, "JPEG-LS"),
        (uid.JPEGExtended12Bit, 12, "JPEG of 12 bits"),
        (uid.JPEGLosslessSV1, 12, "lossless JPEG of 12 bits"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.dcm"])
def test_jpeg_that_is_read_inside_of_dicom_only(
    syntax: uid.UID, bits: int, what: str, name: str, tmp_path: Path
) -> None:
    path = cases.save(tmp_path / "whole.dcm", cases.dataset(cases.chest_values(bits=bits), bits), syntax)
    data = pydicom.encaps.get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    # GDCM announces 16 bits where there are 12.
    data = data.replace(b"\0\x0b\x10", b"\0\x0b\x0c", 1)
    (tmp_path / name).write_bytes(data)
    says = f"{name}: {what}, which is read inside of DICOM files only: convert it to PNG"
    assert refusal(tmp_path / name) == says
    with pytest.raises(RadiographError, match=f"^{re.escape(says)}$"):
        radiograph_size(tmp_path / name)


def test_a_file_that_the_system_does_not_open_has_no_size(tmp_path):
    with pytest.raises(RadiographError, match=r"x\.png: its size cannot be read \(OSError\)"):
        radiograph_size(tmp_path / f"{300 * 'x'}.png")


def test_folders_missing_files_and_pipes_are_refused(tmp_path: Path) -> None:
    import os

    (tmp_path / "folder.dcm").mkdir()
    os.mkfifo(tmp_path / "pipe.dcm")
    assert "not a file" in refusal(tmp_path / "folder.dcm")
    assert "not a file" in refusal(tmp_path / "pipe.dcm")
    assert "no such file" in refusal(tmp_path / "missing.dcm")
    assert refusal(tmp_path / ("x" * 300))


# --- denial of service -----------------------------------------------------------------------------------------------

MEASURE = """
import sys, time
from pathlib import Path
from xray.radiographs.radiograph import RadiographError, read_radiograph
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before, start = peak(), time.process_time()
try:
    read_radiograph(sys.argv[1])
    print("read")
except RadiographError as error:
    print(time.process_time() - start, peak() - before, str(error))
"""


def cost_of_refusal(path: Path) -> str:
    """Reads a file in a fresh process, which must refuse it in 30 s of the processor and 200 MiB; returns the reason.

    It takes 0.1 s where it was written; taken at their word, such files cost minutes.
    """
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, cwd=root, timeout=600, check=True
    )
    seconds, mebibytes, reason = result.stdout.split(maxsplit=2)
    assert float(seconds) < 30
    assert float(mebibytes) < 200
    return reason


def test_an_inflating_file_is_refused_cheaply(tmp_path: Path) -> None:
    """261 kB that inflate to 256 MiB; a plain dcmread takes 558 MiB for it."""
    path = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(), 12), uid.DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    meta = data[: 144 + struct.unpack("<L", data[140:144])[0]]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(b"\x09\x00\x10\x00OB\0\0" + struct.pack("<L", 2**28) + bytes(2**28)) + deflater.flush()
    path.write_bytes(meta + bomb)
    assert path.stat().st_size < 300_000
    assert "deflated" in cost_of_refusal(path)


def test_a_run_length_file_of_65535_by_65535_is_refused_cheaply(tmp_path: Path) -> None:
    """670 bytes; a plain pixel_array takes 4.1 GiB for it."""
    ds = cases.dataset(cases.chest_values(8, 8, 8), 8, Rows=65535, Columns=65535)
    path = cases.encapsulated(
        tmp_path / "a.dcm", ds, uid.RLELossless, [struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0"]
    )
    assert path.stat().st_size < 1000
    assert "million" in cost_of_refusal(path)
    # The largest size within the cap is no way round it.
    ds.Rows = ds.Columns = 9999
    assert "RLE" in cost_of_refusal(cases.encapsulated(path, ds, uid.RLELossless, [bytes(70)]))


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB"])
def test_a_png_of_many_pixels_is_refused_cheaply(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    depth, colour = {"1": (1, 0), "L": (8, 0), "I;16": (16, 0), "RGB": (8, 2)}[mode]
    header = struct.pack(">LLBBBBB", 20000, MAX_PIXELS // 20000 + 1, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**7))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">L", len(d)) + n + d + struct.pack(">L", zlib.crc32(n + d)) for n, d in chunks)
    )
    assert "million" in cost_of_refusal(path)


def test_a_header_of_many_items_is_refused_cheaply(tmp_path: Path) -> None:
    ds = cases.dataset(cases.chest_values(), 12)
    path = cases.save(tmp_path / "a.dcm", ds)
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x16\x00UI")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 2**20
    path.write_bytes(data[:at] + b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff" + items + data[at:])
    assert "header" in cost_of_refusal(path)
    nested = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(data[:at] + nested + data[at:])
    assert cost_of_refusal(path)


# --- damaged files ---------------------------------------------------------------------------------------------------

MUTATED = {
    "explicit": (uid.ExplicitVRLittleEndian, 12),
    "implicit": (uid.ImplicitVRLittleEndian, 12),
    "big": (uid.ExplicitVRBigEndian, 12),
    "deflated": (uid.DeflatedExplicitVRLittleEndian, 12),
    "rle": (uid.RLELossless, 12),
    "baseline": (uid.JPEGBaseline8Bit, 8),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    files = {}
    for name, (syntax, bits) in MUTATED.items():
        ds = cases.dataset(
            cases.chest_values(24, 20, bits), bits, WindowCenter=["50", "60"], WindowWidth=["80", "90"],
            RescaleSlope="1", RescaleIntercept="0", PixelPaddingValue=3, PixelSpacing=["0.1", "0.1"],
            VOILUTSequence=[cases.lookup_table(0, np.arange(300), 16)],
            ModalityLUTSequence=[cases.lookup_table(0, np.arange(300), 16)],
        )  # fmt: skip
        files[name] = cases.save(folder / name, ds, syntax).read_bytes()
    for mode in ("L", "I;16", "LA", "P", "RGB", "RGBA", "1"):
        pixels = cases.chest_values(24, 20, 16).astype(np.uint16)
        picture = PIL.Image.fromarray(pixels)
        picture = picture if mode == "I;16" else PIL.Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        files[f"png {mode}"] = stream.getvalue()
    stream = io.BytesIO()
    PIL.Image.fromarray((pixels >> 8).astype(np.uint8)).save(stream, "JPEG")
    files["jpeg"] = stream.getvalue()
    return files


def mutations() -> st.SearchStrategy:
    """Lists of (what to do, position as a share of the file, bytes)."""
    one = st.tuples(
        st.sampled_from(["set", "insert", "cut", "end"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    )
    return st.lists(one, min_size=1, max_size=4)


def mutate(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for action, share, new in changes:
        # Most bytes are pixels; squaring the position sends more of the changes into the header.
        at = int(share * share * len(data))
        if action == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif action == "insert":
            data = data[:at] + new + data[at:]
        elif action == "cut":
            data = data[:at] + data[at + len(new) :]
        else:
            data = data[:at]
    return data


@given(st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_a_picture_or_a_radiograph_error(
    originals: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(originals)))
    path = tmp_path / "a.dcm"
    path.write_bytes(mutate(originals[name], data.draw(mutations())))
    start, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        radiograph = read_radiograph(path, data.draw(st.sampled_from([8, 16])))
    except RadiographError:
        pass
    else:
        assert radiograph.pixels.ndim == 2
        assert radiograph.pixels.size <= MAX_PIXELS
    assert time.process_time() - start < 60
    # Growth, as whatever ran before in this process counts towards its peak.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 2**18, "one small file takes less than 256 MiB"


# --- PNG and JPEG ----------------------------------------------------------------------------------------------------


def save_picture(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = PIL.Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA"])
def test_8_bit_png_is_unchanged(mode: str, tmp_path: Path) -> None:
    pixels = cases.chest_values(bits=8).astype(np.uint8)
    radiograph = read_radiograph(save_picture(tmp_path / "a.png", pixels, mode))
    assert np.array_equal(radiograph.pixels, pixels)
    assert radiograph.spacing is None
    assert np.array_equal(read_radiograph(tmp_path / "a.png", bits=16).pixels, pixels.astype(np.uint16) * 257)


def test_colour_becomes_luma(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0], colour[1], colour[2], colour[3] = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
    rows = read_radiograph(save_picture(tmp_path / "a.png", colour)).pixels[:, 0]
    assert np.abs(rows - 255 * np.array([0.299, 0.587, 0.114, 1])).max() <= 1


def test_transparent_is_black(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 4), 200, np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    assert read_radiograph(save_picture(tmp_path / "a.png", pixels)).pixels.tolist() == [[0] * 3, [200] * 3]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_png_of_any_depth_fills_the_range(bits: int, tmp_path: Path) -> None:
    values = cases.chest_values(bits=bits).astype(np.uint16)
    path = save_picture(tmp_path / "a.png", values)
    white = 2**bits - 1
    assert np.abs(read_radiograph(path).pixels - values * (255 / white)).max() <= 0.5
    assert np.abs(read_radiograph(path, bits=16).pixels - values * (65535 / white)).max() <= 0.5


def test_jpeg_and_its_orientation(tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (32, 1))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    radiograph = read_radiograph(save_picture(tmp_path / "a.jpg", pixels, quality=95, exif=exif))
    assert radiograph.pixels.shape == (32, 64)
    assert np.abs(radiograph.pixels.astype(int) - pixels).max() <= 5


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_orientation_that_is_ignored_is_told(suffix: str, tmp_path: Path) -> None:
    """Boxes that were drawn on the picture as viewers turn it would lie elsewhere."""
    pixels = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (32, 1))
    for orientation in range(10):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        path = save_picture(tmp_path / f"a.{suffix}", pixels, exif=exif)
        assert read_radiograph(path).warnings == ((TURNED,) if 2 <= orientation <= 8 else ())
    # What is damaged there has no pixels.
    path = save_picture(tmp_path / f"a.{suffix}", pixels, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05")
    assert read_radiograph(path).warnings == ()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_truncated_pictures_are_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = save_picture(tmp_path / f"a.{suffix}", cases.chest_values(bits=8).astype(np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "damaged" in refusal(path)


# --- finding files ---------------------------------------------------------------------------------------------------


def test_find_radiographs(tmp_path: Path) -> None:
    data = cases.save(tmp_path / "x", cases.dataset(cases.chest_values(8, 8), 12)).read_bytes()
    folder = tmp_path / "data"
    (folder / "train" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("b.dicom", "train/a.DCM", "train/deep/c.PnG", "d.jpg", "e.jpeg", "noext", "1.2.840.99", ".f.png",
                 ".hidden/g.png"):  # fmt: skip
        (folder / name).write_bytes(data)
    (folder / "README").write_text("no radiograph")
    (folder / "train.csv").write_text("image_id")
    (folder / "inside.png").symlink_to(folder / "b.dicom")
    (folder / "outside.png").symlink_to(tmp_path / "x")
    (folder / "broken.png").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder)
    names = [path.name for path in find_radiographs(folder)]
    assert names == ["1.2.840.99", "a.DCM", "b.dicom", "c.PnG", "d.jpg", "e.jpeg", "inside.png", "noext"]
    assert find_radiographs(folder / "b.dicom") == [folder / "b.dicom"]
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert len(find_radiographs(linked)) == len(names)


def test_find_radiographs_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        find_radiographs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no radiograph"):
        find_radiographs(tmp_path)
    (tmp_path / "a.png").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="1 link"):
        find_radiographs(tmp_path)


def test_source_id() -> None:
    assert source_id("a/b/000434271f63a053c4128a0ba6352c7f.dicom") == "000434271f63a053c4128a0ba6352c7f"
    assert source_id(Path("1.2.276.0.7230010.dcm")) == "1.2.276.0.7230010"
    assert source_id("1.2.276.0.7230010") == "1.2.276.0.7230010"
    assert source_id("CHNCXR_0001_0.png") == "CHNCXR_0001_0"


@pytest.mark.parametrize(("suffix", "coloured"), [("png", 0.0), ("png", 0.02), ("jpg", 0.0), ("jpg", 0.02)])
def test_pictures_in_colour_are_told(tmp_path, suffix, coloured):
    """Three equal channels are grey; what a photograph's colours leave is only their brightness."""
    grey = np.random.default_rng(0).integers(40, 200, (80, 100), dtype=np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    pixels[: int(80 * coloured * 5), :20] = (230, 40, 40)
    path = tmp_path / f"picture.{suffix}"
    PIL.Image.fromarray(pixels).save(path, quality=95)
    radiograph = read_radiograph(path)
    assert radiograph.warnings == ((IN_COLOUR,) if coloured else ())
    assert radiograph.pixels.shape == (80, 100)
