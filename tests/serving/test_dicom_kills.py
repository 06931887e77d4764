"""A node that is killed again and again, and one that is sent much at a time: nothing is lost, nothing comes twice."""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from conftest import rarely
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from test_dicom_node import DicomNode, Receiver, free_port, radiograph, wait_for

from xray.serving.dicom_connections import Limits
from xray.serving.dicom_peers import Peer

ROOT = Path(__file__).resolve().parents[2]
NODE = """
import sys, time, uuid, pathlib
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from xray.serving.dicom_connections import Limits
from xray.serving.dicom_node import DicomNode
from xray.serving.dicom_connections import Limits
from xray.serving.dicom_peers import Peer

REPORT = "1.2.840.10008.5.1.4.1.1.88.33"

def answer(path):
    source, report = dcmread(path, stop_before_pixels=True), Dataset()
    time.sleep(0.05)
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = REPORT
    uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, source.SOPInstanceUID).int}"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = uid
    report.StudyInstanceUID, report.PatientName = source.StudyInstanceUID, source.PatientName
    return [report]

if __name__ == "__main__":
    port, pacs, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    limits = Limits(seconds=10.0, first_wait=0.1, last_wait=1.0)
    node = DicomNode(answer, Peer("PACS", "127.0.0.1", pacs), port, limits=limits, folder=folder)
    print("ready", flush=True)
    time.sleep(3600)
"""


