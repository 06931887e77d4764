"""HTTPS: which files can be used, which versions of TLS are spoken, and clients that stall in the handshake."""

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from xray.errors import FlagError, InputError
from xray.serving.accepting import Door, Places
from xray.serving.connections import server_of
from xray.serving.tls import tls_context

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl here to make certificates with")


def make(folder, name, *options):
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    command = [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "30"]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*command, *(options or ("-nodes",))], check=True, stderr=subprocess.DEVNULL)
    key.chmod(0o600)
    return certificate, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def pair(folder):
    """(certificate, key)."""
    return make(folder, "own")


@pytest.fixture(scope="module")
def other(folder):
    return make(folder, "other")


def test_files_that_cannot_be_used_are_told(folder, pair, other, tmp_path):
    certificate, key = pair
    assert tls_context(None, None, pytest.fail) is None
    for given in ((certificate, None), (None, key)):
        with pytest.raises(FlagError, match="--tls-cert and --tls-key belong together: give both"):
            tls_context(*given, pytest.fail)
    with pytest.raises(InputError, match=r"is not the key of --tls-cert .*own\.pem"):
        tls_context(certificate, other[1], pytest.fail)
    with pytest.raises(InputError, match=r"--tls-key .* cannot be read"):
        tls_context(certificate, tmp_path / "nothing", pytest.fail)
    (tmp_path / "der").write_bytes(b"\x30\x82")
    with pytest.raises(InputError, match=r"--tls-cert .* is no PEM file"):
        tls_context(tmp_path / "der", key, pytest.fail)
    (tmp_path / "cut.pem").write_bytes(certificate.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be used"):
        tls_context(tmp_path / "cut.pem", key, pytest.fail)
    # Without this, OpenSSL would ask for the passphrase on the terminal.
    encrypted = make(tmp_path, "encrypted", "-passout", "pass:secret")
    with pytest.raises(InputError, match="is encrypted"):
        tls_context(*encrypted, pytest.fail)


def test_a_key_that_others_may_read_is_warned_of(folder, tmp_path):
    certificate, key = make(tmp_path, "open")
    key.chmod(0o644)
    warnings = []
    tls_context(certificate, key, warnings.append)
    assert warnings == [f"warning: others than its owner may read {key}: chmod 600 {key}"]


async def hello(request):
    return PlainTextResponse(request.url.scheme)


@contextlib.contextmanager
def running(tls, places=None):
    """A server with HTTPS → (its port, it)."""
    with Door() as door:
        door.bind(("127.0.0.1", 0))
        door.places = places
        server = server_of(Starlette(routes=[Route("/", hello)]), 1, tls=tls)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield door.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(5)


def ask(port, context):
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=600)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read(), connection.sock and connection.sock.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_it_speaks_tls_1_2_and_1_3_and_nothing_older(pair):
    with running(tls_context(*pair, pytest.fail)) as (port, _):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=pair[0])
            context.minimum_version = context.maximum_version = version
            assert ask(port, context)[0] == b"https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pair[0])
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(port, context)
        # Who speaks no TLS at all gets no answer, and the server goes on.
        with contextlib.closing(http.client.HTTPConnection("localhost", port, timeout=600)) as connection:
            connection.request("GET", "/")
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                connection.getresponse()
        assert ask(port, ssl.create_default_context(cafile=pair[0]))[0] == b"https"


def test_a_certificate_of_nobody_is_refused_by_clients(pair, other):
    with running(tls_context(*pair, pytest.fail)) as (port, _), pytest.raises(ssl.SSLCertVerificationError):
        ask(port, ssl.create_default_context(cafile=other[0]))


def test_who_stalls_in_the_handshake_takes_a_place_until_it_is_over(pair):
    places = Places(4, 2)
    with running(tls_context(*pair, pytest.fail), places) as (port, _):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        while len(places) < 2:
            time.sleep(0.01)
        # A third one of this address is closed unheard.
        with socket.create_connection(("127.0.0.1", port)) as third:
            third.settimeout(20)
            with contextlib.suppress(ConnectionError):
                assert third.recv(1) == b""
        for connection in silent:
            connection.close()
        while len(places):
            time.sleep(0.01)
        assert ask(port, ssl.create_default_context(cafile=pair[0]))[0] == b"https"
        while len(places):
            time.sleep(0.01)
