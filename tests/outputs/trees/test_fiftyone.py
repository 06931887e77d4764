"""Exported trees where FiftyOne's importers look for each of their parts.

FiftyOne itself is not installed: what its importers open, and how they take numbers, was read in coco.py, yolo.py and
voc.py of fiftyone/utils, and is followed here by hand.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from test_trees import make

from xray.outputs.trees.export import export_tree

SIDES = ("xmin", "ymin", "xmax", "ymax")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("plain"), masks="some", unsure=False)


def truth(store, split):
    """Number of the radiograph → (category, x, y, width, height in shares), sorted."""
    found = {}
    for row, record in enumerate(store.records):
        if record["split"] == split:
            size = np.array([record["width"], record["height"]] * 2)
            chosen = np.flatnonzero(store.boxes.images == row).tolist()
            boxes = [
                (store.categories[int(store.boxes.labels[box])], *(store.boxes.boxes[box] / size).tolist())
                for box in chosen
            ]
            found[record["source_id"].rpartition("/")[2]] = sorted(
                (name, x1, y1, x2 - x1, y2 - y1) for name, x1, y1, x2, y2 in boxes
            )
    return found


def numbered(path):
    return Path(path).stem.rpartition("_")[2]


def same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for key, boxes in expected.items():
        assert [box[0] for box in sorted(found[key])] == [box[0] for box in boxes]
        for one, other in zip(sorted(found[key]), boxes, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=tolerance)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_coco_detection_dataset(store, tmp_path, split):
    # COCODetectionDataset with data_path=OUT/SPLIT, labels_path=OUT/annotations/instances_SPLIT.json.
    export_tree(store, tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out" / "annotations" / f"instances_{split}.json").read_text())
    media = {path.name: path for path in (tmp_path / "out" / split).rglob("*") if path.is_file()}
    # Classes are a list, which it indexes by category_id; ids without a category get their number as name.
    names = {category["id"]: category["name"] for category in content["categories"]}
    classes = [names.get(number, str(number)) for number in range(max(names) + 1)]
    found = {}
    for entry in content["images"]:
        assert entry["file_name"] in media
        rows = [row for row in content["annotations"] if row["image_id"] == entry["id"]]
        found[numbered(entry["file_name"])] = [
            (
                classes[row["category_id"]],
                *(value / entry[side] for value, side in zip(row["bbox"], ["width", "height"] * 2, strict=True)),
            )
            for row in rows
        ]
        for row in rows:
            # What is none of COCO's keys becomes an attribute of a detection, which has these names already.
            assert not {"label", "bounding_box", "mask", "confidence", "tags", "attributes", "keypoints"} & row.keys()
            # An empty outline is no mask, others are polygons or run lengths.
            assert isinstance(row["segmentation"], list | dict)
    same(found, truth(store, split), 1e-9)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_yolo_v5_dataset(store, tmp_path, split):
    # YOLOv5Dataset with dataset_dir=OUT, yaml_path="data.yaml", split=SPLIT.
    export_tree(store, tmp_path / "out", "yolo", masks="none")
    description = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    # Without `path`, folders are seen from the YAML file; names may be a dictionary.
    assert "path" not in description
    folder = tmp_path / "out" / description[split]
    found = {}
    for picture in sorted(path for path in folder.rglob("*") if path.is_file()):
        before, after = str(picture).rsplit("/images/", 1)
        labels = Path(f"{before}/labels/{after}").with_suffix(".txt")
        # A picture whose text file is missing would be left out.
        rows = [line.split() for line in labels.read_text().splitlines()]
        boxes = [(description["names"][int(number)], *map(float, rest)) for number, *rest in rows]
        found[numbered(picture)] = [(name, x - w / 2, y - h / 2, w, h) for name, x, y, w, h in boxes]
    same(found, truth(store, split), 1e-9)


def test_voc_detection_dataset(store, tmp_path):
    # VOCDetectionDataset with dataset_dir=OUT, data_path="JPEGImages", labels_path="Annotations": all splits at once.
    export_tree(store, tmp_path / "out", "voc")
    media = {path.stem for path in (tmp_path / "out" / "JPEGImages").iterdir()}
    found = {}
    for path in sorted((tmp_path / "out" / "Annotations").iterdir()):
        tree = ElementTree.parse(path).getroot()
        assert path.stem in media
        assert Path(tree.findtext("filename")).stem == path.stem
        width, height = int(tree.findtext("size/width")), int(tree.findtext("size/height"))
        assert int(tree.findtext("size/depth")) == 1
        corners = [
            (each.findtext("name"), *(int(float(each.findtext(f"bndbox/{side}"))) for side in SIDES))
            for each in tree.iterfind("object")
        ]
        found[numbered(path)] = [
            (name, x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height) for name, x1, y1, x2, y2 in corners
        ]
    # It takes VOC's pixels for edges: a box starts up to a pixel later, and is rounded to whole pixels.
    expected = {key: boxes for split in ("train", "val", "test") for key, boxes in truth(store, split).items()}
    same(found, expected, 2 / 64)
