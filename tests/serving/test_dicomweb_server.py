"""The server as a DICOMweb archive of its results, asked by the library dicomweb-client and by hand."""

import gzip
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from serving_cases import TWELVE_BITS, Clock, Oracle, serving, write_phantom
from starlette.testclient import TestClient

pytest.importorskip("highdicom")

from pydicom.uid import CTImageStorage

from xray.findings import CATEGORIES
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.results import DicomResults
from xray.serving.accounts import Accounts, Hash
from xray.serving.app import create_app
from xray.serving.authentication import Checker
from xray.serving.dicomweb import add_dicomweb
from xray.serving.dicomweb_store import ResultStore
from xray.serving.operations import Operations
from xray.serving.request_guard import host_names
from xray.serving.service import Limits, Service
from xray.storage.dicomweb.multipart import content_type_of, end_of, head_of, read_parts

NAMES = {category["id"]: category["name"] for category in CATEGORIES}
ROOT = Path(__file__).resolve().parents[2]
KINDS = {"SR", "SEG", "PR", "OT"}
SIZE = (256, 300)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Two radiographs of one study, and one of another, each with a pneumothorax: their files."""
    folder = tmp_path_factory.mktemp("radiographs")
    oracle = Oracle()
    paths = []
    for number, study in enumerate(("1.2.3.1", "1.2.3.1", "1.2.3.2")):
        path = folder / f"patient{study[-1]}-{number}.dcm"
        phantom = write_phantom(path, number + 3, (0, 3, 12), SIZE, TWELVE_BITS)
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.AccessionNumber = study, f"A{study[-1]}"
        dataset.PatientID, dataset.PatientName = f"P{study[-1]}", f"Doe^{'John' if study[-1] == '1' else 'Jane'}"
        dataset.StudyDate = f"2026010{study[-1]}"
        dataset.save_as(path)
        oracle.learn(path, phantom, (0.9, 0.8, 0.7))
        paths.append(path)
    return oracle, paths


@pytest.fixture(scope="module")
def clock():
    return Clock(0.0)


@pytest.fixture(scope="module")
def server(phantoms, clock):
    """(its service, its store, its address); it is known by its own names alone."""
    limits = Limits(places=4, max_bytes=2**21, stall_seconds=5.0)
    algorithm = Algorithm("xray", "1", {"model 1": "sha256:0"})
    with Service(phantoms[0], ["fold0"], limits) as service:
        store = ResultStore(2**24, 100.0, clock)

        def make(port):
            names = host_names("127.0.0.1", port)
            app = create_app(service, algorithm, names)
            add_dicomweb(app, service, DicomResults(algorithm, 0.3, gsps=True, sc=True), store, names)
            return app

        with serving(None, make=make) as address:
            yield service, store, f"{address}/dicom-web"


@pytest.fixture(scope="module")
def address(server):
    return server[2]


@pytest.fixture
def client(server, address, clock):
    """dicomweb-client's client of a server that keeps nothing yet."""
    clock.now += 1000
    server[1].purge()
    return DICOMwebClient(address)


def related(*files, kind="application/dicom"):
    """Headers and body of a request that stores."""
    body = b"".join(head_of("b", {"Content-Type": kind}) + content + b"\r\n" for content in files) + end_of("b")
    return {"Content-Type": content_type_of("b", kind)}, body


def post(address, *files, headers=None):
    its_headers, body = related(*files)
    return requests.post(f"{address}/studies", body, headers={**its_headers, **(headers or {})}, timeout=600)


def values(items, tag):
    return [item[tag]["Value"][0] for item in items]


