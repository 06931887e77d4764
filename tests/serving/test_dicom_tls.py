"""TLS of the DICOM node, in and out: with itself, with what does not fit, and with dcmtk's +tls."""

import socket
import ssl
import subprocess
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from certificates import Authority
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SegmentationStorage, Verification
from test_dicom_node import QUICK, found_in, free_port, radiograph, send, wait_for
from test_dicom_real_peers import end, listens, program

from xray.errors import FlagError
from xray.serving import dicom_connections
from xray.serving.accepting import Throttle
from xray.serving.dicom_connections import Handler
from xray.serving.dicom_node import DicomNode, Limits
from xray.serving.dicom_peers import Peer
from xray.serving.dicom_sending import Sender
from xray.serving.dicom_tls import tls_of, wrapped


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    for name in ("node", "peer"):
        made.sign(name)
    made.sign("elsewhere", "192.0.2.1")
    made.sign("expired", days=10)
    Authority(made.folder, "stranger").sign("strange")
    return made


def tls(authority, name="node", **options):
    files = (authority.folder / f"{name}.pem", authority.folder / f"{name}.key")
    return tls_of(*files, authority.path, **options)


class SecureReceiver:
    """Another node under TLS; a context manager."""

    def __init__(self, context):
        self.kept, ae = [], AE(ae_title="PACS")
        for storage in (ComprehensiveSRStorage, SegmentationStorage, Verification):
            ae.add_supported_context(storage)
        handlers = [(evt.EVT_C_STORE, self.keep)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
        self.port = self.server.server_address[1]

    def keep(self, event):
        self.kept.append(event.dataset)
        return 0x0000

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()


def context_of(authority, name, server=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(authority.folder / f"{name}.pem", authority.folder / f"{name}.key")
    context.load_verify_locations(authority.path)
    if server:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def associate(node, context):
    ae = AE(ae_title="ME")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(Verification)
    return ae.associate("127.0.0.1", node.port, ae_title="XRAY", tls_args=(context, "127.0.0.1") if context else None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_radiograph_comes_and_its_answers_go_under_tls(authority, version):
    there = context_of(authority, "peer", server=True)
    there.minimum_version = there.maximum_version = version
    with (
        SecureReceiver(there) as pacs,
        DicomNode(found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=QUICK, tls=tls(authority)) as node,
    ):
        mine = context_of(authority, "peer")
        mine.minimum_version = mine.maximum_version = version
        link = associate(node, mine)
        assert link.is_established
        # Larger than a record of TLS, and than a message.
        assert [link.send_c_store(radiograph(width=600, height=400)).Status for _ in range(3)] == [0] * 3
        assert link.send_c_echo().Status == 0
        link.release()
        wait_for(lambda: node.status()["answered"] == 3)
        assert len(pacs.kept) == 6


def test_those_without_what_is_asked_for_are_not_let_in(authority):
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=QUICK, tls=tls(authority)) as node:
        old = context_of(authority, "peer")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        weak = context_of(authority, "peer")
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA")
        nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nameless.load_verify_locations(authority.path)
        for context in (None, old, weak, nameless, context_of(authority, "strange"), context_of(authority, "expired")):
            assert not associate(node, context).is_established
        assert associate(node, context_of(authority, "peer")).is_established
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=QUICK, tls=tls(authority, clients=False)) as node:
        assert associate(node, nameless).is_established


def test_a_handshake_that_fails_is_logged_once_in_a_while(authority, monkeypatch):
    lines = []
    monkeypatch.setattr(dicom_connections.log, "warning", lambda *line: lines.append(line))
    server = SimpleNamespace(untrusted=Throttle())
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs, wrapped(ours, tls(authority)) as connection:
            theirs.sendall(bytes(20))
            handler = Handler.__new__(Handler)
            handler.server, handler.request = server, connection
            assert not handler._is_secure(60)
    assert [line[0] for line in lines] == ["a connection has no TLS that fits (%s)"]


def test_a_peer_that_begins_no_handshake_shuts_nobody_out(authority):
    limits = Limits(handshake_seconds=600, seconds=30)
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=limits, tls=tls(authority)) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(5)]
        assert associate(node, context_of(authority, "peer")).is_established
        for connection in silent:
            connection.close()
    limits = Limits(handshake_seconds=0.2)
    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=limits, tls=tls(authority)) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=600) as silent:
            assert silent.recv(100) == b""
        wait_for(lambda: len(node.server.waiting) == 0)


