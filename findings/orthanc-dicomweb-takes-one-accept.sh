#!/usr/bin/env bash
# Accept may list several formats with commas (RFC 9110 12.5.1), as PS3.18 8.7 has it, too. Orthanc's
# DICOMweb plugin takes what follows the comma for a part of the transfer syntax, and answers 400.
# Needs Debian's packages orthanc and orthanc-dicomweb (seen with 1.10.1 and 1.7).
set -euo pipefail
plugin=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
export PATH="$PATH:/usr/sbin"
command -v Orthanc > /dev/null && [ -e "$plugin" ] || { echo "Orthanc and its DICOMweb plugin are not here"; exit 2; }
folder=$(mktemp -d)
trap 'kill "$orthanc" 2> /dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pydicom==3.0.2
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$folder/orthanc.json" <<JSON
{"StorageDirectory": "$folder/storage", "IndexDirectory": "$folder/index", "HttpPort": $port, "DicomServerEnabled": false,
 "RemoteAccessAllowed": false, "AuthenticationEnabled": false, "Plugins": ["$plugin"]}
JSON
Orthanc "$folder/orthanc.json" > "$folder/log" 2>&1 &
orthanc=$!
cat > "$folder/try.py" <<'PYTHON'
import io
import sys
import time
import urllib.error
import urllib.request

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

base = f"http://127.0.0.1:{sys.argv[1]}"
for _ in range(600):
    try:
        urllib.request.urlopen(f"{base}/system").close()
        break
    except OSError:
        time.sleep(0.1)
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "2.25.1"
image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality, image.PatientID = "2.25.2", "2.25.3", "CR", "1"
image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 64, 64, 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
image.PixelData = bytes(64 * 64)
content = io.BytesIO()
image.save_as(content, enforce_file_format=True)
urllib.request.urlopen(f"{base}/instances", content.getvalue()).close()


def status(accept):
    url = f"{base}/dicom-web/studies/2.25.2/series/2.25.3/instances/2.25.1"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})).status
    except urllib.error.HTTPError as error:
        return error.code


stored = 'multipart/related; type="application/dicom"; transfer-syntax=*'
plain = 'multipart/related; type="application/dicom"'
found = {accept: status(accept) for accept in (stored, f"{stored}, {plain};q=0.5")}
for accept, code in found.items():
    print(code, "for Accept:", accept)
sys.exit(list(found.values()) != [200, 400])
PYTHON
Orthanc --version | sed -n 1p
"$folder/venv/bin/python" "$folder/try.py" "$port"
