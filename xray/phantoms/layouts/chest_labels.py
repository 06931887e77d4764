"""CheXpert, CheXpert Plus, MIMIC-CXR and PadChest: labels of whole radiographs, some uncertain or not mentioned."""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from xray.files import complete
from xray.phantoms.layout import Drawn, Entry, Layout, Record, save_picture
from xray.phantoms.tree import write_csv, write_text

CHEXPERT_NAMES = {
    "Aortic enlargement": "Enlarged Cardiomediastinum",
    "Atelectasis": "Atelectasis",
    "Calcification": "Pleural Other",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "ILD": "Edema",
    "Infiltration": "Lung Opacity",
    "Lung Opacity": "Lung Opacity",
    "Nodule/Mass": "Lung Lesion",
    "Pleural effusion": "Pleural Effusion",
    "Pleural thickening": "Pleural Other",
    "Pneumothorax": "Pneumothorax",
}
"""A phantom's finding → the label that stands for it; the others have none."""
CHEXPERT_LABELS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
PADCHEST_NAMES = {
    "Aortic enlargement": "aortic elongation",
    "Atelectasis": "laminar atelectasis",
    "Calcification": "calcified granuloma",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "ILD": "interstitial pattern",
    "Infiltration": "infiltrates",
    "Lung Opacity": "alveolar pattern",
    "Nodule/Mass": "nodule",
    "Other lesion": "increased density",
    "Pleural effusion": "pleural effusion",
    "Pleural thickening": "apical pleural thickening",
    "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "fibrotic band",
}
"""A phantom's finding → PadChest's label."""
SHARE_UNCERTAIN, SHARE_MENTIONED = 0.2, 0.4
"""Of the labels present those that the report is not sure of; of the labels absent those that it names at all."""
UNUSUAL = 5
"""One of so many lists of PadChest has something beside its findings."""
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def names_in(record: Record, names: dict[str, str]) -> list[str]:
    """The labels of a phantom's findings, each once."""
    return sorted({names[finding["name"]] for finding in record["findings"] if finding["name"] in names})


def view_path(entry: Entry, folder: str) -> str:
    """Where CheXpert has a radiograph: patient, study and view."""
    return f"{folder}/patient{entry.patient:05d}/study{entry.visit + 1}/view1_frontal.jpg"


def chexpert_marks(record: Record, rng: np.random.Generator | None) -> list[float | None]:
    """1, 0, -1 or None for "No Finding" and the 13 labels. rng: of a report's program; None for radiologists."""
    present = names_in(record, CHEXPERT_NAMES)
    marks: list[float | None] = []
    for name in CHEXPERT_LABELS:
        if rng is None:
            marks.append(float(name in present))
        elif name in present:
            marks.append(-1.0 if rng.random() < SHARE_UNCERTAIN else 1.0)
        else:
            marks.append(0.0 if rng.random() < SHARE_MENTIONED else None)
    return [(0.0 if rng is None else None) if present else 1.0, *marks]


