"""NIH ChestX-ray14 and what was made of it: PNG files in several folders, labels for all, boxes for a few."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import JPEGBaseline8Bit

from xray.phantoms.dicom import Storage
from xray.phantoms.layout import Drawn, Layout, Record, save_dicom, write_json
from xray.phantoms.tree import write_csv, write_text

NIH_SIDE = 1024
"""Side in pixels of NIH's pictures, in which its boxes are measured however large a copy's pictures are."""
BOXED_SHARE = 0.6
"""Share of the radiographs with findings for which somebody drew boxes; in the set it is less than a fiftieth."""
NIH_LABELS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Infiltration": "Infiltration",
    "Lung Opacity": "Pneumonia",
    "Nodule/Mass": "Nodule",
    "Pleural effusion": "Effusion",
    "Pleural thickening": "Pleural_Thickening",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary fibrosis": "Fibrosis",
}
"""A phantom's finding → NIH's label; the others have none."""
NIH_BOXED = {"Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Nodule", "Pneumonia", "Pneumothorax"}
NIH_MASS = 30 / 400
"""A mass is larger than 3 cm, of a chest that is about 40 cm wide; smaller ones are nodules."""


def nih_label(finding: Record, side: float) -> str | None:
    """NIH's word for a phantom's finding on a picture of that side, None where it has none."""
    label = NIH_LABELS.get(finding["name"])
    x1, y1, x2, y2 = finding["box"]
    return "Mass" if label == "Nodule" and max(x2 - x1, y2 - y1) > NIH_MASS * side else label


def _write_nih(folder: Path, records: Sequence[Record], seed: int) -> None:
    """The bracketed names of the columns hold commas of their own, as in the set; some boxes' label is "Infiltrate"."""
    rng = np.random.default_rng([seed, 40])
    entries = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    names: dict[str, list[str]] = {"train": [], "test": []}
    for record in records:
        name = Path(record["file_name"]).name
        names[record["split"]].append(name)
        labelled = [(nih_label(finding, record["width"]), finding["box"]) for finding in record["findings"]]
        labels = sorted({label for label, _ in labelled if label}) or ["No Finding"]
        about = (record["visit"], record["patient"], record["age"], record["sex"], record["view"])
        entries.append(f"{name},{'|'.join(labels)},{','.join(map(str, about))},2500,2500,0.143,0.143")
        scale = NIH_SIDE / record["width"]
        if rng.random() < BOXED_SHARE:
            for label, box in labelled:
                if label in NIH_BOXED or label == "Mass":
                    x1, y1, x2, y2 = (scale * value for value in box)
                    label = "Infiltrate" if label == "Infiltration" else label
                    boxes.append(f"{name},{label},{x1},{y1},{x2 - x1},{y2 - y1}")
    write_text(folder / "Data_Entry_2017_v2020.csv", "\n".join(entries) + "\n")
    write_text(folder / "BBox_List_2017.csv", "\n".join(boxes) + "\n")
    write_text(folder / "train_val_list.txt", "\n".join(names["train"]) + "\n")
    write_text(folder / "test_list.txt", "\n".join(names["test"]) + "\n")


NIH = Layout(
    place=lambda entry: f"images_{entry.index % 2 + 1:03d}/images/{entry.patient:08d}_{entry.visit:03d}.png",
    tables=_write_nih,
    made=(
        "images_001", "images_002", "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "train_val_list.txt",
        "test_list.txt",
    ),
    square=True,
)  # fmt: skip


RSNA_OPACITIES = {"Consolidation", "Infiltration", "Lung Opacity"}
"""Findings of a phantom that RSNA's readers would call a lung opacity."""


def _save_rsna(path: Path, drawn: Drawn) -> Record:
    # RSNA's files are NIH's pictures in JPEG.
    return save_dicom(path, drawn, Storage(8, False, False, JPEGBaseline8Bit, computed=True))


def _write_rsna(folder: Path, records: Sequence[Record], seed: int) -> None:
    """A row a box, without the test set; patientId is a radiograph's, and NIH's name tells the patient."""
    labels, classes, mapping = [], [], []
    for record in records:
        name = record["image_id"]
        mapping.append({"subset_img_id": name, "img_id": f"{record['patient']:08d}_{record['visit']:03d}.png"})
        if record["split"] == "test":
            continue
        scale = NIH_SIDE / record["width"]
        boxes = [finding["box"] for finding in record["findings"] if finding["name"] in RSNA_OPACITIES]
        kind = "Lung Opacity" if boxes else "No Lung Opacity / Not Normal" if record["findings"] else "Normal"
        for x1, y1, x2, y2 in (np.array(box) * scale for box in boxes):
            labels.append((name, round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1), 1))
        labels += [] if boxes else [(name, None, None, None, None, 0)]
        classes += [(name, kind)] * max(1, len(boxes))
    write_csv(folder / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), labels)
    write_csv(folder / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes)
    write_json(folder / "pneumonia-challenge-dataset-mappings_2018.json", mapping)


RSNA = Layout(
    place=lambda entry: f"stage_2_{entry.split}_images/{entry.image_id}.dcm",
    save=_save_rsna,
    tables=_write_rsna,
    made=(
        "stage_2_train_images", "stage_2_test_images", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv",
        "pneumonia-challenge-dataset-mappings_2018.json",
    ),
    square=True,
)  # fmt: skip
