"""Trees of labelling tools and trainers: COCO, YOLO, Pascal VOC, each in its format's own layout, with three splits."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from xray.findings import FINDINGS
from xray.phantoms.layout import Layout, Record, write_json
from xray.phantoms.tree import write_text

SPLITS = ("train", "val", "test")
YEAR = 2017


def _write_coco(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Ids count in each file by itself, those of categories have gaps, and findings have outlines, as in COCO."""
    ids = {name: 3 * number + 2 for number, name in enumerate(FINDINGS)}
    categories = [{"id": ids[name], "name": name, "supercategory": "finding"} for name in FINDINGS]
    (folder / "annotations").mkdir(exist_ok=True)
    for split in SPLITS:
        images: list[Record] = []
        annotations: list[Record] = []
        for number, record in enumerate(record for record in records if record["split"] == split):
            name = Path(record["file_name"]).name
            images.append({"id": number, "file_name": name, "width": record["width"], "height": record["height"]})
            for finding in record["findings"]:
                x1, y1, x2, y2 = finding["box"]
                polygons = [[value for point in outline for value in point] for outline in finding["outlines"]]
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": ids[finding["name"]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
                    "segmentation": polygons,
                })  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / f"instances_{split}{YEAR}.json", content)


COCO = Layout(
    place=lambda entry: f"{entry.split}{YEAR}/{entry.index:012d}.png",
    tables=_write_coco,
    made=(*(f"{split}{YEAR}" for split in SPLITS), "annotations"),
    splits=SPLITS,
    source="tree",
)


def _write_yolo(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Six digits; of the radiographs without findings every second has no label file, the others an empty one."""
    n_empty = 0
    for record in records:
        lines = []
        for finding in record["findings"]:
            x1, y1, x2, y2 = finding["box"]
            width, height = record["width"], record["height"]
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{FINDINGS.index(finding['name'])} {' '.join(f'{share:.6f}' for share in shares)}\n")
        n_empty += not lines
        path = folder / record["file_name"].replace("images/", "labels/", 1).replace(".png", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines or n_empty % 2:
            write_text(path, "".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(FINDINGS))
    splits = "".join(f"{split}: images/{split}\n" for split in SPLITS)
    write_text(folder / "data.yaml", f"path: /datasets/phantoms\n{splits}names:\n{names}")


YOLO = Layout(
    place=lambda entry: f"images/{entry.split}/{entry.image_id}.png",
    tables=_write_yolo,
    made=("images", "labels", "data.yaml"),
    splits=SPLITS,
    source="tree",
)


def _write_voc(folder: Path, records: Sequence[Record], seed: int) -> None:
    """Corners are whole pixels, counted from 1, the last one inside, as in VOC itself."""
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for record in records:
        stem = Path(record["file_name"]).stem
        lists[record["split"]].append(stem)
        objects = ""
        for finding in record["findings"]:
            x1, y1, x2, y2 = (round(value) for value in finding["box"])
            corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": max(x2, x1 + 1), "ymax": max(y2, y1 + 1)}
            sides = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items())
            objects += (
                f"<object><name>{escape(finding['name'])}</name><pose>Unspecified</pose><truncated>0</truncated>"
                f"<difficult>0</difficult><bndbox>{sides}</bndbox></object>"
            )
        write_text(
            folder / "Annotations" / f"{stem}.xml",
            f"<annotation><folder>VOC2012</folder><filename>{stem}.jpg</filename><source><database>The VOC2007 Database"
            f"</database><annotation>PASCAL VOC2007</annotation></source><size><width>{record['width']}</width><height>"
            f"{record['height']}</height><depth>1</depth></size><segmented>0</segmented>{objects}</annotation>\n",
        )
    for split, stems in (lists | {"trainval": [*lists["train"], *lists["val"]]}).items():
        write_text(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in sorted(stems)))


VOC = Layout(
    place=lambda entry: f"JPEGImages/2012_{entry.index:06d}.jpg",
    tables=_write_voc,
    made=("JPEGImages", "Annotations", "ImageSets"),
    splits=SPLITS,
    source="tree",
)
