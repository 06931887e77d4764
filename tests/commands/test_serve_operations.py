"""What `xray serve` does around the models: flags that cannot be used, and several workers of the real command."""

import base64
import concurrent.futures
import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import pytest

from xray.commands import operations
from xray.commands.serve import algorithm_in, check_dicom
from xray.commands.serve_flags import Config
from xray.errors import FlagError, InputError
from xray.inference.mask_fitting import write_fit
from xray.inference.thresholds import write_thresholds
from xray.serving import accounts
from xray.serving.accounts import account_line
from xray.serving.service import Limits, load_service
from xray.serving.supervising import Role
from xray.structures.thresholds import Point, Thresholds
from xray.structures.triplet import Triplet

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "serving"))
from serving_cases import TWELVE_BITS, write_phantom  # noqa: E402

SECRET = "open sesame"


@pytest.fixture
def auth(tmp_path, monkeypatch):
    """A file with the account ali."""
    for name in ("LN", "R", "P"):
        monkeypatch.setattr(accounts, name, 1)
    path = tmp_path / "accounts"
    path.write_text(account_line("ali", SECRET) + "\n")
    path.chmod(0o600)
    return path


def config(**options):
    return Config(weights=("run",), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auth_open": ("health",)}, "--auth-open names paths that need no account, and without --auth none does"),
        ({"auth": Path("a"), "auth_open": ("metrics",), "metrics": False}, "--auth-open metrics and --no-metrics"),
        ({"tls_cert": Path("a")}, "--tls-cert and --tls-key belong together"),
        ({"workers": 4, "places": 3}, "--places is 3 for 4 workers"),
    ],
)
def test_flags_that_contradict_each_other(options, message):
    with pytest.raises(FlagError, match=message):
        operations.check(config(**options), pytest.fail)


@pytest.mark.parametrize("flag", ["host-name", "dicom-return"])
def test_an_address_of_the_web_is_no_name(flag, monkeypatch, capsys):
    from xray.commands import serve

    port = ["--dicom-port", "11112"] if flag == "dicom-return" else []
    monkeypatch.setattr("sys.argv", ["xray serve", "--weights", "run", f"--{flag}", "https://a.example", *port])
    assert serve.run() == 2
    assert f"--{flag} is 'https://a.example'" in capsys.readouterr().err


def test_a_node_needs_somebody_to_answer(monkeypatch, capsys):
    from xray.commands import serve

    monkeypatch.setattr("sys.argv", ["xray serve", "--weights", "run", "--dicom-port", "11112"])
    assert serve.run() == 2
    assert "--dicom-port needs --dicom-return AET@HOST:PORT" in capsys.readouterr().err


def test_files_that_cannot_be_read(tmp_path):
    for options in ({"auth": tmp_path / "no"}, {"tls_cert": tmp_path / "no", "tls_key": tmp_path / "no"}):
        with pytest.raises(InputError, match="cannot be read"):
            operations.check(config(**options), pytest.fail)


