"""Findings of a DICOM file → a DICOM object that refers to it, made in a worker, as the file is anyone's."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm, read_source
from xray.radiographs.dicom import RadiographError, is_dicom
from xray.structures.boxes import BoxTable
from xray.structures.masks import MaskError, encode_mask

MEDIA_TYPE = "application/dicom"
NO_MASK = "there is no mask to write: none of the findings has one"


def structured_report_of(
    table: BoxTable, labels: Mapping[str, float], categories: Mapping[int, str], algorithm: Algorithm, path: Path
) -> bytes:
    """The SR of one radiograph; all rows of the table are reported. Raises RadiographError."""
    source = _source(path)
    # Only now: highdicom takes seconds to import.
    from xray.outputs.dicom.structured_report import structured_report

    try:
        return _written(structured_report(source, table, categories, algorithm, labels, threshold=0.0))
    except InputError as error:
        raise RadiographError(str(error)) from None


def segmentation_of(
    table: BoxTable, masks: Mapping[int, Any], categories: Mapping[int, str], algorithm: Algorithm, path: Path
) -> bytes:
    """The SEG of one radiograph; masks: row of the table → COCO RLE. Raises RadiographError."""
    source = _source(path)
    if not masks:
        raise RadiographError(NO_MASK)
    from xray.outputs.dicom.segmentation import joined_masks, segmentation

    try:
        # What came in is anyone's: it is checked before C code sees it.
        checked = {row: encode_mask(dict(rle), source.Columns, source.Rows)[0] for row, rle in masks.items()}
        return _written(segmentation(source, joined_masks(table, checked), categories, algorithm))
    except (InputError, MaskError) as error:
        raise RadiographError(str(error)) from None


def _source(path: Path) -> Any:
    with path.open("rb") as file:
        if not is_dicom(file.read(132)):
            raise RadiographError("the file is no DICOM file: SR and SEG refer to one")
    try:
        return read_source(path)
    except InputError as error:
        raise RadiographError(str(error)) from None


def _written(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
