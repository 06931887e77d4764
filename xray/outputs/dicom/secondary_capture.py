"""The findings of one radiograph drawn on it, as a Secondary Capture image, which every viewer shows.

It is the picture that `infer --overlays` draws: display grey, boxes, masks, names, and a strip below with what was
found, which says that it is not for clinical use. Its pixels are no longer than `MAX_SIDE`, uncompressed RGB of 8 bits.
It has no spacing, as nobody should measure in it.
"""

import numpy as np
from highdicom.content import ReferencedImageSequence
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from xray.errors import InputError
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.pictures.findings import draw_findings
from xray.structures.radiograph_findings import RadiographFindings

SERIES_NUMBER = 9904
SERIES_DESCRIPTION = f"AI findings, {dicom_objects.NOT_FOR_CLINICAL_USE}"
MAX_SIDE, MIN_SIDE = 2048, 512
"""Pixels between which the longer side of the radiograph is brought; in between it keeps its size."""
PURPOSE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202


@dicom_objects.quietly()
def secondary_capture(
    source: Dataset,
    pixels: np.ndarray,
    findings: RadiographFindings,
    algorithm: Algorithm,
    threshold: float = 0.3,
    aspect: tuple[int, int] = (1, 1),
    edition: str = "",
) -> Dataset:
    """The picture of one radiograph.

    source: the data set of its DICOM file, with or without pixels; `dicom_objects` tells what is taken over of it.
    pixels: (Rows, Columns) uint8, its display grey. threshold: lowest score that is drawn.
    aspect: (height, width) of a pixel, in whole numbers. edition: sets pictures of other findings than those of the
    algorithm apart, by their identifiers.

    Raises InputError where the source does not say which image of which study it is, or has another size.
    """
    source = dicom_objects.reduced(source)
    if pixels.shape != (source.Rows, source.Columns):
        raise InputError(f"pixels of {pixels.shape} for an image of {(source.Rows, source.Columns)} (rows, columns)")
    title = f"AI findings, {dicom_objects.NOT_FOR_CLINICAL_USE}: {algorithm.name} {algorithm.version}"
    picture = draw_findings(
        pixels, findings, title, threshold=threshold, max_side=MAX_SIDE, min_side=MIN_SIDE, notes=findings.notes
    )
    said = dicom_objects.edition_with(f"{threshold:g} {edition}", findings.notes)
    result = SCImage(
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # In place of none, which highdicom does not take; see below.
        patient_orientation=("L", "F"),
        study_instance_uid=source.StudyInstanceUID,
        series_number=SERIES_NUMBER,
        series_description=SERIES_DESCRIPTION,
        patient_id=source.PatientID,
        patient_name=source.PatientName or None,
        patient_birth_date=source.PatientBirthDate,
        patient_sex=source.PatientSex or None,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate or None,
        study_time=source.StudyTime or None,
        referring_physician_name=source.ReferringPhysicianName or None,
        specific_character_set=source.get("SpecificCharacterSet"),
        **dicom_objects.common_attributes(source, "SC", algorithm, said),
    )
    result.PatientOrientation = source.PatientOrientation
    # It has no laterality.
    result.BodyPartExamined = "CHEST"
    if "IssuerOfPatientID" in source:
        result.IssuerOfPatientID = source.IssuerOfPatientID
    result.ConversionType = "WSD"
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.BurnedInAnnotation = "YES"
    result.DerivationDescription = (
        f"Findings of {algorithm.name} {algorithm.version} drawn on the image, {dicom_objects.NOT_FOR_CLINICAL_USE}"
    )
    reference = ReferencedImageSequence([source])[0]
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(PURPOSE)]
    # The picture has a title, and may be of another size.
    reference.SpatialLocationsPreserved = "NO"
    result.SourceImageSequence = [reference]
    if aspect[0] != aspect[1]:
        result.PixelAspectRatio = list(aspect)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in source:
            result[keyword] = source[keyword]
    return result
