"""The request log and the metrics: what happened, and never to whom."""

import json
import math
import os
import subprocess
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving_cases import TWELVE_BITS, Oracle, serving, write_phantom
from starlette.testclient import TestClient

from xray.errors import InputError
from xray.outputs.dicom.objects import Algorithm
from xray.serving.app import create_app
from xray.serving.metrics import Metrics
from xray.serving.observing import Observed, RequestLog
from xray.serving.operations import Operations, models_of
from xray.serving.routes import route_after, route_of
from xray.serving.service import Limits, Service

SECRET = "Doe^Jane"
IDENTIFIER = "1.2.826.0.1.3680043"


@pytest.fixture(scope="module")
def service():
    with Service(Oracle(), ["fold0"], Limits(places=3, max_bytes=2**20)) as service:
        yield service


@pytest.fixture
def node():
    """What the DICOM node says of itself."""
    return {"queued": 3, "retries A700": 2.5, "up": True, "oldest": math.nan, "name": "x"}


@pytest.fixture
def log(tmp_path):
    log = RequestLog(str(tmp_path / "requests.log"))
    yield log
    log.close()


@pytest.fixture
def app(service, node, log):
    parameters = {"model 1": "detection sha256:aa", "gate": "soft", "model 2": "ensemble sha256:bb"}
    metrics = Metrics(lambda: service.model.load, models_of(parameters, ["one"]), lambda: node)
    return create_app(service, Algorithm("xray", "1", {}), None, Operations(requests=log, metrics=metrics))


@pytest.fixture
def client(app):
    return TestClient(app)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "requests.log").read_text().splitlines()]


def samples_of(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_line_says_what_happened_and_to_nobody(client, tmp_path):
    headers = {"authorization": f"Basic {SECRET}", "x-ticket": IDENTIFIER.replace(".", "-"), "user-agent": SECRET}
    client.get(f"/queue/{IDENTIFIER}?patient={SECRET}", headers=headers)
    client.post("/predict", headers=headers, content=b"123456")
    client.get(f"/page/{SECRET}.js")
    client.get(f"/{SECRET}")
    client.request("PROPFIND", "/about")
    text = (tmp_path / "requests.log").read_text()
    assert SECRET not in text
    assert IDENTIFIER not in text
    assert "testclient" not in text
    lines = lines_of(tmp_path)
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/queue/{ticket}", 404), ("POST", "/predict", 415), ("GET", "/page/{path}", 404),
        ("GET", "unknown", 404), ("other", "/about", 405),
    ]  # fmt: skip
    assert set(lines[0]) == {"time", "method", "route", "status", "milliseconds", "received", "sent"}
    assert lines[0]["sent"] == len(
        json.dumps({"detail": "no request with this ticket is being answered"}, separators=(",", ":"))
    )
    assert lines[1]["received"] == 6


