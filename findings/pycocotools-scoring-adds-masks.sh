#!/usr/bin/env bash
# pycocotools' loadRes writes into the rows that it scores: each box gets its own outline as a mask, so that who saves boxes
# after scoring them hands the next tool a file of masks, whose Dice and mask AP then say nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pycocotools==2.0.11 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys

from pycocotools.coco import COCO

truth = COCO()
truth.dataset = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}
rows = [{"image_id": 1, "category_id": 1, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.9}]
before = sorted(rows[0])
with contextlib.redirect_stdout(io.StringIO()):
    truth.createIndex()
    truth.loadRes(rows)
print("pycocotools", importlib.metadata.version("pycocotools"))
print("before:", before)
print("after: ", sorted(rows[0]))
print("its mask:", rows[0].get("segmentation"))
sys.exit(rows[0].get("segmentation") != [[10.0, 20.0, 10.0, 60.0, 40.0, 60.0, 40.0, 20.0]])
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: before ['bbox', 'category_id', 'image_id', 'score']; after ['area', 'bbox', 'category_id', 'id', 'image_id',
# 'iscrowd', 'score', 'segmentation']; its mask [[10.0, 20.0, 10.0, 60.0, 40.0, 60.0, 40.0, 20.0]].
