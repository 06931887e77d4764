"""What real files do that the standard does not foresee, or foresees and few readers know: read, or refused by name."""

import struct
import zlib
from pathlib import Path

import dicom_cases as cases
import jpeg_ls
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import generate_frames

from xray.radiographs.dicom import check_dicom, read_elements
from xray.radiographs.radiograph import RadiographError, radiograph_size, read_radiograph

VALUES = cases.chest_values(48, 50, bits=12)
STRETCHED = VALUES / 4095 * 255
EXPLICIT, IMPLICIT, BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian


def off(path: Path, expected: np.ndarray = STRETCHED) -> float:
    """By how much of 255 a file's grey differs from what is expected."""
    assert radiograph_size(path) == (expected.shape[1], expected.shape[0])
    return float(np.abs(read_radiograph(path).pixels - expected).max())


def refusal(path: Path) -> str:
    with pytest.raises(RadiographError) as error:
        read_radiograph(path)
    assert str(error.value).startswith(f"{path.name}: ")
    return str(error.value)


def plain(path: Path, syntax: str = EXPLICIT, **elements: object) -> Path:
    return cases.save(path, cases.dataset(VALUES, 12, **elements), syntax)


def inserted(path: Path, before: tuple[int, int], data: bytes, order: str = "<") -> Path:
    """Puts bytes before an element of a file."""
    content = path.read_bytes()
    at = content.index(struct.pack(f"{order}HH", *before), 144)
    path.write_bytes(content[:at] + data + content[at:])
    return path


