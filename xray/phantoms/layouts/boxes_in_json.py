"""ChestX-Det, TBX11K and Object-CXR: pictures with boxes or outlines in JSON files, or in the cells of a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.phantoms.layout import Drawn, Entry, Layout, Record, write_json, write_picture
from xray.phantoms.layouts.nih_rsna import NIH_SIDE, nih_label
from xray.phantoms.tree import write_csv, write_text

CHESTXDET_LABELS = {"Pleural_Thickening": "Pleural Thickening", "Infiltration": "Consolidation", "Pneumonia": None}
"""NIH's label → ChestX-Det's, where they differ; None for no finding of it."""


def _place_chestxdet(entry: Entry) -> str:
    # Files are numbered anew, and the two splits have numbers in common.
    number = 36000 + entry.index - (4 if entry.split == "test" else 0)
    return f"{entry.split}_data/{number}.png"


def _write_chestxdet(folder: Path, records: Sequence[Record], seed: int) -> None:
    for split in ("train", "test"):
        entries = []
        for record in records:
            if record["split"] != split:
                continue
            scale = NIH_SIDE / record["width"]
            entry: dict[str, Any] = {
                "file_name": Path(record["file_name"]).name,
                "syms": [],
                "boxes": [],
                "polygons": [],
            }
            for finding in record["findings"]:
                label = nih_label(finding, record["width"]) or finding["name"]
                label = CHESTXDET_LABELS.get(label, label)
                if label in ("Aortic enlargement", "ILD", "Other lesion", None):
                    continue
                x1, y1, x2, y2 = (scale * value for value in finding["box"])
                outline = max(finding["outlines"], key=len)
                entry["syms"].append(label)
                entry["boxes"].append([int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2))])
                entry["polygons"].append([[round(scale * x), round(scale * y)] for x, y in outline])
            entries.append(entry)
        write_json(folder / f"ChestX_Det_{split}.json", entries)


CHESTXDET = Layout(
    place=_place_chestxdet,
    tables=_write_chestxdet,
    made=("train_data", "test_data", "ChestX_Det_train.json", "ChestX_Det_test.json"),
    square=True,
)

TBX_SIDE, TBX_ORIGINAL = 512, 2840
ACTIVE = {"Consolidation", "Infiltration", "Lung Opacity", "Nodule/Mass"}
OBSOLETE = {"Calcification", "Pleural thickening", "Pulmonary fibrosis"}
TBX_CATEGORIES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
TBX_SHARE = 2
"""One of so many radiographs with findings is of a patient with tuberculosis, the others are sick otherwise."""


def _kind(findings: Sequence[int], index: int) -> str:
    return "health" if not findings else "sick" if index % TBX_SHARE else "tb"


def _place_tbx(entry: Entry) -> str:
    if entry.split == "test":
        return f"imgs/test/test_{entry.index:06d}.png"
    kind = _kind(entry.findings, entry.index)
    return f"imgs/{kind}/{kind[0] if kind != 'tb' else kind}{entry.index + 1:04d}.png"


def _write_tbx(folder: Path, records: Sequence[Record], seed: int) -> None:
    """COCO files in pixels of 512 x 512 beside XML files in pixels of the originals; the test set has no boxes."""
    for name in ("json", "xml"):
        (folder / "annotations" / name).mkdir(parents=True, exist_ok=True)
    (folder / "lists").mkdir(exist_ok=True)
    categories = [{"id": number, "name": name, "supercategory": "TB"} for number, name in enumerate(TBX_CATEGORIES, 1)]
    for split, file_name in (("train", "TBX11K_train"), ("val", "TBX11K_val"), ("test", "all_test")):
        images: list[Record] = []
        annotations: list[Record] = []
        for record in records:
            if record["split"] != split:
                continue
            name = record["file_name"].removeprefix("imgs/")
            images.append({"id": len(images) + 1, "file_name": name, "width": TBX_SIDE, "height": TBX_SIDE})
            boxes = _tbx_boxes(record) if name.startswith("tb/") else []
            for category, box in boxes:
                x1, y1, x2, y2 = (TBX_SIDE / record["width"] * value for value in box)
                bbox = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": category,
                        "bbox": bbox,
                        "area": bbox[2] * bbox[3],
                        "iscrowd": 0,
                    }
                )
            if boxes:
                path = folder / "annotations" / "xml" / f"{Path(name).stem}.xml"
                write_text(path, _xml(name, record["width"], boxes))
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / "json" / f"{file_name}.json", content)
        write_text(folder / "lists" / f"{file_name}.txt", "".join(f"{image['file_name']}\n" for image in images))


def _tbx_boxes(record: Record) -> list[tuple[int, list[float]]]:
    """Category id and box of what a radiograph shows of tuberculosis."""
    boxes = [(1, f["box"]) for f in record["findings"] if f["name"] in ACTIVE]
    return boxes + [(2, f["box"]) for f in record["findings"] if f["name"] in OBSOLETE]


def _xml(name: str, side: int, boxes: Sequence[tuple[int, list[float]]]) -> str:
    objects = []
    for category, box in boxes:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        inner = "".join(f"<{key}>{round(TBX_ORIGINAL / side * value)}</{key}>" for key, value in corners)
        objects.append(f"<object><name>{TBX_CATEGORIES[category - 1]}</name><bndbox>{inner}</bndbox></object>")
    size = f"<size><width>{TBX_ORIGINAL}</width><height>{TBX_ORIGINAL}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>\n"


TBX11K = Layout(
    place=_place_tbx,
    tables=_write_tbx,
    made=("imgs", "annotations", "lists"),
    splits=("train", "val", "test"),
    sides=(TBX_SIDE, TBX_SIDE),
    square=True,
)

OBJECT_FOLDERS = {"train": "train", "val": "dev", "test": "test"}
OBJECT_SHARE = 0.5
"""Share of the radiographs on which foreign objects lie."""


def _save_object(path: Path, drawn: Drawn) -> Record:
    """Puts buttons, coins and hooks on the radiograph: bright, with a sharp edge, of the three kinds of shapes."""
    rng, shapes = drawn.rng(), []
    pixels = np.round(drawn.pixels * 255).astype(np.uint8)
    height, width = pixels.shape
    first = int(rng.integers(3))
    for number in range(int(rng.integers(1, 4)) if rng.random() < OBJECT_SHARE else 0):
        sides = np.maximum(rng.uniform(0.04, 0.1, 2) * width, 5)
        left, top = rng.uniform(0.2, 0.7, 2) * [width, height]
        x1, y1, x2, y2 = (int(value) for value in (left, top, left + sides[0], top + sides[1]))
        kind = (first + number) % 3
        if kind == 0:
            cv2.rectangle(pixels, (x1, y1), (x2 - 1, y2 - 1), 245, -1)
            shapes.append(f"0 {x1} {y1} {x2} {y2}")
        elif kind == 1:
            centre, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2)
            cv2.ellipse(pixels, centre, axes, 0, 0, 360, 245, -1)
            shapes.append(f"1 {x1} {y1} {x2} {y2}")
        else:
            points = np.array([(x1, y2), ((x1 + x2) // 2, y1), (x2, y2), ((x1 + x2) // 2, (y1 + y2) // 2)])
            cv2.fillPoly(pixels, [points.astype(np.int32)], 245)
            shapes.append(" ".join(map(str, (2, *points.ravel().tolist()))))
    write_picture(path, pixels)
    return {"objects": ";".join(shapes)}


def _write_objects(folder: Path, records: Sequence[Record], seed: int) -> None:
    for split, name in OBJECT_FOLDERS.items():
        rows = [(Path(r["file_name"]).name, r["objects"] or None) for r in records if r["split"] == split]
        write_csv(folder / f"{name}.csv", ("image_name", "annotation"), rows)


OBJECTCXR = Layout(
    place=lambda entry: f"{OBJECT_FOLDERS[entry.split]}/{entry.index + 1:05d}.jpg",
    save=_save_object,
    tables=_write_objects,
    made=("train", "dev", "test", "train.csv", "dev.csv", "test.csv"),
    splits=("train", "val", "test"),
    sides=(1500, 3000),
)
