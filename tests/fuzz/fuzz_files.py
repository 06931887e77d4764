"""Small files of every kind that xray reads, from which hostile ones are made; and the two denial-of-service files."""

import io
import struct
import sys
import zlib
from pathlib import Path

import jpeg_ls
import numpy as np
import PIL.Image
from pydicom import uid
from pydicom.dataset import Dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "radiographs")]

import dicom_cases as cases  # noqa: E402 (beside the tests of the reader)

DICOM = {
    "explicit 12": (uid.ExplicitVRLittleEndian, 12, {}),
    "explicit 8 odd": (uid.ExplicitVRLittleEndian, 8, {}),
    "explicit 16 signed": (uid.ExplicitVRLittleEndian, 16, {"signed": True}),
    "explicit monochrome1": (uid.ExplicitVRLittleEndian, 12, {"PhotometricInterpretation": "MONOCHROME1"}),
    "explicit frames": (uid.ExplicitVRLittleEndian, 12, {"NumberOfFrames": "3"}),
    "explicit overlay": (uid.ExplicitVRLittleEndian, 12, {"overlay": True}),
    "explicit tables": (uid.ExplicitVRLittleEndian, 12, {"tables": True}),
    "implicit 12": (uid.ImplicitVRLittleEndian, 12, {}),
    "implicit tables": (uid.ImplicitVRLittleEndian, 12, {"tables": True}),
    "big endian 16": (uid.ExplicitVRBigEndian, 16, {}),
    "big endian 8": (uid.ExplicitVRBigEndian, 8, {}),
    "deflated 12": (uid.DeflatedExplicitVRLittleEndian, 12, {"tables": True}),
    "rle 8": (uid.RLELossless, 8, {}),
    "rle 16": (uid.RLELossless, 16, {}),
    "jpeg baseline": (uid.JPEGBaseline8Bit, 8, {}),
    "jpeg extended": (uid.JPEGExtended12Bit, 12, {}),
    "jpeg lossless": (uid.JPEGLosslessSV1, 12, {}),
    "jpeg lossless 16": (uid.JPEGLossless, 16, {}),
    "jpeg-ls": (uid.JPEGLSLossless, 12, {}),
    "jpeg-ls near": (uid.JPEGLSNearLossless, 8, {}),
    "jpeg 2000 lossless": (uid.JPEG2000Lossless, 12, {}),
    "jpeg 2000": (uid.JPEG2000, 8, {}),
}
"""Name → transfer syntax, bits stored, and what else is special."""


