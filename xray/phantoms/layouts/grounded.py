"""PadChest-GR and MS-CXR: boxes of the sentences of reports, in shares of the sides and in pixels."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.files import complete
from xray.phantoms.layout import Layout, Record, write_json
from xray.phantoms.layouts.chest_labels import PADCHEST_NAMES, mimic_ids, mimic_path, save_16_bits
from xray.phantoms.tree import write_csv

SHARE_OF_SECOND, SHARE_WITHOUT_BOX = 0.6, 0.15
"""Of the findings those that a second reader drew as well; those that nobody drew."""
MSCXR_NAMES = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "ILD": "Edema",
    "Infiltration": "Pneumonia",
    "Lung Opacity": "Lung Opacity",
    "Pleural effusion": "Pleural Effusion",
    "Pneumothorax": "Pneumothorax",
}
"""A phantom's finding → MS-CXR's category; the others have none."""


def _write_padchestgr(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Sentences that find nothing have no boxes nor labels at all."""
    rng = np.random.default_rng([seed, 52])
    splits = {"train": "train", "val": "validation", "test": "test"}
    studies: list[dict[str, Any]] = []
    rows: list[tuple[object, ...]] = []
    for number, record in enumerate(records):
        study, image = f"2{seed}{number:06d}", Path(record["file_name"]).name
        findings: list[dict[str, Any]] = [{"sentence_en": "No fracture is seen.", "abnormal": False}]
        for finding in record["findings"]:
            shares = np.array(finding["box"]) / ([record["width"], record["height"]] * 2)
            second = (shares + rng.uniform(-0.01, 0.01, 4)).clip(0, 1)
            is_boxed = rng.random() >= SHARE_WITHOUT_BOX
            has_second = is_boxed and rng.random() < SHARE_OF_SECOND and bool((second[2:] > second[:2]).all())
            label = PADCHEST_NAMES[finding["name"]]
            findings.append(
                {
                    "sentence_en": f"There is {label}.",
                    "abnormal": True,
                    "boxes": [shares.tolist()] if is_boxed else [],
                    "extra_boxes": [second.tolist()] if has_second else [],
                    "labels": [label],
                    "locations": [],
                    "progression": None,
                }
            )
        studies.append({"StudyID": study, "ImageID": image, "findings": findings})
        about = (f"{1000 + record['patient']}", image, splits[record["split"]], record["sex"])
        labels = [label for finding in findings for label in finding.get("labels", ())]
        rows += [(study, *about, label) for label in labels or ["normal"]]
    write_json(folder / "grounded_reports_20240819.json", studies)
    columns = ("StudyID", "PatientID", "ImageID", "split", "PatientSex_DICOM", "label")
    plain = folder / "master_table.csv"
    write_csv(plain, columns, rows)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        # A date of its own would make other bytes every time.
        archive.writestr(zipfile.ZipInfo(plain.name), plain.read_bytes())
    with complete(folder / "master_table.csv.zip") as temporary:
        temporary.write_bytes(packed.getvalue())
    plain.unlink()


PADCHESTGR = Layout(
    place=lambda entry: f"PadChest_GR/{entry.image_id}.png",
    save=save_16_bits,
    tables=_write_padchestgr,
    made=("PadChest_GR", "grounded_reports_20240819.json", "master_table.csv.zip"),
    splits=("train", "val", "test"),
    sides=(2000, 3000),
)


def _write_mscxr(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Radiographs without any of the eight findings have no row, and are no part of the set.

    As in the set, a COCO file says the same as the table.
    """
    rows: list[tuple[Any, ...]] = []
    for index, record in enumerate(records):
        _, _, dicom_id = mimic_ids(record["patient"], index, record["image_id"])
        for finding in record["findings"]:
            if (name := MSCXR_NAMES.get(finding["name"])) is not None:
                x1, y1, x2, y2 = finding["box"]
                box = (x1, y1, round(x2 - x1, 2), round(y2 - y1, 2), record["width"], record["height"])
                rows.append((dicom_id, name, f"{name.lower()} is seen", record["file_name"], *box, "train"))
    columns = (
        "dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height", "split",
    )  # fmt: skip
    write_csv(folder / "MS_CXR_Local_Alignment_v1.1.0.csv", columns, rows)
    write_json(
        folder / "MS_CXR_Local_Alignment_v1.1.0.json", _coco([dict(zip(columns, row, strict=True)) for row in rows])
    )


def _coco(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rows of MS-CXR's table as a COCO file, with the keys `path` and `label_text` that only this set has."""
    categories = {name: number for number, name in enumerate(sorted(MSCXR_NAMES.values()), start=1)}
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for row in rows:
        about = {"file_name": f"{row['dicom_id']}.jpg", "path": row["path"]}
        sides = {"width": row["image_width"], "height": row["image_height"]}
        image = images.setdefault(row["path"], {"id": len(images), **about, **sides})
        box = [row["x"], row["y"], row["w"], row["h"]]
        said = {"category_id": categories[row["category_name"]], "label_text": row["label_text"]}
        number = len(annotations)
        annotations.append({"id": number, "image_id": image["id"], "bbox": box, **said, "split": row["split"]})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": named}


MSCXR = Layout(
    place=mimic_path,
    tables=_write_mscxr,
    made=("files", "MS_CXR_Local_Alignment_v1.1.0.csv", "MS_CXR_Local_Alignment_v1.1.0.json"),
    splits=("train",),
    sides=(2000, 2600),
)
