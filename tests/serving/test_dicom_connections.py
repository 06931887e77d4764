"""Connections of the DICOM node: silent, slow, many, and short of descriptors."""

import contextlib
import socket
import struct
import threading
import time

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.sop_class import Verification

from xray.serving import dicom_connections
from xray.serving.dicom_connections import Limits, Receiver
from xray.serving.dicom_node import DicomNode
from xray.serving.dicom_peers import Peer


@contextlib.contextmanager
def node_with(**limits):
    with DicomNode(lambda path: [], Peer("PACS", "127.0.0.1", 9), 0, limits=Limits(**limits)) as node:
        yield node


@contextlib.contextmanager
def many(node, n):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=600)) for _ in range(n)]


def wait_for(what):
    deadline = time.monotonic() + 600
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def associate(node):
    ae = AE(ae_title="ME")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(Verification)
    return ae.associate("127.0.0.1", node.port, ae_title="XRAY")


def request():
    """The bytes of an association request."""
    from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
    from pynetdicom.presentation import build_context

    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "ME", "XRAY"
    length = MaximumLengthNotification()
    length.maximum_length_received = 16384
    from pynetdicom.pdu_primitives import ImplementationClassUIDNotification

    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "2.25.1"
    asked.user_information = [length, implementation]
    context = build_context(Verification)
    context.context_id = 1
    asked.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(asked)
    return pdu.encode()


PARTS = [b"", b"\1", struct.pack(">BBL", 1, 0, 200), struct.pack(">BBL", 1, 0, 200) + bytes(100)]


def test_silent_connections_shut_nobody_out_and_are_given_up():
    with node_with(handshakes=6, handshakes_each=6, handshake_seconds=0.5) as node, many(node, 40) as silent:
        for number, connection in enumerate(silent):
            with contextlib.suppress(ConnectionError):
                connection.sendall(PARTS[number % len(PARTS)])
        association = associate(node)
        assert association.is_established
        association.release()
        for connection in silent:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
        wait_for(lambda: len(node.server.waiting) == 0)
        wait_for(lambda: len(node.server.associations) == 0)


def test_of_too_many_silent_ones_the_oldest_go_at_once():
    with node_with(handshakes=20, handshakes_each=5, handshake_seconds=600) as node, many(node, 15) as silent:
        for connection in silent[:10]:
            assert connection.recv(1) == b""
        wait_for(lambda: len(node.server.waiting) == 5)
        association = associate(node)
        assert association.is_established
        association.release()


def test_a_request_that_comes_in_pieces_is_waited_for():
    with node_with() as node, many(node, 1) as (connection,):
        whole = request()
        for start in range(0, len(whole), 40):
            connection.sendall(whole[start : start + 40])
            time.sleep(0.05)
        assert connection.recv(1) == b"\2"


@pytest.mark.parametrize(
    "head", [struct.pack(">BBL", 4, 0, 10), b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BBL", 1, 0, 2**31)]
)
def test_what_is_no_association_request_is_aborted(head):
    with node_with(handshake_seconds=600) as node, many(node, 1) as (connection,):
        connection.sendall(head)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) in (dicom_connections.ABORT, b"")


def test_associations_are_bounded_and_one_address_has_but_its_share():
    with node_with(associations=4, associations_each=2) as node:
        held = [associate(node) for _ in range(2)]
        assert all(association.is_established for association in held)
        with many(node, 1) as (connection,):
            connection.sendall(request())
            assert connection.recv(100) == dicom_connections.REJECT
            assert connection.recv(1) == b""
        # The answer is checked above; where the end of the connection overtakes it, pynetdicom calls it an abort.
        assert not associate(node).is_established
        held[0].release()
        wait_for(lambda: len(node.server.associations) == 1)
        held[0] = associate(node)
        assert held[0].is_established
        # Those of other addresses are counted in all.
        assert node.server.associations.take("other")
        assert node.server.associations.take("another")
        assert not node.server.associations.take("third")
        for association in held:
            association.release()


def test_an_association_that_brings_nothing_is_ended_though_it_echoes():
    with node_with(useless_seconds=0.0) as node:
        association = associate(node)
        assert association.is_established
        # pynetdicom waits for an answer for so long, though the association is over.
        association.dimse_timeout = 1
        deadline = time.monotonic() + 600
        while association.is_established:
            assert time.monotonic() < deadline
            association.send_c_echo()
        assert association.is_aborted
    with node_with() as node:
        association = associate(node)
        assert all(association.send_c_echo().Status == 0 for _ in range(3))
        association.release()


class Wire:
    """A connection whose bytes come one at a time, each a second after the one before."""

    class Socket:
        def __init__(self, now):
            self.now = now

        def recv(self, n_bytes):
            self.now[0] += 1.0
            return b"x"

    def __init__(self, now):
        self.socket = self.Socket(now)


@pytest.mark.parametrize(
    ("limits", "n_bytes"),
    [
        # Less than two bytes a second, once the first ten seconds are over: after ten and a little more.
        ({"seconds": 10.0, "bytes_per_second": 2, "object_seconds": 1000.0}, 20),
        # Fast enough, but it must not take longer than so in all.
        ({"seconds": 100.0, "bytes_per_second": 0, "object_seconds": 50.0}, 51),
        # One message may not take longer than this, whatever the pace.
        ({"seconds": 10.0, "bytes_per_second": 0, "object_seconds": 1000.0}, 10),
    ],
)
def test_an_object_has_to_come_at_a_pace(monkeypatch, limits, n_bytes):
    monkeypatch.setattr(dicom_connections.select, "select", lambda readable, *rest: (readable, [], []))
    now = [0.0]
    receiver = Receiver(Wire(now), Limits(**limits), lambda: now[0])
    assert len(receiver.read(5)) == 5
    receiver.begin()
    # The next object has its own time.
    is_one = limits["seconds"] == 10.0 and not limits["bytes_per_second"]

    def read_on():
        for _ in range(1000):
            receiver.read(100 if is_one else 1)

    with pytest.raises(TimeoutError):
        read_on()
    assert n_bytes <= now[0] - 5 <= n_bytes + 2


def test_a_node_out_of_descriptors_closes_what_it_cannot_hold(monkeypatch, caplog):
    import errno

    with node_with() as node:
        accept, failures = socket.socket.accept, []

        def fail_first(self):
            if threading.current_thread().name == "dicom accepting" and len(failures) < 5:
                failures.append(1)
                if len(failures) % 2:
                    raise OSError(errno.EMFILE, "no")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", fail_first)
        with many(node, 2) as refused:
            for connection in refused:
                with contextlib.suppress(ConnectionError):
                    assert connection.recv(1) == b""
        wait_for(lambda: len(failures) >= 4)
        monkeypatch.undo()
        association = associate(node)
        assert association.is_established
        association.release()
    assert caplog.text.count("closed unheard") == 1


def test_nothing_is_kept_of_associations_that_have_ended():
    import gc

    from pynetdicom.association import Association

    with node_with() as node:
        for _ in range(5):
            link = associate(node)
            assert link.send_c_echo().Status == 0x0000
            link.release()
        del link

        def left():
            gc.collect()
            return [one for one in gc.get_objects() if isinstance(one, Association) and one.is_acceptor]

        wait_for(lambda: not [one for one in left() if one._server is node.server])
        assert len(node._receivers) == 0
