"""What the server and the DICOM node do with files that are no upright frontal chest radiographs."""

from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("highdicom")
pytest.importorskip("pynetdicom")

from fastapi.testclient import TestClient
from serving_cases import TWELVE_BITS, Oracle, write_phantom
from test_dicom_node import QUICK, RESULTS, Receiver, found_in, radiograph, send, wait_for

from xray.commands.serve import gate_of
from xray.commands.serve_flags import Config
from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm
from xray.radiographs.dicom import read_header_view
from xray.radiographs.image_check import BACK, NEGATIVE, TURNED, Gate, fault_of_header
from xray.serving.app import create_app
from xray.serving.dicom_node import DicomNode, answering
from xray.serving.dicom_peers import Peer
from xray.serving.service import Limits, Service

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
CT_SAID = "no frontal chest radiograph: its header says CT"
LATERAL = {"BodyPartExamined": "CHEST", "ViewPosition": "LL"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An upright phantom, the same on its side, and a slice of CT; and a model that knows the phantom."""
    folder, oracle = tmp_path_factory.mktemp("files"), Oracle()
    truth = write_phantom(folder / "upright.dcm", 3, (0, 12), (256, 300), TWELVE_BITS)
    oracle.learn(folder / "upright.dcm", truth, (0.9, 0.8))
    ds = pydicom.dcmread(folder / "upright.dcm")
    ds.PixelData = np.ascontiguousarray(np.rot90(ds.pixel_array)).tobytes()
    ds.Rows, ds.Columns = ds.Columns, ds.Rows
    ds.save_as(folder / "turned.dcm")
    (folder / "ct.dcm").write_bytes((TEST_FILES / "CT_small.dcm").read_bytes())
    return folder, oracle


def client_of(files, gate):
    algorithm = Algorithm("xray", "1", {"model 1": "sha256:0"})
    service = Service(files[1], ["run"], Limits(n_workers=1), gate=gate)
    return service, TestClient(create_app(service, algorithm))


def post(client, path, **headers):
    return client.post("/predict", content=path.read_bytes(), headers={"Content-Type": "application/dicom"} | headers)


def test_answers_and_reports_say_what_a_file_is(files):
    folder = files[0]
    service, client = client_of(files, Gate("warn"))
    with service, client:
        upright = post(client, folder / "upright.dcm").json()["image_check"]
        assert upright["kind"] == "chest frontal"
        assert upright["warnings"] == []
        assert (upright["turned"], upright["is_negative"]) == (0, False)
        answer = post(client, folder / "turned.dcm").json()
        assert answer["image_check"]["warnings"] == [TURNED[3]]
        assert answer["image_check"]["turned"] == 270
        assert answer["findings"] == []
        ct = post(client, folder / "ct.dcm")
        assert ct.json()["image_check"]["kind"] == "other modality"
        assert ct.json()["image_check"]["warnings"] == [CT_SAID]
        form = {"file": (folder / "ct.dcm").read_bytes()}
        report = client.post("/dicom/sr", files=form, data={"findings": ct.text})
        assert report.status_code == 200, report.text
        assert CT_SAID.encode() in report.content
        assert b"no frontal chest" not in post(client, folder / "upright.dcm").content


def test_turned_ones_are_turned_back_and_answered_in_the_file_s_pixels(files):
    folder = files[0]
    service, client = client_of(files, Gate("warn", upright=True))
    with service, client:
        upright = post(client, folder / "upright.dcm").json()
        turned = post(client, folder / "turned.dcm").json()
    assert turned["image_check"]["warnings"] == [BACK[3]]
    assert (turned["width"], turned["height"]) == (upright["height"], upright["width"]) == (300, 256)
    for one, other in zip(upright["findings"], turned["findings"], strict=True):
        x1, y1, x2, y2 = one["box"]
        # np.rot90 takes (x, y) to (y, width - x).
        assert other["box"] == pytest.approx([y1, 256 - x2, y2, 256 - x1], abs=0.011)
        assert (one["mask"] is None) == (other["mask"] is None)
        if other["mask"]:
            assert other["mask"]["size"] == [256, 300]


def test_refused_files_get_no_findings(files):
    folder = files[0]
    service, client = client_of(files, Gate("refuse"))
    with service, client:
        assert post(client, folder / "upright.dcm").status_code == 200
        for name, said in (("ct", CT_SAID), ("turned", TURNED[3])):
            response = post(client, folder / f"{name}.dcm")
            assert response.status_code == 422
            assert response.json()["detail"] == said


def test_without_a_gate_answers_are_as_before(files):
    service, client = client_of(files, Gate("off"))
    with service, client:
        assert "image_check" not in post(client, files[0] / "ct.dcm").json()


def test_what_auto_is():
    config = Config(weights=("run",))
    assert gate_of(config, "warn") == Gate("warn")
    assert gate_of(config, "refuse") == Gate("refuse")
    config = Config(weights=("run",), gate_image="off", upright=True)
    assert gate_of(config, "refuse") == Gate("off", upright=True)


def test_the_node_takes_other_images_with_a_warning_and_counts_them(tmp_path):
    with (
        Receiver() as pacs,
        DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=QUICK, fault_of=fault_of_header) as node,
    ):
        assert send(node, radiograph(**LATERAL)) == 0xB007
        assert send(node, radiograph(BodyPartExamined="CHEST", ViewPosition="PA")) == 0x0000
        wait_for(lambda: node.counts.returned == 2)
        assert (node.counts.other_images, node.counts.received, node.counts.refused) == (1, 1, 0)
        assert len(pacs.kept) == 2


@pytest.mark.parametrize("said", [CT_SAID, TURNED[2], NEGATIVE])
def test_what_the_pixels_show_is_counted_too(said):
    def answer(path):
        raise InputError(said)

    with DicomNode(answer, Peer("PACS", "127.0.0.1", 1), 0, limits=QUICK) as node:
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.counts.other_images == 1)
        assert node.counts.unusable == 0


def test_the_node_s_gate_is_its_own(files, tmp_path):
    folder, oracle = files
    gates = {"gate": Gate("warn"), "node_gate": Gate("refuse")}
    with Service(oracle, ["run"], Limits(n_workers=1), **gates) as service:
        assert service.find(folder / "ct.dcm").check.kind == "other modality"
        answer = answering(service, RESULTS)
        with pytest.raises(InputError, match=CT_SAID):
            answer(folder / "ct.dcm")
        (report, *_) = answer(folder / "upright.dcm")
        assert report.Modality == "SR"
    assert read_header_view(folder / "upright.dcm").part in ("", "chest")
