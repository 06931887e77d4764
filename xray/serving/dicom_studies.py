"""OUT/studies.csv: which radiograph that came from another DICOM node belongs to which study, series and view."""

import contextlib
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xray.files import complete
from xray.radiographs.dicom import read_elements

if TYPE_CHECKING:
    from xray.serving.dicom_fetch import Fetched

STUDIES = "studies.csv"
COLUMNS = {
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "InstanceNumber": "instance_number",
    "ViewPosition": "view_position",
    "ImageLaterality": "laterality",
}


def write_studies(out: Path, brought: "Fetched") -> None:
    """Writes OUT/studies.csv: of each radiograph the study, whether that is a prior, the series and the view."""
    with complete(out / STUDIES) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "study_instance_uid", "study_date", "is_prior", *COLUMNS.values()])
        for study in brought.studies:
            for image in study.images:
                path = brought.folder / image.name
                if path.is_file():
                    told = _described(path)
                    writer.writerow([image.uid, study.uid, study.date, int(study.is_prior), *told.values()])


def _described(path: Path) -> Mapping[str, str]:
    told = dict.fromkeys(COLUMNS, "")
    with contextlib.suppress(Exception):  # whatever pydicom raises on a value that is none of its type
        elements = read_elements(path, tuple(COLUMNS))
        for name in COLUMNS:
            told[name] = " ".join(str(elements.get(name, "") or "").split())[:64]
    return told
