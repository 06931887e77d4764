"""HTTP connections: bounded in number and in time, whatever a client leaves out."""

import contextlib
import socket
import time

import pytest
from serving_cases import serving

from xray.serving.connections import Connections, Guarded, Limits

BIG = 8 * 2**20


async def app(scope, receive, send):
    """/big answers 8 MiB, /body how many bytes of a body came, all else with nothing."""
    body = b""
    if scope["path"] == "/body":
        n_bytes, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            n_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"%d" % n_bytes
    elif scope["path"] == "/big":
        body = bytes(BIG)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def ended(connection, seconds=60):
    """What came until the server closed the connection."""
    connection.settimeout(seconds)
    came = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**16):
            came += part
    return came


def until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def many(address, n):
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, int(port)), timeout=600)) for _ in range(n)]


def ask(connection, path="/", method="GET", rest=b""):
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n".encode() + rest + b"\r\n")


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Never: end"])
def test_a_header_that_does_not_end_is_given_up(begin):
    with serving(app, Limits(header_seconds=0.3)) as address, many(address, 3) as connections:
        for connection in connections:
            connection.sendall(begin)
        for connection in connections:
            came = ended(connection)
            assert came.startswith(b"HTTP/1.1 408") if begin else came == b""


def test_a_header_that_trickles_is_given_up():
    with serving(app, Limits(header_seconds=0.5)) as address, many(address, 1) as (connection,):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1200):
                connection.sendall(b"a")
                time.sleep(0.05)
            pytest.fail("it went on for a minute")


def test_silent_connections_make_room_for_who_has_something_to_say():
    limits = Limits(silent=8, silent_each=4, header_seconds=600)
    with serving(app, limits) as address, many(address, 12) as silent:
        for connection in silent[:8]:
            assert ended(connection) == b""
        with many(address, 1) as (connection,):
            ask(connection)
            assert connection.recv(12) == b"HTTP/1.1 200"
        # The newest are still there.
        ask(silent[-1])
        assert silent[-1].recv(12) == b"HTTP/1.1 200"


def test_no_more_connections_than_allowed():
    limits = Limits(total=4, each=3, silent=100, silent_each=100, header_seconds=600)
    with serving(app, limits) as address, many(address, 3) as connections:
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        with many(address, 2) as refused:
            assert all(ended(connection).startswith(b"HTTP/1.1 503") for connection in refused)
        connections[0].close()
        deadline = time.monotonic() + 600
        while True:
            with many(address, 1) as (connection,):
                ask(connection)
                if connection.recv(12) == b"HTTP/1.1 200":
                    break
            assert time.monotonic() < deadline


def test_the_rest_of_an_answered_request_and_the_next_header_have_their_time_too():
    limits = Limits(header_seconds=0.3, keep_alive=1)
    with serving(app, limits) as address, many(address, 2) as (rest, following):
        # Answered before its body has come.
        ask(rest, method="POST", rest=b"Content-Length: 1000000\r\n")
        ask(following)
        assert rest.recv(12) == following.recv(12) == b"HTTP/1.1 200"
        with contextlib.suppress(ConnectionError):
            for _ in range(1200):
                rest.sendall(b"a")
                time.sleep(0.05)
            pytest.fail("it went on for a minute")
        following.sendall(b"GET ")
        ended(following)


def test_an_answer_that_nobody_reads_is_given_up():
    limits = Limits(unread_seconds=0.3, header_seconds=600, keep_alive=600)
    started = []
    with serving(app, limits, started) as address, many(address, 2) as connections:
        for connection, rest in zip(connections, (b"", b"Connection: close\r\n"), strict=True):
            ask(connection, "/big", rest=rest)
        until(lambda: started[0].server_state.total_requests == 2)
        until(lambda: len(started[0].guard) == 0)
        # What lies in the system's buffers is all that can still be had.
        assert all(len(ended(connection)) < BIG for connection in connections)


class Slow:
    """The transport and the flow control of a connection whose client reads slowly."""

    write_paused, is_aborted = True, False

    def __init__(self, left):
        self.left = left

    def get_write_buffer_size(self):
        return self.left

    def is_closing(self):
        return False

    def abort(self):
        self.is_aborted = True


@pytest.mark.parametrize(("a_second", "is_enough"), [(1100, True), (900, False), (0, False)])
def test_an_answer_may_be_read_as_slowly_as_the_limit_says(a_second, is_enough):
    connection = Guarded.__new__(Guarded)
    connection.guard = Connections(Limits(unread_seconds=20, bytes_per_second=1000))
    connection.deadline, connection._unread = None, None
    connection.transport = connection.flow = slow = Slow(10**6)
    for now in range(100):
        connection.check(float(now))
        slow.left -= a_second
    assert slow.is_aborted != is_enough


def test_a_request_at_work_is_the_applications_business():
    with serving(app, Limits(header_seconds=0.2, keep_alive=600)) as address, many(address, 1) as (connection,):
        ask(connection, "/body", "POST", b"Content-Length: 6\r\n")
        for _ in range(6):
            time.sleep(0.25)
            connection.sendall(b"x")
        assert connection.recv(12) == b"HTTP/1.1 200"
        # It can be asked again within its time.
        while not connection.recv(2**16).endswith(b"6"):
            pass
        ask(connection)
        assert connection.recv(12) == b"HTTP/1.1 200"
