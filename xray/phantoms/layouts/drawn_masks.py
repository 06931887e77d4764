"""CheXlocalize and CANDID-PTX, whose findings are masks, and JSRT's raw files with a nodule's centre and diameter."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from xray.errors import InputError
from xray.findings import FINDINGS
from xray.phantoms.dicom import uid_of
from xray.phantoms.layout import Drawn, Entry, Layout, Record, save_dicom, save_picture, write_json
from xray.phantoms.layouts.chest_labels import CHEXPERT_LABELS, CHEXPERT_NAMES, FOLDERS, chexpert_marks, view_path
from xray.phantoms.tree import write_csv, write_text
from xray.structures import rle
from xray.structures.masks import encode_mask

NOT_DRAWN = ("Pneumonia", "Pleural Other", "Fracture")
"""Labels of CheXlocalize without masks."""
CANDID_NAMES = {"Other lesion": "chest_tube", "Calcification": "acute_rib_fracture"}
"""A phantom's finding → the table of CANDID-PTX in which it stands for what phantoms do not have."""
JSRT_SIDE, JSRT_SPACING = 2048, 0.175
NODULE = FINDINGS.index("Nodule/Mass")
MOST_JSRT = 999


def filled(outlines: Sequence[Sequence[Sequence[int]]], width: int, height: int) -> np.ndarray:
    """(height, width) uint8 of 0 and 1: polygons with their outlines."""
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [np.array(outline, dtype=np.int32) for outline in outlines], 1)
    return mask