def test_secrets_in_the_open_are_warned_of(auth):
    warnings = []
    for host, is_warned in (("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)):
        warnings.clear()
        checked = operations.check(config(auth=auth, host=host), warnings.append)
        assert checked.accounts.now.named("ali", SECRET)
        assert bool(warnings) == is_warned
    assert "secrets can be read on their way" in warnings[0]


def test_each_worker_gets_its_share_and_the_first_one_the_node(tmp_path):
    given = config(places=33, n_workers=3, workers=2, dicom_port=11112, dicom_return="A@h:1")
    shares = [operations.share_of(given, Role(number, 2, False, 0, 0, tmp_path)) for number in range(2)]
    assert [(one.places, one.n_workers) for one in shares] == [(17, 2), (17, 2)]
    assert [(one.dicom_port, one.dicom_return) for one in shares] == [(11112, "A@h:1"), (None, "")]


def test_other_workers_want_nothing_of_what_is_for_the_node_alone(tmp_path):
    """By which they would be refused, and replaced without an end."""
    of_node = {
        "dicom_port": 11112, "dicom_return": "A@h:1", "dicom_queue": "q", "dicom_resend": True,
        "dicom_commitment": True,
        "dicom_tls_cert": "c", "dicom_tls_key": "k", "dicom_tls_ca": "a", "dicom_tls": "out", "dicom_tls_names": False,
        "dicom_objects": ("sr", "sc"), "dicom_callers": ("PACS",),
    }  # fmt: skip
    given = config(workers=2, **of_node)
    second = operations.share_of(given, Role(1, 2, False, 0, 0, tmp_path))
    assert check_dicom(second) is None
    assert second == dataclasses.replace(config(workers=2), places=second.places, n_workers=second.n_workers)
    first, again = (operations.share_of(given, Role(0, 2, is_again, 0, 0, tmp_path)) for is_again in (False, True))
    assert {name: getattr(first, name) for name in of_node} == of_node
    assert {name: getattr(again, name) for name in of_node} == of_node | {"dicom_resend": False}


HEALTHY = b'{"status":"ok","places":32,"taken":0,"waiting":0,"running":0,"workers":{"wanted":2,"working":2}}'


@pytest.mark.slow
def test_workers_share_a_port_and_its_numbers_and_who_is_killed_is_replaced(vinbig_run, vinbig_store, tmp_path, auth):
    """Two real workers with accounts: a killed one costs no more than its own requests, and leaves no file."""
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), "--weights", str(vinbig_run), "--port", "0"]
    command += ["--workers", "2", "--n-workers", "2", "--auth", str(auth), "--auth-open", "metrics"]
    command += [
        "--request-log",
        str(tmp_path / "requests.log"),
        "--runtime",
        "torch",
        "--precision",
        "32",
        "--threshold",
        "0",
    ]
    # A short path: multiprocessing has sockets there.
    temporary = Path(tempfile.mkdtemp(prefix="x"))
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    waiting = threading.Event()
    phantom = tmp_path / "a.dcm"
    write_phantom(phantom, 3, (0,), (96, 120), TWELVE_BITS)
    try:
        address = urlsplit(re.search(r"http://\S+", process.stdout.readline())[0])
        mine = {"Authorization": "Basic " + base64.b64encode(f"ali:{SECRET}".encode()).decode()}

        def ask(method, path, body=None, headers=mine):
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()

        def numbers():
            text = ask("GET", "/metrics", headers={})[1].decode()
            return {name: float(value) for name, value in re.findall(r"^(xray_[a-z_]+) (\S+)$", text, re.MULTILINE)}

        def until(holds):
            while not holds():
                assert process.poll() is None
                waiting.wait(0.2)

        assert ask("GET", "/about", headers={})[0] == 401
        content = sorted((vinbig_store.parent / "source" / "train").iterdir())[1].read_bytes()
        # Both have come up once both say how many places they have: 16 each.
        until(lambda: numbers()["xray_places"] == 32)
        # So say all of both, whichever is asked.
        until(lambda: ask("GET", "/health") == (200, HEALTHY))
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(lambda _: ask("POST", "/predict", content)[0], range(12)))
        assert statuses == [200] * 12
        assert numbers()["xray_radiographs_total"] == 12
        children = [int(child) for child in workers_of(process.pid)]
        assert len(children) == 2
        os.kill(children[1], signal.SIGKILL)
        until(lambda: len(set(workers_of(process.pid)) - {str(child) for child in children}) == 1)
        # What was counted stays, also that of the dead.
        assert ask("POST", "/predict", content)[0] == 200
        assert numbers()["xray_radiographs_total"] == 13
        until(lambda: ask("GET", "/health") == (200, HEALTHY))
        status, card = ask("GET", "/card")
        assert status == 200
        assert hashlib.sha256((vinbig_run / "model.safetensors").read_bytes()).hexdigest() in card.decode()
        status, report = ask("POST", "/invocations", phantom.read_bytes(), {**mine, "Accept": "application/dicom"})
        assert status == 200
        values = [element.value for element in pydicom.dcmread(io.BytesIO(report)).iterall() if element.VR != "SQ"]
        assert "model card: at /card of the server" in values
        assert (ask("GET", "/queue/12345678")[0], ask("GET", "/page/main.js")[0]) == (404, 200)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 128 + signal.SIGTERM
        assert re.search(r"worker \d ended \(signal 9\): another is started in", errors)
        assert errors.strip().endswith("terminated")
        assert SECRET not in errors
        assert list(temporary.iterdir()) == []
        lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
        assert sum(line["route"] == "/predict" and line["status"] == 200 for line in lines) == 13
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(temporary)


def workers_of(process):
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def test_a_first_worker_that_cannot_begin_says_what_is_wrong_once(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), "--weights", str(tmp_path / "no"), "--port", "0"]
    done = subprocess.run([*command, "--workers", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("error: no run directory at") == 1
    assert done.stdout == ""


def test_what_changes_findings_changes_what_made_them(segmentation_run, vinbig_run, tmp_path):
    """Settings of serve that objects name as a part of their maker, and by which their identifiers differ."""

    def digest(run, **changes):
        config = Config(weights=(str(run),), **changes)
        service = load_service(
            [run], Limits(n_workers=0, batch_size=1), "cpu", "32", config.tta, config.gate, "torch", config.threshold
        )
        return algorithm_in(config, service, [run]).digest

    run = tmp_path / "run"
    shutil.copytree(segmentation_run, run)
    found = [digest(run), digest(run, tta=False), digest(run, upright=True)]
    # Fitted by xray evaluate --fit: the weights are the same.
    write_fit(run, Triplet(0.9, 0.001, 0.5), None)
    found.append(digest(run))
    assert len(set(found)) == 4
    assert digest(run, batch_size=2, places=4) == found[3]
    detector = tmp_path / "detector"
    shutil.copytree(vinbig_run, detector)
    found = [digest(detector)]
    write_thresholds(detector, Thresholds("boxes", {"Cardiomegaly": Point(1.5, 0.25)}, "sensitivity=0.9"), {})
    found += [digest(detector), digest(detector, threshold=0.5), digest(detector, report_threshold=0.25)]
    assert len(set(found)) == 4
