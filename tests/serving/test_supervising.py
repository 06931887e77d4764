"""Several workers: who ends is replaced, who cannot begin ends all, and nobody outlives the supervisor."""

import dataclasses
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from xray.serving import supervising
from xray.serving.accepting import Door
from xray.serving.supervising import Role, from_plain, start, supervise, to_plain
from xray.serving.tickets import Tickets

READY = "import json,os,sys,time\nfrom xray.serving.supervising import *\n"
READY += "config, role = json.load(sys.stdin); role = from_plain(Role, role)\n"


@dataclasses.dataclass
class Given:
    """What a worker is told."""

    weights: tuple[str, ...] = ("a", "ä")
    auth: Path | None = None
    number: float = 0.5
    paths: tuple[Path, ...] = ()


class Stop(Exception):
    pass


@pytest.fixture
def door():
    with Door() as door:
        door.bind(("127.0.0.1", 0))
        yield door


def starter(door, tmp_path, code, seen, most=10):
    """start_one of small processes; after so many of them, the supervisor is interrupted."""

    def start_one(number, is_again):
        if len(seen) >= most:
            raise Stop
        worker = start(
            READY + code, Given(), Role(number, 2, is_again, door.fileno(), -1, tmp_path), {"WHICH": "worker"}
        )
        seen.append((number, is_again, worker.process))
        return worker

    return start_one


def test_who_ends_is_replaced_and_all_end_with_the_supervisor(door, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(supervising, "LOOK", 0.02)
    monkeypatch.setattr(supervising, "PATIENCE", 60.0)
    seen, ended = [], []
    # The second one ends at once, each time.
    code = "role.is_ready(); assert os.environ['WHICH'] == 'worker'; sys.exit(3) if role.number else time.sleep(600)"
    with pytest.raises(Stop):
        supervise(2, starter(door, tmp_path, code, seen, 4), lambda *which: ended.append(which))
    assert [(number, is_again) for number, is_again, _ in seen] == [(0, False), (1, False), (1, True), (1, True)]
    assert [number for number, _ in ended] == [1, 1, 1]
    assert [process for _, process in ended] == [one.pid for _, _, one in seen[1:]]
    pauses = [record.args[2] for record in caplog.records]
    assert pauses == [1.0, 2.0, 4.0]
    assert caplog.records[0].getMessage() == "worker 2 ended (status 3): another is started in 1 s"
    assert caplog.records[0].levelno == logging.ERROR
    assert all(process.poll() is not None for _, _, process in seen)
    assert seen[0][2].returncode == -signal.SIGTERM


def test_a_first_worker_that_cannot_begin_ends_all_with_its_status(door, tmp_path):
    for code, status in (("sys.exit(1)", 1), ("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)):
        seen = []
        assert supervise(2, starter(door, tmp_path, code, seen), pytest.fail) == status
        assert len(seen) == 1


def test_who_does_not_end_is_killed(door, tmp_path, monkeypatch):
    monkeypatch.setattr(supervising, "PATIENCE", 0.05)
    monkeypatch.setattr(supervising, "LOOK", 0.02)
    seen = []
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); role.is_ready()\n"
    code += "while role.number == 0: time.sleep(1)"
    with pytest.raises(Stop):
        supervise(2, starter(door, tmp_path, code, seen, 2), lambda *which: None)
    assert seen[0][2].returncode == -signal.SIGKILL


def test_the_socket_is_shared_and_each_takes_one_at_a_time(door, tmp_path):
    code = (
        "from xray.serving.accepting import Door\n"
        "door = Door(fileno=role.door); role.is_ready()\n"
        "connection, _ = door.accept(); connection.sendall(b'%d' % role.number); connection.close(); time.sleep(600)"
    )
    door.listen()
    workers = [start(READY + code, Given(), Role(n, 2, False, door.fileno(), -1, tmp_path), {}) for n in range(2)]
    try:
        heard = set()
        for _ in range(2):
            with socket.create_connection(door.getsockname()) as connection:
                heard.add(connection.recv(1))
        assert heard == {b"0", b"1"}
    finally:
        supervising._end(dict(enumerate(workers)))
    door.setblocking(False)
    door.is_shared = True
    clients = [socket.create_connection(door.getsockname()) for _ in range(2)]
    accepted = [door.accept()[0]]
    with pytest.raises(BlockingIOError, match="another process"):
        door.accept()
    accepted.append(door.accept()[0])
    for connection in (*clients, *accepted):
        connection.close()


def test_what_a_worker_is_told_comes_back():
    import json

    from xray.commands.serve_flags import Config

    for given in (
        Given(), Given((), Path("/a b/c")), Role(1, 2, True, 3, 4, Path("x")),
        Given(paths=(Path("/a"), Path("b"))),
        Config(weights=("a", "b"), auth=Path("f"), auth_open=("health",), dicom_objects=("sr",), threshold=0.25),
    ):  # fmt: skip
        assert from_plain(type(given), json.loads(json.dumps(to_plain(given)))) == given


def test_a_worker_ends_with_its_supervisor(door, tmp_path):
    """Even where that is killed, and can end nobody."""
    code = READY + "from xray import interrupts; interrupts.follow_parent(); role.is_ready(); time.sleep(600)"
    script = f"""
import os, signal
from pathlib import Path
from xray.serving.supervising import Role, start
worker = start({code!r}, Role(0, 1, False, 0, 0, Path(".")), Role(0, 1, False, 0, -1, Path(".")), {{}})
os.read(worker.ready, 1)
print(worker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    import sys

    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(process.communicate()[0])
    waiting = threading.Event()
    while os.path.exists(f"/proc/{worker}") and b"follow_parent" in _command_line(worker):
        waiting.wait(0.05)


def _command_line(process):
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


class Waiting:
    """Stands where a Place would."""

    state = ("waiting", 5)


def test_a_ticket_is_known_to_all_workers(tmp_path):
    first, second = Tickets(tmp_path), Tickets(tmp_path)
    assert second.state("ticket-01", 0) is None
    first["ticket-01"] = None
    assert first.state("ticket-01", 7) == ("receiving", 7)
    assert second.state("ticket-01", 7) == ("receiving", 0)
    place = Waiting()
    first["ticket-01"] = place
    assert second.state("ticket-01", 7) == ("waiting", 5)
    place.state = ("running", 0)
    while second.state("ticket-01", 0) != ("running", 0):
        time.sleep(0.02)
    assert not [path for path in tmp_path.iterdir() if "ticket" in path.name]
    del first["ticket-01"]
    while list(tmp_path.iterdir()):
        time.sleep(0.02)
    assert second.state("ticket-01", 0) is None


def test_without_others_nothing_is_written():
    tickets = Tickets()
    tickets["ticket-01"] = None
    assert tickets.state("ticket-01", 3) == ("receiving", 3)
    assert tickets.state("ticket-02", 3) is None
    del tickets["ticket-01"]
    assert "ticket-01" not in tickets
