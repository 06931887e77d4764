"""The PACS Orthanc with its DICOMweb plugin on loopback, as Debian's packages orthanc and orthanc-dicomweb have it."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Orthanc:
    """A running Orthanc; a context manager. users: name → password, None for no authentication."""

    def __init__(self, folder, users=None, certificate=None, **settings):
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None or not PLUGIN.exists():
            pytest.skip("Orthanc with DICOMweb is not here (Debian's packages orthanc and orthanc-dicomweb)")
        self.users, self.port = users, free_port()
        self.scheme = "https" if certificate else "http"
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": users is not None,
            "AuthenticationEnabled": users is not None,
            "RegisteredUsers": users or {},
            "SslEnabled": certificate is not None,
            "SslCertificate": str(certificate or ""),
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": certificate is not None},
            **settings,
        }
        folder.mkdir()
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--verbose", str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder
            )

    def __enter__(self):
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def address(self):
        return f"{self.scheme}://localhost:{self.port}/dicom-web"

    def ask(self, path, data=None, method=None):
        """Orthanc's own API, which needs no DICOMweb."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        if self.users:
            word = base64.b64encode(":".join(next(iter(self.users.items()))).encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        with urllib.request.urlopen(request, timeout=600) as answer:
            content = answer.read()
        return content if path.endswith("/file") else json.loads(content)

    def put(self, *paths):
        """Stores DICOM files."""
        for path in paths:
            self.ask("/instances", Path(path).read_bytes())

    def modalities(self):
        """Modality → SOP Instance UIDs of all that is stored."""
        found = {}
        for series in self.ask("/series?expand"):
            tags = [self.ask(f"/instances/{one}")["MainDicomTags"] for one in series["Instances"]]
            found.setdefault(series["MainDicomTags"]["Modality"], []).extend(tag["SOPInstanceUID"] for tag in tags)
        return {modality: sorted(uids) for modality, uids in found.items()}
