"""The DICOM node between programs that people use: dcmtk's storescu and storescp, and the PACS Orthanc."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pycocotools import mask as coco_mask
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.results import DicomResults
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.serving.dicom_node import DicomNode, Limits
from xray.serving.dicom_peers import Peer
from xray.structures.boxes import BoxTable
from xray.structures.radiograph_findings import RadiographFindings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = DicomResults(Algorithm("xray", "0.1.0"))
LIMITS = Limits(seconds=10.0, first_wait=0.1, attempts=100)
MASK = np.zeros((64, 80), np.uint8)
MASK[10:30, 20:50] = 1
FINDINGS = RadiographFindings(
    BoxTable.of([0], [1], [[20, 10, 50, 30]], [0.9]),
    {0: {"size": [64, 80], "counts": coco_mask.encode(np.asfortranarray(MASK))["counts"].decode()}},
    {1: "Pneumothorax"},
)


def program(name, package):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not here (Debian's package {package})")
    return found


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(what, seconds=600):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def listens(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@pytest.fixture
def radiograph(tmp_path):
    """A CR file of 80 x 64."""
    return written(tmp_path / "radiograph.dcm", ExplicitVRLittleEndian)


def written(path, syntax):
    rng = np.random.default_rng(4)
    pixels = rng.random((64, 80), dtype=np.float32)
    dataset = dicom_of(pixels, Storage(12, True, True, syntax, True), "peer", 0.14, "F", 40, "PA", rng)
    save_dicom(dataset, path)
    return path


def found_in(path):
    """The same box and mask in every radiograph."""
    return RESULTS.of(path, FINDINGS).values()


def test_dcmtk_sends_and_dcmtk_receives(radiograph, tmp_path):
    storescu, storescp = program("storescu", "dcmtk"), program("storescp", "dcmtk")
    inbox, port = tmp_path / "inbox", free_port()
    inbox.mkdir()
    receiver = subprocess.Popen(
        [storescp, "-od", inbox, "-aet", "PACS", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: listens(port))
        with DicomNode(found_in, Peer("PACS", "127.0.0.1", port), 0, limits=LIMITS) as node:
            echo = [program("echoscu", "dcmtk"), "-aec", "XRAY", "127.0.0.1", str(node.port)]
            assert subprocess.run(echo, timeout=600).returncode == 0
            command = [storescu, "-v", "-aec", "XRAY", "127.0.0.1", str(node.port), radiograph]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            wait_for(lambda: node.counts.returned == 2)
    finally:
        end(receiver)
    kept = {dataset.Modality: dataset for dataset in map(pydicom.dcmread, inbox.iterdir())}
    assert set(kept) == {"SR", "SEG"}
    sent = pydicom.dcmread(radiograph)
    assert {dataset.StudyInstanceUID for dataset in kept.values()} == {sent.StudyInstanceUID}
    np.testing.assert_array_equal(kept["SEG"].pixel_array, MASK)


@pytest.fixture(scope="module")
def listener():
    """A node that notes the transfer syntax in which each radiograph came."""
    syntaxes = []

    def note(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        syntaxes.append(header.file_meta.TransferSyntaxUID)
        return []

    # A worker that starts on a busy machine shall not decide what is taken.
    limits = Limits(seconds=60.0, check_seconds=120.0)
    with DicomNode(note, Peer("PACS", "127.0.0.1", 9), 0, limits=limits) as node:
        yield node, syntaxes


def compressed(radiograph, syntax, folder):
    """A copy in another transfer syntax, made by dcmtk where it can."""
    made = folder / "compressed.dcm"
    if syntax == JPEG2000Lossless:
        return written(made, syntax)
    name = {JPEGLSLossless: "dcmcjpls", RLELossless: "dcmcrle", JPEGLosslessSV1: "dcmcjpeg"}.get(syntax)
    command = [program(name, "dcmtk")] if name else [program("dcmconv", "dcmtk"), "+ti"]
    subprocess.run([*command, str(radiograph), str(made)], check=True, timeout=600)
    assert pydicom.dcmread(made).file_meta.TransferSyntaxUID == syntax
    return made


@pytest.mark.parametrize(
    ("flags", "syntax"),
    [
        (["-xv"], JPEG2000Lossless),
        (["-xv", "+C"], JPEG2000Lossless),
        (["-xt"], JPEGLSLossless),
        (["-xt", "+C"], JPEGLSLossless),
        (["-xr", "+C"], RLELossless),
        (["-xs", "+C"], JPEGLosslessSV1),
        ([], ExplicitVRLittleEndian),
        (["+C"], ExplicitVRLittleEndian),
        (["-xi"], ImplicitVRLittleEndian),
    ],
)
def test_storescu_sends_what_it_has(listener, radiograph, tmp_path, flags, syntax):
    node, syntaxes = listener
    syntaxes.clear()
    # The same image again and again: the node would know it, whatever its transfer syntax.
    node.queue._db.execute("DELETE FROM received")
    path = radiograph if syntax == ExplicitVRLittleEndian else compressed(radiograph, syntax, tmp_path)
    command = [program("storescu", "dcmtk"), "-v", *flags, "-aec", "XRAY", "127.0.0.1", str(node.port), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(syntaxes) == 1)
    assert syntaxes == [syntax]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, JPEGLosslessSV1, ExplicitVRLittleEndian])
def test_dcmsend_sends_what_it_has(listener, radiograph, tmp_path, syntax):
    node, syntaxes = listener
    syntaxes.clear()
    # The same image again and again: the node would know it, whatever its transfer syntax.
    node.queue._db.execute("DELETE FROM received")
    path = radiograph if syntax == ExplicitVRLittleEndian else compressed(radiograph, syntax, tmp_path)
    command = [program("dcmsend", "dcmtk"), "-v", "-dn", "-aec", "XRAY", "127.0.0.1", str(node.port), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(syntaxes) == 1)
    assert syntaxes == [syntax]


def test_what_a_refusal_looks_like_to_dcmtk(radiograph):
    """As README has it: storescu ends with the status's high byte, and dcmsend as if nothing were."""
    storescu, dcmsend = program("storescu", "dcmtk"), program("dcmsend", "dcmtk")
    with DicomNode(lambda path: [], Peer("PACS", "127.0.0.1", 9), 0, limits=LIMITS) as node:
        to = ["-aec", "XRAY", "127.0.0.1", str(node.port), str(radiograph)]
        node._stopping.set()
        done = subprocess.run([storescu, *to], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0xA700 >> 8
        done = subprocess.run([dcmsend, "-v", *to], capture_output=True, text=True, timeout=600)
        # Later releases may say it by their status, too.
        assert done.returncode == 0 or "a700" in (done.stdout + done.stderr).lower()
        node._stopping.clear()
        assert node.counts.refused == 2


class Orthanc:
    """A running Orthanc that knows the node XRAY; a context manager."""

    def __init__(self, folder, node_port):
        self.port, self.http = free_port(), free_port()
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "HttpPort": self.http,
            "DicomPort": self.port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"xray": ["XRAY", "127.0.0.1", node_port]},
            "Plugins": [],
        }
        folder.mkdir()
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        command = [program("Orthanc", "orthanc"), str(folder / "orthanc.json")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def __enter__(self):
        try:
            wait_for(lambda: listens(self.http) and listens(self.port))
        except BaseException:
            end(self.process)
            raise
        return self

    def __exit__(self, *exception):
        end(self.process)

    def ask(self, path, data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data)
        with urllib.request.urlopen(request, timeout=600) as answer:
            content = answer.read()
        return content if path.endswith("/file") else json.loads(content)

    def series_of(self, study):
        """Modality → its series, of one study."""
        return {series["MainDicomTags"]["Modality"]: series for series in self.ask(f"/studies/{study}/series")}


def through(orthanc, radiograph):
    """Stores a radiograph in Orthanc, has it sent to the node, and waits for what comes back → modality → series."""
    stored = orthanc.ask("/instances", radiograph.read_bytes())
    orthanc.ask("/modalities/xray/store", json.dumps([stored["ID"]]).encode())
    study = stored["ParentStudy"]
    return wait_for(lambda: len(found := orthanc.series_of(study)) > 1 and "SR" in found and found), study


def test_orthanc_sends_a_study_and_gets_report_and_segmentation_into_it(radiograph, tmp_path):
    program("Orthanc", "orthanc")
    port = free_port()
    with (
        Orthanc(tmp_path / "orthanc", port) as orthanc,
        DicomNode(found_in, Peer("ORTHANC", "127.0.0.1", orthanc.port), port, limits=LIMITS) as node,
    ):
        _, study = through(orthanc, radiograph)
        series = wait_for(lambda: len(found := orthanc.series_of(study)) == 3 and found)
        assert set(series) == {"CR", "SR", "SEG"}
        assert node.counts.failed == 0
        assert len(orthanc.ask("/studies")) == len(orthanc.ask("/patients")) == 1
        (instance,) = series["SEG"]["Instances"]
        (tmp_path / "seg.dcm").write_bytes(orthanc.ask(f"/instances/{instance}/file"))
        np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "seg.dcm").pixel_array, MASK)


