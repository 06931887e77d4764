#!/usr/bin/env bash
# A comment marker between the last tile-part of JPEG 2000 and its end, as a large maker's radiographs have it, makes OpenJPEG
# refuse the whole codestream although every tile is there; without those bytes it decodes exactly. FFmpeg reads both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pillow==13.0.0 pylibjpeg-openjpeg==2.6.0 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import io
import sys

import numpy as np
import openjpeg
from PIL import Image, features

print("pillow", importlib.metadata.version("pillow"), "with OpenJPEG", features.version("jpg_2000"))
print("pylibjpeg-openjpeg", importlib.metadata.version("pylibjpeg-openjpeg"))
pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
stream = io.BytesIO()
Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
plain = stream.getvalue()
assert plain.endswith(b"\xff\xd9")
comment = plain[:-2] + b"\xff\x64\x00\x0b\x00\x01PADDING" + b"\xff\xd9"
decoders = {
    "pillow": lambda data: np.asarray(Image.open(io.BytesIO(data))),
    "pylibjpeg-openjpeg": openjpeg.decode,
}
refused = []
for name, decode in decoders.items():
    assert np.array_equal(decode(plain), pixels)
    try:
        decode(comment)
    except Exception as error:
        refused.append(name)
        print(f"{name}: plain: exact; with a comment before its end: {type(error).__name__}: {error}")
    else:
        print(f"{name}: both read")
sys.exit(len(refused) != len(decoders))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>/dev/null
# Seen: pillow: OSError: broken data stream when reading image file; pylibjpeg-openjpeg: RuntimeError: … failed to decode image.
