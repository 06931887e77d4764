"""Whether an instance that comes again is the same: hashes of what its answer depends on."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from xray.outputs.dicom.objects import read_source
from xray.radiographs.dicom import read_dicom, read_elements

_SHOWN = (
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing"),
    *("ImagerPixelSpacing", "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope"),
    *("PresentationLUTShape", "PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationIntentType"),
    *("ViewPosition", "Laterality", "ImageLaterality", "BodyPartExamined", "SeriesDescription"),
)
"""What else decides how the pixels are shown, and what they show."""


class Contents(NamedTuple):
    """Hashes of an instance. sent: of its bytes. digest: of its content, the same in every lossless transfer syntax."""

    sent: str
    digest: str


def pixel_digest(path: Path) -> str:
    """A hash of a radiograph's stored pixels, whatever its transfer syntax. Raises RadiographError."""
    words = read_dicom(path).words
    return hashlib.sha256(repr((words.shape, words.dtype.str)).encode() + words.tobytes()).hexdigest()


def contents_of(path: Path, sent: bytes, pixels: str | None) -> Contents:
    """The hashes of a file. sent: its data set as it came. pixels: its `pixel_digest`, None where that is not known.

    The digest is of the pixels and of the elements that the answer takes over or that change how pixels are seen:
    what else is corrected in a header makes no other answer. Raises InputError and RadiographError for a file that no
    object can refer to.
    """
    whole = hashlib.sha256(sent).hexdigest()
    values = [pixels or whole]
    for elements in (read_source(path), read_elements(path, _SHOWN)):
        for tag in sorted(elements.keys()):
            try:
                values.append(f"{tag} {elements[tag].value!r}")
            except Exception:  # whatever pydicom raises on a value that is none of its type
                values.append(f"{tag} unreadable")
    return Contents(whole, hashlib.sha256("\n".join(values).encode()).hexdigest())