def test_orthanc_commits_to_what_it_has_stored(radiograph, tmp_path):
    """It reports on an association of its own, as the SCP that it is."""
    program("Orthanc", "orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        peer = Peer("ORTHANC", "127.0.0.1", orthanc.port)
        with DicomNode(found_in, peer, port, limits=LIMITS, folder=tmp_path / "queue", commits=True) as node:
            through(orthanc, radiograph)
            # An answer is counted last: after its place in the queue and its file.
            wait_for(lambda: node.counts.returned == 2)
            assert node.status()["answered"] == 1
            assert node.counts.failed == 0
            assert not list((tmp_path / "queue").glob("*/*"))


def test_orthanc_keeps_pictures_once_and_the_node_takes_none_for_a_radiograph(radiograph, tmp_path):
    """Presentation states and secondary captures lie beside the image; a second sending doubles nothing."""
    program("Orthanc", "orthanc")
    results = DicomResults(RESULTS.algorithm, gsps=True, sc=True)

    def found(path):
        return results.of(path, FINDINGS).values()

    port = free_port()
    with (
        Orthanc(tmp_path / "orthanc", port) as orthanc,
        DicomNode(found, Peer("ORTHANC", "127.0.0.1", orthanc.port), port, limits=LIMITS) as node,
    ):
        _, study = through(orthanc, radiograph)
        series = wait_for(lambda: len(found := orthanc.series_of(study)) == 5 and found)
        assert set(series) == {"CR", "SR", "SEG", "PR", "OT"}
        instances = {kind: series[kind]["Instances"] for kind in series}
        # The node knows it, and answers it again only if its record is gone; the archive knows the answers.
        node.queue._db.execute("DELETE FROM received")
        through(orthanc, radiograph)
        wait_for(lambda: node.counts.returned == 8)
        assert node.counts.failed == 0
        assert {kind: one["Instances"] for kind, one in orthanc.series_of(study).items()} == instances
        for kind, name in (("PR", "gsps.dcm"), ("OT", "sc.dcm")):
            (tmp_path / name).write_bytes(orthanc.ask(f"/instances/{instances[kind][0]}/file"))
        state, picture = (pydicom.dcmread(tmp_path / name) for name in ("gsps.dcm", "sc.dcm"))
        image = state.ReferencedSeriesSequence[0].ReferencedImageSequence[0]
        assert image.ReferencedSOPInstanceUID == pydicom.dcmread(radiograph).SOPInstanceUID
        assert picture.pixel_array.shape[2] == 3
        storescu = [program("storescu", "dcmtk"), "-aec", "XRAY", "127.0.0.1", str(port), str(tmp_path / "sc.dcm")]
        assert subprocess.run(storescu, capture_output=True, timeout=600).returncode == 0xC000 >> 8
        assert node.counts.received == 2


@pytest.mark.slow
def test_the_whole_way_with_a_trained_model(radiograph, vinbig_run, tmp_path):
    program("Orthanc", "orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", port) as orthanc, (tmp_path / "log").open("w+") as log:
        flags = ["--weights", vinbig_run, "--port", "0", "--device", "cpu", "--no-tta", "--n-workers", "1"]
        flags += ["--dicom-port", port, "--dicom-return", f"ORTHANC@127.0.0.1:{orthanc.port}"]
        flags += ["--dicom-queue", tmp_path / "queue", "--dicom-commitment"]
        command = [sys.executable, ROOT / "tools" / "serve.py", *flags]
        server = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        try:
            wait_for(lambda: server.poll() is not None or "DICOM node XRAY" in (tmp_path / "log").read_text(), 120)
            assert server.poll() is None, (tmp_path / "log").read_text()
            series, _ = through(orthanc, radiograph)
            assert set(series) == {"CR", "SR"}
            server.send_signal(signal.SIGINT)
            server.wait(300)
        finally:
            end(server)
