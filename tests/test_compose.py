"""compose.yaml and docs/hospital.md as far as they can be tested without a container daemon.

The structure of the file follows the compose specification; its commands are read by the very flags they are for, and
the PACS's settings by Orthanc itself, where that is installed.
"""

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from page_blocks import blocks

from xray.__main__ import COMMANDS
from xray.commands.serve import check_dicom
from xray.commands.serve_flags import Config
from xray.flags import check_ranges, parse_flags
from xray.serving.request_guard import host_names
from xray.training.recipes import read_training_flags

ROOT = Path(__file__).resolve().parents[1]
# Those keys of the compose specification that may be of use here.
TOP = {"name", "services", "networks", "volumes", "secrets", "configs"}
SERVICE = {
    *("build", "image", "command", "entrypoint", "user", "read_only", "tmpfs", "environment", "cap_drop", "cap_add"),
    *("security_opt", "volumes", "secrets", "configs", "ports", "healthcheck", "stop_grace_period", "restart"),
    *("networks", "depends_on", "deploy", "profiles", "shm_size", "expose", "init"),
}
HEALTHCHECK = {"test", "interval", "timeout", "start_period", "retries", "start_interval", "disable"}
SUFFIXES = r"(?:\d+(?:us|ms|s|m|h))+"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def server(compose):
    """The flags of the service xray, as the command reads them."""
    program, name, *flags = compose["services"]["xray"]["command"]
    assert (program, name) == ("xray", "serve")
    return parse_flags(Config, flags)


@pytest.fixture(scope="module")
def orthanc():
    return json.loads((ROOT / "docker" / "orthanc.json").read_text())


def filled(text, **variables):
    """A text with its ${NAME}, ${NAME:-default} and ${NAME:?message}, as compose fills them."""

    def value(match):
        name, how, rest = match.groups()
        if name in variables:
            return variables[name]
        assert how == ":-", f"{name} has no value"
        return rest

    return re.sub(r"\$\{(\w+)(:-|:\?)?([^}]*)\}", value, text)


def test_the_file_has_the_structure_of_the_compose_specification(compose):
    assert set(compose) <= TOP
    for name, service in compose["services"].items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        assert set(service) <= SERVICE, name
        assert "image" in service or "build" in service
        command = service.get("command", [])
        assert all(isinstance(part, str) for part in command), f"{name}: YAML takes a number for no text: quote it"
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        for volume in service.get("volumes", []):
            source, target, *mode = filled(volume, XRAY_RUN="./run").split(":")
            assert target.startswith("/")
            assert mode in ([], ["ro"])
            if not source.startswith("."):
                assert source in compose["volumes"]
            elif source != "./run":
                assert (ROOT / source).is_file()
        for port in service.get("ports", []):
            address, outside, inside = filled(port).rsplit(":", 2)
            assert address == "127.0.0.1"  # what others may reach is their operator's decision
            assert 0 < int(outside) < 65536
            assert 0 < int(inside) < 65536
        for other, how in service.get("depends_on", {}).items():
            assert other in compose["services"]
            assert how["condition"] in ("service_started", "service_healthy", "service_completed_successfully")
            assert how["condition"] != "service_healthy" or "healthcheck" in compose["services"][other]
        assert set(service.get("networks", [])) <= set(compose["networks"])
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        health = service.get("healthcheck", {})
        assert set(health) <= HEALTHCHECK
        for key in ("interval", "timeout", "start_period"):
            assert re.fullmatch(SUFFIXES, health.get(key, "1s"))
    for secret in compose["secrets"].values():
        assert set(secret) == {"file"}


def test_nothing_of_it_is_in_version_control_that_should_not_be(compose):
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    folder = Path(compose["secrets"]["accounts"]["file"]).parts[0]
    assert f"/{folder}/" in ignored
    assert not re.search(r"(?i)password\W+[a-z0-9]{4,}[\"']", (ROOT / "compose.yaml").read_text())


