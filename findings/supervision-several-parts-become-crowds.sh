#!/usr/bin/env bash
# supervision's COCO export marks one object whose mask has a hole or several parts as iscrowd 1, a plain one as 0:
# whoever reads the file as COCO's own tools do loses just these objects in training and scoring.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install supervision==0.31.2 pycocotools==2.0.11
cat > "$folder/try.py" <<'PYTHON'
import json
import sys
import warnings

import numpy as np
from PIL import Image

warnings.simplefilter("ignore")
import pycocotools.coco  # noqa: E402
import supervision  # noqa: E402

folder = sys.argv[1]
plain, with_hole, two_parts = np.zeros((3, 160, 200), dtype=bool)
plain[20:80, 20:60] = True
with_hole[20:120, 100:150] = True
with_hole[50:70, 115:130] = False
two_parts[100:130, 20:50] = two_parts[110:140, 70:90] = True
masks = np.stack([plain, with_hole, two_parts])
picture = f"{folder}/r.png"
Image.fromarray(np.zeros((160, 200, 3), dtype=np.uint8)).save(picture)
boxes = supervision.mask_to_xyxy(masks).astype(float)
detections = supervision.Detections(xyxy=boxes, mask=masks, class_id=np.zeros(3, dtype=int))
dataset = supervision.DetectionDataset(["Pneumothorax"], [picture], {picture: detections})
dataset.as_coco(annotations_path=f"{folder}/annotations.json")
rows = json.load(open(f"{folder}/annotations.json"))["annotations"]
print("supervision", supervision.__version__, "iscrowd of a plain mask, one with a hole, one of two parts:",
      [row["iscrowd"] for row in rows])
coco = pycocotools.coco.COCO(f"{folder}/annotations.json")
kept = len(coco.getAnnIds(iscrowd=False))
print("objects that are no crowd to pycocotools:", kept, "of", len(rows))
sys.exit([row["iscrowd"] for row in rows] != [0, 1, 1] or kept != 1)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
# Seen: iscrowd [0, 1, 1]; objects that are no crowd: 1 of 3.