def write_originals(folder: Path) -> list[str]:
    """Writes all originals, none larger than some kB, and returns their names: "dicom …", "png …", "jpeg …"."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (syntax, bits, special) in DICOM.items():
        path = folder / f"dicom {name}"
        cases.save(path, dicom(bits, **special), syntax)
    write_rarer_dicom(folder)
    for name, data in pictures().items():
        (folder / name).write_bytes(data)
    return sorted(path.name for path in folder.iterdir())


def write_rarer_dicom(folder: Path) -> None:
    """Grey in colour's clothes, functional groups, packed bits, and codestreams that have ways of their own."""
    grey, deep = cases.chest_values(25, 21, 8).astype(np.uint8), cases.chest_values(25, 21, 12)
    three = np.repeat(grey[:, :, None], 3, axis=2)

    def colour(photometric: str = "RGB", **elements: object) -> Dataset:
        elements = {
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": photometric,
            "PlanarConfiguration": 0,
            **elements,
        }
        ds = cases.dataset(grey, 8, **elements)
        ds.PixelData = three.tobytes() + b"\0"
        return ds

    def coded(name: str, ds: Dataset, syntax: str, code: bytes) -> None:
        cases.encapsulated(folder / f"dicom {name}", ds, syntax, [code])

    cases.save(folder / "dicom colour", colour())
    planes, pairs = colour(PlanarConfiguration=1), colour("YBR_FULL_422")
    planes.PixelData = three.transpose(2, 0, 1).tobytes() + b"\0"
    cases.save(folder / "dicom colour planes", planes)
    # Y1 Y2 Cb Cr; of the last pair only the first half.
    shared = np.full(2 * grey.size, 128, np.uint8)
    shared[: 2 * grey.size - 2].reshape(-1, 4)[:, :2] = grey.ravel()[:-1].reshape(-1, 2)
    shared[-2] = grey.ravel()[-1]
    pairs.PixelData = shared.tobytes()
    cases.save(folder / "dicom colour pairs", pairs)
    cases.save(folder / "dicom colour rle", colour(), uid.RLELossless)
    coded("colour jpeg", colour("YBR_FULL_422"), uid.JPEGBaseline8Bit, saved(PIL.Image.fromarray(three), "JPEG"))
    coded("colour jpeg-ls", colour(), uid.JPEGLSLossless, bytes(jpeg_ls.encode_array(three, interleave_mode=1)))
    coded(
        "colour jpeg 2000",
        colour("YBR_RCT"),
        uid.JPEG2000Lossless,
        saved(PIL.Image.fromarray(three), "JPEG2000", no_jp2=True, num_resolutions=3),
    )
    palette, segmented = (cases.dataset(grey, 8, PhotometricInterpretation="PALETTE COLOR") for _ in range(2))
    for place in (1, 2, 3):
        for ds in (palette, segmented):
            ds.add_new(0x00281100 | place, "US", [256, 0, 16])
        palette.add_new(0x00281200 | place, "OW", (np.arange(256) * 257).astype("<u2").tobytes())
        segmented.add_new(0x00281220 | place, "OW", np.array([0, 1, 0, 1, 255, 65535], "<u2").tobytes())
    cases.save(folder / "dicom palette", palette)
    cases.save(folder / "dicom palette segmented", segmented)
    enhanced = cases.in_functional_groups(
        dicom(12),
        {"PixelValueTransformationSequence": {"RescaleSlope": "2", "RescaleIntercept": "-3"}},
        {"FrameVOILUTSequence": {"WindowCenter": "400", "WindowWidth": "900"}},
    )
    cases.save(folder / "dicom functional groups", enhanced)
    cases.save(folder / "dicom functional groups implicit", enhanced, uid.ImplicitVRLittleEndian)
    packed = dicom(12, BitsAllocated=16)
    packed.BitsAllocated, packed.PixelData = 12, cases.packed(deep, 12)
    cases.save(folder / "dicom packed", packed)
    cases.renamed(cases.save(folder / "dicom private", dicom(12), uid.ImplicitVRLittleEndian), "1.2.840.113619.5.2")
    coded("encapsulated", dicom(12), "1.2.840.10008.1.2.1.98", deep.astype("<u2").tobytes())
    cases.renamed(cases.save(folder / "dicom misnamed", dicom(12)), uid.JPEG2000Lossless)
    progressive = saved(PIL.Image.fromarray(grey), "JPEG", progressive=True)
    coded("jpeg progressive", dicom(8), "1.2.840.10008.1.2.4.55", progressive)
    for bits, near in ((6, 0), (7, 2)):
        code = bytes(jpeg_ls.encode_array(grey >> 8 - bits, lossy_error=near))
        coded(f"jpeg-ls {bits}", dicom(bits), uid.JPEGLSNearLossless if near else uid.JPEGLSLossless, code)
    plain = saved(PIL.Image.fromarray(deep.astype(np.uint16)), "JPEG2000", no_jp2=True, num_resolutions=3)
    coded("jpeg 2000 comment", dicom(12), uid.JPEG2000Lossless, cases.with_comment(plain))
    tiles = saved(PIL.Image.fromarray(grey), "JPEG2000", tile_size=(16, 16), num_resolutions=3)
    coded("jpeg 2000 tiles", dicom(8), uid.JPEG2000Lossless, tiles)
    small = cases.dataset(cases.HIGH_THROUGHPUT_VALUES, 12)
    coded("high throughput", small, uid.HTJ2KLossless, cases.with_comment(cases.HIGH_THROUGHPUT))
    small = cases.dataset(
        cases.HIGH_THROUGHPUT_COLOUR_VALUES, 8, SamplesPerPixel=3, PhotometricInterpretation="YBR_RCT",
        PlanarConfiguration=0,
    )  # fmt: skip
    coded("high throughput colour", small, uid.HTJ2K, cases.HIGH_THROUGHPUT_COLOUR)