def write_packed(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """A CSV file packed as .gz, the same bytes for the same rows."""
    plain = path.with_suffix("")
    write_csv(plain, columns, rows)
    with complete(path) as temporary:
        temporary.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()


def _write_chexpert(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Paths begin with another edition's folder than the one they are in, as they do for whoever has the full set."""
    rng = np.random.default_rng([seed, 50])
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *CHEXPERT_LABELS)
    for split in ("train", "val"):
        rows = []
        for record in (record for record in records if record["split"] == split):
            path = record["file_name"].replace("CheXpert-v1.0-small", "CheXpert-v1.0")
            sex = {"F": "Female", "M": "Male"}[record["sex"]]
            marks = chexpert_marks(record, rng if split == "train" else None)
            rows.append((path, sex, record["age"], "Frontal", record["view"], *marks))
        write_csv(folder / f"CheXpert-v1.0-small/{FOLDERS[split]}.csv", header, rows)


CHEXPERT = Layout(
    place=lambda entry: view_path(entry, f"CheXpert-v1.0-small/{FOLDERS[entry.split]}"),
    tables=_write_chexpert,
    made=("CheXpert-v1.0-small",),
    splits=("train", "val"),
    sides=(320, 400),
)


PLUS_COLUMNS = (
    "path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order",
    "report", "section_findings", "section_impression", "age", "sex", "race", "ethnicity", "interpreter_needed",
    "insurance_type", "recent_bmi", "deceased", "split",
)  # fmt: skip


def _write_chexpertplus(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Reports have several lines, with commas and quotes; the table calls JPEG what is a PNG file, as in the set."""
    rng = np.random.default_rng([seed, 53])
    rows, lines = [], []
    for record in records:
        image = str(Path(record["file_name"]).relative_to("PNG").with_suffix(".jpg"))
        present = names_in(record, CHEXPERT_NAMES)
        impression = f"1. {', '.join(present) or 'No acute disease'}."
        report = f'NARRATIVE:\nChest, 1 view. "Comparison": none.\n\nIMPRESSION:\n{impression}'
        sex = {"F": "Female", "M": "Male"}[record["sex"]]
        who = (f"patient{record['patient']:05d}", record["visit"] + 1, report, None, impression, record["age"], sex)
        known = (image, image.replace(".jpg", ".dcm"), "Frontal", record["view"], *who)
        unsaid = [None] * (len(PLUS_COLUMNS) - len(known) - 1)
        rows.append((*known, *unsaid, FOLDERS[record["split"]]))
        marks = zip(("No Finding", *CHEXPERT_LABELS), chexpert_marks(record, rng), strict=True)
        lines.append(json.dumps({"path_to_image": image, **dict(marks)}) + "\n")
    write_csv(folder / "df_chexpert_plus_240401.csv", PLUS_COLUMNS, rows)
    (folder / "chexbert_labels").mkdir(exist_ok=True)
    write_text(folder / "chexbert_labels/impression_fixed.json", "".join(lines))


CHEXPERTPLUS = Layout(
    place=lambda entry: str(Path(view_path(entry, f"PNG/{FOLDERS[entry.split]}")).with_suffix(".png")),
    tables=_write_chexpertplus,
    made=("PNG", "df_chexpert_plus_240401.csv", "chexbert_labels"),
    splits=("train", "val"),
    sides=(2000, 2600),
    source="chexpert",
)


def mimic_ids(patient: int, index: int, image_id: str) -> tuple[int, int, str]:
    """subject_id, study_id and dicom_id."""
    return 10000000 + patient, 50000000 + index, "-".join(image_id[at : at + 8] for at in range(0, 32, 8))


def mimic_path(entry: Entry) -> str:
    """Where MIMIC-CXR-JPG has a radiograph."""
    subject, study, dicom_id = mimic_ids(entry.patient, entry.index, entry.image_id)
    return f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom_id}.jpg"


def _write_mimic(folder: Path, records: Sequence[Record], seed: int) -> None:
    rng = np.random.default_rng([seed, 51])
    ids = [mimic_ids(record["patient"], index, record["image_id"]) for index, record in enumerate(records)]
    splits = {"train": "train", "val": "validate", "test": "test"}
    write_packed(
        folder / "mimic-cxr-2.0.0-split.csv.gz",
        ("dicom_id", "study_id", "subject_id", "split"),
        [(i, study, who, splits[record["split"]]) for (who, study, i), record in zip(ids, records, strict=True)],
    )
    write_packed(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns"),
        [
            (i, who, study, record["view"], record["height"], record["width"])
            for (who, study, i), record in zip(ids, records, strict=True)
        ],
    )
    labels = []
    for (subject, study, _), record in zip(ids, records, strict=True):
        marks = dict(zip(("No Finding", *CHEXPERT_LABELS), chexpert_marks(record, rng), strict=True))
        labels.append((subject, study, *(marks[name] for name in sorted(marks))))
    header = ("subject_id", "study_id", *sorted(("No Finding", *CHEXPERT_LABELS)))
    write_packed(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", header, labels)


MIMIC = Layout(
    place=mimic_path,
    tables=_write_mimic,
    made=(
        "files", "mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-chexpert.csv.gz",
    ),
    splits=("train", "val", "test"),
    sides=(2000, 2600),
)  # fmt: skip


def save_16_bits(path: Path, drawn: Drawn) -> Record:
    """Writes a 16-bit PNG file."""
    return save_picture(path, drawn, bits=16)


def padchest_list(names: Sequence[str], number: int) -> str:
    """A cell of PadChest's labels as Python writes a list, some with the blanks and words of the real table."""
    labels = [f" {name}" if position % 2 else name for position, name in enumerate(names)] or ["normal"]
    if number % UNUSUAL == 0:
        labels += [("", "unchanged", "suboptimal study")[number // UNUSUAL % 3]]
    return str(labels)


def _write_padchest(folder: Path, records: Sequence[Record], seed: int) -> None:
    header = (
        "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
        "Projection", "MethodLabel", "Labels",
    )  # fmt: skip
    rows = []
    for number, record in enumerate(records):
        image_dir, _, image = record["file_name"].partition("/")
        about = (f"{2015 - record['age']}.0", record["sex"], "PA" if record["view"] == "PA" else "AP_horizontal")
        labels = padchest_list(names_in(record, PADCHEST_NAMES), number)
        who = (f"{seed}{number:05d}", f"{1000 + record['patient']}")
        rows.append((number, image, image_dir, "20150914", *who, *about, "Physician", labels))
    write_packed(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", header, rows)


PADCHEST = Layout(
    place=lambda entry: f"{entry.index % 2}/{entry.image_id}.png",
    save=save_16_bits,
    tables=_write_padchest,
    made=("0", "1", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"),
    splits=("train",),
    sides=(2000, 3000),
)
