#!/usr/bin/env bash
# A requestor of C-GET that offers each transfer syntax in a presentation context of its own, uncompressed first, gets from
# dcmqrscp what is stored uncompressed, and not what is stored in RLE, though the context for that was accepted: it
# sends in the first context of the SOP class, and does not look for the one that fits the file. Where the context of
# RLE is the only one, it sends that image. xray therefore asks again, with one compressed syntax at a time.
# Needs dcmtk (Debian's package dcmtk; seen with 3.6.7).
set -euo pipefail
command -v dcmqrscp > /dev/null || { echo "dcmqrscp is not here (Debian's package dcmtk)"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pynetdicom==3.0.4 pydicom==3.0.2 numpy==2.3.5
cat > "$folder/try.py" <<'PYTHON'
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

folder = pathlib.Path(sys.argv[1])
version = subprocess.run(["dcmqrscp", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__, version)


def image(number, syntax):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, f"2.25.1{number}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "2.25.2", "2.25.3", "CR"
    dataset.PatientName, dataset.PatientID, dataset.StudyDate, dataset.StudyTime = "A^B", "1", "20240101", "120000"
    dataset.StudyID = dataset.AccessionNumber = "1"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 64, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    pixels = np.random.default_rng(number).integers(0, 4096, (64, 64), dtype=np.uint16)
    dataset.PixelData = pixels.tobytes()
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(contexts):
    ae, came = AE(ae_title="ME"), []
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    for syntax in contexts:
        ae.add_requested_context(ComputedRadiographyImageStorage, syntax)

    def keep(event):
        came.append(event.context.transfer_syntax.name)
        return 0

    role = build_role(ComputedRadiographyImageStorage, scp_role=True)
    link = ae.associate("127.0.0.1", at, ae_title="PACS", ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, keep)])
    accepted = [context.transfer_syntax[0].name for context in link.accepted_contexts[1:]]
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "2.25.2"
    for _ in link.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet):
        pass
    link.release()
    print("accepted", accepted, "came", came)
    return came


at, store = port(), folder / "store"
store.mkdir()
(folder / "qr.cfg").write_text(
    f"NetworkTCPPort = {at}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
    f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nPACS {store} RW (200, 1024mb) ANY\nAETable END\n"
)
server = subprocess.Popen(["dcmqrscp", "-c", str(folder / "qr.cfg"), "+xr", str(at)], stderr=subprocess.DEVNULL)
try:
    for _ in range(100):
        time.sleep(0.1)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", at)) == 0:
                break
    for number, syntax in enumerate((ExplicitVRLittleEndian, RLELossless)):
        ae = AE(ae_title="ME")
        ae.add_requested_context(ComputedRadiographyImageStorage, syntax)
        link = ae.associate("127.0.0.1", at, ae_title="PACS")
        assert link.send_c_store(image(number, syntax)).Status == 0
        link.release()
    both, alone = get([ExplicitVRLittleEndian, RLELossless]), get([RLELossless])
finally:
    server.kill()
sys.exit(both != [ExplicitVRLittleEndian.name] or alone != [RLELossless.name])
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
# Seen: with both contexts accepted only the uncompressed image comes; with that of RLE alone, that image.
