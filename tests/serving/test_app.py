"""The HTTP API: what it answers, what it refuses, and that nothing of a request stays behind."""

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pydicom
import pytest
import torch
from conftest import rarely
from serving_cases import TWELVE_BITS, Oracle, rle_of, serving, write_phantom
from starlette.testclient import TestClient

from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.inference.pipeline_loading import load_pipeline
from xray.outputs.dicom.objects import Algorithm
from xray.radiographs.decoding import decode_canvas
from xray.serving.app import PAGE, create_app
from xray.serving.exports import EXPORTS
from xray.serving.service import Limits, Service
from xray.structures.masks import decode_mask
from xray.structures.predictions import NO_FINDING_CATEGORY

ROOT = Path(__file__).resolve().parents[2]
SCORES = (0.93, 0.71, 0.55, 0.12)
SECRET = "Doe^Jane"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("radiographs")


@pytest.fixture(scope="module")
def phantom(folder):
    """A file with a pneumothorax, and its truth."""
    path = folder / f"{SECRET}.dcm"
    return path, write_phantom(path, 3, (0, 3, 10, 12), (256, 300), TWELVE_BITS)


@pytest.fixture(scope="module")
def oracle(phantom):
    oracle = Oracle()
    oracle.learn(*phantom, SCORES)
    return oracle


@pytest.fixture(scope="module")
def service(oracle):
    with Service(oracle, ["fold0", "masks"], Limits(places=4, max_bytes=2**20, stall_seconds=5.0)) as service:
        yield service


@pytest.fixture(scope="module")
def app(service):
    return create_app(service, Algorithm("xray", "1", {"model 1": "sha256:0"}))


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def address(app):
    with serving(app) as address:
        yield address


@pytest.fixture
def gate(oracle):
    """Closed, the models wait; it is opened in the end."""
    oracle.seen.clear()
    oracle.gate_open.clear()
    yield oracle.gate_open
    oracle.gate_open.set()


def until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(address: str, path: str, body: bytes, **headers: str) -> tuple[int, dict, dict]:
    """Status, headers and JSON of a request of its own connection."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/octet-stream", **headers})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())


@pytest.mark.parametrize("path", ["/", "/ping", "/health", "/openapi.json", "/queue/1", "/nothing"])
def test_head_is_get_without_its_body(address, path):
    answers = {}
    for method in ("GET", "HEAD", "GET"):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name not in ("date",)}
            answers[method] = response.status, kept, response.read()
    assert answers["HEAD"] == (*answers["GET"][:2], b"")


def asked(address, method, path, body=None, **headers):
    """Status, headers and body of a request of its own connection."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/predict", "/predict/", "/pixels", "/invocations", "/dicom/sr", "/fhir"])
def test_what_takes_files_says_so_to_whoever_only_looks_at_it(address, method, path):
    status, headers, body = asked(address, method, f"{path}?patient={SECRET}", b"12" if method == "PUT" else None)
    assert (status, headers["allow"]) == (405, "POST")
    assert headers["content-type"] == "application/json"
    if method == "HEAD":
        assert body == b""
        assert int(headers["content-length"]) > 100
        return
    line = json.loads(body)["detail"]
    also = ' -F "findings=<answer.json"' if path in ("/dicom/sr", "/fhir") else ""
    assert line.startswith(f"{method} is not answered here: send ")
    here = f"http://{urlsplit(address).netloc}{path.rstrip('/')}"
    assert line.endswith(f'by POST, such as curl -F "file=@radiograph.dcm"{also} {here}')
    assert "\n" not in line
    assert SECRET not in line


@pytest.mark.parametrize("path", ["/", "/health", "/queue/1", "/page/main.js", "/page/predict"])
def test_what_only_tells_something_says_which_methods_it_takes(address, path):
    status, headers, body = asked(address, "POST", path, b"12")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body) == {"detail": "POST is not answered here: this address takes GET, HEAD"}
    assert asked(address, "GET", path)[0] in (200, 404)


def test_a_large_body_of_a_wrong_method_is_answered_too(address, phantom):
    status, headers, body = asked(address, "PUT", "/predict", b"0" * 3 * 2**20)
    assert (status, headers["allow"], headers["connection"]) == (405, "POST", "close")
    assert "by POST" in json.loads(body)["detail"]


