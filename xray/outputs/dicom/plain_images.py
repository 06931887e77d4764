"""Radiographs of any class as highdicom takes them, and references to them that name their own class."""

import copy

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from xray.outputs.dicom.objects import SPACINGS

RADIOGRAPHS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)


def plain_image(source: Dataset) -> Dataset:
    """What `reduced` gave, as what highdicom takes of any radiograph; `refer_to` makes the references right again.

    Without its pixel spacing, beside which highdicom 0.28 wants a slice thickness, and where it is of none of a
    radiograph's own classes as a secondary capture: it wants functional groups of multi-frame images of one frame, too,
    and a frame of reference of slices.
    """
    result = copy.deepcopy(source)
    for keyword in SPACINGS:
        if keyword in result:
            del result[keyword]
    if source.SOPClassUID not in RADIOGRAPHS:
        result.SOPClassUID = SecondaryCaptureImageStorage
    return result


def refer_to(result: Dataset, source: Dataset) -> None:
    """Has all references of an object to an image say its class."""

    def correct(item: Dataset, element: DataElement) -> None:
        is_class = element.keyword == "ReferencedSOPClassUID"
        if is_class and item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID:
            element.value = source.SOPClassUID

    result.walk(correct)