def test_what_is_stored_is_answered_and_found_with_a_client_that_people_use(client, phantoms, server):
    _, paths = phantoms
    sent = [pydicom.dcmread(path) for path in paths]
    answer = client.store_instances(datasets=sent)
    assert {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence} == {d.SOPInstanceUID for d in sent}
    assert answer.ReferencedSOPSequence[0].RetrieveURL == f"{client.base_url}/studies/1.2.3.1"
    # Nothing of the radiographs stays.
    assert list(server[0].folder.iterdir()) == []

    studies = [pydicom.Dataset.from_json(item) for item in client.search_for_studies()]
    assert [str(study.StudyInstanceUID) for study in studies] == ["1.2.3.1", "1.2.3.2"]
    assert [str(study.PatientName) for study in studies] == ["Doe^John", "Doe^Jane"]
    assert [study.NumberOfStudyRelatedInstances for study in studies] == [8, 4]
    assert [study.NumberOfStudyRelatedSeries for study in studies] == [4, 4]
    assert set(studies[0].ModalitiesInStudy) == KINDS
    assert {study.AccessionNumber for study in studies} == {"A1", "A2"}

    series = [pydicom.Dataset.from_json(item) for item in client.search_for_series("1.2.3.1")]
    assert {one.Modality for one in series} == KINDS
    assert [one.NumberOfSeriesRelatedInstances for one in series] == [2] * 4
    found = client.search_for_instances(search_filters={"Modality": "SEG"})
    assert len(found) == 3
    assert values(found, "00080016") == ["1.2.840.10008.5.1.4.1.1.66.4"] * 3
    assert values(found, "00280010") == [SIZE[1]] * 3

    # The objects themselves, as pydicom reads them, and their metadata.
    objects = client.retrieve_study("1.2.3.1")
    assert sorted(one.Modality for one in objects) == sorted([*KINDS, *KINDS])
    seg = next(one for one in objects if one.Modality == "SEG")
    where = (seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID)
    assert client.retrieve_instance(*where).pixel_array.any()
    (metadata,) = [client.retrieve_instance_metadata(*where)]
    read = pydicom.Dataset.from_json({k: v for k, v in metadata.items() if "BulkDataURI" not in v})
    assert read.SegmentSequence[0].SegmentLabel == seg.SegmentSequence[0].SegmentLabel
    assert "SpecificCharacterSet" not in seg or read.SpecificCharacterSet == seg.SpecificCharacterSet
    (bulk,) = client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])
    assert bulk == seg.PixelData
    assert len(client.retrieve_study_metadata("1.2.3.1")) == 8
    assert len(client.retrieve_series(*where[:2])) == 2
    picture = next(one for one in objects if one.Modality == "OT")
    where = (picture.StudyInstanceUID, picture.SeriesInstanceUID, picture.SOPInstanceUID)
    (frame,) = client.retrieve_instance_frames(*where, frame_numbers=[1])
    np.testing.assert_array_equal(
        np.frombuffer(frame, np.uint8).reshape(picture.Rows, picture.Columns, 3), picture.pixel_array
    )


def test_a_second_sending_doubles_nothing_and_is_not_worked_on(client, phantoms, address):
    oracle, paths = phantoms
    assert post(address, paths[0].read_bytes()).status_code == 200
    first = client.search_for_instances()
    oracle.seen.clear()
    assert post(address, paths[0].read_bytes(), paths[0].read_bytes()).status_code == 200
    assert oracle.seen == []
    assert client.search_for_instances() == first


@pytest.mark.parametrize(
    ("query", "n_studies"),
    [
        ("", 2), ("?PatientID=P1", 1), ("?00100020=P1", 1), ("?PatientID=P*", 2), ("?PatientID=P?", 2),
        ("?PatientID=p1", 0), ("?PatientName=doe^j*", 2), ("?PatientName=DOE^JANE", 1), ("?PatientName=[d]oe*", 0),
        ("?StudyDate=20260101", 1), ("?StudyDate=20260101-20260102", 2), ("?StudyDate=20260102-", 1),
        ("?StudyDate=-20260101", 1), ("?StudyInstanceUID=1.2.3.1,1.2.3.2", 2), ("?StudyInstanceUID=1.2.3.*", 0),
        ("?ModalitiesInStudy=SR", 2), ("?ModalitiesInStudy=CT", 0), ("?AccessionNumber=A2&PatientID=P2", 1),
        ("?AccessionNumber=A2&PatientID=P1", 0), ("?limit=1", 1), ("?limit=1&offset=1", 1), ("?offset=2", 0),
        ("?PatientID=&includefield=all&fuzzymatching=true", 2),
    ],
)  # fmt: skip
def test_searches_match_as_the_standard_says(stored, query, n_studies):
    assert len(requests.get(f"{stored}/studies{query}", timeout=600).json()) == n_studies


@pytest.fixture
def stored(phantoms, address):
    """The address of a server that has answered all three radiographs."""
    assert post(address, *(path.read_bytes() for path in phantoms[1])).status_code == 200
    return address