def test_the_file_is_its_owners_and_may_be_moved_away(client, log, tmp_path):
    client.get("/ping")
    path = tmp_path / "requests.log"
    assert os.stat(path).st_mode & 0o777 == 0o600
    path.rename(tmp_path / "old.log")
    client.get("/health")
    assert [line["route"] for line in lines_of(tmp_path)] == ["/health"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_told_before_and_after(tmp_path, caplog):
    with pytest.raises(InputError, match=r"--request-log .*nowhere/x cannot be written"):
        RequestLog(str(tmp_path / "nowhere" / "x"))
    if os.path.exists("/dev/full"):
        full = RequestLog("/dev/full")
        for _ in range(3):
            full(Observed("GET", "/", 200, 0.1, 0, 0))
        full.close()
        assert [record.getMessage() for record in caplog.records] == [
            "the request log cannot be written: No space left on device"
        ]


def test_stderr_is_a_log_too(capsys):
    RequestLog("-")(Observed("GET", "/", 200, 0.0125, 1, 2))
    assert json.loads(capsys.readouterr().err)["milliseconds"] == 12.5


def test_a_client_that_hangs_up_has_a_status_of_its_own(service, app, tmp_path):
    import socket
    from urllib.parse import urlsplit

    with serving(app) as address:
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
        waiting = threading.Event()
        while not (tmp_path / "requests.log").read_text():
            waiting.wait(0.01)
    assert [line["status"] for line in lines_of(tmp_path)] == [499]


def test_metrics_count_requests_radiographs_and_failures(client, tmp_path):
    path = tmp_path / "a.dcm"
    write_phantom(path, 3, (0,), (64, 80), TWELVE_BITS)
    assert client.post("/predict", content=path.read_bytes()).status_code == 200
    for content, status in ((b"x", 415), (path.read_bytes()[:3000], 422), (b"", 400)):
        assert (
            client.post("/predict", content=content, headers={"content-type": "application/dicom"}).status_code
            == status
        )
    client.get("/nowhere")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = samples_of(response.text)
    assert samples["xray_http_requests_total", "/predict", "200", "POST"] == 1
    assert samples["xray_radiographs_total",] == 1
    for reason in ("no_radiograph", "unreadable", "damaged_request", "not_found"):
        assert samples["xray_failures_total", reason] == 1
    assert samples["xray_http_request_seconds_count", "/predict"] == 4
    assert samples["xray_http_request_seconds_bucket", "+Inf", "/predict"] == 4
    assert samples["xray_http_received_bytes_total", "/predict"] >= path.stat().st_size
    assert (samples["xray_places",], samples["xray_taken",], samples["xray_waiting",], samples["xray_running",]) == (
        3,
        0,
        0,
        0,
    )
    assert samples["xray_model_info", "", "1", "aa", "detection"] == 1
    assert samples["xray_model_info", "", "2", "bb", "ensemble"] == 1
    if os.path.isdir("/proc/self"):
        assert samples["process_resident_memory_bytes",] > 0


def test_open_metrics_are_spoken_too(client):
    response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_the_nodes_numbers_are_gauges(client, node):
    samples = samples_of(client.get("/metrics").text)
    assert samples["xray_dicom_queued",] == 3
    assert samples["xray_dicom_retries_a700",] == 2.5
    assert samples["xray_dicom_up",] == 1
    assert not [name for name, *_ in samples if "oldest" in name or name.endswith("_name")]
    node["queued"] = 1
    assert samples_of(client.get("/metrics").text)["xray_dicom_queued",] == 1


def test_a_node_that_cannot_say_how_it_is_hides_nothing_else(service, caplog):
    def fail():
        raise ValueError(SECRET)

    metrics = Metrics(lambda: service.model.load, [], fail)
    for _ in range(2):
        text, _ = metrics.exposition("")
        assert b"xray_places 3.0" in text
    assert [record.getMessage() for record in caplog.records] == ["the DICOM node does not say how it is: ValueError"]


WORKER = """
import os, sys
from xray.serving.metrics import Metrics
from xray.serving.observing import Observed
node = {"queued": 4} if sys.argv[1] == "0" else {}
metrics = Metrics(lambda: {"places": 2, "taken": 1}, [{"model": "1"}], lambda: node)
for _ in range(int(sys.argv[2])):
    metrics(Observed("POST", "/predict", 200, 0.1, 10, 20))
metrics.refresh()
if sys.argv[3] == "tell":
    sys.stdout.buffer.write(metrics.exposition("")[0])
"""


def test_workers_add_up_and_who_has_ended_takes_no_place(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(*arguments):
        return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], env=environment, stdout=subprocess.PIPE)

    first = run("0", "3", "quiet")
    assert first.wait() == 0
    from xray.serving.metrics import forget_process

    samples = samples_of(run("1", "4", "tell").communicate()[0].decode())
    assert samples["xray_http_requests_total", "/predict", "200", "POST"] == 7
    assert samples["xray_radiographs_total",] == 7
    # The first one has ended without that anybody said so.
    assert (samples["xray_places",], samples["xray_taken",], samples["xray_dicom_queued",]) == (4, 2, 4)
    forget_process(tmp_path, first.pid)
    samples = samples_of(run("1", "0", "tell").communicate()[0].decode())
    assert samples["xray_http_requests_total", "/predict", "200", "POST"] == 7
    assert samples["xray_places",] == 4  # of the two that nobody has said the end of
    assert samples["xray_model_info", "1"] == 1
    assert ("xray_dicom_queued",) not in samples


def test_routes_of_routers_inside_others_keep_nothing_of_the_path():
    from fastapi import APIRouter, FastAPI

    app, router = FastAPI(), APIRouter(prefix="/dicomweb")

    @router.get("/studies/{study}/series/{series}")
    def series(study: str, series: str) -> int:
        return 1

    app.include_router(router)
    seen = []
    operations = Operations(requests=seen.append)
    operations.observe(app)
    client = TestClient(app)
    assert client.get(f"/dicomweb/studies/{IDENTIFIER}/series/{IDENTIFIER}.7").status_code == 200
    assert client.get(f"/dicomweb/studies/{IDENTIFIER}").status_code == 404
    assert seen[0].route in ("/dicomweb/studies/{study}/series/{series}", "other")
    assert seen[1].route == "unknown"
    assert not [one for one in seen if IDENTIFIER in one.route]
    scope = {"type": "http", "method": "GET", "path": "/x", "root_path": "", "headers": []}
    assert route_of(app.routes, scope) == "unknown"
    assert route_after("/x/1.2", {**scope, "endpoint": series, "path_params": {"n": "1.2"}}) == "/x/{n}"
    assert route_after("/x/1.2", scope) == "other"
