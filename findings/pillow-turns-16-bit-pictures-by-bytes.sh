#!/usr/bin/env bash
# Pillow resizes 16-bit pictures (mode I;16) rightly, but turns and shifts them by BILINEAR and BICUBIC as if each byte were a
# pixel: a radiograph of 12 bits becomes values below 256 in the wrong places, without an error. ImageStat takes the bytes of
# the left half for the pixels. It hurts who augments 16-bit PNG radiographs, by torchvision's transforms of Pillow pictures, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pillow==13.0.0 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import io
import sys

import numpy as np
import PIL
from PIL import Image, ImageStat

values = np.full((16, 16), 2000, dtype=np.uint16)
values[:, 8:] = 3000
file = io.BytesIO()
Image.fromarray(values).save(file, "PNG")
picture = Image.open(file)
print("Pillow", PIL.__version__, "NumPy", np.__version__, "mode of a 16-bit PNG file:", picture.mode)


def middle(picture):
    return np.asarray(picture)[7, 4:12].tolist()


rows = {}
for name in ("NEAREST", "BILINEAR", "BICUBIC"):
    way = Image.Resampling[name]
    rows[name] = middle(picture.rotate(5, way))
    print(f"turned by 5 degrees, {name}:", rows[name])
    print("    the same values as float:", [round(one) for one in middle(Image.fromarray(values.astype(np.float32)).rotate(5, way))])
resized = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR))
mean = ImageStat.Stat(picture).mean[0]
print("resized, BILINEAR:", resized[4].tolist(), "mean by ImageStat:", mean, "by NumPy:", values.mean(), "extrema:", picture.getextrema())
right = min(rows["NEAREST"]) == 2000 and resized.min() == 2000
sys.exit(not (right and max(rows["BILINEAR"] + rows["BICUBIC"]) < 256 and mean == (2000 % 256 + 2000 // 256) / 2))
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: turned by 5 degrees, NEAREST gives 2000 and 3000, BILINEAR [196, 17, 198, 16, 199, 14, 201, 13], BICUBIC
# [206, 8, 206, 8, 206, 7, 207, 7]; resized [2000, 2000, 2000, 2125, 2875, 3000, 3000, 3000]; mean by ImageStat 107.5, by NumPy 2500.
