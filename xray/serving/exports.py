"""Findings of a DICOM file → a DICOM object or FHIR that refers to it, made in a worker, as the file may be hostile.

This module imports neither torch nor the models: a worker may not allocate so much memory.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray.errors import InputError
from xray.files import sha256_of
from xray.outputs.dicom.content import Content, content_of
from xray.outputs.dicom.objects import Algorithm, read_source
from xray.outputs.dicom.origin import notes_of
from xray.outputs.fhir import bundle_of
from xray.radiographs.dicom import RadiographError, is_dicom
from xray.radiographs.radiograph import read_radiograph
from xray.structures.masks import encode_mask
from xray.structures.radiograph_findings import RadiographFindings

MEDIA_TYPE = "application/dicom"
NO_MASK = "there is no mask to write: none of the findings has one"
NO_SOFTCOPY = "there is no presentation state of an image in colour"


@dataclasses.dataclass(frozen=True)
class FoundIn:
    """The radiograph in which findings were found.

    width, height: in original pixels. sha256: of its file, None in answers of older versions and those made by hand.
    """

    width: int
    height: int
    sha256: str | None = None

    def check(self, path: Path, width: int, height: int) -> None:
        """Raises RadiographError unless a file, and the size of its image, can be these: no report is made of the
        findings of another patient."""
        if (self.width, self.height) != (width, height):
            raise RadiographError(
                f"the findings are of a radiograph of {self.width} × {self.height} pixels, and the file has "
                f"{width} × {height}: send the file that the answer is of"
            )
        if self.sha256 is not None and self.sha256 != sha256_of(path):
            raise RadiographError(
                "the findings are of another file (their file_sha256 is not that of this one): send the file that the "
                "answer is of"
            )


def structured_report_of(findings: RadiographFindings, found_in: FoundIn, algorithm: Algorithm, path: Path) -> bytes:
    """The SR of one radiograph; all rows are reported. Raises RadiographError, also where they are of another one."""

    def make(source: Any, checked: RadiographFindings) -> bytes:
        # Only now: highdicom takes seconds to import.
        from xray.outputs.dicom.structured_report import written_report

        return _file_of(written_report(_content(source, path, checked, algorithm)))

    return _made_from(path, findings, found_in, make)


def fhir_of(findings: RadiographFindings, found_in: FoundIn, algorithm: Algorithm, path: Path) -> bytes:
    """The same in FHIR, as JSON."""

    def make(source: Any, checked: RadiographFindings) -> bytes:
        bundle = bundle_of(_content(source, path, checked, algorithm))
        return json.dumps(bundle, ensure_ascii=False, allow_nan=False).encode()

    return _made_from(path, findings, found_in, make, "FHIR refers")


def segmentation_of(findings: RadiographFindings, found_in: FoundIn, algorithm: Algorithm, path: Path) -> bytes:
    """The SEG of one radiograph. Raises RadiographError."""

    def make(source: Any, checked: RadiographFindings) -> bytes:
        if not checked.masks:
            raise RadiographError(NO_MASK)
        from xray.outputs.dicom.segmentation import segmentation

        edition = _edition(dataclasses.replace(checked, labels={}))
        return _file_of(segmentation(source, checked.joined_masks(), checked.categories, algorithm, edition))

    return _made_from(path, findings, found_in, make)


def presentation_state_of(findings: RadiographFindings, found_in: FoundIn, algorithm: Algorithm, path: Path) -> bytes:
    """The GSPS of one radiograph, with all rows. Raises RadiographError, also for one in colour."""

    def make(source: Any, checked: RadiographFindings) -> bytes:
        from xray.outputs.dicom.gsps import presentation_state

        softcopy = read_radiograph(path).softcopy
        if softcopy is None:
            raise RadiographError(NO_SOFTCOPY)
        return _file_of(presentation_state(source, softcopy, checked, algorithm, 0.0, _edition(checked)))

    return _made_from(path, findings, found_in, make)


def picture_of(findings: RadiographFindings, found_in: FoundIn, algorithm: Algorithm, path: Path) -> bytes:
    """The findings drawn on the radiograph, as a secondary capture, with all rows. Raises RadiographError."""

    def make(source: Any, checked: RadiographFindings) -> bytes:
        from xray.outputs.dicom.secondary_capture import secondary_capture

        radiograph = read_radiograph(path)
        aspect = (1, 1) if radiograph.softcopy is None else radiograph.softcopy.aspect
        about = (algorithm, 0.0, aspect, _edition(checked))
        return _file_of(secondary_capture(source, radiograph.pixels, checked, *about))

    return _made_from(path, findings, found_in, make)


EXPORTS = {
    "sr": structured_report_of,
    "seg": segmentation_of,
    "gsps": presentation_state_of,
    "sc": picture_of,
    "fhir": fhir_of,
}
"""Kind of object → what makes it of findings, their maker and the file that they are in."""


def _content(source: Any, path: Path, findings: RadiographFindings, algorithm: Algorithm) -> Content:
    said = dataclasses.replace(findings, notes=(*findings.notes, *notes_of(path)))
    return content_of(source, said, algorithm, 0.0, _edition(findings))


def _edition(findings: RadiographFindings) -> str:
    """Tells choices of findings apart: who asks chooses them, and each choice is an object of its own."""
    table, counts = findings.table, [(row, str(rle["counts"])) for row, rle in sorted(findings.masks.items())]
    rest = [*sorted(findings.labels.items()), *counts]
    content = [table.labels.tolist(), table.boxes.tolist(), table.scores.tolist(), rest]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _file_of(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _made_from(
    path: Path,
    findings: RadiographFindings,
    found_in: FoundIn,
    make: Callable[[Any, RadiographFindings], bytes],
    what: str = "DICOM objects refer",
) -> bytes:
    """What `make` makes of what the objects refer to in the DICOM file at a path, and of the findings in it.

    Raises RadiographError where they were found in another one.
    """
    with path.open("rb") as file:
        if not is_dicom(file.read(132)):
            raise RadiographError(f"the file is no DICOM file: {what} to one")
    try:
        source = read_source(path)
        found_in.check(path, source.Columns, source.Rows)
        # Masks of a client are checked before C code sees them.
        masks = {row: encode_mask(dict(rle), source.Columns, source.Rows)[0] for row, rle in findings.masks.items()}
        return make(source, dataclasses.replace(findings, masks=masks))
    except InputError as error:
        raise RadiographError(str(error)) from None
