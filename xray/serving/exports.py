"""Findings of a DICOM file → a DICOM object that refers to it, made in a worker, as the file may be hostile.

This module imports neither torch nor the models: a worker may not allocate so much memory.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm, read_source
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
) -> bytes:
    """The SR of one radiograph; all rows of the table are reported. has_findings: as `structured_report` has it.

    Raises RadiographError.
    """

    def make(source: Any) -> Any:
        # Only now: highdicom takes seconds to import.
        from xray.outputs.dicom.structured_report import structured_report

        edition = _edition(table, sorted(labels.items()))
        return structured_report(source, table, categories, algorithm, labels, 0.0, edition, has_findings)

    return _made_from(path, make)


def segmentation_of(
    table: BoxTable, masks: Mapping[int, Any], categories: Mapping[int, str], algorithm: Algorithm, path: Path
) -> bytes:
    """The SEG of one radiograph; masks: row of the table → COCO RLE. Raises RadiographError."""

    def make(source: Any) -> Any:
        if not masks:
            raise RadiographError(NO_MASK)
        from xray.outputs.dicom.segmentation import joined_masks, segmentation

        # Masks of a client are checked before C code sees them.
        checked = {row: encode_mask(dict(rle), source.Columns, source.Rows)[0] for row, rle in masks.items()}
        edition = _edition(table, [(row, str(rle["counts"])) for row, rle in sorted(checked.items())])
        return segmentation(source, joined_masks(table, checked), categories, algorithm, edition)

    return _made_from(path, make)


def _edition(table: BoxTable, rest: list[Any]) -> str:
    """Tells choices of findings apart: who asks chooses them, and each choice is an object of its own."""
    content = [table.labels.tolist(), table.boxes.tolist(), table.scores.tolist(), rest]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _made_from(path: Path, make: Callable[[Any], Any]) -> bytes:
    """The file of the object that `make` makes for the DICOM file at a path."""
    with path.open("rb") as file:
        if not is_dicom(file.read(132)):
            raise RadiographError("the file is no DICOM file: SR and SEG refer to one")
    buffer = io.BytesIO()
    try:
        make(read_source(path)).save_as(buffer, enforce_file_format=True)
    except InputError as error:
        raise RadiographError(str(error)) from None
    return buffer.getvalue()
