"""Instances that cannot be used are refused, and nothing of any of them reaches a log."""

import contextlib
import io
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from test_dicom_node import radiograph

from xray.phantoms.dicom import Storage, dicom_of
from xray.serving.dicom_connections import Limits
from xray.serving.dicom_node import DicomNode
from xray.serving.dicom_peers import Peer

ROOT = Path(__file__).resolve().parents[2]
CR, DX = ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation
COMMAND_UID = "2.25.31415"
SUCCESS, NOT_MATCHING, NOT_UNDERSTOOD = 0x0000, 0xA900, 0xC000

SERVER = """
import logging, sys, threading, warnings
warnings.simplefilter("always")
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.captureWarnings(True)
if __name__ == "__main__":
    from serving_cases import Oracle, serving
    from test_dicom_node import RESULTS
    from xray.outputs.dicom.objects import Algorithm
    from xray.serving.app import create_app
    from xray.serving.dicom_node import DicomNode, answering
    from xray.serving.dicom_connections import Limits
    from xray.serving.dicom_peers import Peer
    from xray.serving.service import Limits as ServiceLimits, Service
    logging.getLogger("xray.dicom").setLevel(logging.INFO)
    limits = Limits(attempts=1, first_wait=0.01, check_seconds=120, seconds=60)
    with (
        Service(Oracle(), ["run"], ServiceLimits(n_workers=1)) as service,
        DicomNode(answering(service, RESULTS), Peer("PACS", "127.0.0.1", 9), 0, limits=limits) as node,
        serving(create_app(service, Algorithm("xray", "1", {}))) as address,
    ):
        print(node.port, address, flush=True)
        for line in sys.stdin:
            counts = node.counts
            print(counts.received, counts.unusable, counts.failed, flush=True)
"""


@pytest.fixture(scope="module")
def node():
    # A worker that starts on a busy machine shall not decide what is taken.
    limits = Limits(seconds=60.0, check_seconds=120.0)
    with DicomNode(lambda path: [], Peer("PACS", "127.0.0.1", 9), 0, limits=limits) as running:
        yield running


def store(port, dataset, storage=CR, syntax=ExplicitVRLittleEndian, instance=COMMAND_UID):
    """The status of a C-STORE request whose command says what it likes."""
    ae = AE(ae_title="ME")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 120
    ae.add_requested_context(storage, syntax)
    link = ae.associate("127.0.0.1", port, ae_title="XRAY")
    assert link.is_established
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = storage, instance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request.DataSet = io.BytesIO(encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian))
    link._reactor_checkpoint.clear()
    while not link._is_paused:
        time.sleep(0.01)
    link.dimse.send_msg(request, 1)
    _, answer = link.dimse.get_msg(block=True)
    link._reactor_checkpoint.set()
    link.release()
    return answer.Status


