"""DICOM files of every kind that the reader must understand, made from arrays of stored values."""

import copy
import io
from pathlib import Path

import gdcm
import numpy as np
import PIL.Image
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

DX = "1.2.840.10008.5.1.4.1.1.1.1"

HIGH_THROUGHPUT_VALUES = np.add.outer(np.arange(6) * 5, np.arange(7) * 11) * 4095 // 91
HIGH_THROUGHPUT = bytes.fromhex(
    "ff4fff5100294000000000070000000600000000000000000000000700000006000000000000000000010f0101ff50000800020000000aff"
    "52000c00020001000504044001ff5c00132088909090909090909090909090888888ff64001700014f70656e4a50482056657220302e3236"
    "2e332eff90000a00000000004e0001ff93c00026abf3050774000000c000134000128066f1038774007602877400c00013c0001300baebfe"
    "02827400f7fd00023400a0001560c0810307fec03181beb600ffd9"
)
"""The 6 x 7 values above as OpenJPH 0.26.3 encodes them without loss, in 16 bits: no encoder is among our packages."""
HIGH_THROUGHPUT_COLOUR_VALUES = np.add.outer(np.arange(6) * 5, np.arange(7) * 11) * 255 // 91
HIGH_THROUGHPUT_COLOUR = bytes.fromhex(
    "ff4fff51002f400000000007000000060000000000000000000000070000000600000000000000000003070101070101070101ff50000800"
    "0200000003ff52000c00020001010504044001ff5c00132050585858585858585858585858505050ff64001700014f70656e4a5048205665"
    "7220302e32362e332eff90000a0000000000520001ff93c01280f9000774000000000000000000c0096004a01401877400f6008774000000"
    "c009a00460bafe008274000633000000c012401500f89513005a6bfec1c9beb5000000ffd9"
)
"""The same as three equal samples of 8 bits, with the reversible colour transform."""


def chest_values(height: int = 96, width: int = 80, bits: int = 12, signed: bool = False, seed: int = 0) -> np.ndarray:
    """Stored values that use the whole range of `bits`, smooth with some noise: (H, W) int64."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.hypot((y / height - 0.5) * 1.2, x / width - 0.5)
    values = smooth / smooth.max() + rng.normal(0, 0.02, smooth.shape)
    values = (values - values.min()) / np.ptp(values) * (2**bits - 1)
    return np.rint(values).astype(np.int64) - (2 ** (bits - 1) if signed else 0)


def lookup_table(first: int, entries: np.ndarray, bits: int, packed: bool = False, vr: str = "US") -> Dataset:
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    if packed:
        data = np.asarray(entries, dtype=np.uint8).tobytes()
        item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    elif vr == "OW":
        item.add_new("LUTData", "OW", np.asarray(entries, dtype="<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def dataset(values: np.ndarray, bits_stored: int, signed: bool = False, **elements: object) -> Dataset:
    """A minimal DX data set; `elements` override or add header elements by keyword, None takes one away."""
    height, width = values.shape[-2:]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DX
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    ds.PatientName, ds.PatientID, ds.Modality = "Planted^Name", "PLANTED-ID", "DX"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = height, width, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 8 if bits_stored <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits_stored, bits_stored - 1, int(signed)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, copy.deepcopy(value))
    words = values.astype(np.int64) & (2**ds.BitsAllocated - 1)
    data = words.astype("u1" if ds.BitsAllocated == 8 else "<u2").tobytes()
    ds.add_new("PixelData", "OB" if ds.BitsAllocated == 8 else "OW", data + b"\0" * (len(data) % 2))
    return ds


def save(path: Path, ds: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    """Writes the data set in a transfer syntax, compressing its pixels where that asks for it."""
    syntax = uid.UID(syntax)
    if syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)
    elif syntax == uid.ExplicitVRBigEndian:
        ds.file_meta.TransferSyntaxUID = syntax
        tables = [*ds.get("ModalityLUTSequence", ()), *ds.get("VOILUTSequence", ())]
        # pydicom swaps numbers, not the words of OW.
        for element in [ds["PixelData"], *(item["LUTData"] for item in tables if "LUTData" in item)]:
            if element.VR == "OW":
                element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()
        ds.save_as(path, enforce_file_format=True)
    elif syntax == uid.JPEGBaseline8Bit:
        pixels = np.frombuffer(ds.PixelData, np.uint8)[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns)
        stream = io.BytesIO()
        PIL.Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        encapsulated(path, ds, syntax, [stream.getvalue()])
    elif syntax == uid.RLELossless:
        # GDCM aborts on run lengths of odd sizes.
        ds.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    else:
        plain = path.with_suffix(".plain")
        ds.save_as(plain, enforce_file_format=True)
        transcode(plain, path, syntax)
        plain.unlink()
    return path


def save_header(path: Path, ds: Dataset) -> Path:
    """Writes a data set as it is, in explicit VR little endian."""
    ds.save_as(path, enforce_file_format=True)
    return path


def encapsulated(path: Path, ds: Dataset, syntax: str, frames: list[bytes]) -> Path:
    """Writes the data set with these codestreams as its pixel data."""
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    return path


def with_comment(codestream: bytes, text: bytes = b"PADDING") -> bytes:
    """JPEG 2000 with a comment between its last tile-part and its end, as a maker's radiographs have it."""
    code = codestream[: codestream.rindex(b"\xff\xd9")]
    return code + b"\xff\x64" + (4 + len(text)).to_bytes(2, "big") + b"\0\1" + text + b"\xff\xd9"


def packed(values: np.ndarray, bits: int) -> bytes:
    """Values one behind another, `bits` each, the lowest bit first."""
    flat = values.ravel() & (2**bits - 1)
    return np.packbits((flat[:, None] >> np.arange(bits)) & 1, bitorder="little").tobytes()


def in_functional_groups(ds: Dataset, shared: dict | None = None, first: dict | None = None) -> Dataset:
    """Adds functional groups for all frames and for the first: {macro's keyword: {keyword: value}}."""
    for keyword, macros in (("SharedFunctionalGroupsSequence", shared), ("PerFrameFunctionalGroupsSequence", first)):
        if macros is not None:
            group = Dataset()
            for macro, elements in macros.items():
                item = Dataset()
                for name, value in elements.items():
                    setattr(item, name, value)
                setattr(group, macro, [item])
            setattr(ds, keyword, [group])
    return ds


def renamed(path: Path, syntax: str) -> Path:
    """Writes another transfer syntax into a file's meta information, and leaves all else as it is."""
    data = path.read_bytes()
    end = 144 + int.from_bytes(data[140:144], "little")
    meta, old = data[144:end], pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID

    def element(text: str) -> bytes:
        value = text.encode() + b"\0" * (len(text) % 2)
        return b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value

    assert element(old) in meta
    meta = meta.replace(element(old), element(syntax))
    path.write_bytes(data[:140] + len(meta).to_bytes(4, "little") + meta + data[end:])
    return path


def transcode(source: Path, target: Path, syntax: str) -> None:
    """Rewrites a file in another transfer syntax with GDCM, an encoder that is independent of the reader's parser."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change(), f"GDCM cannot write {uid.UID(syntax).name}"
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def stored_values(path: Path) -> np.ndarray:
    """The stored values of a file as pydicom decodes them: (H, W)."""
    return pydicom.dcmread(path, force=True).pixel_array
