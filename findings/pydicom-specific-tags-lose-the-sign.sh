#!/usr/bin/env bash
# In Implicit VR Little Endian the sign of Pixel Padding Value, Smallest Image Pixel Value and others stands in Pixel
# Representation alone. pydicom's dcmread, asked for such an element by specific_tags without Pixel Representation, gives an
# unsigned number, and no warning: -2000 is 63536, and who indexes headers or masks padding by it masks nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import io
import sys
import warnings

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ImplicitVRLittleEndian

warnings.simplefilter("error")
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
image.SOPClassUID, image.SOPInstanceUID, image.Modality = ComputedRadiographyImageStorage, "2.25.1", "CR"
image.SamplesPerPixel, image.PhotometricInterpretation, image.Rows, image.Columns = 1, "MONOCHROME2", 2, 2
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
image.PixelPaddingValue, image.SmallestImagePixelValue = -2000, -1024
image.PixelData = bytes(8)
file = io.BytesIO()
image.save_as(file, enforce_file_format=True)

print("pydicom", pydicom.__version__)
seen = []
names = ["PixelPaddingValue", "SmallestImagePixelValue"]
for tags in (None, names, [*names, "PixelRepresentation"]):
    file.seek(0)
    read = pydicom.dcmread(file, specific_tags=tags)
    seen.append([read[name].value for name in names])
    print(f"specific_tags={tags}:", {name: (read[name].VR, read[name].value) for name in names})
sys.exit(seen != [[-2000, -1024], [63536, 64512], [-2000, -1024]])
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: -2000 and -1024 of a whole file, 63536 and 64512 (VR US) with specific_tags of these two, -2000 and -1024 (VR SS) once
# PixelRepresentation is among them.