def test_a_search_that_is_cut_says_so_and_wrong_ones_are_refused(stored):
    cut = requests.get(f"{stored}/instances?limit=5", timeout=600)
    assert len(cut.json()) == 5
    assert cut.headers["Warning"].startswith("299 ")
    rest = [requests.get(f"{stored}/instances?limit=5&offset={offset}", timeout=600).json() for offset in (5, 10)]
    assert len({*values(cut.json(), "00080018"), *values(rest[0] + rest[1], "00080018")}) == 12
    for query, line in (("Shoe=3", "'Shoe' is no attribute"), ("limit=-1", "limit is no number"), ("Rows=3", None)):
        answer = requests.get(f"{stored}/studies?{query}", timeout=600)
        assert (answer.status_code, line in answer.json()["detail"] if line else True) in ((400, True), (200, True))
    assert requests.get(f"{stored}/studies?PixelData=1", timeout=600).status_code == 400


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("*/*", 200, "multipart/related"), (None, 200, "multipart/related"),
        ('multipart/related; type="application/dicom"', 200, "multipart/related"),
        ("multipart/related; type=application/dicom; transfer-syntax=*", 200, "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 200, "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90', 406, None),
        ('multipart/related; type="image/jpeg", application/dicom', 200, "application/dicom"),
        ("application/dicom", 200, "application/dicom"), ("image/png", 406, None),
        ('Multipart/Related; Type="Application/DICOM"; Transfer-Syntax=*', 200, "multipart/related"),
        ('application/dicom;q=0.2, multipart/related;type="application/dicom";q=0.9', 200, "multipart/related"),
        ('multipart/related;type="application/dicom";q=0.2, application/dicom', 200, "application/dicom"),
        ("application/dicom;q=0.000", 406, None), ('multipart/related; type="application/dicom+xml"', 406, None),
    ],
)  # fmt: skip
def test_objects_come_in_the_form_that_is_asked_for(stored, accept, status, kind):
    (one,) = requests.get(f"{stored}/instances?Modality=SR&StudyInstanceUID=1.2.3.2", timeout=600).json()
    url = one["00081190"]["Value"][0]
    answer = requests.get(url, headers={"Accept": accept} if accept else {"Accept": ""}, timeout=600)
    assert answer.status_code == status
    if kind:
        assert answer.headers["Content-Type"].startswith(kind)
        parts = list(read_parts(answer.headers["Content-Type"], [answer.content]))
        content = b"".join(part for part in parts if isinstance(part, bytes))
        assert content[128:132] == b"DICM"
        assert one["00080018"]["Value"][0].encode() in content


def test_searches_metadata_and_pixels_come_in_no_other_form_than_they_are_had_in(stored):
    (one,) = requests.get(f"{stored}/instances?Modality=SEG&StudyInstanceUID=1.2.3.2", timeout=600).json()
    url = one["00081190"]["Value"][0]

    def kind(address, accept):
        answer = requests.get(address, headers={"Accept": accept}, timeout=600)
        assert answer.status_code == 200 or answer.json()["detail"].startswith("this is had as")
        return answer.status_code, answer.headers["Content-Type"].partition(";")[0]

    for address in (f"{stored}/studies", f"{url}/metadata"):
        for accept in (
            "application/dicom+json",
            "*/*",
            "application/json, application/dicom+json",
            "text/html,*/*;q=0.8",
        ):
            assert kind(address, accept) == (200, "application/dicom+json")
        assert kind(address, "application/json") == (200, "application/json")
        assert kind(address, 'multipart/related; type="application/dicom+xml"')[0] == 406
    assert kind(f"{stored}/studies?accept=application/dicom%2Bjson", "text/html") == (200, "application/dicom+json")
    for accept in ("*/*", 'multipart/related; type="application/octet-stream"; transfer-syntax=*'):
        assert kind(f"{url}/frames/1", accept) == (200, "multipart/related")
    for accept in ('multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50', "image/jpeg"):
        assert kind(f"{url}/frames/1", accept)[0] == 406


def test_behind_a_proxy_with_https_addresses_are_those_of_the_client(stored):
    for told, scheme in (("https", "https"), ("HTTPS, http", "https"), ("ftp", "http"), ("", "http")):
        headers = {"X-Forwarded-Proto": told}
        for item in requests.get(f"{stored}/instances", headers=headers, timeout=600).json():
            assert item["00081190"]["Value"][0].startswith(f"{scheme}://127.0.0.1")


def test_a_slash_at_the_end_is_no_redirect(stored):
    """Which behind a proxy with HTTPS would lead to http://."""

    def ask(path):
        return requests.get(stored.removesuffix("/dicom-web") + path, timeout=600, allow_redirects=False)

    for path in ("/studies", "/series", "/instances"):
        with_slash = ask(f"/dicom-web{path}/?limit=2")
        assert with_slash.status_code == 200
        assert with_slash.json() == ask(f"/dicom-web{path}?limit=2").json()
    assert [ask(path).status_code for path in ("/ping/", "/health//", "/", "/page/main.js")] == [200] * 4
    assert [ask(path).status_code for path in ("/nothing/", "/page/", "/page")] == [404] * 3


