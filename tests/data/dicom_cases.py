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