def test_what_the_line_says_to_do_works(address, phantom):
    line = json.loads(asked(address, "GET", "/predict")[2])["detail"]
    program, *words = shlex.split(line.partition("such as ")[2].replace("radiograph.dcm", str(phantom[0])))
    if shutil.which(program) is None:
        pytest.skip("curl is not here")
    done = subprocess.run([program, "--silent", *words], capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout)["findings"]


@pytest.mark.parametrize("way", ["body", "form", "/invocations"])
def test_finds_what_is_there(client, phantom, way):
    path, truth = phantom
    content = path.read_bytes()
    if way == "form":
        response = client.post("/predict", files={"file": (f"../../{SECRET}.dcm", content, "application/dicom")})
    else:
        kind = "application/dicom" if way == "/invocations" else "application/octet-stream"
        response = client.post(way if way[0] == "/" else "/predict", content=content, headers={"content-type": kind})
    assert response.status_code == 200
    answer = response.json()
    assert (answer["width"], answer["height"]) == (256, 300)
    assert [finding["score"] for finding in answer["findings"]] == sorted(SCORES[: len(truth.boxes)], reverse=True)
    for finding, box, class_id in zip(answer["findings"], truth.boxes, truth.class_ids, strict=True):
        assert (finding["category"], finding["category_id"]) == (FINDINGS[class_id], class_id + 1)
        np.testing.assert_allclose(finding["box"], box, atol=0.01)
        if class_id == PNEUMOTHORAX:
            np.testing.assert_array_equal(decode_mask(finding["mask"]), truth.pneumothorax_mask)
        else:
            assert finding["mask"] is None
    assert any(finding["mask"] for finding in answer["findings"])
    assert answer["normal"] == pytest.approx(1 - 0.93)
    assert answer["models"] == ["fold0", "masks"]
    assert answer["thresholds"]["mask_top"] == 0.75


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_takes_pictures(client, suffix):
    _, picture = cv2.imencode(f".{suffix}", np.zeros((40, 50), dtype=np.uint8))
    kind = {"png": "image/png", "jpg": "image/jpeg"}[suffix]
    response = client.post("/invocations", content=picture.tobytes(), headers={"content-type": kind})
    assert response.status_code == 200
    assert (response.json()["width"], response.json()["height"]) == (50, 40)
    assert response.json()["findings"] == []


def test_answers_as_the_pipeline_finds(vinbig_run, vinbig_store):
    pipeline = load_pipeline([vinbig_run], torch.device("cpu"))
    path = sorted((vinbig_store.parent / "source" / "train").iterdir())[1]
    decoded = decode_canvas(0, path, pipeline.canvas_size)
    found = pipeline.find(decoded.canvas[None], [(decoded.width, decoded.height)])
    with Service(pipeline, ["run"]) as service, TestClient(create_app(service)) as client:
        answer = client.post("/predict", content=path.read_bytes()).json()
        assert client.get("/about").json()["exports"] == []
        assert client.post("/dicom/sr").status_code == 404
    rows = found.table.labels != NO_FINDING_CATEGORY
    table = found.table.select(rows)
    assert len(table) > 0
    assert [finding["category_id"] for finding in answer["findings"]] == table.labels.tolist()
    np.testing.assert_allclose([finding["score"] for finding in answer["findings"]], table.scores, atol=2e-6)
    np.testing.assert_allclose([finding["box"] for finding in answer["findings"]], table.boxes, atol=0.006)
    assert answer["normal"] == pytest.approx(found.table.scores[~rows][0], abs=2e-6)


