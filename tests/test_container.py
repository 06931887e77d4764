"""The container's Dockerfile and entry, as far as they can be tested without Docker: the image itself is not built."""

import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from xray.findings import FINDINGS
from xray.models.weights import load_deployed
from xray.serving.runs import runs_in

ROOT = Path(__file__).resolve().parents[1]
ENTRY = ROOT / "docker" / "entrypoint.py"


@pytest.fixture(scope="module")
def instructions():
    """(instruction, arguments) of the Dockerfile, in order."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_every_file_that_is_copied_is_there_and_reaches_the_build(instructions):
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sources = [source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]]
    assert {
        "xray",
        "tools",
        "configs",
        "docker",
        "setup.cfg",
        "requirements.txt",
        "requirements-dev.txt",
        "constraints.txt",
    } <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        # The last pattern that fits decides.
        top = source.split("/")[0]
        fitting = [pattern for pattern in patterns if fnmatch(top, pattern.lstrip("!"))]
        assert fitting[-1].startswith("!"), f"{source} is left out by .dockerignore"
    for name in ("data", "runs", ".git", ".venv", ".env", "tests", "demo"):
        assert [pattern for pattern in patterns if fnmatch(name, pattern.lstrip("!"))][-1] == "*"


def test_the_dockerfile_does_what_sagemaker_asks_for(instructions):
    by_name = dict(instructions)
    assert {name for name, _ in instructions} <= {
        *("FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
    }  # fmt: skip
    # Exec form, so that SIGTERM reaches the entry, which is where the files were copied to.
    entry = json.loads(by_name["ENTRYPOINT"])
    assert entry == ["python", f"{by_name['WORKDIR']}/docker/entrypoint.py"]
    assert json.loads(by_name["CMD"]) == ["serve"]
    assert by_name["EXPOSE"] == "8080"
    assert by_name["LABEL"] == "com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true"
    assert "slim" in by_name["FROM"]
    # Nothing secret, and no place to download from but what the builder gives.
    assert not re.search(r"https?://(?!127)|(?i:secret|password|token|aws_)", (ROOT / "Dockerfile").read_text())
    (extras,) = re.findall(r"\.\[([\w,-]+)\]", by_name["RUN"])
    text = (ROOT / "setup.cfg").read_text()
    assert all(re.search(rf"(?m)^{extra} =$", text) for extra in extras.split(","))


def test_the_health_check_asks_ping(instructions):
    command = json.loads(dict(instructions)["HEALTHCHECK"].partition("CMD ")[2])

    class Ping(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/ping" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ping) as server:
        environment = {**os.environ, "SAGEMAKER_BIND_TO_PORT": str(server.server_port)}
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        healthy = subprocess.run([sys.executable, *command[1:]], env=environment, timeout=600)
        server.shutdown()
        thread.join()
    gone = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, timeout=600)
    assert command[0] == "python"
    assert (healthy.returncode, gone.returncode) == (0, 1)


def test_the_pins_that_the_image_installs_are_pins(instructions):
    command = dict(instructions)["RUN"].split("&&")[0].replace("/tmp/pins.txt", "/dev/stdout")
    pins = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "torch==2.14.1" in pins
    assert len(pins) == len({pin.split("==")[0] for pin in pins}) > 60


@pytest.fixture(scope="module")
def entry():
    """docker/entrypoint.py, as a module."""
    spec = importlib.util.spec_from_file_location("entrypoint", ENTRY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hyperparameters_are_flags(entry):
    given = {
        "n_epochs": "5", "lr": "1e-4", "ema": "true", "weights": '"none"', "backbone": "resnet50", "tta": "false",
        "strides": "[1, 2]", "sagemaker_submit_directory": '"s3://b/c"', "_tuning_objective_metric": "map40",
        "fold": 0, "name": "7up",
    }  # fmt: skip
    assert entry.flags_of(given) == [
        *("--backbone", "resnet50"), "--ema", *("--fold", "0"), *("--lr", "1e-4"), *("--n-epochs", "5"),
        *("--name", "7up"), *("--strides", "1", "2"), "--no-tta", *("--weights", "none"),
    ]  # fmt: skip


def test_what_sagemaker_says_in_files_becomes_variables(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "BASE", tmp_path)
    assert entry.described()["SM_HOSTS"] == '["localhost"]'
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "inputdataconfig.json").write_text('{"training": {"TrainingInputMode": "File"}}')
    (config / "resourceconfig.json").write_text('{"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}')
    found = entry.described()
    assert found.pop("SM_NUM_GPUS").isdecimal()
    assert found == {
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DATA_DIR": str(tmp_path / "output" / "data"),
        "SM_CHANNEL_TRAINING": str(tmp_path / "input" / "data" / "training"),
        "SM_HOSTS": '["algo-1", "algo-2"]',
        "SM_CURRENT_HOST": "algo-2",
    }


def run_entry(base, *arguments, **variables):
    """The entry as Docker starts it: `python` from PATH, from a folder of no meaning."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "SAGEMAKER_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "SAGEMAKER_BASE_DIR": str(base),
        **variables,
    }
    assert os.access(ENTRY, os.X_OK)
    return subprocess.Popen(
        [str(ENTRY), *arguments], cwd=base, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ((), 2, "error: nothing to do"),
        (("nonsense",), 127, "error: nonsense: No such file or directory"),
        (("serve",), 1, "error: no model in {base}/model: it must hold model.json"),
        (("echo", "hello"), 0, ""),
    ],
)
def test_the_entry_says_what_is_wrong(tmp_path, arguments, status, line):
    process = run_entry(tmp_path, *arguments)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == status
    assert errors.startswith(line.format(base=tmp_path))
    assert len(errors.splitlines()) == bool(line)
    assert output == ("hello\n" if status == 0 else "")


