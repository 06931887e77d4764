"""Findings of a DICOM file → a DICOM object or FHIR that refers to it, made in a worker, as the file may be hostile.

This module imports neither torch nor the models: a worker may not allocate so much memory.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.errors import InputError
from xray.outputs.dicom.content import Content, content_of
from xray.outputs.dicom.objects import Algorithm, read_source
from xray.outputs.dicom.origin import notes_of
from xray.outputs.fhir import bundle_of
from xray.radiographs.dicom import RadiographError, is_dicom
from xray.structures.boxes import BoxTable
from xray.structures.masks import encode_mask

MEDIA_TYPE = "application/dicom"
NO_MASK = "there is no mask to write: none of the findings has one"


def structured_report_of(
    table: BoxTable,
    labels: Mapping[str, float],
    categories: Mapping[int, str],
    algorithm: Algorithm,
    path: Path,
    has_findings: bool | None = None,
    masks: Mapping[int, Any] | None = None,
    notes: Sequence[str] = (),
) -> bytes:
    """The SR of one radiograph; all rows of the table are reported. has_findings, masks, notes: as `content_of` has
    them.

    Raises RadiographError.
    """

    def make(source: Any) -> bytes:
        # Only now: highdicom takes seconds to import.
        from xray.outputs.dicom.structured_report import written_report

        return _file_of(
            written_report(_content(source, path, table, labels, categories, algorithm, has_findings, masks, notes))
        )

    return _made_from(path, make)


def fhir_of(
    table: BoxTable,
    labels: Mapping[str, float],
    categories: Mapping[int, str],
    algorithm: Algorithm,
    path: Path,
    has_findings: bool | None = None,
    masks: Mapping[int, Any] | None = None,
    notes: Sequence[str] = (),
) -> bytes:
    """The same in FHIR, as JSON."""

    def make(source: Any) -> bytes:
        bundle = bundle_of(_content(source, path, table, labels, categories, algorithm, has_findings, masks, notes))
        return json.dumps(bundle, ensure_ascii=False, allow_nan=False).encode()

    return _made_from(path, make, "FHIR refers")


def _content(
    source: Any,
    path: Path,
    table: BoxTable,
    labels: Mapping[str, float],
    categories: Mapping[int, str],
    algorithm: Algorithm,
    has_findings: bool | None,
    masks: Mapping[int, Any] | None,
    notes: Sequence[str],
) -> Content:
    checked = _checked(masks or {}, source)
    counts = [(row, str(rle["counts"])) for row, rle in sorted(checked.items())]
    edition = _edition(table, [*sorted(labels.items()), *counts])
    said = (*notes, *notes_of(path))
    return content_of(source, table, categories, algorithm, labels, 0.0, edition, has_findings, checked, said)


def segmentation_of(
    table: BoxTable, masks: Mapping[int, Any], categories: Mapping[int, str], algorithm: Algorithm, path: Path
) -> bytes:
    """The SEG of one radiograph; masks: row of the table → COCO RLE. Raises RadiographError."""

    def make(source: Any) -> bytes:
        if not masks:
            raise RadiographError(NO_MASK)
        from xray.outputs.dicom.segmentation import joined_masks, segmentation

        checked = _checked(masks, source)
        edition = _edition(table, [(row, str(rle["counts"])) for row, rle in sorted(checked.items())])
        return _file_of(segmentation(source, joined_masks(table, checked), categories, algorithm, edition))

    return _made_from(path, make)


def _checked(masks: Mapping[int, Any], source: Any) -> dict[int, dict[str, Any]]:
    """Masks of a client are checked before C code sees them."""
    return {row: encode_mask(dict(rle), source.Columns, source.Rows)[0] for row, rle in masks.items()}


def _edition(table: BoxTable, rest: list[Any]) -> str:
    """Tells choices of findings apart: who asks chooses them, and each choice is an object of its own."""
    content = [table.labels.tolist(), table.boxes.tolist(), table.scores.tolist(), rest]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _file_of(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _made_from(path: Path, make: Callable[[Any], bytes], what: str = "SR and SEG refer") -> bytes:
    """What `make` makes for the DICOM file at a path."""
    with path.open("rb") as file:
        if not is_dicom(file.read(132)):
            raise RadiographError(f"the file is no DICOM file: {what} to one")
    try:
        return make(read_source(path))
    except InputError as error:
        raise RadiographError(str(error)) from None
