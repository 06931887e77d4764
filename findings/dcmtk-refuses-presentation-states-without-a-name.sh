#!/usr/bin/env bash
# Patient's Name is of type 2 (PS3.3 C.7.1.1): it may be empty, and is so after some anonymisation. dcmtk shows such an image,
# but refuses its presentation state, which must name the same patient; and it shows a SIGMOID window as a LINEAR one.
# Needs dcmtk (Debian's package dcmtk; seen with 3.6.7).
set -euo pipefail
command -v dcmp2pgm > /dev/null || { echo "dcmp2pgm is not here (Debian's package dcmtk)"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install highdicom==0.28.2 pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.pr import GrayscaleSoftcopyPresentationState, SoftcopyVOILUTTransformation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

folder, name = Path(sys.argv[1]), sys.argv[2]
print("highdicom", highdicom.__version__, "pydicom", pydicom.__version__, f"patient's name: {name!r}")
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "2.25.1"
image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "2.25.2", "2.25.3", "CR"
image.PatientName, image.PatientID = name, "1"
image.PatientBirthDate = image.PatientSex = image.StudyDate = image.StudyTime = image.StudyID = ""
image.AccessionNumber = image.ReferringPhysicianName = ""
image.SeriesNumber = image.InstanceNumber = 1
image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 1, 256, 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
image.PixelData = np.arange(256, dtype=np.uint8).tobytes()
image.save_as(folder / "image.dcm", enforce_file_format=True)
state = GrayscaleSoftcopyPresentationState(
    [image], "2.25.4", 1, "2.25.5", 1, "maker", "model", "1", "1", "LABEL",
    voi_lut_transformations=[SoftcopyVOILUTTransformation(128.0, 100.0, voi_lut_function="SIGMOID")],
)
state.save_as(folder / "state.dcm")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder" ""
dcmp2pgm --version | sed -n 1p
dcmp2pgm --quiet "$folder/image.dcm" "$folder/image.pgm" && echo "an image without a name is shown"
if dcmp2pgm --pstate "$folder/state.dcm" "$folder/image.dcm" "$folder/shown.pgm"; then
  echo "and so is its presentation state"
  exit 1
fi
"$folder/venv/bin/python" "$folder/try.py" "$folder" "Named^Patient"
dcmp2pgm --quiet --pstate "$folder/state.dcm" "$folder/image.dcm" "$folder/shown.pgm"
"$folder/venv/bin/python" - "$folder/shown.pgm" <<'PYTHON'
import math
import sys

shown = open(sys.argv[1], "rb").read()[-256:]
sigmoid = round(255 / (1 + math.exp(-4 * (88 - 128) / 100)))
linear = round(255 * ((88 - 127.5) / 99 + 0.5))
print(f"value 88 is shown as {shown[88]}; SIGMOID is {sigmoid}, LINEAR {linear}")
sys.exit(abs(shown[88] - linear) > 1)
PYTHON
