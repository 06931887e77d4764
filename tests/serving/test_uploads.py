"""Files on their way in: how slowly they may come, and that they hold no place meant for work."""

import contextlib
import http.client
import select
import time
from urllib.parse import urlsplit

import pytest
from serving_cases import TWELVE_BITS, Oracle, serving, write_phantom

from xray.serving.app import create_app
from xray.serving.service import Limits, Service
from xray.serving.uploads import Pace
from xray.serving.worker import BusyError


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("radiographs") / "a.dcm"
    write_phantom(path, 3, (0, 3), (256, 300), TWELVE_BITS)
    return path.read_bytes()


def until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(address, body):
    """Status and headers of a request of its own connection."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    with contextlib.closing(connection):
        connection.request("POST", "/predict", body)
        response = connection.getresponse()
        response.read()
        return response.status, dict(response.getheaders())


def begin(address, path="/predict", length=100_000):
    """A request of which the header, but not all of its body, has been sent."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    return connection


def trickle(connection):
    """Sends a byte now and then until there is an answer."""
    deadline = time.monotonic() + 600
    with contextlib.suppress(ConnectionError):
        while not select.select([connection.sock], [], [], 0.05)[0]:
            assert time.monotonic() < deadline
            connection.send(b"x")


@pytest.mark.parametrize("path", ["/predict", "/pixels"])
def test_a_file_that_trickles_is_given_up(oracle, path):
    # However fast the machine: it is the client that sends a byte at a time.
    limits = Limits(places=4, stall_seconds=0.5, bytes_per_second=2**20)
    with Service(oracle, ["run"], limits) as service, serving(create_app(service)) as address:
        with contextlib.closing(begin(address, path)) as connection:
            trickle(connection)
            assert connection.getresponse().status == 408
        until(lambda: list(service.folder.iterdir()) == [])


def test_a_file_has_only_so_long_in_all(oracle):
    limits = Limits(places=4, stall_seconds=30, bytes_per_second=0, upload_seconds=0.5)
    with (
        Service(oracle, ["run"], limits) as service,
        serving(create_app(service)) as address,
        contextlib.closing(begin(address)) as connection,
    ):
        trickle(connection)
        assert connection.getresponse().status == 408


def test_the_pace_counts_what_was_waited_for_the_client_alone():
    pace = Pace(1000, 10)
    for _ in range(100):
        pace.note(10, 0.0)
    pace.note(0, 9.9)
    with pytest.raises(TimeoutError):
        pace.note(1, 0.2)
    enough = Pace(1000, 10)
    for _ in range(100):
        enough.note(1000, 0.9)


def test_requests_that_are_coming_in_hold_no_place_meant_for_work(oracle, content, tmp_path):
    limits = Limits(places=3, stall_seconds=60, bytes_per_second=0)
    with Service(oracle, ["run"], limits) as service, serving(create_app(service)) as address:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(contextlib.closing(begin(address))) for _ in range(2)]
            for connection in slow:
                connection.send(b"x")
            until(lambda: len(list(service.folder.iterdir())) == 2)
            assert service.model.load["taken"] == 0
            assert post(address, content)[0] == 200
            third = stack.enter_context(contextlib.closing(begin(address)))
            third.send(b"x")
            until(lambda: len(list(service.folder.iterdir())) == 3)
            status, headers = post(address, content)
            assert (status, int(headers["retry-after"])) == (429, 1)
            (tmp_path / "a.dcm").write_bytes(content)
            # The node has a place that none of them can take, and so it has where every other one is taken.
            with contextlib.ExitStack() as places:
                for _ in range(3):
                    places.enter_context(service.model.enter())
                with pytest.raises(BusyError):
                    service.find(tmp_path / "a.dcm")
                assert service.find(tmp_path / "a.dcm", is_node=True)[1] == (256, 300)
        until(lambda: list(service.folder.iterdir()) == [])
        assert post(address, content)[0] == 200
