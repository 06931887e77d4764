"""The DICOM node: what it takes and refuses, what it returns, and how it stands silent, slow and greedy peers."""

import contextlib
import dataclasses
import itertools
import logging
import socket
import struct
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SegmentationStorage, Verification

from xray.errors import FlagError, InputError
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.results import DicomResults
from xray.phantoms.dicom import Storage, dicom_of
from xray.serving.dicom_accepted import status_of
from xray.serving.dicom_node import DicomNode, Limits
from xray.serving.dicom_peers import Peer, check_aet, parse_peer
from xray.structures.boxes import BoxTable
from xray.structures.radiograph_findings import RadiographFindings

QUICK = Limits(seconds=10.0, first_wait=0.1, attempts=50)
RESULTS = DicomResults(Algorithm("xray", "0.1.0"), sr=True, seg=True)
NAMES = {1: "Pneumothorax"}


NUMBERS = itertools.count()


def radiograph(name="Planted^Name", width=80, height=64, **elements):
    """Another instance each time."""
    rng = np.random.default_rng(4)
    pixels = rng.random((height, width), dtype=np.float32)
    storage = Storage(12, False, True, ExplicitVRLittleEndian, True)
    dataset = dicom_of(pixels, storage, f"{name} {next(NUMBERS)}", 0.14, "F", 40, "PA", rng)
    dataset.PatientName, dataset.PatientID = name, "planted-id"
    for keyword, value in elements.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    return dataset


def found_in(path):
    """A box and a mask in every radiograph."""
    from pycocotools import mask as coco_mask

    header = pydicom.dcmread(path, stop_before_pixels=True)
    mask = np.zeros((header.Rows, header.Columns), np.uint8)
    mask[10:30, 20:50] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    table = BoxTable.of([0], [1], [[20, 10, 50, 30]], [0.9])
    masks = {0: {"size": [header.Rows, header.Columns], "counts": rle["counts"].decode()}}
    return RESULTS.of(path, RadiographFindings(table, masks, NAMES)).values()


class Receiver:
    """Another node that keeps what it is sent; a context manager."""

    def __init__(self, port=0, status=0x0000):
        self.kept, self.status = [], status
        ae = AE(ae_title="PACS")
        for storage in (ComprehensiveSRStorage, SegmentationStorage):
            ae.add_supported_context(storage, ImplicitVRLittleEndian)
        self.server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.keep)])
        self.port = self.server.server_address[1]

    def keep(self, event):
        self.kept.append(event.dataset)
        return self.status

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()


def wait_for(what, seconds=600):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def link_to(node, storage=ComputedRadiographyImageStorage, syntax=ExplicitVRLittleEndian, called="XRAY", calling="ME"):
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    ae.add_requested_context(storage, syntax)
    ae.add_requested_context(Verification)
    return ae.associate("127.0.0.1", node.port, ae_title=called)


def send(node, dataset, **link):
    """The status of a C-STORE request, None where there is none."""
    association = link_to(node, **link)
    assert association.is_established
    status = association.send_c_store(dataset)
    association.release()
    return status.get("Status")


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture
def pacs(receiver):
    """Another node, which has been sent nothing yet."""
    receiver.kept.clear()
    return receiver


@pytest.fixture
def node(pacs):
    """A node that returns what `found_in` finds to `pacs`."""
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=QUICK) as running:
        yield running


def test_a_radiograph_comes_back_as_report_and_segmentation_of_its_study(node, pacs):
    sent = radiograph()
    assert send(node, sent) == 0x0000
    wait_for(lambda: node.counts.returned == 2)
    assert [dataset.Modality for dataset in pacs.kept] == ["SR", "SEG"]
    for dataset in pacs.kept:
        assert dataset.StudyInstanceUID == sent.StudyInstanceUID
        assert dataset.PatientID == "planted-id"
    assert node.counts.received == 1


def test_it_answers_an_echo(node):
    association = link_to(node)
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_objects_that_are_no_radiographs_are_refused(node):
    assert send(node, radiograph(Rows=None)) == 0xC000
    assert send(node, radiograph(StudyInstanceUID=None)) == 0xC000
    assert send(node, radiograph(PhotometricInterpretation="RGB", SamplesPerPixel=3)) == 0xC000
    assert node.counts.refused == 3
    assert node.counts.received == 0


def test_an_object_of_another_class_than_announced_is_refused(tmp_path):
    radiograph().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert status_of(tmp_path / "a.dcm", ComputedRadiographyImageStorage) == 0x0000
    assert status_of(tmp_path / "a.dcm", DigitalXRayImageStorageForPresentation) == 0xA900
    (tmp_path / "a.dcm").write_bytes(b"nothing of the kind" * 20)
    assert status_of(tmp_path / "a.dcm", ComputedRadiographyImageStorage) == 0xC000


def test_other_kinds_of_objects_are_not_even_negotiated(node):
    ae = AE()
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", node.port, ae_title="XRAY")
    assert not association.is_established or not association.accepted_contexts
    if association.is_established:
        association.release()