@pytest.mark.parametrize(
    ("content", "kind", "status", "line"),
    [
        (b"", "application/dicom", 400, "the body is empty"),
        (b"hello", "application/dicom", 415, "neither DICOM nor PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "image/png", 422, "damaged PNG file"),
        (b"{}", "application/json", 415, "this is 'application/json'"),
        (b"hello", "multipart/form-data", 400, "damaged form"),
        (b"--y\r\nnonsense", "multipart/form-data; boundary=x", 400, "damaged form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "no file"),
    ],
)
def test_refuses_with_one_clear_line(client, service, content, kind, status, line):
    response = client.post("/predict", content=content, headers={"content-type": kind})
    assert response.status_code == status
    assert line in response.json()["detail"]
    assert "\n" not in response.json()["detail"]
    assert not re.search("[0-9a-f]{32}", response.text)
    assert list(service.folder.iterdir()) == []


def test_a_damaged_file_is_named_by_what_is_wrong_alone(client, phantom, service):
    content = phantom[0].read_bytes()
    response = client.post("/predict", files={"file": (f"{SECRET}.dcm", content[:-5000])})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("truncated: 256 x 300 pixels of 16 bits need")
    assert SECRET not in response.text
    two = client.post("/predict", files=[("file", content), ("file", content)])
    assert two.status_code == 400
    compressed = client.post("/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert compressed.status_code == 415
    assert list(service.folder.iterdir()) == []
    assert service.model.load["taken"] == 0


@pytest.mark.parametrize("path", ["/predict", "/pixels", "/dicom/sr"])
def test_counts_bytes_whatever_the_headers_say(address, path):
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if "sr" in path else b""
    kind = "multipart/form-data; boundary=x" if head else "application/dicom"

    def chunks():
        yield head
        for _ in range(17):
            yield bytes(2**16)

    status, _, answer = post(address, path, chunks(), **{"Content-Type": kind})
    assert (status, answer["detail"]) == (413, "the request has more than the 1 MiB allowed")
    status, _, answer = post(address, path, bytes(2**20 + 1), **{"Content-Type": kind})
    assert status == 413


def test_a_file_that_stops_coming_is_given_up(address, service):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b"x")
        response = connection.getresponse()
        assert response.status == 408
        assert "slowly" in response.read().decode()
    assert list(service.folder.iterdir()) == []


def test_work_ends_when_its_client_hangs_up(oracle, phantom, monkeypatch):
    with Service(oracle, ["run"], Limits(n_workers=1, decode_seconds=3600)) as service:
        workers = service.workers
        in_worker = service.in_worker
        # What is asked of the only worker takes an hour.
        monkeypatch.setattr(service, "in_worker", lambda work, path: workers.submit(time.sleep, 3600, "an hour", 3600))
        with serving(create_app(service)) as address:
            content = phantom[0].read_bytes()
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
            with contextlib.closing(connection):
                connection.request("POST", "/pixels", content)
                until(lambda: any(one.job and one.job.future.running() for one in workers._under_way.values()))
            monkeypatch.setattr(service, "in_worker", in_worker)
            assert post(address, "/predict", content)[0] == 200


def test_a_full_house_says_when_to_come_back(address, service, phantom, gate):
    content = phantom[0].read_bytes()
    results = []
    threads = [threading.Thread(target=lambda: results.append(post(address, "/predict", content))) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: service.model.load["waiting"] == 3)
    status, headers, answer = post(address, "/predict", content)
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 30
    assert headers["retry-after"] in answer["detail"]
    # What needs no model is still answered.
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.request("POST", "/pixels", content)
        assert connection.getresponse().status == 200
    gate.set()
    for thread in threads:
        thread.join()
    assert [status for status, *_ in results] == [200] * 4
    assert post(address, "/predict", content)[0] == 200


def test_whoever_hangs_up_leaves_the_queue(address, client, service, oracle, phantom, gate):
    content = phantom[0].read_bytes()
    connections = []
    for number in range(3):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
        connection.request("POST", "/predict", content, {"X-Ticket": f"ticket-{number}"})
        connections.append(connection)
        until(lambda n=number: service.model.load["running"] + service.model.load["waiting"] == n + 1)
    assert [client.get(f"/queue/ticket-{n}").json() for n in range(3)] == [
        {"state": "running", "before": 0},
        {"state": "waiting", "before": 0},
        {"state": "waiting", "before": 1},
    ]
    assert client.post("/predict", content=content, headers={"X-Ticket": "ticket-0"}).status_code == 400
    assert client.post("/predict", content=content, headers={"X-Ticket": "a/b"}).status_code == 400
    connections[1].close()
    until(lambda: client.get("/queue/ticket-1").status_code == 404)
    assert client.get("/queue/ticket-2").json() == {"state": "waiting", "before": 0}
    gate.set()
    for connection in (connections[0], connections[2]):
        assert connection.getresponse().status == 200
        connection.close()
    assert sum(oracle.seen) == 2
    until(lambda: service.model.load["taken"] == 0)


def test_models_that_fail_cost_one_answer(client, oracle, phantom, monkeypatch):
    content = phantom[0].read_bytes()

    def fail(canvases, sizes):
        raise RuntimeError(SECRET)

    with monkeypatch.context() as patch:
        patch.setattr(oracle, "find", fail)
        response = client.post("/predict", content=content)
        assert response.status_code == 500
        assert response.json() == {"detail": "the models failed on this radiograph (RuntimeError)"}
    assert client.post("/predict", content=content).status_code == 200


def test_health_says_how_the_dicom_node_stands():
    status = {"waiting": 3, "oldest_seconds": 1.5}
    service = Service(Oracle(), ["run"])
    with service:
        client = TestClient(create_app(service, Algorithm("xray", "1"), node=lambda: status))
        assert client.get("/health").json()["dicom"] == status
    assert client.get("/health").json()["dicom"] == status


def test_says_how_it_is():
    service = Service(Oracle(), ["run"])
    client = TestClient(create_app(service))
    with service:
        assert client.get("/ping").status_code == 200
        assert client.get("/health").json() == {"status": "ok", "places": 32, "taken": 0, "waiting": 0, "running": 0}
        folder = service.folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert client.get("/ping").status_code == 503
    assert client.get("/health").status_code == 503
    assert client.get("/health").json()["status"] == "stopped"


def test_describes_itself(client):
    about = client.get("/about").json()
    assert [category["name"] for category in about["categories"]] == list(FINDINGS)
    assert (about["max_bytes"], about["exports"], about["is_vinbig"]) == (2**20, list(EXPORTS), True)
    api = client.get("/openapi.json").json()
    for path in ("/predict", "/invocations", "/pixels", "/dicom/sr"):
        assert "multipart/form-data" in api["paths"][path]["post"]["requestBody"]["content"]
    statuses = {int(status) for status in api["paths"]["/predict"]["post"]["responses"]}
    assert statuses == {200, 400, 408, 413, 415, 422, 429, 500}


def test_every_answer_carries_the_security_headers(client):
    for path in ("/", "/docs", "/page/main.js", "/about", "/health", "/nowhere", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def test_other_sites_pages_get_nothing(client):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 400), ("none", 400)):
        assert client.post("/predict", content=b"", headers={"sec-fetch-site": site}).status_code == status


def test_the_page_fetches_nothing_from_elsewhere():
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".css", ".js", ".svg"}
    for path in files:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z]", re.sub(r"(^|\s)//.*", "", text)), path.name
        assert not re.search(r"\son\w+=|style=|javascript:|eval\(|innerHTML", text), path.name
        if path.suffix == ".js":
            assert len(text.splitlines()) < 300, path.name