@contextlib.contextmanager
def node_process(tmp_path, port, pacs):
    """The node in a process of its own, which is killed at the end."""
    (tmp_path / "node.py").write_text(NODE)
    command = [sys.executable, str(tmp_path / "node.py"), str(port), str(pacs.port), str(tmp_path / "queue")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Sending(threading.Thread):
    """Sends instance after instance, each until it is acknowledged, and now and then one again."""

    def __init__(self, port, seed):
        super().__init__(daemon=True)
        self.port, self.acknowledged, self.is_over, self._chance = port, [], False, random.Random(seed)

    def run(self):
        current = None
        while not self.is_over:
            if current is None:
                current = radiograph(f"Planted^{self._chance.random()}")
            if self.send(current) == 0x0000:
                self.acknowledged.append(current)
                current = self._chance.choice(self.acknowledged) if self._chance.random() < 0.2 else None

    def send(self, dataset):
        ae = AE(ae_title="ME")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
        link = ae.associate("127.0.0.1", self.port, ae_title="XRAY")
        if not link.is_established:
            time.sleep(0.05)
            return None
        try:
            return link.send_c_store(dataset).get("Status")
        except RuntimeError:
            return None
        finally:
            link.release()


@pytest.mark.nightly
def test_thirty_kills_lose_nothing_and_double_nothing(tmp_path):
    killed_at, port, n_kills = random.Random(17), free_port(), 30
    with Receiver() as pacs:
        senders = [Sending(port, seed) for seed in range(2)]
        for number in range(n_kills):
            with node_process(tmp_path, port, pacs) as process:
                if not number:
                    [sender.start() for sender in senders]
                time.sleep(killed_at.uniform(0, 2.0))
                process.kill()
        for sender in senders:
            sender.is_over = True
        with node_process(tmp_path, port, pacs):
            for sender in senders:
                sender.join(60)
            acknowledged = {one.StudyInstanceUID for sender in senders for one in sender.acknowledged}
            # What was being sent when the sender ended may be answered, too.
            wait_for(lambda: {dataset.StudyInstanceUID for dataset in pacs.kept} >= acknowledged, 300)
            wait_for(lambda: not list((tmp_path / "queue").glob("*/*")), 60)
        answered = {dataset.StudyInstanceUID for dataset in pacs.kept}
        objects = {dataset.SOPInstanceUID for dataset in pacs.kept}
        sent = sum(len(sender.acknowledged) for sender in senders)
        print(f"{n_kills} kills, {sent} acknowledged, {len(acknowledged)} different, {len(answered)} answered,")
        print(f"{len(objects)} objects in {len(pacs.kept)} requests")
        assert len(acknowledged) > 30
        assert len(objects) == len(answered) <= len(acknowledged) + len(senders)
        # A request whose record a kill cut off is made again, with the same UID.
        assert len(pacs.kept) - len(objects) <= n_kills
    assert not list((tmp_path / "tmp").iterdir())
    assert all(b"Planted" not in path.read_bytes() for path in (tmp_path / "queue").rglob("*") if path.is_file())


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("n_instances", rarely([120, 500]))
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_sixteen_senders_with_hundreds_of_instances_every_tenth_broken(tmp_path, n_instances):
    n_senders, lock = 16, threading.Lock()
    left, sent, tried, memory = list(range(n_instances)), {}, {}, []
    scope = {"__name__": "node"}
    exec(NODE, scope)
    came, objects = {}, []

    def keep(event):
        came.setdefault(str(event.dataset.StudyInstanceUID), time.monotonic())
        objects.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with Receiver() as pacs:
        pacs.server.bind(evt.EVT_C_STORE, keep)
        limits = Limits(seconds=30.0, first_wait=0.1, associations=8, associations_each=8, waiting=100)
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        with DicomNode(scope["answer"], peer, 0, limits=limits, folder=tmp_path / "queue") as node:

            def sender():
                sending = Sending(node.port, 0)
                while True:
                    with lock:
                        if not left:
                            return
                        number = left.pop()
                    dataset = radiograph(width=512, height=512)
                    study = str(dataset.StudyInstanceUID)
                    if number % 10 == 0:
                        dataset.PixelData = dataset.PixelData[:1000]
                    tried[study] = time.monotonic()
                    while True:
                        began = time.monotonic()
                        if (status := sending.send(dataset)) not in (None, 0xA700):
                            break
                        time.sleep(0.2)
                    with lock:
                        memory.append(resident())
                        sent[study] = (status, number % 10 == 0, began)

            threads = [threading.Thread(target=sender) for _ in range(n_senders)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            good = {study: began for study, (status, is_broken, began) in sent.items() if status == 0x0000}
            wait_for(lambda: node.status()["answered"] == len(good), 300)
            assert node.counts.failed == node.counts.unusable == 0
    assert all((status == 0xC000) == is_broken for status, is_broken, _ in sent.values())
    assert len(good) == n_instances - n_instances // 10
    assert set(came) == set(good)
    assert len(objects) == len(set(objects)) == len(good)
    for what, since in (("C-STORE that was taken", good), ("first try", tried)):
        took = sorted(came[study] - since[study] for study in good)
        print(f"{what} to SR in the PACS: p50 {took[len(took) // 2]:.2f} s, p95 {took[int(0.95 * len(took))]:.2f} s")
    n = n_instances // 5
    grown = (max(memory[-n:]) - max(memory[:n])) / 2**20
    print(f"memory: {max(memory) / 2**20:.0f} MiB, of the last {n} {grown:+.0f} MiB against the first {n}")
    assert grown < 64
    assert not list((tmp_path / "queue").glob("*/*"))


@pytest.mark.slow
def test_one_study_at_a_time_takes_as_long_as_it_is_said_to(tmp_path):
    """Prints how long a study takes from the beginning of its C-STORE to its SR in the PACS, where nothing waits."""
    scope, came = {"__name__": "node"}, {}
    exec(NODE, scope)

    def keep(event):
        came[str(event.dataset.StudyInstanceUID)] = time.monotonic()
        return 0x0000

    with Receiver() as pacs:
        pacs.server.bind(evt.EVT_C_STORE, keep)
        with DicomNode(scope["answer"], Peer("PACS", "127.0.0.1", pacs.port), 0, folder=tmp_path / "queue") as node:
            sending, took = Sending(node.port, 0), []
            for _ in range(40):
                dataset = radiograph(width=512, height=512)
                began = time.monotonic()
                assert sending.send(dataset) == 0x0000
                wait_for(lambda study=str(dataset.StudyInstanceUID): study in came)
                took.append(came[str(dataset.StudyInstanceUID)] - began)
    took.sort()
    print(f"one study from C-STORE to SR in the PACS: p50 {took[20]:.2f} s, p95 {took[37]:.2f} s, models 0.05 s of it")
