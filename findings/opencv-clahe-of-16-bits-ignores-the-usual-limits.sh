#!/usr/bin/env bash
# OpenCV's CLAHE takes 16-bit pictures, but its clip limit is shared out among 65536 grey levels and at least 1: in tiles of
# 128 pixels a side all limits up to 4 give the same picture, with more noise than 8 bits have at 2, and values of 12 bits come
# out beyond 4095. Who brings a tuned limit from 8-bit to 12- or 16-bit radiographs tunes a number that does nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import sys

import cv2
import numpy as np

print("OpenCV", cv2.__version__, "NumPy", np.__version__)
random = np.random.default_rng(0)
y, x = np.mgrid[:1024, :1024]
picture = 0.5 + 0.2 * np.sin(x / 200) * np.cos(y / 170) + 0.01 * random.standard_normal((1024, 1024))


def noise(values):
    """What a wide blur takes away."""
    values = values.astype(np.float32)
    return float((values - cv2.GaussianBlur(values, (0, 0), 8)).std())


limits, made = (1, 2, 4, 8), {}
for bits, kind in ((8, np.uint8), (12, np.uint16), (16, np.uint16)):
    values = (picture.clip(0, 1) * (2**bits - 1)).round().astype(kind)
    made[bits] = [cv2.createCLAHE(limit, (8, 8)).apply(values) for limit in limits]
    print(f"{bits} bits, clip limits {limits}: noise times", [round(noise(one) / noise(values), 2) for one in made[bits]],
          "highest value", [int(one.max()) for one in made[bits]])
same = {bits: [np.array_equal(one, pictures[0]) for one in pictures] for bits, pictures in made.items()}
print("equal to that of limit 1:", same)
wide = [True, True, True, False]
sys.exit(not (same == {8: [True, False, False, False], 12: wide, 16: wide} and made[12][1].max() > 4095))
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: of 8 bits four pictures, noise times 1.78, 2.54, 3.99, 6.59; of 12 and 16 bits limits 1, 2 and 4 are one picture, noise
# times 4.75 (12 bits, highest value 5327) and 3.73 (16 bits).
