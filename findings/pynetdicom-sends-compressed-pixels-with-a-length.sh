#!/usr/bin/env bash
# A data set with compressed pixels made in memory is written to a file by pydicom as the standard has it (undefined length),
# but sent by pynetdicom with a defined one: whoever sends what they made hands receivers pixel data that strict readers refuse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pynetdicom==3.0.4 pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import io
import sys

import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

UNDEFINED = b"\xff\xff\xff\xff"
TAG = b"\xe0\x7f\x10\x00OB\x00\x00"

print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)
dataset = Dataset()
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = RLELossless
dataset.SOPClassUID = SecondaryCaptureImageStorage
dataset.SOPInstanceUID = "2.25.1"
dataset.Rows = dataset.Columns = 2
dataset.BitsAllocated = dataset.BitsStored = 8
dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
dataset.PhotometricInterpretation = "MONOCHROME2"
# One segment of PackBits: four pixels of 7.
frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\xfd\x07"
dataset.PixelData = encapsulate([frame])
dataset["PixelData"].VR = "OB"

came = []


def keep(event):
    came.append(event.encoded_dataset())
    return 0x0000


receiver = AE()
receiver.add_supported_context(SecondaryCaptureImageStorage, RLELossless)
server = receiver.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
sender = AE()
sender.add_requested_context(SecondaryCaptureImageStorage, RLELossless)
link = sender.associate("127.0.0.1", server.server_address[1])
status = link.send_c_store(dataset).Status
link.release()
server.shutdown()
file = io.BytesIO()
dataset.save_as(file, enforce_file_format=True)
lengths = [data[data.index(TAG) + len(TAG) :][:4] for data in (came[0], file.getvalue())]
print(f"status {status:04X}; length of the pixel data as sent {lengths[0].hex()}, as saved {lengths[1].hex()}")
sys.exit(lengths[0] == UNDEFINED or lengths[1] != UNDEFINED)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: status 0000; as sent 52000000, as saved ffffffff.
