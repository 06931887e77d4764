"""Accepting where descriptors run out: said once, no loop, and the server ends when it is told to."""

import errno
import logging
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xray.serving import accepting
from xray.serving.accepting import Door, Spare, Throttle

ROOT = Path(__file__).resolve().parents[2]

SERVER = """
import resource, sys
from xray.serving.accepting import Door
from xray.serving.connections import server_of
from xray.serving.quiet import telling

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

with Door() as door, telling():
    door.bind(("127.0.0.1", 0))
    server = server_of(app, 0.3)
    door.listen(64)
    # After the imports, of which each would need descriptors too.
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    print(door.getsockname()[1], flush=True)
    server.run(sockets=[door])
"""


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_failing_accept_is_told_once(caplog, code):
    now, calls = [0.0], []

    class Connection:
        def close(self):
            calls.append("closed")

    def accept():
        calls.append("accept")
        # The spare descriptor makes the second attempt succeed.
        if len(calls) % 3 == 1:
            raise OSError(code, "no")
        return Connection(), "address"

    spare = Spare(lambda: now[0])
    for _ in range(100):
        with pytest.raises(BlockingIOError):
            spare.accept(accept)
        now[0] += 1
    assert calls == ["accept", "accept", "closed"] * 100
    assert len(caplog.records) == 1
    assert "ulimit -n" in caplog.text
    now[0] += accepting.QUIET + 1
    with pytest.raises(BlockingIOError):
        spare.accept(accept)
    assert len(caplog.records) == 2
    spare.close()
    spare.close()


def test_where_the_spare_helps_no_more_there_is_a_rest(caplog, monkeypatch):
    rests = []
    monkeypatch.setattr(accepting.time, "sleep", rests.append)
    spare = Spare(lambda: 0.0)

    def accept():
        raise OSError(errno.EMFILE, "no")

    def no_more(*arguments):
        raise OSError(errno.EMFILE, "no")

    monkeypatch.setattr(accepting.os, "open", no_more)
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            spare.accept(accept)
    assert rests == [accepting.PAUSE] * 3
    assert len(caplog.records) == 1


def test_other_failures_and_successes_pass():
    spare = Spare()
    assert spare.accept(lambda: "connection") == "connection"
    with pytest.raises(ConnectionAbortedError):
        spare.accept(lambda: (_ for _ in ()).throw(ConnectionAbortedError(errno.ECONNABORTED, "no")))
    spare.close()
    with Door() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        with socket.create_connection(door.getsockname(), timeout=600), door.accept()[0] as accepted:
            assert accepted.getpeername()


def test_what_has_not_happened_lately_is_logged():
    throttle = Throttle()
    assert [throttle.is_due(now) for now in (0, 1, 59, 118, 200)] == [True, False, False, False, True]


def test_a_server_out_of_descriptors_goes_on_and_ends_when_told():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = int(process.stdout.readline())
        held = [socket.create_connection(("127.0.0.1", port), timeout=600) for _ in range(60)]
        # The first connections are held; of the last, each is taken and closed.
        for connection in held[-20:]:
            assert connection.recv(1) == b""
        held[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert held[0].recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=600)
        assert len(re.findall("closed unheard", errors)) == 1
        assert len(errors) < 1000
    finally:
        process.kill()
        process.wait()
    assert not logging.getLogger("xray").handlers
