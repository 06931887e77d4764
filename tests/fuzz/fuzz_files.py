"""Small files of every kind that xray reads, from which hostile ones are made; and the two denial-of-service files."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
from pydicom import uid
from pydicom.dataset import Dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "data")]

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
    for name, data in pictures().items():
        (folder / name).write_bytes(data)
    return sorted(path.name for path in folder.iterdir())


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