def unknown_sequence(order: str, is_defined: bool, content: bytes, tag: tuple[int, int] = (0x0008, 0x2112)) -> bytes:
    """A sequence of VR UN, whose content is implicit little endian (CP-246)."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    item += struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
    end = b"" if is_defined else struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return struct.pack(f"{order}HH2sHL", *tag, b"UN", 0, len(item) if is_defined else 0xFFFFFFFF) + item + end


REFERENCE = struct.pack("<HHL", 0x0008, 0x1150, 8) + b"1.2.840\0"


@pytest.mark.parametrize(("syntax", "order"), [(EXPLICIT, "<"), (BIG, ">")])
@pytest.mark.parametrize("is_defined", [False, True])
def test_unknown_sequences(syntax, order, is_defined, tmp_path):
    nested = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + unknown_sequence("<", False, REFERENCE)[12:]
    for number, content in enumerate((REFERENCE, nested)):
        path = plain(tmp_path / f"{number}.dcm", syntax)
        inserted(path, (0x0028, 0x0002), unknown_sequence(order, is_defined, content), order)
        assert off(path) <= 0.5


@pytest.mark.parametrize(("syntax", "order"), [(EXPLICIT, "<"), (BIG, ">")])
@pytest.mark.parametrize("is_defined", [False, True])
def test_a_table_in_an_unknown_sequence(syntax, order, is_defined, tmp_path):
    entries = np.arange(4096)[::-1] * 16
    content = struct.pack("<HHL3H", 0x0028, 0x3002, 6, 4096, 0, 16)
    content += struct.pack("<HHL", 0x0028, 0x3006, 8192) + entries.astype("<u2").tobytes()
    sequence = unknown_sequence(order, is_defined, content, (0x0028, 0x3010))
    path = inserted(plain(tmp_path / "x.dcm", syntax), (0x7FE0, 0x0010), sequence, order)
    assert off(path, entries[VALUES] / 65535 * 255) <= 0.5


def test_nested_without_end_is_refused(tmp_path):
    head = struct.pack("<HHL", 0x0008, 0x2112, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    path = inserted(plain(tmp_path / "x.dcm", IMPLICIT), (0x0028, 0x0002), head * 5000)
    assert "nested more than 60 deep" in refusal(path)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, uid.RLELossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("is_implicit", [False, True])
def test_file_meta_information_that_is_repeated(syntax, is_implicit, tmp_path):
    other = b"1.2.840.10008.1.2\0" if syntax != IMPLICIT else b"1.2.840.10008.1.2.4.70"
    head = (
        struct.pack("<HHL", 2, 0x10, len(other)) if is_implicit else struct.pack("<HH2sH", 2, 0x10, b"UI", len(other))
    )
    path = inserted(plain(tmp_path / "x.dcm", syntax), (0x0008, 0x0016), head + other, ">" if syntax == BIG else "<")
    assert check_dicom(path) == syntax
    assert off(path) <= 0.5


def test_file_meta_information_repeated_within_deflated_data(tmp_path):
    path = plain(tmp_path / "x.dcm", uid.DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    at = 144 + struct.unpack("<L", data[140:144])[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    again = struct.pack("<HH2sH", 2, 0x10, b"UI", 18) + b"1.2.840.10008.1.2\0"
    content = again + zlib.decompress(data[at:], -zlib.MAX_WBITS)
    path.write_bytes(data[:at] + deflater.compress(content) + deflater.flush())
    assert off(path) <= 0.5


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_packed_bits(bits, syntax, tmp_path):
    values = cases.chest_values(47, 50, bits=bits)
    ds = cases.dataset(values, bits)
    data = cases.packed(values, bits)
    ds.BitsAllocated, ds.PixelData = bits, data + b"\0" * (len(data) % 2)
    assert off(cases.save(tmp_path / "x.dcm", ds, syntax), values / (2**bits - 1) * 255) <= 0.5


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, uid.RLELossless])
@pytest.mark.parametrize(
    ("stored", "high", "is_signed", "offset"),
    [(32, 31, 0, 0), (32, 31, 1, 0), (32, 31, 1, -1024), (24, 27, 1, -1024), (20, 19, 0, 60_000), (17, 16, 1, -32_768)],
)
def test_grey_of_32_bits_that_needs_16(stored, high, is_signed, offset, syntax, tmp_path):
    """As programs that compute in 32 bits write radiographs, whatever the bits beside those that are stored hold."""
    values = VALUES + offset
    below = high + 1 - stored
    words = (values & (2**stored - 1)) << below | (5 << (high + 1) & 0xFFFFFFFF) | (2**below - 1)
    ds = cases.dataset(VALUES, 12, RescaleIntercept=-offset, RescaleSlope=1)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 32, stored, high, is_signed
    data = words.astype(">u4" if syntax == BIG else "<u4").tobytes()
    if syntax == uid.RLELossless:
        planes = [pack_bits(words >> shift & 255) for shift in (24, 16, 8, 0)]
        places = [64 + sum(map(len, planes[:number])) for number in range(4)]
        head = struct.pack("<16L", 4, *places, *[0] * 11)
        path = cases.encapsulated(tmp_path / "x.dcm", ds, syntax, [head + b"".join(planes)])
    else:
        ds.PixelData, path = data, tmp_path / "x.dcm"
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, ds, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    assert off(path) <= 0.5


def pack_bits(plane: np.ndarray) -> bytes:
    """A plane as run lengths that are all literal (PS3.5 G.3.1), each line by itself."""
    packed = b"".join(bytes([len(part) - 1]) + part for row in plane.astype(np.uint8) for part in [row.tobytes()])
    return packed + b"\0" * (len(packed) % 2)


@pytest.mark.parametrize(("low", "high"), [(0, 2**16), (-1, 2**15), (-(2**15) - 1, 0), (-(2**31), 2**31 - 1)])
def test_grey_of_32_bits_that_needs_more_is_refused(low, high, tmp_path):
    ds = cases.dataset(VALUES, 12)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 32, 32, 31, 1
    words = np.zeros(VALUES.shape, np.int32)
    words[3, 4], words[40, 1] = low, high
    ds.PixelData = words.tobytes()
    path = cases.save(tmp_path / "x.dcm", ds)
    assert f"its values, {low} to {high} in 32 bits, need more than 16 bits" in refusal(path)


def test_a_private_syntax_with_pixels_in_big_endian(tmp_path):
    ds = cases.dataset(VALUES, 12)
    ds.PixelData = VALUES.astype(">u2").tobytes()
    path = cases.renamed(cases.save(tmp_path / "x.dcm", ds, IMPLICIT), "1.2.840.113619.5.2")
    assert off(path) <= 0.5


@pytest.mark.parametrize("name", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless, uid.JPEGLosslessSV1])
def test_decompressed_under_the_old_name(name, tmp_path):
    assert off(cases.renamed(plain(tmp_path / "x.dcm"), name)) <= 0.5
    path = cases.renamed(cases.save(tmp_path / "y.dcm", cases.dataset(VALUES[:40], 12, Rows=48)), name)
    assert "not encapsulated" in refusal(path)


COMPRESSED = [
    uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless, uid.JPEGExtended12Bit,
]  # fmt: skip


@pytest.mark.parametrize("name", [EXPLICIT, IMPLICIT, uid.JPEGBaseline8Bit, uid.RLELossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_data_tells_what_it_is(syntax, name, tmp_path):
    """Under another name, as after a system that compresses, or decompresses, and changes only one of the two."""
    path = plain(tmp_path / "x.dcm", syntax)
    grey, data = read_radiograph(path).pixels, path.read_bytes()
    if name == IMPLICIT:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = name
        ds["PixelData"].VR = "OB"
        pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True)
        assert path.read_bytes() != data
    else:
        cases.renamed(path, name)
    np.testing.assert_array_equal(read_radiograph(path).pixels, grey)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_without_meta_information(syntax, tmp_path):
    path = plain(tmp_path / "x.dcm", syntax)
    grey, data = read_radiograph(path).pixels, path.read_bytes()
    path.write_bytes(data[144 + struct.unpack("<L", data[140:144])[0] :])
    np.testing.assert_array_equal(read_radiograph(path).pixels, grey)
    assert check_dicom(path) != EXPLICIT


@pytest.mark.parametrize("is_renamed", [False, True])
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_data_that_stands_in_no_items(syntax, is_renamed, tmp_path):
    path = plain(tmp_path / "x.dcm", syntax)
    grey, ds = read_radiograph(path).pixels, pydicom.dcmread(path)
    code = next(generate_frames(ds.PixelData, number_of_frames=1))
    del ds.PixelData
    ds.save_as(path)
    path.write_bytes(path.read_bytes() + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, len(code)) + code)
    if is_renamed:
        cases.renamed(path, EXPLICIT)
    np.testing.assert_array_equal(read_radiograph(path).pixels, grey)


def test_encapsulated_pixels_that_are_in_nothing_known(tmp_path):
    for number, data in enumerate((b"\xff\xd8\xff", b"\1\0\0\0" + 60 * b"\0", b"\7" + 99 * b"\0", 100 * b"\xff")):
        path = cases.encapsulated(tmp_path / f"{number}.dcm", cases.dataset(VALUES, 12), uid.JPEG2000, [data])
        cases.renamed(path, EXPLICIT)
        assert "encapsulated, though Explicit VR Little Endian has them uncompressed" in refusal(path)


def test_encapsulated_without_compression(tmp_path):
    ds = cases.dataset(VALUES, 12)
    path = cases.encapsulated(tmp_path / "x.dcm", ds, "1.2.840.10008.1.2.1.98", [VALUES.astype("<u2").tobytes()])
    assert off(path) <= 0.5
    cases.encapsulated(path, ds, "1.2.840.10008.1.2.1.98", [VALUES.astype("<u2").tobytes()[:-2]])
    assert "truncated: 50 x 48 pixels of 16 bits need 4800 bytes, found 4798" in refusal(path)


def test_newer_syntaxes_are_refused_by_name(tmp_path):
    for number, name in ((110, "JPEG XL Lossless"), (111, "JPEG XL JPEG Recompression"), (112, "JPEG XL")):
        path = cases.renamed(plain(tmp_path / f"{number}.dcm"), f"1.2.840.10008.1.2.4.{number}")
        assert f"transfer syntax {name} is not supported: export it uncompressed" in refusal(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55", uid.JPEGBaseline8Bit])
def test_progressive_jpeg(syntax, tmp_path):
    grey = cases.chest_values(48, 50, bits=8).astype(np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "x.jpg", "JPEG", quality=95, progressive=True)
    ds = cases.dataset(grey, 8, WindowCenter=128, WindowWidth=256)
    path = cases.encapsulated(tmp_path / "x.dcm", ds, syntax, [(tmp_path / "x.jpg").read_bytes()])
    assert off(path, np.asarray(PIL.Image.open(tmp_path / "x.jpg")).astype(float)) == 0
    cases.encapsulated(path, ds, syntax, [(tmp_path / "x.jpg").read_bytes()[:-200]])
    assert refusal(path).endswith("data is damaged or truncated")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_many_frames_with_a_large_header_are_counted(syntax, tmp_path):
    ds = cases.dataset(VALUES, 12, NumberOfFrames=176)
    macros = {"PixelMeasuresSequence": {"PixelSpacing": ["1", "1"]}, "FrameAnatomySequence": {"PatientComments": "x"}}
    cases.in_functional_groups(ds, None, macros)
    ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence) * 12_000
    assert "it has 176 frames, a radiograph has one" in refusal(cases.save(tmp_path / "x.dcm", ds, syntax))


def test_compressed_data_of_more_samples_than_the_header_has(tmp_path):
    grey = cases.chest_values(48, 50, bits=8).astype(np.uint8)
    code = bytes(jpeg_ls.encode_array(np.dstack([grey] * 3), interleave_mode=1))
    path = cases.encapsulated(tmp_path / "x.dcm", cases.dataset(grey, 8), uid.JPEGLSLossless, [code])
    assert "has 3 samples of 8 bits per pixel, its header announces 1 of 8" in refusal(path)


def lossy_dataset(bits: int, signed: bool = False, photometric: str = "MONOCHROME2"):
    """A data set whose window is the whole range of its stored bits."""
    window = {"WindowCenter": 0 if signed else 2 ** (bits - 1), "WindowWidth": 2**bits}
    return cases.dataset(VALUES, bits, signed, BitsAllocated=16, PhotometricInterpretation=photometric, **window)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_white_beyond_the_stored_bits_stays_white(photometric, tmp_path):
    values = np.clip(VALUES + 500, 0, 4095 + 40).astype(np.uint16)
    code = bytes(jpeg_ls.encode_array(values, lossy_error=3))
    decoded = jpeg_ls.decode(np.frombuffer(code, np.uint8)).reshape(values.shape)
    assert decoded.max() > 4095
    path = cases.encapsulated(
        tmp_path / "x.dcm", lossy_dataset(12, photometric=photometric), uid.JPEGLSNearLossless, [code]
    )
    grey = np.minimum(decoded, 4095) / 4095 * 255
    assert off(path, grey if photometric == "MONOCHROME2" else 255 - grey) <= 0.5


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEG2000Lossless])
@pytest.mark.parametrize("irreversible", [True, False])
def test_which_jpeg_2000_is_lossy(syntax, irreversible, tmp_path):
    """Bits above the stored ones are of no interest where nothing was lost: they may hold an overlay."""
    values = (VALUES // 2 + 2200).astype(np.uint16)
    picture = PIL.Image.fromarray(values)
    picture.save(tmp_path / "x.j2k", "JPEG2000", irreversible=irreversible, no_jp2=True, num_resolutions=4)
    decoded = np.asarray(PIL.Image.open(tmp_path / "x.j2k")).astype(int)
    assert decoded.max() > 4095
    path = cases.encapsulated(tmp_path / "x.dcm", lossy_dataset(12), syntax, [(tmp_path / "x.j2k").read_bytes()])
    is_lossy = irreversible or syntax == uid.JPEG2000
    shown = np.minimum(decoded, 4095) if is_lossy else decoded & 4095
    assert off(path, shown / 4095 * 255) <= 0.5


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize(("is_signed", "value"), [(1, -2000), (0, 63536)])
def test_an_element_has_its_sign_whatever_else_is_read(tmp_path: Path, syntax: str, is_signed: int, value: int) -> None:
    """In Implicit VR it stands in Pixel Representation, which pydicom 3.0.2 must be given with it."""
    path = plain(tmp_path / "r.dcm", syntax, PixelRepresentation=is_signed, PixelPaddingValue=value)
    assert read_elements(path, ["PixelPaddingValue"]).PixelPaddingValue == value