def test_the_images_are_pinned(compose):
    for service in compose["services"].values():
        assert "build" in service or re.fullmatch(r"[\w./-]+:\d[\w.]*", service["image"])


def test_the_servers_flags_can_be_used(compose, server):
    service = compose["services"]["xray"]
    check_ranges(server)
    assert check_dicom(server).aet == "ORTHANC"
    host_names(server.host, server.port, server.host_name)
    assert (server.host, server.port) == ("0.0.0.0", 8080)
    assert server.auth == Path("/run/secrets") / service["secrets"][0]
    mounted = {filled(volume, XRAY_RUN="./run").split(":")[1] for volume in service["volumes"]}
    assert set(server.weights) <= mounted
    # A container that is made anew goes on with what the one before acknowledged.
    assert str(server.dicom_queue) in mounted
    assert f"--owner {service['user'].split(':')[0]} " in (ROOT / "Dockerfile").read_text()
    assert f" {server.dicom_queue}\n" in (ROOT / "Dockerfile").read_text()
    published = {int(port.rsplit(":", 1)[1]) for port in service["ports"]}
    assert published == {server.port}
    # A container that may write nothing else has its temporary files, and the libraries' caches, in memory.
    assert service["read_only"]
    assert service["tmpfs"][0].startswith(service["environment"]["HOME"])
    assert service["user"].split(":")[0] != "0"
    assert service["cap_drop"] == ["ALL"]


