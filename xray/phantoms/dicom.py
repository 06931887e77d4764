"""Writes a phantom as a DICOM file: every bit depth, photometric interpretation and transfer syntax of the field."""

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from xray.files import complete
from xray.phantoms.drawing import Phantom

TRANSFER_SYNTAXES = {
    ImplicitVRLittleEndian: 0.36,
    ExplicitVRLittleEndian: 0.36,
    RLELossless: 0.07,
    JPEG2000Lossless: 0.07,
    JPEGLSLossless: 0.06,
    JPEGLosslessSV1: 0.08,
}
"""Transfer syntaxes of VinBig phantoms' files and how often each occurs."""

JPEG_QUALITY = 90


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a picture is stored in a DICOM file."""

    bits: int
    monochrome1: bool
    windowed: bool
    """With WindowCenter and WindowWidth; the stored values then fill only a part of their range."""
    transfer_syntax: str
    computed: bool
    """A CR plate rather than a DX detector."""


def sample_storage(rng: np.random.Generator) -> Storage:
    """A random way to store a radiograph, in the proportions met in practice."""
    syntaxes = list(TRANSFER_SYNTAXES)
    return Storage(
        bits=int(rng.choice([8, 10, 12, 14, 16], p=[0.08, 0.12, 0.45, 0.25, 0.10])),
        monochrome1=bool(rng.random() < 0.2),
        windowed=bool(rng.random() < 0.65),
        transfer_syntax=str(syntaxes[rng.choice(len(syntaxes), p=list(TRANSFER_SYNTAXES.values()))]),
        computed=bool(rng.random() < 0.3),
    )


def dicom_of(
    pixels: np.ndarray, storage: Storage, image_id: str, pixel_spacing: float, sex: str, age: int,
    view_position: str, rng: np.random.Generator,
) -> Dataset:  # fmt: skip
    """A DICOM dataset of one picture.

    pixels: (height, width) float32 in 0–1 as displayed, bright bone; width and height are even, as of every detector
        (GDCM does not encode some odd ones). pixel_spacing: in mm. view_position: AP or PA.
    """
    top = 2**storage.bits - 1
    low, high = (top * rng.uniform(0.0, 0.08), top * rng.uniform(0.6, 0.98)) if storage.windowed else (0, top)
    stored = np.round(low + pixels * np.float32(high - low))
    centre, width = (low + high) / 2, (high - low) * rng.uniform(0.96, 1.1)
    if storage.monochrome1:
        stored, centre = top - stored, top - centre
    stored = np.clip(stored, 0, top).astype("<u1" if storage.bits == 8 else "<u2")

    sop_class = ComputedRadiographyImageStorage if storage.computed else DigitalXRayImageStorageForPresentation
    file_meta = FileMetaDataset()
    file_meta.FileMetaInformationVersion = b"\x00\x01"
    file_meta.MediaStorageSOPClassUID = sop_class
    file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid_of(image_id, "instance"))
    file_meta.TransferSyntaxUID = pydicom.uid.UID(storage.transfer_syntax)
    file_meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    dataset = Dataset()
    dataset.file_meta = file_meta
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid_of(image_id, "study")
    dataset.SeriesInstanceUID = uid_of(image_id, "series")
    dataset.Modality = "CR" if storage.computed else "DX"
    dataset.ConversionType = "SYN"
    dataset.PatientName = ""
    dataset.PatientID = image_id
    dataset.PatientSex = sex
    dataset.PatientAge = f"{age:03d}Y"
    dataset.PatientBirthDate = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view_position
    dataset.PatientOrientation = ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01" if storage.transfer_syntax == JPEGBaseline8Bit else "00"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if storage.monochrome1 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.ImagerPixelSpacing = [round(pixel_spacing, 4)] * 2
    dataset.PixelSpacing = [round(pixel_spacing, 4)] * 2
    dataset.BitsAllocated = 8 if storage.bits == 8 else 16
    dataset.BitsStored = storage.bits
    dataset.HighBit = storage.bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    if storage.windowed:
        dataset.WindowCenter, dataset.WindowWidth = round(centre, 1), round(width, 1)
    if not storage.computed:
        dataset.ImageType = ["DERIVED", "PRIMARY"]
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1 if storage.monochrome1 else 1
        dataset.PresentationLUTShape = "INVERSE" if storage.monochrome1 else "IDENTITY"
    else:
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]

    if file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData = encapsulate([_encoded(stored, storage.bits, storage.transfer_syntax)])
        dataset["PixelData"].VR = "OB"
    else:
        raw = stored.tobytes()
        dataset.PixelData = raw + b"\x00" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB" if storage.bits == 8 else "OW"
    return dataset


def save_dicom(dataset: Dataset, path: Path) -> None:
    """Writes a dataset with its preamble and file meta; the file appears whole or not at all."""
    with complete(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def write_phantom(path: Path, phantom: Phantom, storage: Storage, image_id: str, rng: np.random.Generator) -> None:
    """Writes a phantom as a DICOM file, its folders too."""
    patient = phantom.patient
    sex, position = "F" if patient.female else "M", "AP" if patient.supine else "PA"
    dataset = dicom_of(phantom.pixels, storage, image_id, phantom.pixel_spacing, sex, patient.age, position, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_dicom(dataset, path)


def uid_of(image_id: str, level: str) -> str:
    """The UID of a radiograph's "study", "series" or "instance"."""
    return f"2.25.{int(hashlib.sha256(f'{image_id} {level}'.encode()).hexdigest()[:32], 16)}"


def _encoded(stored: np.ndarray, bits: int, transfer_syntax: str) -> bytes:
    """One frame of unsigned pixels, compressed; without loss but by JPEG baseline, which takes 8 bits."""
    if transfer_syntax == JPEGBaseline8Bit:
        encoded, stream = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded or bits != 8:
            raise RuntimeError(f"{stored.shape} pixels of {bits} bits are nothing for JPEG baseline")
        return stream.tobytes()
    if transfer_syntax == RLELossless:
        # GDCM ends the process on some picture sizes; pydicom's own encoder is slow but sound.
        return get_encoder(RLELossless).encode(
            stored,
            encoding_plugin="pydicom",
            rows=stored.shape[0],
            columns=stored.shape[1],
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=8 * stored.itemsize,
            bits_stored=bits,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
    # pydicom has no encoder for JPEG lossless, and those for the others need further packages; GDCM writes them all.
    import gdcm

    kinds: dict[str, int] = {
        JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
        JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    # The image must belong to a writer: one of its own corrupts memory in GDCM's Python binding.
    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.shape[1], stored.shape[0], 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * stored.itemsize, bits, bits - 1, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(stored.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[transfer_syntax]))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"GDCM could not encode {stored.shape} pixels of {bits} bits as {transfer_syntax}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    # The binding gives bytes as text.
    parts = [fragments.GetFragment(k).GetByteValue().GetBuffer() for k in range(fragments.GetNumberOfFragments())]
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)
