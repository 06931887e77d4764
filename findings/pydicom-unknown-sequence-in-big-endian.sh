#!/usr/bin/env bash
# A sequence of VR UN and undefined length is implicit little endian inside, whatever the file is (CP-246, PS3.5 6.2.2).
# pydicom reads it so in little endian; in a big endian file it looks for big endian items and gives the file up.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import io
import struct
import sys
import warnings

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

warnings.simplefilter("ignore")
print("pydicom", pydicom.__version__)
item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
item += struct.pack("<HHL", 0x0008, 0x1150, 8) + b"1.2.840\0"
item += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
outcomes = []
for syntax, order in ((ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">")):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    dataset.Rows = 7
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    data = file.getvalue()
    at = data.index(struct.pack(f"{order}HH", 0x0028, 0x0010))
    sequence = struct.pack(f"{order}HH2sHL", 0x0008, 0x2112, b"UN", 0, 0xFFFFFFFF) + item
    try:
        read = pydicom.dcmread(io.BytesIO(data[:at] + sequence + data[at:]))
        outcomes.append(f"read, Rows {read.Rows}")
    except Exception as error:
        outcomes.append(f"{type(error).__name__}: {error}")
    print(f"{syntax.name}: {outcomes[-1]}")
sys.exit(outcomes[0] != "read, Rows 7" or outcomes[1].startswith("read"))
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