@pytest.mark.parametrize(
    ("given", "weights"),
    [("--no-tta", ["{base}/model/fold0"]), ("--weights a b", ["a", "b"]), ("--weights='a b' --no-tta", ["a b"])],
)
def test_flags_of_the_environment_go_before_the_containers_own(entry, tmp_path, monkeypatch, given, weights):
    from xray.commands.serve_flags import Config
    from xray.flags import parse_flags

    (tmp_path / "model" / "fold0").mkdir(parents=True)
    (tmp_path / "model" / "fold0" / "model.json").touch()
    started = []
    monkeypatch.setattr(entry, "BASE", tmp_path)
    monkeypatch.setattr(entry.os, "execv", lambda program, arguments: started.extend(arguments))
    monkeypatch.delenv("SM_MODEL_DIR", raising=False)
    monkeypatch.setenv("XRAY_SERVE_FLAGS", f"--port 9000 {given}")
    entry.serve()
    # As the server itself reads them, which refuses weights that are given twice.
    monkeypatch.setattr(sys, "argv", started[1:])
    config = parse_flags(Config)
    assert [str(one) for one in config.weights] == [one.format(base=tmp_path) for one in weights]
    assert (config.port, config.tta, config.sagemaker) == (9000, "--no-tta" not in given, True)


def test_a_quote_that_does_not_end_is_said(entry, monkeypatch, capsys):
    monkeypatch.setenv("XRAY_SERVE_FLAGS", "--weights 'a")
    with pytest.raises(SystemExit) as end:
        entry.serve()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: XRAY_SERVE_FLAGS cannot be read (No closing quotation)")


