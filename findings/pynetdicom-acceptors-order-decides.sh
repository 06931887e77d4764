#!/usr/bin/env bash
# Where a sender offers several transfer syntaxes in one presentation context, a pynetdicom receiver takes the first of its
# own list, not of the sender's: a sender that has JPEG 2000 and offers it first is told Implicit VR, and cannot send.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pynetdicom==3.0.4 pydicom==3.0.2
cat > "$folder/try.py" <<'PYTHON'
import sys

import pydicom
import pynetdicom
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE

print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)
receiver = AE()
# The order in which somebody may well write down what is supported.
known = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless]
receiver.add_supported_context(ComputedRadiographyImageStorage, known)
server = receiver.start_server(("127.0.0.1", 0), block=False)
sender = AE()
offered = [JPEG2000Lossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian]
sender.add_requested_context(ComputedRadiographyImageStorage, offered)
link = sender.associate("127.0.0.1", server.server_address[1])
taken = link.accepted_contexts[0].transfer_syntax[0]
link.release()
server.shutdown()
print("offered", [syntax.name for syntax in offered])
print("taken  ", taken.name)
sys.exit(taken != ImplicitVRLittleEndian)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
# Seen: offered JPEG 2000 first, taken Implicit VR Little Endian.
