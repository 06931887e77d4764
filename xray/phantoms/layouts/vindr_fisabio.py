"""VinDr-CXR as PhysioNet has it, and SIIM-FISABIO-RSNA COVID-19: DICOM files, boxes in their pixels, classes beside."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xray.findings import FINDINGS, NO_FINDING_NAME
from xray.phantoms.dicom import uid_of
from xray.phantoms.layout import Entry, Layout, Record, save_dicom
from xray.phantoms.readers import read_by_three
from xray.phantoms.tree import write_csv

LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
    "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
    "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis")
DIAGNOSES = {
    "Lung tumor": {"Nodule/Mass"},
    "Pneumonia": {"Consolidation", "Infiltration"},
    "Tuberculosis": {"Pulmonary fibrosis", "Pleural thickening"},
    "Other diseases": {"Cardiomegaly", "Pneumothorax", "Pleural effusion"},
}
"""What a reader says of the whole radiograph that shows all or any of these findings."""
SHARE_OF_DIAGNOSES = 0.6
COORDINATES = ("x_min", "y_min", "x_max", "y_max")


def _write_vindr(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Three readers in train, a consensus without rad_id in test, where a column is spelt otherwise."""
    annotations = folder / "annotations"
    annotations.mkdir(exist_ok=True)
    for split in ("train", "test"):
        is_test = split == "test"
        others = "Other disease" if is_test else "Other diseases"
        boxes: list[tuple[object, ...]] = []
        labels: list[tuple[object, ...]] = []
        for number, record in enumerate(record for record in records if record["split"] == split):
            rng = np.random.default_rng([seed, 41, number])
            name = record["image_id"]
            read = _truth(record) if is_test else _read_by_three(record, rng)
            for reader in dict.fromkeys(row[1] for row in read):
                of_reader = [row for row in read if row[1] == reader]
                findings = {str(row[0]) for row in of_reader} - {NO_FINDING_NAME}
                known = () if is_test else (reader,)
                boxes += [(name, *known, row[0], *row[2:]) for row in of_reader]
                said = [int(each in findings) for each in LOCAL]
                said += [int(_is_said(each, findings, rng)) for each in (*GLOBAL, "Other diseases")]
                labels.append((name, *known, *said, int(not any(said))))
        reader_column = () if is_test else ("rad_id",)
        write_csv(
            annotations / f"annotations_{split}.csv", ("image_id", *reader_column, "class_name", *COORDINATES), boxes
        )
        header = ("image_id", *reader_column, *LOCAL, *GLOBAL, others, "No finding")
        write_csv(annotations / f"image_labels_{split}.csv", header, labels)


def _is_said(diagnosis: str, findings: set[str], rng: np.random.Generator) -> bool:
    return bool(DIAGNOSES.get(diagnosis, set()) & findings) and rng.random() < SHARE_OF_DIAGNOSES


def _truth(record: Record) -> list[tuple[object, ...]]:
    rows = [(finding["name"], "", *finding["box"]) for finding in record["findings"]]
    return rows or [(NO_FINDING_NAME, "", None, None, None, None)]


def _read_by_three(record: Record, rng: np.random.Generator) -> list[tuple[object, ...]]:
    """Rows (name, reader, box) as three readers give them."""
    boxes = np.array([finding["box"] for finding in record["findings"]], dtype=np.float64).reshape(-1, 4)
    ids = np.array([FINDINGS.index(finding["name"]) for finding in record["findings"]], dtype=np.int64)
    read = read_by_three(rng, boxes, ids, record["width"], record["height"])
    return [(name, reader, *corners) for name, _, reader, *corners in read]


VINDR = Layout(
    place=lambda entry: f"{entry.split}/{entry.image_id}.dicom",
    save=save_dicom,
    tables=_write_vindr,
    made=("annotations", "train", "test"),
    sides=(1900, 3000),
)

OPACITIES = ("Consolidation", "ILD", "Infiltration", "Lung Opacity")
"""Findings of a phantom that are opacities in the challenge of COVID-19."""
APPEARANCES = ("Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
NEGATIVE = "Negative for Pneumonia"


def _study(entry_or_record: Entry | Record) -> str:
    patient = entry_or_record.patient if isinstance(entry_or_record, Entry) else entry_or_record["patient"]
    return uid_of(f"study {patient}", "study")[-12:]


def _place_fisabio(entry: Entry) -> str:
    # A patient's two radiographs are of one study.
    return f"{entry.split}/{_study(entry)}/{uid_of(entry.image_id, 'series')[-12:]}/{entry.image_id[:12]}.dcm"


def _write_fisabio(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Boxes in two columns and two spellings, ids with _image or _study behind them; of the test set only its ids."""
    images: list[tuple[object, ...]] = []
    opacities_of: dict[str, list[str]] = {}
    sample: dict[str, str] = {}
    for record in records:
        name, study = f"{record['image_id'][:12]}_image", _study(record)
        if record["split"] == "test":
            sample |= {f"{study}_study": "negative 1 0 0 1 1", name: "none 1 0 0 1 1"}
            continue
        found = [finding for finding in record["findings"] if finding["name"] in OPACITIES]
        opacities_of.setdefault(study, []).extend(finding["name"] for finding in found)
        boxes = [finding["box"] for finding in found]
        listed = [
            {"x": x1, "y": y1, "width": round(x2 - x1, 5), "height": round(y2 - y1, 5)} for x1, y1, x2, y2 in boxes
        ]
        label = " ".join(f"opacity 1 {' '.join(map(str, box))}" for box in boxes) or "none 1 0 0 1 1"
        images.append((name, str(listed) if listed else None, label, study))
    studies = []
    for study, names in opacities_of.items():
        # What is typical of COVID-19 lies on both sides and is patchy; here, the first finding decides.
        shown = APPEARANCES[min(OPACITIES.index(names[0]), 2)] if names else NEGATIVE
        studies.append((f"{study}_study", *(int(name == shown) for name in (NEGATIVE, *APPEARANCES))))
    write_csv(folder / "train_image_level.csv", ("id", "boxes", "label", "StudyInstanceUID"), images)
    write_csv(folder / "train_study_level.csv", ("id", NEGATIVE, *APPEARANCES), studies)
    write_csv(folder / "sample_submission.csv", ("id", "PredictionString"), sorted(sample.items()))


FISABIO = Layout(
    place=_place_fisabio,
    save=save_dicom,
    tables=_write_fisabio,
    made=("train", "test", "train_image_level.csv", "train_study_level.csv", "sample_submission.csv"),
    sides=(2000, 3400),
)