def write_job(base, hyperparameters, **channels):
    """What SageMaker writes for a training job. channels: name → folder."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "inputdataconfig.json").write_text(json.dumps({name: {} for name in channels}))
    (base / "input" / "data").mkdir()
    for name, folder in channels.items():
        (base / "input" / "data" / name).symlink_to(folder)


def test_a_training_job_that_fails_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    write_job(tmp_path, {"n_epochs": "1"}, training=tmp_path / "empty")
    process = run_entry(tmp_path, "train")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    told = (tmp_path / "output" / "failure").read_text()
    assert told.startswith("the channel training is empty")
    assert told in errors


@pytest.mark.slow
def test_a_training_job_leaves_its_best_model_where_serve_finds_it(tmp_path, vinbig_store):
    flags = dict.fromkeys(("n_epochs", "normals", "n_pictures", "log_step"), "1") | {
        "backbone": "mobilenet_v2", "weights": '"none"', "fpn_channels": "16", "rpn_samples": "32", "roi_samples": "16",
        "device": "cpu", "n_workers": "0", "batch_size": "4", "warmup_steps": "2", "max_detections": "20",
        "ema": "true",
    }  # fmt: skip
    write_job(tmp_path, flags, training=vinbig_store)
    process = run_entry(tmp_path, "train")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert not (tmp_path / "output" / "failure").exists()
    assert (tmp_path / "output" / "data" / "metrics.csv").is_file()
    assert runs_in(tmp_path / "model") == [tmp_path / "model"]
    description, tensors = load_deployed(tmp_path / "model")
    assert description["task"] == "detection"
    assert tensors


def ask(port, method, path, body=None, **headers):
    """Status, media type and body, once they come: a client that a busy machine holds up too long is cut off."""
    for _ in range(20):
        if (answer := ask_once(port, method, path, body, **headers)) is not None:
            return answer
    raise AssertionError(f"{path} does not answer")


def ask_once(port, method, path, body=None, **headers):
    """Status, media type and body; None where nobody listens, or the connection is cut off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheader("content-type"), response.read()
        except (ConnectionError, http.client.HTTPException):
            return None


@pytest.mark.slow
def test_an_endpoint_as_sagemaker_runs_it(tmp_path, vinbig_run):
    """`serve` in the container's environment: /ping, /invocations, and SIGTERM."""
    import cv2

    shutil.copytree(vinbig_run, tmp_path / "model" / "fold0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = run_entry(
        tmp_path, "serve", SAGEMAKER_BIND_TO_PORT=str(port), XRAY_SERVE_FLAGS="--no-tta --n-workers 1",
        TMPDIR=str(tmp_path),
    )  # fmt: skip
    try:
        # Until the model is loaded nobody listens, so that SageMaker does not send requests yet.
        first = ask_once(port, "GET", "/ping")
        assert first is None
        deadline = time.monotonic() + 600
        while (answer := ask_once(port, "GET", "/ping")) is None:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        assert answer[0] == 200
        _, picture = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (900, 900), dtype=np.uint8))
        body = picture.tobytes()
        status, kind, text = ask(port, "POST", "/invocations", body, **{"Content-Type": "image/png"})
        assert (status, kind) == (200, "application/json")
        assert json.loads(text)["models"] == ["fold0"]
        assert {finding["category"] for finding in json.loads(text)["findings"]} <= set(FINDINGS)
        # While radiographs are worked on, /ping answers.
        threads = [threading.Thread(target=ask, args=(port, "POST", "/invocations", body)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert ask(port, "GET", "/ping")[0] == 200
        status, kind, _ = ask(port, "POST", "/invocations", body, Accept="text/csv")
        assert (status, kind.partition(";")[0]) == (200, "text/csv")
        # SageMaker has names of its own, and no pages.
        assert ask(port, "GET", "/ping", Host="model.internal")[0] == 200
        assert ask(port, "POST", "/invocations", body, Host="model.internal")[0] == 200
        assert ask(port, "POST", "/invocations", body, Host="model.internal", Origin="http://model.internal")[0] == 403
        assert ask(port, "GET", "/about", Host="model.internal")[0] == 421
        status, _, text = ask(port, "POST", "/invocations", b"{}", **{"Content-Type": "application/json"})
        assert status == 400
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=600)
        # Before that, a line about the precision where this processor has more than one to choose from.
        assert (process.returncode, errors.splitlines()[-1]) == (128 + signal.SIGTERM, "terminated")
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()