def test_a_search_says_what_it_does_not_understand(stored):
    answer = requests.get(f"{stored}/studies?PatientName=doe*&fuzzymatching=true", timeout=600)
    assert "Only literal matching" in answer.headers["Warning"]
    assert "Warning" not in requests.get(f"{stored}/studies?fuzzymatching=false", timeout=600).headers
    for query in ("StudyDate=2026-01-01", "StudyDate=2026010", "StudyTime=10:15", "00080020=20260101-2026"):
        answer = requests.get(f"{stored}/studies?{query}", timeout=600)
        assert (answer.status_code, "give it as" in answer.json()["detail"]) == (400, True)


def changed(path, tmp_path, **elements):
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "changed.dcm")
    return (tmp_path / "changed.dcm").read_bytes()


def failures(answer):
    items = answer.json().get("00081198", {"Value": []})["Value"]
    return {item["00081155"]["Value"][0]: item["00081197"]["Value"][0] for item in items}


def test_what_cannot_be_answered_is_named_one_by_one(client, phantoms, address, tmp_path):
    _, (path, other, _) = phantoms
    uid = pydicom.dcmread(path).SOPInstanceUID
    ct = changed(path, tmp_path, SOPClassUID=CTImageStorage, SOPInstanceUID="1.2.9")
    nameless = changed(path, tmp_path, StudyInstanceUID=None, SOPInstanceUID="1.2.8")
    answer = post(address, ct, nameless, other.read_bytes(), b"no DICOM at all")
    assert answer.status_code == 202
    assert failures(answer) == {"1.2.9": 0x0122, "1.2.8": 0xC000}
    assert [item["00081197"]["Value"] for item in answer.json()["0008119A"]["Value"]] == [[0xC000]]
    assert len(answer.json()["00081199"]["Value"]) == 1
    damaged = path.read_bytes()
    answer = post(address, damaged[: len(damaged) // 2])
    assert answer.status_code == 409
    assert failures(answer) == {uid: 0xC000}
    headers, body = related(path.read_bytes())
    answer = requests.post(f"{address}/studies/1.2.77", body, headers=headers, timeout=600)
    assert (answer.status_code, failures(answer)) == (409, {uid: 0xA900})
    # A picture of ours is no radiograph.
    where = client.search_for_instances(search_filters={"Modality": "OT"})[0]
    picture = requests.get(where["00081190"]["Value"][0], headers={"Accept": "application/dicom"}, timeout=600).content
    assert list(failures(post(address, picture)).values()) == [0x0122]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415), ("multipart/related; type=application/dicom", b"--b--", 400),
        (content_type_of("b"), b"", 400), (content_type_of("b"), head_of("b", {}) + b"cut", 400),
        (content_type_of("b"), b"--b\r\n" + b"x" * 20_000, 400), (content_type_of("b"), b"--b--\r\n", 400),
        (content_type_of("b", "application/dicom+json"), head_of("b", {}) + b"[]" + end_of("b"), 415),
        (content_type_of("b", "application/dicom+xml"), b"", 415),
        (content_type_of("b"), related(*[b"x"] * 101)[1], 413), (content_type_of("b"), b"x" * (2**21 + 1), 413),
    ],
)  # fmt: skip
def test_damaged_requests_get_one_clear_line_and_leave_nothing(address, server, kind, body, status):
    answer = requests.post(f"{address}/studies", body, headers={"Content-Type": kind}, timeout=600)
    assert answer.status_code == status
    assert "\n" not in answer.json()["detail"]
    assert list(server[0].folder.iterdir()) == []


def test_a_quoted_boundary_is_one_and_a_compressed_body_is_told(address, phantoms):
    mark = "a b:c/d=?'()+_,-."
    content = (
        head_of(mark, {"Content-Type": "application/dicom"}) + phantoms[1][0].read_bytes() + b"\r\n" + end_of(mark)
    )
    kind = f'Multipart/Related;Boundary="{mark}" ; Type=application/DICOM'
    answer = requests.post(f"{address}/studies", content, headers={"Content-Type": kind}, timeout=600)
    assert answer.status_code == 200
    headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
    answer = requests.post(f"{address}/studies", gzip.compress(content), headers=headers, timeout=600)
    assert (answer.status_code, answer.json()["detail"]) == (415, "the body is compressed: send it as it is")