def _write_chexlocalize(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Tables say valid/ where the folder is val/; those of the test set lack Sex, Age and the view."""
    labels: dict[str, list[tuple[object, ...]]] = {"val": [], "test": []}
    for split in ("val", "test"):
        contours: dict[str, dict[str, object]] = {}
        masks: dict[str, dict[str, object]] = {}
        for record in (record for record in records if record["split"] == split):
            path = record["file_name"].removeprefix("CheXpert/")
            about = (
                record["sex"].replace("F", "Female").replace("M", "Male"),
                record["age"],
                "Frontal",
                record["view"],
            )
            table_path = f"CheXpert-v1.0/{path.replace('val/', 'valid/')}"
            labels[split].append((table_path, *(about if split == "val" else ()), *chexpert_marks(record, None)))
            by_name: dict[str, list[list[list[int]]]] = {}
            for finding in record["findings"]:
                name = CHEXPERT_NAMES.get(finding["name"])
                if name and name not in NOT_DRAWN:
                    by_name.setdefault(name, []).extend(finding["outlines"])
            if not by_name:
                continue
            view = "_".join(path.removesuffix(".jpg").split("/")[1:])
            width, height = record["width"], record["height"]
            contours[view] = {"img_size": [height, width], **by_name}
            masks[view] = {
                name: _run_lengths(filled(by_name.get(name, []), width, height))
                for name in CHEXPERT_LABELS
                if name not in NOT_DRAWN
            }
        write_json(folder / f"gt_annotations_{split}.json", contours)
        write_json(folder / f"gt_segmentations_{split}.json", masks)
    header = ("No Finding", *CHEXPERT_LABELS)
    about = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
    write_csv(folder / "CheXpert/val_labels.csv", ("Path", *about, *header), labels["val"])
    write_csv(folder / "CheXpert/test_labels.csv", ("Path", *header), labels["test"])


def _run_lengths(mask: np.ndarray) -> dict[str, object]:
    height, width = mask.shape
    starts, ends = rle.runs_of(mask)
    counts = rle.coco_counts(starts, ends, mask.size).tolist()
    return encode_mask({"size": [height, width], "counts": counts}, width, height, may_be_empty=True)[0]


CHEXLOCALIZE = Layout(
    place=lambda entry: view_path(entry, f"CheXpert/{'val' if entry.split == 'val' else FOLDERS[entry.split]}"),
    tables=_write_chexlocalize,
    made=(
        "CheXpert", "gt_annotations_val.json", "gt_annotations_test.json", "gt_segmentations_val.json",
        "gt_segmentations_test.json",
    ),
    splits=("val", "test"),
    sides=(2000, 2800),
)  # fmt: skip


def _write_candid(folder: Path, records: Sequence[Record], seed: int) -> None:
    """A row a pneumothorax, -1 for none, one radiograph of which nobody says, one row twice, a byte order mark."""
    reports: list[tuple[object, ...]] = []
    others: dict[str, list[tuple[object, ...]]] = {name: [] for name in CANDID_NAMES.values()}
    for record in records:
        uid = Path(record["file_name"]).name
        about = (f"P{record['patient']:05d}_{record['visit'] + 1}.dcm", "A chest radiograph.")
        found = [(f["name"], filled(f["outlines"], record["width"], record["height"])) for f in record["findings"]]
        masks = [rle.encode(mask, "relative") for name, mask in found if name == "Pneumothorax"]
        reports += [(uid, text, *about) for text in masks or ["-1"]]
        for name, mask in found:
            if name in CANDID_NAMES:
                others[CANDID_NAMES[name]].append((uid, f"annotation {len(others)}", rle.encode(mask, "relative")))
    reports[0] = (reports[0][0], "", *reports[0][2:])
    reports.append(reports[-1])
    write_csv(folder / "Pneumothorax_reports.csv", ("SOPInstanceUID", "EncodedPixels", "filename", "Report"), reports)
    text = (folder / "Pneumothorax_reports.csv").read_text(encoding="utf-8")
    write_text(folder / "Pneumothorax_reports.csv", f"\ufeff{text}")
    for name, rows in others.items():
        write_csv(folder / f"{name}.csv", ("anon_SOPUID", "annotation_ref", "mask_rle"), rows)


CANDID = Layout(
    place=lambda entry: f"dataset/{uid_of(entry.image_id, 'instance')}",
    save=save_dicom,
    tables=_write_candid,
    made=("dataset", "Pneumothorax_reports.csv", "chest_tube.csv", "acute_rib_fracture.csv"),
    splits=("train",),
    square=True,
)


def _place_jsrt(entry: Entry) -> str:
    if entry.index >= MOST_JSRT:
        raise InputError(f"JSRT's names have three digits: ask for at most {MOST_JSRT} phantoms in its layout")
    kind = "L" if NODULE in entry.findings else "N"
    # A raw file has no size of its own: smaller ones are pictures.
    suffix = "IMG" if entry.size in (None, JSRT_SIDE) else "png"
    return f"All247images/JPC{kind}N{entry.index + 1:03d}.{suffix}"


def _save_jsrt(path: Path, drawn: Drawn) -> Record:
    """A raw file stores the film's density, the larger the darker, in 12 bits, the larger byte first."""
    if path.suffix != ".IMG":
        return save_picture(path, drawn)
    density = 4095 - np.round(drawn.pixels * np.float32(4095))
    with open(path.with_suffix(".part"), "wb") as file:
        density.astype(">u2").tofile(file)
    path.with_suffix(".part").replace(path)
    return {}


def _write_jsrt(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Lines end in a carriage return; some ages are not known."""
    nodules, others = [], []
    for number, record in enumerate(records):
        name = f"{Path(record['file_name']).stem}.IMG"
        age, sex = "?" if number % 4 == 3 else record["age"], {"F": "Female", "M": "Male"}[record["sex"]]
        scale = JSRT_SIDE / record["width"]
        of_record = [finding["box"] for finding in record["findings"] if finding["name"] == FINDINGS[NODULE]]
        for x1, y1, x2, y2 in of_record:
            size = max(x2 - x1, y2 - y1) * scale * JSRT_SPACING
            x, y = round((x1 + x2) / 2 * scale), round((y1 + y2) / 2 * scale)
            about = ("malignant" if number % 2 else "benign", "r.upper lobe", "lung cancer")
            nodules.append("\t".join(map(str, (name, number % 5 + 1, round(size, 1), age, sex, x, y, *about))))
        if not of_record:
            others.append(f"{name} {age} {sex} non-nodule")
    write_text(folder / "CLNDAT_EN.txt", "".join(f"{line}\r" for line in nodules))
    write_text(folder / "CNNDAT_EN.TXT", "".join(f"{line}\r" for line in others))


JSRT = Layout(
    place=_place_jsrt,
    save=_save_jsrt,
    tables=_write_jsrt,
    made=("All247images", "CLNDAT_EN.txt", "CNNDAT_EN.TXT"),
    splits=("train",),
    sides=(JSRT_SIDE, JSRT_SIDE),
    square=True,
)