def test_a_request_in_pieces_is_waited_for_under_tls(authority):
    from test_dicom_connections import request

    with DicomNode(found_in, Peer("PACS", "127.0.0.1", 9), 0, limits=QUICK, tls=tls(authority)) as node:
        raw = socket.create_connection(("127.0.0.1", node.port), timeout=600)
        with context_of(authority, "peer").wrap_socket(raw, server_hostname="127.0.0.1") as connection:
            whole = request()
            for start in range(0, len(whole), 50):
                connection.sendall(whole[start : start + 50])
                time.sleep(0.03)
            assert connection.recv(1) == b"\2"


def test_answers_go_only_to_whom_they_are_for(authority):
    for name, options, is_there in (
        ("peer", {}, True),
        ("elsewhere", {}, False),
        ("elsewhere", {"names": False}, True),
        ("strange", {"names": False}, False),
        ("expired", {"names": False}, False),
    ):
        context = context_of(authority, name, server=True)
        with SecureReceiver(context) as pacs:
            outcome = Sender(Peer("PACS", "127.0.0.1", pacs.port), "XRAY", QUICK, tls(authority, **options)).echo()
        assert (outcome.why == "status 0000") == is_there, name


def test_one_direction_may_stay_plain(authority):
    assert tls(authority, which="in").connecting is None
    assert tls(authority, which="out").accepting is None
    with (
        SecureReceiver(context_of(authority, "peer", server=True)) as pacs,
        DicomNode(
            found_in, Peer("PACS", "127.0.0.1", pacs.port), 0, limits=QUICK, tls=tls(authority, which="out")
        ) as node,
    ):
        assert send(node, radiograph()) == 0x0000
        wait_for(lambda: node.status()["answered"] == 1)


def test_files_that_do_not_fit_are_named(authority, tmp_path):
    folder = authority.folder
    (tmp_path / "odd.pem").write_text("no certificate")
    for certificate, key, ca in (
        (folder / "node.pem", folder / "peer.key", None),
        (folder / "absent.pem", folder / "node.key", None),
        (tmp_path / "odd.pem", folder / "node.key", None),
        (folder / "node.pem", folder / "node.key", tmp_path / "odd.pem"),
    ):
        with pytest.raises(FlagError, match="--dicom-tls-c"):
            tls_of(certificate, key, ca)


def test_flags_of_tls_belong_together(authority):
    from xray.commands.serve import check_dicom, dicom_tls
    from xray.commands.serve_flags import Config

    base = {"weights": ("run",), "dicom_port": 11112, "dicom_return": "PACS@host:104"}
    files = {"dicom_tls_cert": str(authority.folder / "node.pem"), "dicom_tls_key": str(authority.folder / "node.key")}
    config = Config(**base, **files, dicom_tls_ca=str(authority.path), dicom_tls_clients=False, dicom_tls_names=False)
    check_dicom(config)
    made = dicom_tls(config)
    assert made.accepting.verify_mode == ssl.CERT_NONE
    assert not made.connecting.check_hostname
    assert dicom_tls(Config(**base)) is None
    for wrong in ({"dicom_tls_cert": "a"}, {"dicom_tls_key": "a"}, {"dicom_tls_ca": "a"}):
        with pytest.raises(FlagError, match="belong together"):
            check_dicom(Config(**base, **wrong))
    with pytest.raises(FlagError, match="--dicom-queue is for --dicom-port"):
        check_dicom(Config(weights=("run",), dicom_queue="queue"))


def test_dcmtk_sends_and_receives_under_tls(authority, tmp_path):
    storescu, storescp, echoscu = (program(name, "dcmtk") for name in ("storescu", "storescp", "echoscu"))
    folder, port = authority.folder, free_port()
    secure = ["+tls", str(folder / "peer.key"), str(folder / "peer.pem"), "+cf", str(authority.path)]
    (tmp_path / "kept").mkdir()
    archive = subprocess.Popen([storescp, *secure, "-od", str(tmp_path / "kept"), "-aet", "PACS", str(port)])
    try:
        wait_for(lambda: listens(port))
        with DicomNode(found_in, Peer("PACS", "127.0.0.1", port), 0, limits=QUICK, tls=tls(authority)) as node:
            to = ["-aec", "XRAY", "127.0.0.1", str(node.port)]
            radiograph(width=600, height=400).save_as(tmp_path / "a.dcm", enforce_file_format=True)
            for command in ([echoscu, *secure, *to], [storescu, *secure, *to, str(tmp_path / "a.dcm")]):
                done = subprocess.run(command, capture_output=True, text=True, timeout=600)
                assert done.returncode == 0, done.stderr
            wait_for(lambda: node.status()["answered"] == 1)
            assert len(list((tmp_path / "kept").iterdir())) == 2
            for wrong in ([], ["+tla", "+cf", str(authority.path)]):
                assert subprocess.run([echoscu, *wrong, *to], capture_output=True, timeout=600).returncode != 0
    finally:
        end(archive)