def test_results_are_gone_when_their_time_is_over(client, phantoms, address, clock):
    post(address, phantoms[1][0].read_bytes())
    (study,) = client.search_for_studies()
    url = study["00081190"]["Value"][0]
    clock.now += 99
    assert requests.get(url, timeout=600).status_code == 200
    clock.now += 2
    answer = requests.get(url, timeout=600)
    assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (
        404,
        "there is no such result, or its time is over",
    )
    assert client.search_for_studies() == []


def test_where_results_have_no_room_or_the_server_is_busy_it_says_when_to_come_back(
    client, phantoms, address, server, monkeypatch
):
    service, store, _ = server
    monkeypatch.setattr(store, "n_bytes", 2**16)
    answer = post(address, phantoms[1][0].read_bytes())
    assert (answer.status_code, list(failures(answer).values())) == (503, [0xA700])
    assert int(answer.headers["Retry-After"]) == 100
    monkeypatch.undo()
    places = [service.model.enter() for _ in range(4)]
    try:
        answer = post(address, phantoms[1][0].read_bytes())
        assert (answer.status_code, list(failures(answer).values())) == (503, [0xA700])
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        for place in places:
            place.__exit__()
    assert post(address, phantoms[1][0].read_bytes()).status_code == 200


def test_names_of_others_are_refused_with_and_without_a_port(address):
    for name, status in (("evil.example", 421), ("127.0.0.1", 200), ("localhost", 200), ("", 421)):
        assert requests.get(f"{address}/studies", headers={"Host": name}, timeout=600).status_code == status
    assert requests.get(address.replace("dicom-web", "health"), headers={"Host": "127.0.0.1"}).status_code == 421


def test_accounts_hold_here_too_and_the_request_log_names_no_study(phantoms):
    seen, algorithm = [], Algorithm("xray", "1")
    with Service(phantoms[0], ["fold0"], Limits(places=4)) as service:
        around = Operations(Checker(Accounts({"ali": Hash.of("secret")})), requests=seen.append)
        app = create_app(service, algorithm, None, around)
        add_dicomweb(app, service, DicomResults(algorithm, 0.3), ResultStore(2**24, 100.0))
        with TestClient(app) as client:
            headers, body = related(phantoms[1][2].read_bytes())
            assert client.post("/dicom-web/studies", content=body, headers=headers).status_code == 401
            assert client.get("/dicom-web/studies").status_code == 401
            headers["Authorization"] = "Bearer secret"
            assert client.post("/dicom-web/studies", content=body, headers=headers).status_code == 200
            for path in ("studies", "studies/1.2.3.2/series", "studies/1.2.3.2/metadata", "studies/1.2.3.2"):
                assert client.get(f"/dicom-web/{path}", headers=headers).status_code == 200
    assert len(seen) == 7
    assert not any("1.2.3" in one.route for one in seen)


def test_several_clients_at_once_get_their_own(client, phantoms, address):
    answers = []

    def ask(path):
        for _ in range(100):
            answer = post(address, path.read_bytes())
            if answer.status_code not in (429, 503):
                break
        answers.append(answer.status_code)

    threads = [threading.Thread(target=ask, args=(path,)) for path in phantoms[1] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert len(client.search_for_instances()) == 12


@pytest.mark.slow
def test_the_command_serves_it_and_logs_nobody(phantoms, vinbig_run, tmp_path):
    flags = ["--weights", vinbig_run, "--port", "0", "--device", "cpu", "--no-tta", "--n-workers", "1", "--dicomweb"]
    command = [sys.executable, ROOT / "tools" / "serve.py", *flags]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        try:
            while not (found := re.search(r"http://\S+/", (tmp_path / "log").read_text())):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
            client = DICOMwebClient(f"{found[0]}dicom-web")
            answer = client.store_instances(datasets=[pydicom.dcmread(path) for path in phantoms[1]])
            assert len(answer.ReferencedSOPSequence) == 3
            assert {one.Modality for one in client.retrieve_study("1.2.3.2")} == {"SR"}
            assert len(client.search_for_studies()) == 2
        finally:
            process.terminate()
            process.wait(60)
    assert "Doe" not in (tmp_path / "log").read_text()


def test_a_wrong_method_is_told_which_are_right(server):
    for method, path, allowed in (
        ("PUT", "/studies", {"GET", "HEAD", "POST"}),
        ("DELETE", "/studies/1.2.3.1", {"GET", "HEAD", "POST"}),
        ("POST", "/studies/1.2.3.1/metadata", {"GET", "HEAD"}),
    ):
        answer = requests.request(method, f"{server[2]}{path}", data=b"12", timeout=600)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == allowed
        assert answer.json()["detail"].startswith(f"{method} is not answered here: ")