def test_a_radiograph_in_a_compressed_transfer_syntax_is_taken(node):
    rng = np.random.default_rng(0)
    pixels = rng.random((64, 80), dtype=np.float32)
    sent = dicom_of(pixels, Storage(12, True, True, JPEG2000Lossless, False), "j2k", 0.14, "F", 40, "PA", rng)
    status = send(node, sent, storage=DigitalXRayImageStorageForPresentation, syntax=JPEG2000Lossless)
    assert status == 0x0000
    wait_for(lambda: node.counts.returned == 2)


def test_a_stranger_or_a_wrong_title_is_turned_away():
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, callers=("FRIEND",), limits=QUICK) as node:
        assert not link_to(node, calling="STRANGER").is_established
        assert not link_to(node, calling="FRIEND", called="OTHER").is_established
        association = link_to(node, calling="FRIEND")
        assert association.is_established
        association.release()


def test_a_full_node_says_so_and_takes_more_once_there_is_room(pacs):
    gate, answered = threading.Event(), threading.Event()

    def answer(path):
        gate.wait(300)
        answered.set()
        return found_in(path)

    limits = Limits(seconds=10.0, first_wait=0.1, waiting=2)
    with DicomNode(answer, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=limits) as node:
        statuses = [send(node, radiograph()) for _ in range(4)]
        # One is being worked on, two wait.
        assert sorted(statuses)[:2] == [0x0000, 0x0000]
        assert statuses[-1] == 0xA700
        gate.set()
        taken = statuses.count(0x0000)
        wait_for(lambda: node.counts.returned == 2 * taken)
        assert send(node, radiograph()) == 0x0000


def test_an_answer_waits_for_a_node_that_is_away():
    port = free_port()
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", port), 0, limits=QUICK) as node:
        assert send(node, radiograph()) == 0x0000
        time.sleep(0.5)
        assert node.counts.returned == 0
        with Receiver(port) as pacs:
            wait_for(lambda: node.counts.returned == 2)
            assert len(pacs.kept) == 2


def test_an_answer_that_nobody_takes_is_given_up():
    limits = Limits(seconds=10.0, first_wait=0.01, attempts=3)
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", free_port()), 0, limits=limits) as node:
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.counts.failed == 2)
    with Receiver(status=0xC001) as pacs, DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0) as node:
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.counts.failed == 2)
        # What is refused for good is not tried again.
        assert len(pacs.kept) == 2


def test_one_that_cannot_be_used_costs_itself_alone(node):
    calls = []

    def answer(path):
        calls.append(path)
        if len(calls) == 1:
            raise InputError("the pixels are damaged")
        if len(calls) == 2:
            raise RuntimeError("Planted^Name")
        return found_in(path)

    node._answer = answer
    for _ in range(3):
        assert send(node, radiograph()) == 0x0000
    wait_for(lambda: node.counts.returned == 2)
    assert node.counts.unusable == 2


def test_log_lines_hold_nothing_of_a_patient(node, caplog):
    caplog.set_level(logging.DEBUG)
    sent = radiograph()
    send(node, sent)
    send(node, radiograph(Rows=None))
    wait_for(lambda: node.counts.returned == 2)
    assert "answer 1 is at PACS" in caplog.text
    for secret in ("Planted", "planted", sent.StudyInstanceUID, sent.SOPInstanceUID):
        assert secret not in caplog.text


def test_an_object_beyond_the_limit_ends_its_connection_alone(pacs):
    limits = Limits(n_bytes=300_000, seconds=10.0)
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=limits) as node:
        assert send(node, radiograph(width=1000, height=500)) is None
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.counts.returned == 2)
        # The limit is of one object, not of all on a connection.
        association = link_to(node)
        assert [association.send_c_store(radiograph(width=300, height=300)).Status for _ in range(4)] == [0] * 4
        association.release()


@pytest.mark.parametrize("claim", [2**32 - 1, 2**24])
def test_a_length_that_nobody_sends_is_not_believed(pacs, claim):
    # It would wait for the rest as long as a peer may be silent.
    patient = Limits(seconds=3000, handshake_seconds=3000, useless_seconds=3000, object_seconds=3000)
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=patient) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=600) as raw:
            raw.sendall(struct.pack(">BBL", 4, 0, claim) + bytes(100))
            with contextlib.suppress(ConnectionError):
                while raw.recv(4096):
                    pass
        assert send(node, radiograph()) == 0x0000


def test_peers_that_say_nothing_do_not_keep_others_out(node):
    silent = [socket.create_connection(("127.0.0.1", node.port), timeout=600) for _ in range(12)]
    for number, connection in enumerate(silent):
        if number % 2:
            # The start of a message, and no more.
            connection.sendall(struct.pack(">BBL", 1, 0, 200) + b"\0")
    try:
        wait_for(lambda: link_to(node).is_established, seconds=120)
    finally:
        for connection in silent:
            connection.close()


