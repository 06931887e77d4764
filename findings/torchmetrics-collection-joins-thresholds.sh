#!/usr/bin/env bash
# A MetricCollection of torchmetrics decides by the values after the first batch which metrics may share their counts, not by
# how they are set: where that batch has only normal radiographs, recall at 0.5 and at 0.8 count alike so far, and are one and
# the same number for the whole set, without a word. Which number depends on the order of the images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install torchmetrics==1.9.0 torch==2.14.1
cat > "$folder/try.py" <<'PYTHON'
import sys
import warnings

import torch
import torchmetrics
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryRecall, BinarySpecificity

warnings.simplefilter("error")
print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
normal = torch.tensor([0.1, 0.2, 0.1, 0.3]), torch.tensor([0, 0, 0, 0])
mixed = torch.tensor([0.6, 0.9, 0.7, 0.6]), torch.tensor([1, 1, 1, 0])


def scored(batches):
    collection = MetricCollection({
        "recall at 0_5": BinaryRecall(0.5), "recall at 0_8": BinaryRecall(0.8),
        "specificity at 0_5": BinarySpecificity(0.5), "specificity at 0_8": BinarySpecificity(0.8),
    })
    for probability, label in batches:
        collection.update(probability, label)
    return {name: round(value.item(), 4) for name, value in collection.compute().items()}


orders = scored([normal, mixed]), scored([mixed, normal])
print("normal radiographs in the first batch: ", orders[0])
print("the same images, the normal ones last: ", orders[1])
sys.exit(not (orders[0]["recall at 0_8"] == 1.0 and orders[1]["recall at 0_8"] == 0.3333))
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: with the normal radiographs in the first batch recall at 0.5 and at 0.8 are 1.0 and specificity is 0.8 at both; with them
# last, recall is 1.0 and 0.3333, specificity 0.8 and 1.0, which is right.
