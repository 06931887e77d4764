"""The masks of one radiograph as a DICOM segmentation, a segment for each category, pixel on pixel.

BINARY, or FRACTIONAL with the probabilities of which the masks are made, in 255ths.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from xray.errors import InputError
from xray.findings import colour_of
from xray.outputs.dicom import codes as dicom_codes
from xray.outputs.dicom import objects as dicom_objects
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.plain_images import plain_image, refer_to
from xray.radiographs.canvas import Canvas

SERIES_NUMBER = 9902
SERIES_DESCRIPTION = f"xray masks, {dicom_objects.NOT_FOR_CLINICAL_USE}"
PROBABILITIES_NUMBER = 9904
PROBABILITIES_DESCRIPTION = f"xray probabilities, {dicom_objects.NOT_FOR_CLINICAL_USE}"
STEPS = 255
"""Maximum Fractional Value: probability maps are kept in whole 255ths."""


def whole_maps(maps: np.ndarray, labels: Sequence[int], width: int, height: int) -> dict[int, np.ndarray]:
    """Category id → (height, width) float32 in [0, 1], from probability maps on a canvas.

    maps: (K, S, S), float in [0, 1] or uint8 in 255ths. labels: their K category ids.
    """
    canvas, scale = Canvas(width, height, maps.shape[-1]), STEPS if maps.dtype == np.uint8 else 1
    whole = {
        label: canvas.unletterbox(channel.astype(np.float32) / scale)
        for label, channel in zip(labels, maps, strict=True)
    }
    # Resampling rounds.
    return {label: channel.clip(0, 1) for label, channel in whole.items()}


@dicom_objects.quietly()
def segmentation(
    source: Dataset,
    masks: Mapping[int, np.ndarray],
    categories: Mapping[int, str],
    algorithm: Algorithm,
    edition: str = "",
    is_fractional: bool = False,
) -> Dataset:
    """The segmentation of one radiograph.

    source: the data set of its DICOM file, with or without pixels; `dicom_objects` tells what is taken over of it.
    masks: category id → (Rows, Columns) of 0 and 1, at least one. categories: category id → name.
    edition: sets segmentations of other masks than those of the algorithm apart, by their identifiers.
    is_fractional: masks hold probabilities in [0, 1]; the object then has a series of its own.

    Raises InputError where the source does not say which image of which study it is, or has another size.
    """
    source = dicom_objects.reduced(source)
    size = (source.Rows, source.Columns)
    if not masks or any(mask.shape != size for mask in masks.values()):
        shapes = sorted({mask.shape for mask in masks.values()})
        raise InputError(f"masks of (rows, columns) {shapes} for an image of {size}: there must be some, of its size")
    names = [categories.get(label, f"category {label}") for label in masks]
    dicom_objects.in_unicode(source, *names)
    identified = AlgorithmIdentificationSequence(
        algorithm.name,
        dicom_codes.ARTIFICIAL_INTELLIGENCE,
        algorithm.version,
        dicom_objects.MANUFACTURER,
        dict(algorithm.parameters) or None,
    )
    segments = [
        _segment(
            number, label, name, identified, dicom_objects.derived_uid(source, "SEG", algorithm, edition, str(number))
        )
        for number, (label, name) in enumerate(zip(masks, names, strict=True), 1)
    ]
    stored = np.float32 if is_fractional else np.uint8
    result = Segmentation(
        source_images=[plain_image(source)],
        pixel_array=np.stack([mask.astype(stored) for mask in masks.values()], axis=-1)[None],
        segmentation_type=SegmentationTypeValues.FRACTIONAL if is_fractional else SegmentationTypeValues.BINARY,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=STEPS,
        segment_descriptions=segments,
        series_number=PROBABILITIES_NUMBER if is_fractional else SERIES_NUMBER,
        series_description=PROBABILITIES_DESCRIPTION if is_fractional else SERIES_DESCRIPTION,
        content_label="XRAY_PROBABILITY" if is_fractional else "XRAY_MASKS",
        content_description=f"Found by software, {dicom_objects.NOT_FOR_CLINICAL_USE}",
        coding_schemes=[dicom_codes.private_scheme()],
        # A category whose mask is empty was looked for too.
        omit_empty_frames=False,
        **dicom_objects.common_attributes(source, "SEG fractional" if is_fractional else "SEG", algorithm, edition),
    )
    refer_to(result, source)
    # Radiographs have no position in space, which would tell (PS3.3 C.7.6.1).
    result.PatientOrientation = source.PatientOrientation
    return result


def _segment(
    number: int, label: int, name: str, algorithm: AlgorithmIdentificationSequence, tracking_uid: str
) -> SegmentDescription:
    side = dicom_codes.lung_side(name)
    kind = CodedConcept.from_code(dicom_codes.LUNG if side else dicom_codes.finding_code(name))
    segment = SegmentDescription(
        number,
        dicom_codes.finding_code(name).meaning if side is None else name,
        dicom_codes.ANATOMICAL_STRUCTURE if side else dicom_codes.ABNORMAL_STRUCTURE,
        kind,
        "AUTOMATIC",
        algorithm,
        tracking_uid=tracking_uid,
        tracking_id=f"Mask {number}",
        display_color=CIELabColor.from_string(colour_of(label)),
    )
    if side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(side)]
        segment.SegmentedPropertyTypeCodeSequence = [kind]
    return segment