def test_it_ends_at_once_and_leaves_nothing_behind():
    gate, answered = threading.Event(), threading.Event()

    def answer(path):
        gate.wait(300)
        answered.set()
        return found_in(path)

    node = DicomNode(answer, Peer("PACS", "127.0.0.1", free_port()), 0, limits=QUICK)
    for _ in range(3):
        assert send(node, radiograph()) == 0x0000
    open_link = link_to(node)
    node.close()
    assert not answered.is_set()
    gate.set()
    open_link.abort()
    assert not node.folder.exists()


def test_a_taken_port_is_said_in_one_line(node):
    with pytest.raises(InputError, match=f"no DICOM node at 127.0.0.1:{node.port} .*give another port"):
        DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), node.port)


def test_peers_and_titles_of_flags():
    assert parse_peer("--dicom-return", "PACS@192.168.1.5:104") == Peer("PACS", "192.168.1.5", 104)
    assert parse_peer("--dicom-return", "A B@pacs.example:11112") == Peer("A B", "pacs.example", 11112)
    assert parse_peer("--dicom-return", "P@[::1]:104") == Peer("P", "::1", 104)
    bad = ("", "PACS", "PACS@host", "PACS@host:0", "PACS@host:70000", "@host:104", "A" * 17 + "@host:104", "A\\B@h:1")
    for text in bad:
        with pytest.raises(FlagError, match="--dicom-return"):
            parse_peer("--dicom-return", text)
    assert check_aet("--dicom-aet", "XRAY") == "XRAY"
    with pytest.raises(FlagError, match="1 to 16 characters"):
        check_aet("--dicom-aet", " ")


def test_flags_of_the_command_are_checked_before_anything_is_loaded():
    from xray.commands.serve import check_dicom, wanted_of
    from xray.commands.serve_flags import Config

    check_dicom(Config(weights=("run",)))
    check_dicom(Config(weights=("run",), dicom_port=11112, dicom_return="PACS@host:104"))
    for wrong in (
        {"dicom_port": 11112},
        {"dicom_return": "PACS@host:104"},
        {"dicom_port": 11112, "dicom_return": "PACS@host:104", "dicom_aet": "SEVENTEEN LETTERS"},
        {"dicom_port": 11112, "dicom_return": "PACS@host:104", "dicom_callers": ("FRIEND", "")},
        {"dicom_port": 11112, "dicom_return": "PACS@host:104", "dicom_objects": ()},
        {"dicom_port": 11112, "dicom_return": "PACS@host:104", "dicom_objects": ("seg", "seg-fractional")},
    ):
        with pytest.raises(FlagError, match="--dicom-"):
            check_dicom(Config(weights=("run",), **wrong))
    assert wanted_of(("sr", "sc")) == {"sr": True, "seg": False, "gsps": False, "sc": True}
    wanted = {"sr": "comprehensive3d", "seg": "fractional", "gsps": False, "sc": False}
    assert wanted_of(("sr-comprehensive3d", "seg-fractional")) == wanted


def test_a_busy_service_is_asked_again_and_its_words_are_passed_on(tmp_path):
    from xray.inference.findings import Findings
    from xray.serving.dicom_node import answering
    from xray.serving.service import Found
    from xray.serving.worker import BusyError, ModelError, UnreadableError

    outcomes = [BusyError(0), BusyError(0), UnreadableError("it is damaged"), ModelError("the models failed"), None]

    class Service:
        pipeline = SimpleNamespace(categories=NAMES)

        def find(self, path, is_node=False):
            assert is_node
            if (outcome := outcomes.pop(0)) is not None:
                raise outcome
            table = BoxTable.of([0], [1], [[20, 10, 50, 30]], [0.9])
            return Found(Findings(table, labels={"Pneumothorax": np.array([0.75])}), (80, 64), 0.1)

    radiograph().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    answer = answering(Service(), RESULTS)
    for message in ("it is damaged", "the models failed"):
        with pytest.raises(InputError, match=message):
            answer(tmp_path / "a.dcm")
    (report,) = answer(tmp_path / "a.dcm")
    assert report.Modality == "SR"
    assert outcomes == []


def test_for_pictures_the_file_is_read_in_a_worker(tmp_path):
    from xray.inference.findings import Findings
    from xray.radiographs.workers import Failed
    from xray.serving.dicom_node import answering
    from xray.serving.service import Found

    asked = []

    class Service:
        pipeline = SimpleNamespace(categories=NAMES)

        def find(self, path, is_node=False):
            return Found(Findings(BoxTable.of([0], [1], [[20, 10, 50, 30]], [0.9])), (80, 64), 0.1)

        def in_worker(self, work, path):
            asked.append(path)
            outcome = Future()
            outcome.set_result(work(path) if len(asked) == 1 else Failed("a.dcm: took more than 60 s"))
            return outcome

    radiograph().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    answer = answering(Service(), dataclasses.replace(RESULTS, gsps=True, sc=True))
    assert [dataset.Modality for dataset in answer(tmp_path / "a.dcm")] == ["SR", "PR", "OT"]
    with pytest.raises(InputError, match=r"^took more than 60 s"):
        answer(tmp_path / "a.dcm")
    assert len(asked) == 2