class TestDicomObjects:
    """SR and SEG by way of the API."""

    def test_refer_to_the_file_and_hold_what_was_sent(self, client, phantom):
        path, truth = phantom
        content, source = path.read_bytes(), pydicom.dcmread(path)
        answer = client.post("/predict", content=content).json()
        answer["findings"] = [finding for finding in answer["findings"] if finding["score"] > 0.5]
        form = {"files": {"file": content}, "data": {"findings": json.dumps(answer)}}
        response = client.post("/dicom/sr", **form)
        assert response.headers["content-type"] == "application/dicom"
        report = pydicom.dcmread(io.BytesIO(response.content))
        assert report.StudyInstanceUID == source.StudyInstanceUID
        names = {FINDINGS[class_id] for class_id in truth.class_ids[:3]}
        text = str(report)
        assert len(answer["findings"]) == len(names) == 3
        assert source.SOPInstanceUID in text
        assert sum(name in text for name in names) >= 1
        answer["findings"] = [{**answer["findings"][0], "category_id": 13, "mask": rle_of(truth.pneumothorax_mask)}]
        form["data"]["findings"] = json.dumps(answer)
        response = client.post("/fhir", **form)
        assert response.headers["content-type"] == "application/fhir+json"
        resources = [entry["resource"] for entry in response.json()["entry"]]
        (finding,) = [resource for resource in resources if "derivedFrom" in resource and "component" in resource]
        assert finding["valueCodeableConcept"]["text"] == "Pneumothorax"
        # Of a mask that was sent, too, there is the area.
        numbers = {one["code"]["coding"][0]["display"]: one["valueQuantity"] for one in finding["component"]}
        assert set(numbers) == {"Certainty of Finding", "Width", "Height", "Long axis", "Area"}
        segments = pydicom.dcmread(io.BytesIO(client.post("/dicom/seg", **form).content))
        np.testing.assert_array_equal(segments.pixel_array.reshape(300, 256), truth.pneumothorax_mask)

    def test_hold_by_default_what_people_are_shown(self, client, phantom):
        content = phantom[0].read_bytes()
        answer = client.post("/predict", content=content).json()
        first = answer["findings"][0]
        answer["findings"] = [{**first, "score": score} for score in (0.9, 0.31, 0.29, 0.01)]

        def n_shown(answer, query=""):
            form = {"files": {"file": content}, "data": {"findings": json.dumps(answer)}}
            entries = client.post(f"/fhir{query}", **form).json()["entry"]
            return sum("component" in entry["resource"] and "derivedFrom" in entry["resource"] for entry in entries)

        assert answer["thresholds"]["shown_from"] == 0.3
        assert [n_shown(answer, query) for query in ("", "?threshold=0.5", "?threshold=0")] == [2, 1, 4]
        fitted = [{**one, "is_positive": one["score"] < 0.1, "probability": 0.6} for one in answer["findings"]]
        assert [n_shown({**answer, "findings": fitted}, query) for query in ("", "?threshold=0.5")] == [1, 1]
        form = {"files": {"file": content}, "data": {"findings": json.dumps(answer)}}
        for query, line in (
            ("2", "threshold: input should be less than or equal to 1"),
            ("a%0Ab", "threshold: input should be a valid number, unable to parse string as a number"),
        ):
            refused = client.post(f"/fhir?threshold={query}", **form)
            assert (refused.status_code, refused.json()) == (422, {"detail": line})

    def test_are_drawn_over_it_or_on_it(self, client, phantom):
        path, _ = phantom
        content, source = path.read_bytes(), pydicom.dcmread(path)
        answer = client.post("/predict", content=content).json()
        objects = {}
        for n in (1, 2, 2):
            shown = {**answer, "findings": answer["findings"][:n]}
            for kind in ("gsps", "sc"):
                response = client.post(
                    f"/dicom/{kind}?threshold=0", files={"file": content}, data={"findings": json.dumps(shown)}
                )
                assert response.headers["content-type"] == "application/dicom"
                made = pydicom.dcmread(io.BytesIO(response.content))
                assert made.StudyInstanceUID == source.StudyInstanceUID
                assert source.SOPInstanceUID in str(made)
                objects.setdefault(kind, []).append(made)
        for one, two, again in objects.values():
            # Other findings are another object, and the same findings the same one.
            assert one.SOPInstanceUID != two.SOPInstanceUID == again.SOPInstanceUID
        for n, state in enumerate(objects["gsps"][:2], start=1):
            lines = [
                graphic
                for annotation in state.GraphicAnnotationSequence
                for graphic in annotation.get("GraphicObjectSequence", [])
            ]
            assert len(lines) == n
        one, two, _ = objects["sc"]
        # One more box, and one more line below the radiograph.
        assert one.pixel_array.shape[1:] == two.pixel_array.shape[1:]
        assert (one.pixel_array[:500] != two.pixel_array[:500]).any()

    def test_refuse_what_cannot_be_one(self, client, phantom):
        content = phantom[0].read_bytes()
        answer = client.post("/predict", content=content).json()
        _, picture = cv2.imencode(".png", np.zeros((300, 256), dtype=np.uint8))

        def status(kind, file, findings):
            response = client.post(f"/dicom/{kind}", files={"file": file}, data={"findings": json.dumps(findings)})
            return response.status_code, response.json()["detail"]

        assert status("sr", picture.tobytes(), answer) == (422, "the file is no DICOM file: DICOM objects refer to one")
        assert status("seg", content, {**answer, "findings": []})[0] == 422
        assert status("sc", picture.tobytes(), answer)[0] == 422
        # Grey that is stored as colour.
        coloured = pydicom.dcmread(io.BytesIO(content))
        coloured.PhotometricInterpretation, coloured.SamplesPerPixel, coloured.PlanarConfiguration = "RGB", 3, 0
        coloured.BitsAllocated, coloured.BitsStored, coloured.HighBit, coloured.PixelRepresentation = 8, 8, 7, 0
        coloured.PixelData = np.random.default_rng(0).integers(0, 256, (300, 256), np.uint8).repeat(3).tobytes()
        buffer = io.BytesIO()
        coloured.save_as(buffer)
        by_hand = {name: value for name, value in answer.items() if name != "file_sha256"}
        assert status("gsps", buffer.getvalue(), by_hand) == (
            422,
            "there is no presentation state of an image in colour",
        )
        mask = {"size": [300, 256], "counts": "0" * 40}
        faulty = {**answer["findings"][0], "mask": mask}
        assert status("seg", content, {**answer, "findings": [faulty]})[0] == 422
        for change in (
            {"findings": 1},
            {"normal": 2},
            {"labels": {"a": "b"}},
            {"findings": [{**faulty, "box": [-1, 0, 1, 1]}]},
        ):
            code, line = status("sr", content, {**answer, **change})
            assert code == 400
            assert "no answer of /predict" in line
        assert client.post("/dicom/sr", files={"file": content}).status_code == 400

    @pytest.mark.parametrize("path", ["/dicom/sr", "/dicom/seg", "/dicom/gsps", "/dicom/sc", "/fhir"])
    def test_are_not_made_of_the_answer_of_another_radiograph(self, client, phantom, path):
        content = phantom[0].read_bytes()
        answer = client.post("/predict", content=content).json()
        assert answer["file_sha256"] == hashlib.sha256(content).hexdigest()
        mask = rle_of(phantom[1].pneumothorax_mask)
        answer["findings"] = [{**answer["findings"][0], "score": 0.9, "category_id": 13, "mask": mask}]
        by_hand = {name: value for name, value in answer.items() if name != "file_sha256"}

        def ask(file, findings):
            response = client.post(path, files={"file": file}, data={"findings": json.dumps(findings)})
            return response.status_code, response.json()["detail"] if response.status_code != 200 else ""

        assert ask(content, answer) == ask(content, by_hand) == (200, "")
        other = pydicom.dcmread(io.BytesIO(content))
        other.PatientID, other.SOPInstanceUID = "another", other.SOPInstanceUID + ".1"
        other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
        of_same_size, cut = io.BytesIO(), io.BytesIO()
        other.save_as(of_same_size)
        status, line = ask(of_same_size.getvalue(), answer)
        assert status == 422
        assert line.startswith("the findings are of another file (their file_sha256 is not that of this one)")
        # Without the hash the size is all that there is to tell them apart.
        other.PixelData, other.Rows = other.pixel_array[:200].tobytes(), 200
        other.save_as(cut)
        for given in (answer, by_hand):
            status, line = ask(cut.getvalue(), given)
            assert status == 422
            assert line.startswith("the findings are of a radiograph of 256 × 300 pixels, and the file has 256 × 200")
        assert ask(content, {**answer, "file_sha256": "text"})[0] == 400