def test_the_container_runs_that_very_command(compose, monkeypatch):
    spec = importlib.util.spec_from_file_location("entrypoint", ROOT / "docker" / "entrypoint.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    ran = []
    monkeypatch.setattr(entry.os, "execvp", lambda program, arguments: ran.append((program, arguments)))
    command = compose["services"]["xray"]["command"]
    entry.main(command)
    assert ran == [("xray", command)]


def test_the_health_check_is_the_servers(compose, server):
    kind, program, *arguments = compose["services"]["xray"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    assert f"http://127.0.0.1:{server.port}/ping" in arguments[-1]
    import http.server

    class Ping(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/ping" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ping) as running:
        here = [part.replace(f":{server.port}/", f":{running.server_port}/") for part in arguments]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        healthy = subprocess.run([sys.executable, *here], check=False).returncode
        running.shutdown()
    gone = subprocess.run([sys.executable, *here], capture_output=True, check=False).returncode
    assert (healthy, gone) == (0, 1)


def test_pacs_and_server_know_each_other(compose, server, orthanc):
    peer, known = check_dicom(server), orthanc["DicomModalities"]["xray"]
    assert (known["AET"], known["Port"]) == (server.dicom_aet, server.dicom_port)
    assert known["Host"] in compose["services"]
    assert (peer.aet, peer.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert peer.host in compose["services"]
    assert server.dicom_callers == (orthanc["DicomAet"],)
    assert orthanc["AuthenticationEnabled"] is True
    users = compose["services"]["orthanc"]["environment"]["ORTHANC__REGISTERED_USERS"]
    assert json.loads(filled(users, ORTHANC_PASSWORD="x")) == {"admin": "x"}
    ports = {int(filled(port).rsplit(":", 1)[1]) for port in compose["services"]["orthanc"]["ports"]}
    assert ports == {orthanc["HttpPort"], orthanc["DicomPort"]}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_orthanc_takes_these_settings_and_sends_each_radiograph_on_once(orthanc, tmp_path):
    """Debian's Orthanc with docker/orthanc.json, its addresses replaced, beside a node that answers with an SR."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("Orthanc is not here (Debian's package orthanc)")
    pytest.importorskip("pynetdicom")
    pytest.importorskip("highdicom")
    from xray.outputs.dicom.objects import Algorithm
    from xray.outputs.dicom.results import DicomResults
    from xray.phantoms.dicom import Storage
    from xray.serving.dicom_node import DicomNode, Limits
    from xray.serving.dicom_peers import Peer
    from xray.structures.boxes import BoxTable
    from xray.structures.radiograph_findings import RadiographFindings

    sys.path.insert(0, str(ROOT / "tests" / "serving"))
    from serving_cases import write_phantom

    results = DicomResults(Algorithm("xray", "0.1.0"))

    def answer(path):
        table = BoxTable.of([0], [1], [[20, 10, 50, 30]], [0.9])
        return results.of(path, RadiographFindings(table, {}, {1: "Pneumothorax"})).values()

    http, dicom, node_port = free_port(), free_port(), free_port()
    storage = tmp_path / "storage"
    here = {"HttpPort": http, "DicomPort": dicom, "StorageDirectory": str(storage), "AuthenticationEnabled": False}
    here |= {"LuaScripts": [str(ROOT / "docker" / "orthanc.lua")], "Plugins": [], "RemoteAccessAllowed": False}
    here["DicomModalities"] = {"xray": {**orthanc["DicomModalities"]["xray"], "Host": "127.0.0.1", "Port": node_port}}
    (tmp_path / "orthanc.json").write_text(json.dumps(orthanc | here))

    def ask(path, data=None):
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{http}{path}", data), timeout=600) as got:
            return json.loads(got.read())

    def until(what):
        waiting = threading.Event()
        while not (found := what()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            waiting.wait(0.1)
        return found

    path = tmp_path / "a.dcm"
    write_phantom(path, 3, (0,), (96, 120), Storage(12, False, True, "1.2.840.10008.1.2.1", False))
    limits = Limits(seconds=10.0, first_wait=0.1, attempts=100)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log, cwd=tmp_path)
    try:
        with DicomNode(answer, Peer("ORTHANC", "127.0.0.1", dicom), node_port, limits=limits) as node:
            until(lambda: reaches(http))
            ask("/instances", path.read_bytes())
            until(lambda: len(ask("/series")) == 2)
            kinds = sorted(ask(f"/series/{one}")["MainDicomTags"]["Modality"] for one in ask("/series"))
            assert kinds in (["CR", "SR"], ["DX", "SR"])
            # The SR came in by DICOM, too, and was not sent on: no circle.
            until(lambda: all(job["State"] in ("Success", "Failure") for job in ask("/jobs?expand")) and ask("/jobs"))
            assert node.counts.received == 1
    finally:
        process.terminate()
        process.wait()


def reaches(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def commands_of(text):
    """(name, arguments) of every xray command in the sh blocks of a page."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words[:3] == ["docker", "compose", "run"] and "xray" in words:
                words = words[words.index("xray") + 1 :]
            for stop in ("|", ">", ">>", "<", "&&"):
                words = words[: words.index(stop)] if stop in words else words
            if words[:1] == ["xray"] and len(words) > 1:
                yield words[1], words[2:]
            elif words[:1] == ["python"] and words[1].startswith("tools/"):
                yield Path(words[1]).stem, words[2:]


def test_the_commands_of_the_page_are_commands(monkeypatch):
    # The page's certificates are examples.
    monkeypatch.setattr("xray.commands.serve.dicom_tls", lambda config: None)
    found = list(commands_of((ROOT / "docs" / "hospital.md").read_text()))
    assert {"serve", "account", "card"} <= {name for name, _ in found}
    monkeypatch.chdir(ROOT)
    for name, arguments in found:
        assert name in COMMANDS
        if name == "train":
            read_training_flags(arguments)
            continue
        config = importlib.import_module(f"xray.commands.{name}").Config
        parsed = parse_flags(config, [word for word in arguments if word != "…"])
        check_ranges(parsed)
        if name == "serve":
            check_dicom(parsed)


def test_the_commands_in_the_files_head_are_commands():
    head = re.match(r"(#.*\n)+", (ROOT / "compose.yaml").read_text())[0]
    text = "```sh\n" + "\n".join(line[1:].strip() for line in head.splitlines() if line.startswith("#     ")) + "\n```"
    assert [name for name, _ in commands_of(text)] == ["account"]
