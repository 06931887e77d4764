#!/usr/bin/env bash
# Label Studio's converter writes one and the same turned rectangle as three different boxes: COCO has the upright box around it,
# YOLO and VOC the one before it was turned, which lies elsewhere. Of two readers of a radiograph YOLO and VOC keep the one
# who came last, COCO lists the file as two images, each without the other's box: half of its findings count as background.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install label-studio-sdk==2.1.2
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import json
import logging
import pathlib
import sys
import xml.etree.ElementTree

from label_studio_sdk.converter import Converter
from PIL import Image

logging.disable(logging.CRITICAL)
folder = pathlib.Path(sys.argv[1])
CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="Nodule"/>
<Label value="Mass"/></RectangleLabels></View>"""


def rectangle(x, y, turned, label):
    value = {"x": x, "y": y, "width": 20, "height": 10, "rotation": turned, "rectanglelabels": [label]}
    return {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 1000,
            "original_height": 800, "image_rotation": 0, "value": value}


def task(number, *readers):
    annotations = [{"id": 10 * number + i, "completed_by": i, "result": [one]} for i, one in enumerate(readers)]
    return {"id": number, "data": {"image": f"/data/upload/{number}.png"}, "annotations": annotations}


(folder / "tasks").mkdir()
for number in (1, 2, 3):
    Image.new("L", (1000, 800)).save(folder / "tasks" / f"{number}.png")
(folder / "tasks.json").write_text(json.dumps([
    task(1, rectangle(40, 40, 0, "Nodule")),
    task(2, rectangle(40, 40, 90, "Nodule")),
    task(3, rectangle(10, 10, 0, "Nodule"), rectangle(50, 50, 0, "Mass")),
]))
converter = Converter(CONFIG, project_dir=str(folder / "tasks"), upload_dir=str(folder / "tasks"), download_resources=False)
pictures = str(folder / "tasks")
converter.convert_to_coco(str(folder / "tasks.json"), str(folder / "coco"), output_image_dir=pictures, is_dir=False)
converter.convert_to_yolo(str(folder / "tasks.json"), str(folder / "yolo"), is_dir=False)
converter.convert_to_voc(str(folder / "tasks.json"), str(folder / "voc"), output_image_dir=pictures, is_dir=False)

coco = json.loads((folder / "coco/result.json").read_text())
names = (folder / "yolo/classes.txt").read_text().split()


def of_coco(number):
    found = {}
    for image in coco["images"]:
        if image["file_name"].endswith(f"{number}.png"):
            found[image["id"]] = [
                (names[row["category_id"]], *[round(one) for one in row["bbox"]])
                for row in coco["annotations"] if row["image_id"] == image["id"]
            ]
    return found


def of_yolo(number):
    found = []
    for line in (folder / f"yolo/labels/{number}.txt").read_text().splitlines():
        category, x, y, width, height = map(float, line.split())
        corner = (x - width / 2) * 1000, (y - height / 2) * 800
        found.append((names[int(category)], *[round(one) for one in (*corner, width * 1000, height * 800)]))
    return found


def of_voc(number):
    tree = xml.etree.ElementTree.parse(folder / f"voc/Annotations/{number}.xml")
    found = []
    for one in tree.iter("object"):
        left, top, right, bottom = (round(float(one.find(f"bndbox/{edge}").text)) for edge in ("xmin", "ymin", "xmax", "ymax"))
        found.append((one.find("name").text, left, top, right - left, bottom - top))
    return found


print("label-studio-sdk", importlib.metadata.version("label-studio-sdk"), "(label, x, y, width, height)")
for number, what in ((1, "upright"), (2, "turned by 90 degrees"), (3, "two readers, a Nodule and a Mass")):
    print(f"{what}: COCO {of_coco(number)} YOLO {of_yolo(number)} VOC {of_voc(number)}")
plain, last = [("Nodule", 400, 320, 200, 80)], [("Mass", 500, 400, 200, 80)]
turned = list(of_coco(2).values()) == [[("Nodule", 300, 320, 100, 160)]] and of_yolo(2) == of_voc(2) == of_yolo(1) == plain
readers = of_yolo(3) == of_voc(3) == last and [len(boxes) for boxes in of_coco(3).values()] == [1, 1]
sys.exit(not (turned and readers))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
# Seen: turned by 90 degrees COCO has (300, 320, 100, 160), YOLO and VOC (400, 320, 200, 80) as of the upright one; of two readers
# COCO has two images with one box each, YOLO and VOC the Mass of the second alone.