@pytest.mark.parametrize("which", rarely([signal.SIGTERM, signal.SIGINT]))
def test_the_command(vinbig_run, vinbig_store, tmp_path, which):
    """Serves at a free port, says nothing of files, and ends in order."""
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), "--weights", str(vinbig_run), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*command, "--precision", "32", "--n-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        path = sorted((vinbig_store.parent / "source" / "train").iterdir())[1]
        assert post(address, "/predict", path.read_bytes())[0] == 200
        assert post(address, f"/predict?name={SECRET}", b"no radiograph")[0] == 415
        for path in ("/predict", "/invocations", "/ping", "/"):
            assert post(address, path, b"", Host="rebound.example", **{"X-Forwarded-Host": "localhost"})[0] == 421
        assert post(address, "/predict", b"", Origin="null")[0] == 403
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.send_signal(which)
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 128 + which
        assert errors.strip() == {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[which]
        assert SECRET not in output + errors
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
        assert not list(tmp_path.glob("xray-uploads-*"))
    finally:
        process.kill()
        process.wait()


def test_the_command_says_what_is_wrong(tmp_path):
    import socket

    from xray.commands.serve import main
    from xray.commands.serve_flags import Config
    from xray.errors import FlagError, InputError

    with pytest.raises(InputError, match="no run directory at"):
        main(Config(weights=(str(tmp_path / "nowhere"),), port=0))
    with pytest.raises(FlagError, match="--places"):
        main(Config(weights=("run",), places=0))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen at"):
        main(Config(weights=("run",), port=taken.getsockname()[1]))
    with pytest.raises(InputError, match="cannot listen at"):
        main(Config(weights=("run",), host="no.such.host.invalid"))
