#!/usr/bin/env bash
# pycocotools reads all parts of a polygon mask as what the first one looks like: a part of two points, as labelling tools
# leave behind, is an empty part where it stands last and a TypeError where it stands first, for one and the same mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pycocotools==2.0.11 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import sys

from pycocotools import mask

lung, sliver = [40, 30, 110, 30, 110, 90, 40, 90], [45, 35, 46, 35]
print("pycocotools", importlib.metadata.version("pycocotools"))
last = [int(mask.area(part)) for part in mask.frPyObjects([lung, sliver], 160, 200)]
print("sliver last: areas", last)
try:
    first = str(mask.frPyObjects([sliver, lung], 160, 200))
except TypeError as error:
    first = f"TypeError: {error}"
print("sliver first:", first)
sys.exit(last != [4200, 0] or not first.startswith("TypeError"))
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: areas [4200, 0]; TypeError: Argument 'bb' has incorrect type (expected numpy.ndarray, got list).