def with_uids(**elements):
    """A radiograph whose identifiers are what they are told to be; None leaves one out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = radiograph(**{"SOPInstanceUID": COMMAND_UID, **elements})
        # What pydicom would write of it is not asked for.
        del dataset.file_meta
    return dataset


def test_one_that_can_be_used_is_taken(node):
    assert store(node.port, with_uids()) == SUCCESS
    # Leading zeros are wrong, but met, and can be referred to.
    assert store(node.port, with_uids(StudyInstanceUID="1.2.003.4")) == SUCCESS


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize(
    "value", [None, "", "PLANTED", "1.2.x", "1..2", ".1", "1." + "2" * 300, "12", "1.2 3", "-1.2", ["1.2.3", "1.2.4"]]
)
def test_identifiers_that_are_none_are_refused(node, keyword, value):
    assert store(node.port, with_uids(**{keyword: value})) == NOT_UNDERSTOOD


def test_a_command_that_speaks_of_another_instance_is_refused(node):
    assert store(node.port, with_uids(SOPInstanceUID="2.25.2")) == NOT_MATCHING
    assert store(node.port, with_uids(SOPClassUID=DX)) == NOT_MATCHING
    assert store(node.port, with_uids(), storage=DX) == NOT_MATCHING


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_cut_pixels_are_refused(node, share):
    dataset = with_uids()
    dataset.PixelData = dataset.PixelData[: int(share * len(dataset.PixelData)) // 2 * 2]
    assert store(node.port, dataset) == NOT_UNDERSTOOD


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_cut_codestreams_are_refused(node, syntax):
    rng = np.random.default_rng(0)
    pixels = rng.random((64, 80), dtype=np.float32)
    dataset = dicom_of(pixels, Storage(12, True, True, syntax, True), "a", 0.14, "F", 40, "PA", rng)
    dataset.SOPInstanceUID = COMMAND_UID
    storage = dataset.SOPClassUID
    dataset["PixelData"].is_undefined_length = True
    whole = dataset.PixelData
    assert store(node.port, dataset, storage, syntax) == SUCCESS
    # A piece that is shorter than it says, and one that says so itself.
    dataset.PixelData = whole[: len(whole) // 2]
    assert store(node.port, dataset, storage, syntax) == NOT_UNDERSTOOD
    dataset.PixelData = encapsulate([whole[16 : len(whole) // 3]])
    assert store(node.port, dataset, storage, syntax) == NOT_UNDERSTOOD
    dataset.PixelData = encapsulate([bytes(100)])
    assert store(node.port, dataset, storage, syntax) == NOT_UNDERSTOOD


def test_a_command_without_a_usable_identifier_is_not_answered_with_success(node):
    from pynetdicom import _config

    ae = AE(ae_title="ME")
    ae.dimse_timeout = 5
    ae.add_requested_context(CR, ExplicitVRLittleEndian)
    link = ae.associate("127.0.0.1", node.port, ae_title="XRAY")
    refused = node.counts.received
    with pytest.raises((ValueError, AttributeError)):
        link.send_c_store(with_uids(SOPInstanceUID="1." + "2" * 300))
    link.abort()
    assert node.counts.received == refused
    assert _config.ENFORCE_UID_CONFORMANCE is False


def post(address, path, body, kind="application/dicom"):
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read().decode("latin-1")


def test_nothing_of_a_patient_a_study_or_a_series_reaches_a_log():
    """With every logger and every warning turned on."""
    secrets = ("PLANTED", "planted", "Planted", "1.2.826.77", COMMAND_UID)
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "serving")))
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        port, address = process.stdout.readline().split()
        named = {"PatientName": "PLANTED^Name", "StudyID": "PLANTED", "StudyDescription": "PLANTED" * 20}
        odd = {**named, "StudyDate": "PLANTED", "PatientBirthDate": "planted", "PatientAge": "PLANTED-AGE"}
        study = {"StudyInstanceUID": "1.2.826.77.1", "SeriesInstanceUID": "1.2.826.77.2"}
        statuses = [
            store(int(port), with_uids(**elements))
            for elements in (
                {**named, **study}, {**odd, **study, "StudyInstanceUID": "1.2.826.77.4"},
                {**named, "StudyInstanceUID": "PLANTED.1"},
                {**named, **study, "SOPInstanceUID": "1.2.826.77.3"}, {**named, **study, "Rows": None},
                {**named, "SeriesInstanceUID": "1.2.826.77." + "1" * 300},
            )
        ]  # fmt: skip
        assert statuses == [SUCCESS, SUCCESS, NOT_UNDERSTOOD, NOT_MATCHING, NOT_UNDERSTOOD, NOT_UNDERSTOOD]
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = radiograph(**{**odd, **study})
            whole.save_as(buffer, enforce_file_format=True)
        content = buffer.getvalue()
        assert post(address, "/predict?name=PLANTED", content)[0] == 200
        assert post(address, "/predict", content[:-2000])[0] == 422
        assert post(address, "/PLANTED", b"")[0] == 404
        parts = ('findings"\r\n\r\n{"PLANTED": 1e400}', f'file"; filename="PLANTED"\r\n\r\n{content.decode("latin-1")}')
        form = "".join(f'--x\r\nContent-Disposition: form-data; name="{part}\r\n' for part in parts) + "--x--\r\n"
        status, _ = post(address, "/dicom/sr", form.encode("latin-1"), "multipart/form-data; boundary=x")
        assert status == 400
        deadline = time.monotonic() + 600
        while True:
            process.stdin.write("\n")
            process.stdin.flush()
            received, unusable, lost = map(int, process.stdout.readline().split())
            if received == 2 and unusable + lost >= 2:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    # It did speak.
    assert re.search("refused an object", errors)
    for secret in secrets:
        assert secret not in output + errors, re.search(f".*{secret}.*", output + errors)[0]