def dicom(bits: int, signed: bool = False, tables: bool = False, overlay: bool = False, **elements: object) -> Dataset:
    """A radiograph of 25 x 21 pixels: both sides are odd."""
    values = cases.chest_values(25, 21, bits, signed)
    if elements.get("NumberOfFrames"):
        values = np.concatenate([values] * int(str(elements["NumberOfFrames"])))
        elements |= {"Rows": 25}
    ds = cases.dataset(
        values, bits, signed, WindowCenter=["50", "60"], WindowWidth=["80", "90"], RescaleSlope="1",
        RescaleIntercept="-10", PixelSpacing=["0.1", "0.1"], **elements,
    )  # fmt: skip
    if tables:
        ds.VOILUTSequence = [cases.lookup_table(0, np.arange(300), 16)]
        ds.ModalityLUTSequence = [cases.lookup_table(0, np.arange(300), 16)]
        ds.PixelPaddingValue = 3
    if overlay:
        for group in (0x6000, 0x6002):
            ds.add_new((group, 0x0010), "US", 25)
            ds.add_new((group, 0x0011), "US", 21)
            ds.add_new((group, 0x0040), "CS", "G")
            ds.add_new((group, 0x0050), "SS", [1, 1])
            ds.add_new((group, 0x0100), "US", 1)
            ds.add_new((group, 0x0102), "US", 0)
            ds.add_new((group, 0x3000), "OW", b"\x55" * 66)
    return ds


def pictures() -> dict[str, bytes]:
    """PNG and JPEG files of the same radiograph, of every mode."""
    deep = cases.chest_values(25, 21, 16).astype(np.uint16)
    grey = PIL.Image.fromarray((deep >> 8).astype(np.uint8))
    found = {"png 16": saved(PIL.Image.fromarray(deep), "PNG"), "png interlaced": interlaced(deep)}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        found[f"png {mode}"] = saved(grey.convert(mode), "PNG")
    found["png P transparent"] = saved(grey.convert("P"), "PNG", transparency=3)
    found["png two frames"] = saved(grey, "PNG", save_all=True, append_images=[grey.rotate(90)])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    found["jpeg grey"] = saved(grey, "JPEG", exif=exif)
    found["jpeg RGB"] = saved(grey.convert("RGB"), "JPEG", dpi=(72, 72), comment=b"x")
    found["jpeg progressive"] = saved(grey.convert("RGB"), "JPEG", progressive=True)
    found["jpeg CMYK"] = saved(grey.convert("CMYK"), "JPEG")
    found["jpeg restarts"] = saved(grey, "JPEG", restart_marker_blocks=1)
    found["jpeg two frames"] = saved(grey.convert("RGB"), "MPO", save_all=True, append_images=[grey.convert("RGB")])
    return found


def saved(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture's file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG of 16 bits, which Pillow cannot write."""
    rows = []
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        part = pixels[y0::dy, x0::dx]
        if part.size:
            rows += [b"\0" + row.astype(">u2").tobytes() for row in part]
    header = struct.pack(">LLBBBBB", pixels.shape[1], pixels.shape[0], 16, 0, 0, 0, 1)
    return png([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")])


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of these chunks, with the right checksums."""
    parts = [
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deflate_bomb(path: Path) -> Path:
    """261 kB of Deflated DICOM that inflate to 256 MiB."""
    cases.save(path, cases.dataset(cases.chest_values(), 12), uid.DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    meta = data[: 144 + struct.unpack("<L", data[140:144])[0]]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    inside = b"\x09\x00\x10\x00OB\0\0" + struct.pack("<L", 2**28) + bytes(2**28)
    path.write_bytes(meta + deflater.compress(inside) + deflater.flush())
    return path


def run_length_bomb(path: Path, side: int = 65535) -> Path:
    """Some 670 bytes of RLE that claim to be `side` squared pixels."""
    ds = cases.dataset(cases.chest_values(8, 8, 8), 8, Rows=side, Columns=side)
    return cases.encapsulated(path, ds, uid.RLELossless, [struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0"])
