"""What a DICOM node makes of a file that was sent to it, and counts."""

import dataclasses
import uuid
from pathlib import Path

from pydicom.dataset import Dataset

from xray.outputs.dicom.objects import ROOT, read_source
from xray.radiographs.dicom import check_dicom
from xray.serving.dicom_statuses import NOT_MATCHING, NOT_UNDERSTOOD, SUCCESS

OTHER_IMAGE = 0xB007
"""A warning: what came is not what this node is for. The sender need not send it again."""


@dataclasses.dataclass
class Counts:
    """What happened since the start: radiographs received for the first time, received again, refused, and found
    unusable later; answers returned, those among them that were stored without the commitment that was asked for, and
    those that the other node did not take."""

    received: int = 0
    repeated: int = 0
    refused: int = 0
    other_images: int = 0
    """Taken, but not looked at, as they are no frontal chest radiographs."""
    unusable: int = 0
    returned: int = 0
    unconfirmed: int = 0
    failed: int = 0


def edited(dataset: Dataset, edition: str) -> Dataset:
    """An answer to another edition of an image that had the same UID: it gets a UID of its own, always the same."""
    if edition:
        uid = f"2.25.{uuid.uuid5(ROOT, f'{dataset.SOPInstanceUID} {edition}').int}"
        dataset.SOPInstanceUID = uid
        if (meta := getattr(dataset, "file_meta", None)) is not None:
            meta.MediaStorageSOPInstanceUID = uid
    return dataset


def status_of(path: Path, storage: str, instance: str | None = None) -> int:
    """Whether a file is a radiograph of the class and the instance that it came as, is whole, and can be referred to.

    storage, instance: SOP Class UID and SOP Instance UID of the request; None does not ask.
    """
    try:
        check_dicom(path)
        # Identifiers that are not valid cannot stand in a report, so that the radiograph would be lost later.
        source = read_source(path)
    except Exception:  # whatever pydicom raises on an element that is none of its type
        return NOT_UNDERSTOOD
    is_same = source.SOPClassUID == storage and instance in (None, source.SOPInstanceUID)
    return SUCCESS if is_same else NOT_MATCHING
