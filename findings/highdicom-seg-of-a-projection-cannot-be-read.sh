#!/usr/bin/env bash
# highdicom writes a segmentation of a projection image that has a frame of reference and Pixel Spacing, and cannot read
# it again: it copies the spacing without a Slice Thickness, which projections do not have and which is needed of volumes
# alone (PS3.3 C.7.6.16.2.1), and its own reader asks for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install highdicom==0.28.2 pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import logging
import sys

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

logging.disable(logging.CRITICAL)


def segmentation_of(spacing):
    """Of a digital radiograph of 8 x 8 pixels, as a file that is read again."""
    source = Dataset()
    source.SOPClassUID, source.Modality = DigitalXRayImageStorageForPresentation, "DX"
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(source, keyword, generate_uid())
    source.Rows = source.Columns = 8
    source.PatientID, source.PatientName = "1", "Test^Patient"
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(source, keyword, "")
    source.ReferringPhysicianName, source.InstanceNumber = "", 1
    if spacing:
        source.PixelSpacing = spacing
    algorithm = highdicom.AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
    segment = highdicom.seg.SegmentDescription(1, "a", codes.SCT.Tissue, codes.SCT.Bone, "AUTOMATIC", algorithm)
    made = highdicom.seg.Segmentation(
        [source], np.ones((1, 8, 8), np.uint8), "BINARY", [segment], generate_uid(), 1, generate_uid(), 1, "m", "n",
        "1", "2",
    )
    path = f"{sys.argv[1]}/seg.dcm"
    made.save_as(path)
    try:
        return f"read, {int(highdicom.seg.segread(path).pixel_array.sum())} pixels"
    except AttributeError as error:
        return f"AttributeError: {error}"


print("highdicom", highdicom.__version__)
without, with_it = segmentation_of(None), segmentation_of([0.143, 0.143])
print("without Pixel Spacing:", without)
print("with Pixel Spacing:   ", with_it)
sys.exit(without != "read, 64 pixels" or not with_it.startswith("AttributeError: Sequence does not have"))
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
# Seen: read, 64 pixels; AttributeError: Sequence does not have the required attributes for a Pixel Measures Sequence.
