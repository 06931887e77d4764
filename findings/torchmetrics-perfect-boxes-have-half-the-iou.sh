#!/usr/bin/env bash
# torchmetrics' IntersectionOverUnion for detection takes the mean over all pairs of a predicted and a true box of one label,
# not over those that belong together: an image with two nodules, both found exactly, scores 0.5, one with three 0.33, while
# the function of the same name gives 1. Who chooses a model by it prefers the one that finds less in such images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install torchmetrics==1.9.0 torch==2.14.1 torchvision==0.29.1
cat > "$folder/try.py" <<'PYTHON'
import sys

import torch
import torchmetrics
from torchmetrics.detection import IntersectionOverUnion
from torchmetrics.functional.detection import intersection_over_union

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
true = torch.tensor([[100.0, 100.0, 180.0, 190.0], [400.0, 300.0, 450.0, 350.0], [700.0, 600.0, 790.0, 640.0]])
seen = []
for found, what in ((1, "one nodule, found exactly"), (2, "two"), (3, "three")):
    boxes, labels = true[:found], torch.ones(found, dtype=torch.long)
    metric = IntersectionOverUnion()
    metric.update([{"boxes": boxes, "labels": labels, "scores": torch.ones(found)}], [{"boxes": boxes, "labels": labels}])
    seen.append(round(metric.compute()["iou"].item(), 4))
    print(f"{what}: class {seen[-1]}, function {intersection_over_union(boxes, boxes).item()}")
metric = IntersectionOverUnion()
labels = torch.ones(3, dtype=torch.long)
poor = true[:1] + torch.tensor([0.0, 0.0, -8.0, 0.0])
metric.update([{"boxes": poor, "labels": labels[:1], "scores": torch.ones(1)}], [{"boxes": true[:2], "labels": labels[:2]}])
one_of_two = round(metric.compute()["iou"].item(), 4)
print("of two nodules one, at IoU 0.9, the other missed:", one_of_two)
sys.exit(seen != [1.0, 0.5, 0.3333] or one_of_two != 0.45)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: 1.0, 0.5 and 0.3333 for one, two and three nodules found exactly, where the function gives 1.0; 0.45 for one of two.
