"""Small radiographs as files and as data sets."""

import cv2
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian


def pixels_of(seed, width=40, height=30):
    """(height, width) uint8, noise with a bright rectangle."""
    pixels = np.random.default_rng(seed).integers(20, 60, (height, width), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 200
    return pixels


def write_png(path, seed, **sides):
    """The path of `pixels_of` as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels_of(seed, **sides))
    return path


def data_set(seed, syntax=None, **sides):
    """`pixels_of` in 12 bits, dark and bright exchanged, as nobody has written it into a file."""
    values = pixels_of(seed, **sides).astype(np.uint16) << 4
    found = pydicom.Dataset()
    found.SOPClassUID, found.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"1.2.3.{seed}"
    found.StudyInstanceUID, found.SeriesInstanceUID, found.PatientName = "1.2", "1.2.1", "Somebody"
    found.Rows, found.Columns, found.SamplesPerPixel = *values.shape, 1
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 12, 11, 0
    found.PhotometricInterpretation = "MONOCHROME1"
    found.PixelData = values.tobytes()
    if syntax:
        found.file_meta = pydicom.dataset.FileMetaDataset()
        found.file_meta.TransferSyntaxUID = syntax
        found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
        found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    return found


def write_dicom(path, seed, syntax=ExplicitVRLittleEndian, **sides):
    """The path of `data_set` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data_set(seed, syntax, **sides).save_as(path, enforce_file_format=True)
    return path
