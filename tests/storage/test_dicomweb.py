"""DICOMweb as a client: addresses, credentials, and servers that are slow, busy, wrong or hostile."""

import base64
import contextlib
import io
import itertools
import json
import os
import shutil
import ssl
import stat
import subprocess
import time

import pytest
from dicomweb_cases import STUDY, Fake, answer_of, archive, item, related
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from xray.errors import FlagError, InputError
from xray.storage.dicomweb import client as client_module
from xray.storage.dicomweb import retrieval
from xray.storage.dicomweb.addresses import Resource, origin_of, resource_of, service_of, shown, valid_uid
from xray.storage.dicomweb.client import Client, RefusedError, persist, seconds_told
from xray.storage.dicomweb.credentials import Credentials, credentials_of
from xray.storage.dicomweb.multipart import (
    FileParts,
    MultipartError,
    MultipartReader,
    boundary_of,
    content_type_of,
    end_of,
    head_of,
    read_parts,
)
from xray.storage.dicomweb.retrieval import Retrieved
from xray.storage.dicomweb.search import find, matches
from xray.storage.dicomweb.storing import NOT_STORED, STORED, THERE, Outcome, reason_of, store

pytestmark = pytest.mark.timeout(120)
HOST = "https://pacs.example/dicom-web"
CLASS = "it does not store objects of this class"
TOKEN = "very-secret-token"


@pytest.fixture(autouse=True)
def waits(monkeypatch, tmp_path):
    """The pauses that were made, which take no time; nothing of this machine's own settings."""
    waits = []
    monkeypatch.setattr(client_module, "sleep", lambda seconds, stopped=None: waits.append(seconds))
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    for name in ("XRAY_DICOMWEB_TOKEN", "XRAY_DICOMWEB_USER", "XRAY_DICOMWEB_PASSWORD", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return waits


@pytest.fixture
def fake():
    with Fake().running() as fake:
        yield fake


@pytest.fixture
def auth(tmp_path):
    """(*lines) → a file of them that only this user can read."""

    def write(*lines):
        path = tmp_path / "auth"
        path.write_text("\n".join(lines))
        path.chmod(0o600)
        return str(path)

    return write


def client_of(*urls, file="", ca="", seconds=60.0):
    return Client(credentials_of(file, urls), ca, seconds)


def file_of(uid, **elements):
    """The content of a small DICOM file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, uid
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# ---- addresses


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        (f"{HOST}/studies/1.2", Resource(HOST, "1.2", level="studies")),
        (f"{HOST}//studies/1.2/", Resource(HOST, "1.2", level="studies")),
        (f"{HOST}/studies/1.2/series", Resource(HOST, "1.2", level="studies")),
        (f"{HOST}/studies/1.2/series/3.4", Resource(HOST, "1.2", "3.4", level="series")),
        (f"{HOST}/studies/1.2/series/3.4/instances", Resource(HOST, "1.2", "3.4", level="series")),
        (f"{HOST}/studies/1.2/series/3.4/instances/5.6", Resource(HOST, "1.2", "3.4", "5.6", "instances")),
        (f"{HOST}/studies?AccessionNumber=7&x=", Resource(HOST, level="studies", query="AccessionNumber=7&x=")),
        (f"{HOST}/studies/1.2/series?Modality=CR", Resource(HOST, "1.2", level="series", query="Modality=CR")),
        (f"{HOST}/series?Modality=CR", Resource(HOST, level="series", query="Modality=CR")),
        (f"{HOST}/instances?Modality=CR", Resource(HOST, level="instances", query="Modality=CR")),
        ("HTTPS://Pacs.Example:443/studies/1.2", Resource("https://pacs.example", "1.2")),
        ("http://[::1]:8042/dicom-web/studies/1.2", Resource("http://[::1]:8042/dicom-web", "1.2")),
        ("https://h/studies/x/studies/1.2", Resource("https://h/studies/x", "1.2")),
    ],
)
def test_addresses_name_parts_of_an_archive(text, resource):
    assert resource_of("data-path", text) == resource


@pytest.mark.parametrize(
    "text",
    [
        HOST, f"{HOST}/studies", f"{HOST}/studies/", f"{HOST}/series", f"{HOST}/studies/Doe", f"{HOST}/studies/1.2/x",
        f"{HOST}/studies/1.2/instances/5.6", f"{HOST}/studies/../studies/1.2", f"{HOST}/studies/1.{'2' * 64}",
        "https:///studies/1.2", "https://h:99999/studies/1.2", "https://h:0/studies/1.2", "https://h/studies/1.2\n",
        f"https://doctor:{TOKEN}@h/studies/1.2", "https://[::1/studies/1.2", "https://h\\studies/1.2",
    ],
)  # fmt: skip
def test_what_names_no_part_of_an_archive_is_refused_in_one_line_without_secrets(text):
    with pytest.raises(FlagError) as raised:
        resource_of("data-path", text)
    assert TOKEN not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_services_and_what_messages_repeat_of_addresses():
    assert service_of("return", f"{HOST}/studies/") == service_of("return", HOST) == HOST
    for text in (f"{HOST}?x=1", "ftp://h/x", "pacs"):
        with pytest.raises(FlagError):
            service_of("return", text)
    assert shown(f"https://u:{TOKEN}@h/studies?PatientName=Doe") == "https://h/studies?…"
    assert resource_of("x", f"{HOST}/studies?PatientName=Doe").address == f"{HOST}/studies?…"
    assert origin_of("HTTPS://H:8443/x") == "https://h:8443"
    for text in ("1.2/../3", "..", "1", "1.2\n", "1." + "2" * 63, None, 5, "1.²"):
        assert valid_uid(text) == ""


# ---- credentials


def test_each_host_gets_its_own_credentials_and_no_other_does(auth):
    file = auth(
        "# of the hospital", "", f"https://pacs.example bearer {TOKEN}", "https://other:8443 basic me:pass:word"
    )
    credentials = credentials_of(file, [HOST, "https://other:8443/x", "https://third"])
    assert credentials.of(f"{HOST}/studies") == f"Bearer {TOKEN}"
    word = base64.b64encode(b"me:pass:word").decode()
    assert credentials.of("https://other:8443/y") == f"Basic {word}"
    for other in ("https://third", "https://other", "http://pacs.example/dicom-web", "https://pacs.example:444"):
        assert credentials.of(other) is None
    assert TOKEN not in repr(credentials)


def test_a_file_of_another_editor_and_a_password_with_blanks(auth):
    file = auth(f"\ufeff{HOST} basic me:x y\r", f"https://other\tBEARER \t{TOKEN} ")
    credentials = credentials_of(file, [HOST, "https://other"])
    assert credentials.of("https://other/x") == f"Bearer {TOKEN}"
    assert credentials.of(HOST) == "Basic " + base64.b64encode(b"me:x y").decode()
    file = auth("\ufeffbasic me:pass  word \r\n")
    assert credentials_of(file, [HOST]).of(HOST) == "Basic " + base64.b64encode(b"me:pass  word").decode()


def test_the_environment_has_credentials_for_one_host(monkeypatch):
    monkeypatch.setenv("XRAY_DICOMWEB_TOKEN", TOKEN)
    assert credentials_of("", [HOST]).of(HOST) == f"Bearer {TOKEN}"
    with pytest.raises(FlagError, match="several hosts"):
        credentials_of("", [HOST, "https://other"])
    monkeypatch.delenv("XRAY_DICOMWEB_TOKEN")
    monkeypatch.setenv("XRAY_DICOMWEB_USER", "ü")
    monkeypatch.setenv("XRAY_DICOMWEB_PASSWORD", "p")
    assert credentials_of("", [HOST]).of(HOST) == "Basic " + base64.b64encode("ü:p".encode()).decode()


@pytest.mark.parametrize(
    "lines",
    [
        [TOKEN], [f"bearer {TOKEN} {TOKEN}"], [f"digest {TOKEN}"], [f"basic {TOKEN}"], [f"basic :{TOKEN}"], [],
        [f"https:// bearer {TOKEN}"], ["bearer " + TOKEN + "ü"], ["x" * 70_000],
    ],
)  # fmt: skip
def test_wrong_credentials_are_refused_without_being_repeated(auth, lines):
    with pytest.raises(FlagError) as raised:
        credentials_of(auth(*lines), [HOST])
    assert TOKEN not in str(raised.value)


def test_what_others_can_read_is_warned_of(auth, capsys):
    file = auth(f"bearer {TOKEN}")
    credentials_of(file, ["http://localhost:8042", "http://localhost:8042/x"])
    assert capsys.readouterr().err == ""
    os.chmod(file, 0o644)
    credentials_of(file, ["http://far.example"])
    said = capsys.readouterr().err
    assert f"others can read {file}" in said
    assert "can be read on the way" in said
    assert TOKEN not in said
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o644


# ---- multipart


@given(st.data())
def test_a_body_in_any_chunks_has_its_parts(data):
    boundary = data.draw(st.sampled_from(["x", "--", "abc", "a-b c"]))
    own = boundary.encode()
    pieces = st.sampled_from([b"\r\n", b"--", b"\r", b"\n", b"-", own, b"--" + own, b"\r\n--", b"z", b"\0", b" "])
    contents = data.draw(st.lists(st.lists(pieces, max_size=12).map(b"".join), min_size=1, max_size=4))
    assume(not any(b"\r\n--" + own in b"\r\n" + content + b"\r\n" for content in contents))
    padding = data.draw(st.sampled_from([b"", b" ", b"\t "]))
    begin = data.draw(st.sampled_from([b"", b"\r\n", b"preamble\r\n"]))
    body = b"".join(head_of(boundary, {"A": "b"}) + content + b"\r\n" for content in contents) + end_of(boundary)
    body = begin + body.replace(b"--" + own + b"\r\nA: b", b"--" + own + padding + b"\r\nA: b") + b"epilogue"
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20))), len(body)]
    reader, found = MultipartReader(boundary), []
    for start, end in itertools.pairwise(cuts):
        for event in reader.feed(body[start:end]):
            if isinstance(event, dict):
                assert event == {"a": "b"}
                found.append(b"")
            elif event is not None:
                found[-1] += event
    reader.finish()
    assert found == contents


@given(st.binary(max_size=300), st.integers(1, 50))
def test_bytes_that_are_no_body_are_refused_or_read_and_never_break(body, size):
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    for prefix in (b"", b"--b\r\n", b"--b\r\nA: b\r\n\r\n"):
        with contextlib.suppress(MultipartError):
            list(read_parts(content_type_of("b"), [prefix, *chunks]))


def test_a_body_that_is_cut_anywhere_is_known_to_be():
    body, kind = related(b"one\r\n", b"two")
    # The line feed behind the end is not missed.
    for length in range(len(body) - 2):
        with pytest.raises(MultipartError):
            list(read_parts(kind, [body[:length]]))


def test_what_is_written_is_as_long_as_it_says_and_is_read_by_others(tmp_path):
    import email

    contents = {"a": b"\0\r\n--b", "b": b"", "c": bytes(range(256)) * 1000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    parts = FileParts([tmp_path / name for name in contents], "boundary")
    body = b"".join(parts)
    assert len(parts) == len(body) == len(b"".join(parts))
    message = email.message_from_bytes(b"Content-Type: " + content_type_of("boundary").encode() + b"\r\n\r\n" + body)
    assert [part.get_content_type() for part in message.get_payload()] == ["application/dicom"] * 3
    read = [event for event in read_parts(content_type_of("boundary"), [body]) if isinstance(event, bytes)]
    assert b"".join(read) == b"".join(contents.values())


def test_boundaries():
    assert boundary_of('Multipart/Related; type="application/dicom"; boundary="a b"; start=x') == "a b"
    assert boundary_of("multipart/related") == ""
    assert boundary_of("application/dicom") is None
    for boundary in ("", "x" * 201, "ü"):
        with pytest.raises(MultipartError):
            MultipartReader(boundary)


def test_memory_stays_flat_while_a_large_part_is_read():
    import tracemalloc

    def chunks():
        yield head_of("b", {})
        for _ in range(2000):
            yield b"\r\n--" + bytes(2**16)
        yield b"\r\n" + end_of("b")

    tracemalloc.start()
    n_bytes = sum(len(event) for event in read_parts(content_type_of("b"), chunks()) if isinstance(event, bytes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_bytes == 2000 * (2**16 + 4)
    assert peak < 2**21


# ---- requests


def ask(client, url):
    def once():
        with client.answer("GET", url) as response:
            return response.read()

    return persist(once)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_pauses(fake, waits, status):
    fake.answers = [(status, {}, b"no")] * 4 + [(200, {}, b"yes")]
    with client_of(fake.address) as client:
        assert ask(client, fake.address) == b"yes"
    assert len(waits) == 4
    for number, wait in enumerate(waits):
        assert 0.75 * 0.5 * 2**number <= wait <= 1.25 * 0.5 * 2**number
    fake.answers = [(status, {}, b"no")] * 6 + [(200, {}, b"yes")]
    with client_of(fake.address) as client, pytest.raises(InputError, match=rf"\({status}\), 6 times") as raised:
        ask(client, fake.address)
    assert len(fake.answers) == 1
    assert "\n" not in str(raised.value)


def test_retry_after_is_honoured(fake, waits, capsys):
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    fake.answers = [(429, {"Retry-After": "7"}, b"")] * 9 + [(503, {"Retry-After": later}, b""), (200, {}, b"yes")]
    with client_of(fake.address) as client:
        assert ask(client, fake.address) == b"yes"
        assert waits[:9] == [7.0] * 9
        assert 90 <= waits[9] <= 100
        assert f"http://localhost:{fake.port} is busy (503): trying again in" in capsys.readouterr().err
        fake.answers = [(503, {"Retry-After": "86400"}, b"")]
        with pytest.raises(InputError, match="asks to come back in 86400 s"):
            ask(client, fake.address)
    assert len(waits) == 10


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 5 ", 5.0),
        ("-5", None),
        ("x", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("", None),
    ],
)
def test_what_retry_after_says(value, seconds):
    assert seconds_told(value) == seconds


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (401, "no permission for .* (401): give --dicomweb-auth FILE"), (403, "no permission for .* (403)"),
        (404, "answers 404: there is nothing at this address"), (400, "answers 400"), (301, "answers 301"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_said_at_once(fake, waits, status, line):
    fake.answers = [(status, {}, b"Doe^Jane")]
    with (
        client_of(fake.address) as client,
        pytest.raises(RefusedError, match=line.replace("(", r"\(").replace(")", r"\)")),
    ):
        ask(client, fake.address)
    assert waits == []


def test_a_host_that_is_not_there_or_silent(waits):
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with client_of(address) as client, pytest.raises(InputError, match=f"{address} does not answer .*6 times"):
            ask(client, address)
        deaf.listen(20)
        with client_of(address, seconds=0.05) as client, pytest.raises(InputError, match=r"was silent for 0\.05 s"):
            ask(client, address)
    with (
        client_of("http://no.invalid") as client,
        pytest.raises(InputError, match=r"http://no\.invalid does not answer"),
    ):
        ask(client, "http://no.invalid/x")


def test_an_answer_that_is_cut_short_is_asked_for_again(fake, waits):
    fake.answers = [(200, {"Content-Length": "100"}, b"part"), (200, {}, b"whole")]
    with client_of(fake.address) as client:
        assert ask(client, fake.address) == b"whole"
    assert len(waits) == 1


# ---- redirections


@pytest.fixture
def other():
    with Fake(lambda method, path: (200, {}, b"elsewhere")).running() as other:
        yield other


def test_redirections_are_followed_and_credentials_stay_with_their_host(fake, other, auth):
    file = auth(f"bearer {TOKEN}")
    fake.answers = [(302, {"Location": "/there"}, b""), (307, {"Location": f"{other.address}/x"}, b"")]
    with client_of(fake.address, file=file) as client:
        assert ask(client, fake.address) == b"elsewhere"
    assert [headers.get("Authorization") for *_, headers, _ in fake.requests] == [f"Bearer {TOKEN}"] * 2
    assert fake.requests[1][1] == "/there"
    ((_, path, headers, _),) = other.requests
    assert path == "/dicom-web/x"
    assert "Authorization" not in headers
    fake.answers = [(307, {"Location": f"{other.address}/x"}, b"")]
    other.answers = [(401, {}, b"")]
    with client_of(fake.address, file=file) as client, pytest.raises(RefusedError, match="is sent no credentials"):
        ask(client, fake.address)


@pytest.mark.parametrize("to", ["ftp://h/x", "https://u:p@h/", "file:///etc/passwd", "http://[x"])
def test_redirections_to_what_is_no_place_are_refused(fake, to):
    fake.answers = [(302, {"Location": to}, b"")]
    with client_of(fake.address) as client, pytest.raises(RefusedError, match="is no address of HTTP"):
        ask(client, fake.address)


def test_endless_redirections_end(fake):
    fake.rule = lambda method, path: (302, {"Location": path}, b"")
    with client_of(fake.address) as client, pytest.raises(RefusedError, match="more than 5 redirections"):
        ask(client, fake.address)


def test_patients_data_go_to_no_other_host(fake, other, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(file_of("1.2.9"))
    fake.answers = [(307, {"Location": f"{other.address}/studies"}, b"")]
    with client_of(fake.address) as client, pytest.raises(RefusedError, match="are sent to no host but the one"):
        store(client, fake.address, [path])
    assert other.requests == []


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of localhost that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_certificates_are_checked_and_an_authority_can_be_added(certificate, auth, waits):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with Fake(lambda method, path: (200, {}, b"yes")).over_tls(context).running() as fake:
        file = auth(f"bearer {TOKEN}")
        with (
            client_of(fake.address, file=file) as client,
            pytest.raises(InputError, match=r"is not trusted .*--ca FILE"),
        ):
            ask(client, fake.address)
        assert fake.requests == []
        with client_of(fake.address, file=file, ca=str(certificate / "cert.pem")) as client:
            assert ask(client, fake.address) == b"yes"
        # Its name counts, too.
        address = fake.address.replace("localhost", "127.0.0.1")
        with (
            client_of(address, ca=str(certificate / "cert.pem")) as client,
            pytest.raises(InputError, match="not trusted"),
        ):
            ask(client, address)
        fake.answers = [(302, {"Location": "http://localhost:9/x"}, b"")]
        client = client_of(fake.address, ca=str(certificate / "cert.pem"))
        with client, pytest.raises(RefusedError, match="is not encrypted"):
            ask(client, fake.address)
    assert waits == []


def test_what_is_no_authority_and_what_speaks_no_tls(fake, tmp_path, waits):
    (tmp_path / "none.pem").write_text("nothing")
    for ca in (tmp_path / "none.pem", tmp_path / "missing.pem", tmp_path):
        with pytest.raises(FlagError, match=r"--ca .* cannot be used"):
            client_of(HOST, ca=str(ca))
    address = fake.address.replace("http", "https")
    with client_of(address) as client, pytest.raises(InputError, match="does not speak TLS as it should"):
        ask(client, address)


def test_a_token_that_was_renewed_is_read_again(fake, auth):
    file = auth("bearer old")

    def rule(method, path):
        if fake.requests[-1][2]["Authorization"] == "Bearer new":
            return 200, {}, b"yes"
        auth("bearer new")
        return 401, {}, b""

    fake.rule = rule
    with client_of(fake.address, file=file) as client:
        assert ask(client, fake.address) == b"yes"


# ---- searching


def test_all_pages_are_asked_for_whatever_a_server_gives_at_a_time(fake):
    files = {f"1.2.3.1.{number}": b"" for number in range(7)}
    fake.rule = archive(files, page=3)
    with client_of(fake.address) as client:
        found = find(client, resource_of("data-path", f"{fake.address}/studies/{STUDY}"))
        assert [one.uid for one in found.instances] == sorted(files)
        # One that knows no offset gives the same for ever; a limit of the user's own is asked for once.
        fake.rule = lambda method, path: (200, {}, json.dumps([item(Modality="CR")]).encode())
        assert len(list(matches(client, fake.address))) == 1
        fake.requests.clear()
        assert len(list(matches(client, fake.address, "limit=1&PatientName=D*^Jane"))) == 1
        assert [path for _, path, *_ in fake.requests] == ["/dicom-web?limit=1&PatientName=D*%5EJane"]


@pytest.mark.parametrize(
    "answer",
    [(200, {"Content-Type": "text/html"}, b"<html>"), (200, {}, b"{}"), (200, {}, b"[1]"),
        (200, {}, b"[" * 100_000), (200, {}, b"\xff"),
    ],
)  # fmt: skip
def test_answers_that_are_no_dicom_json(fake, answer):
    fake.answers = [answer]
    with client_of(fake.address) as client, pytest.raises(InputError, match=r"is no DICOM JSON"):
        list(matches(client, fake.address))


def test_odd_matches_are_counted_and_become_no_paths(fake):
    series = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"}
    found = [
        item(SOPInstanceUID="1.2.3.1.1", SOPClassUID=ComputedRadiographyImageStorage, **series),
        item(SOPInstanceUID="1.2.3.1.1", SOPClassUID=ComputedRadiographyImageStorage, InstanceNumber=2, **series),
        {"00080018": {"vr": "UI", "Value": ["../../etc"]}}, {"00080018": {"vr": "UI"}}, {"00080018": 5}, {},
        item(SOPInstanceUID="1.2.3.1.2", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", **series),
        item(SOPInstanceUID="1.2.3.1.3", SOPClassUID="1.2.3.4", **series),
        item(SOPInstanceUID="1.2.3.1.4", Modality="MR", **series),
        # An archive need not say the class.
        item(SOPInstanceUID="1.2.3.1.5", **series),
    ]  # fmt: skip
    fake.answers = [(200, {}, json.dumps(found).encode()), (204, {}, b"")]
    with client_of(fake.address) as client:
        found = find(client, resource_of("data-path", f"{fake.address}/studies/{STUDY}/series/{STUDY}.1"))
    assert [one.uid for one in found.instances] == ["1.2.3.1.1", "1.2.3.1.5"]
    assert found.left_out.in_words == ["1 1.2.3.4", "1 CT Image", "1 MR", "4 objects without a valid identifier"]


def test_series_of_other_modalities_are_not_listed(fake):
    series = [
        item(Modality="CT", SeriesInstanceUID="1.2.3.1", NumberOfSeriesRelatedInstances=455),
        item(Modality="MR", SeriesInstanceUID="1.2.3.2"), item(Modality="MR", SeriesInstanceUID="1.2.3.3"),
        item(Modality="SR", SeriesInstanceUID="1.2.3.4", NumberOfSeriesRelatedInstances=1),
    ]  # fmt: skip
    fake.answers = [(200, {}, json.dumps(series).encode()), (200, {}, b"[]")]
    with client_of(fake.address) as client:
        found = find(client, resource_of("data-path", f"{fake.address}/studies/{STUDY}"))
    assert found.left_out.in_words == ["455 CT", "1 SR", "2 series of MR"]
    assert len(fake.requests) == 2


# ---- retrieving


def retrieved(fake, client):
    return Retrieved(resource_of("data-path", f"{fake.address}/studies/{STUDY}"))


FILES = {f"1.2.3.1.{number}": file_of(f"1.2.3.1.{number}", PatientName="Doe^Jane") for number in range(5)}


def test_objects_come_whole_and_an_interruption_is_gone_on_from(fake, monkeypatch):
    fake.rule, retrieve, done = archive(FILES), retrieval.retrieve, []

    def interrupt(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        retrieve(*args)
        done.append(args[2].uid)

    monkeypatch.setattr(retrieval, "N_THREADS", 1)
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        with monkeypatch.context() as patch:
            patch.setattr(retrieval, "retrieve", interrupt)
            with pytest.raises(KeyboardInterrupt):
                study.bring(client)
            study.close()
        assert stat.S_IMODE(study.home.stat().st_mode) == 0o700
        fake.requests.clear()
        study = retrieved(fake, client)
        study.bring(client)
        asked = [path.rpartition("/")[2] for _, path, *_ in fake.requests if "/instances/" in path]
        assert sorted(asked + done) == sorted(FILES)
        assert {path.stem: path.read_bytes() for path in study.path.rglob("*.dcm")} == FILES
        times = {path.stem: path.stat().st_mtime_ns for path in study.path.rglob("*.dcm")}
        study.remove()
        assert not study.home.exists()
        # Retrieved anew, the same content has the same times: a journal that was begun goes on.
        study.bring(client)
        assert {path.stem: path.stat().st_mtime_ns for path in study.path.rglob("*.dcm")} == times
        study.remove()


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>"), "the answer is text/html"),
        ((200, {}, b""), "something without a type"),
        ((200, {"Content-Type": related()[1]}, related(b"no DICOM")[0]), "no DICOM file"),
        ((200, {"Content-Type": related()[1]}, related(file_of("1.2.4"))[0]), "another object came"),
        ((200, {"Content-Type": related()[1]}, related(*FILES.values())[0]), "holds 5 objects in place of one"),
        ((200, {"Content-Type": related()[1]}, related(FILES["1.2.3.1.1"])[0][:-8]), "(it was cut short), 6 times"),
        ((200, {"Content-Type": "multipart/related"}, b"x"), "its boundary is missing"),
        ((404, {}, b""), "there is nothing at this address"), ((500, {}, b""), "fails (500), 6 times"),
        ((400, {}, b""), "answers 400"), ((410, {}, b""), "it was deleted"),
    ],
)  # fmt: skip
def test_one_object_that_cannot_be_had_does_not_stop_the_others(fake, answer, line):
    rule = archive(FILES)
    fake.rule = lambda method, path: answer if path.endswith("/1.2.3.1.1") else rule(method, path)
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        study.bring(client)
    (failure,) = study.failures
    assert failure[0] == "1.2.3/1.2.3.1/1.2.3.1.1.dcm"
    assert line in failure[1]
    assert "\n" not in failure[1]
    assert sorted(path.stem for path in study.path.rglob("*.dcm")) == sorted(set(FILES) - {"1.2.3.1.1"})
    assert list((study.home / "parts").iterdir()) == []
    study.remove()


@pytest.mark.parametrize(("status", "line"), [(401, "no permission"), (503, r"is busy \(503\), 6 times")])
def test_where_the_archive_itself_fails_the_command_ends_and_what_came_is_kept(fake, status, line, capsys):
    rule = archive(FILES)
    fake.rule = lambda method, path: (status, {}, b"") if path.endswith("/1.2.3.1.4") else rule(method, path)
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        with pytest.raises(InputError, match=line):
            study.bring(client)
        study.close()
        study.leave()
        assert f"what was retrieved stays in {study.home}" in capsys.readouterr().err
        study.remove()


def test_nothing_at_all(fake):
    fake.rule = archive({})
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        with pytest.raises(InputError, match="has no objects"):
            study.bring(client)
        study.close()
        study.leave()
        assert not study.home.exists()
        fake.rule = archive(FILES)
        rule = fake.rule
        fake.rule = lambda method, path: (404, {}, b"") if "/instances/" in path else rule(method, path)
        with pytest.raises(InputError, match=r"nothing of .* can be retrieved"):
            study.bring(client)
        study.remove()


def test_servers_that_know_one_form_alone_are_asked_for_it(fake):
    rule = archive(FILES)

    def plain(method, path):
        if "/instances/" not in path:
            return rule(method, path)
        accept = fake.requests[-1][2]["Accept"]
        return (
            (200, {"Content-Type": "application/dicom"}, FILES[path.rpartition("/")[2]])
            if accept == "application/dicom"
            else (406, {}, b"")
        )

    fake.rule = plain
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        study.bring(client)
        assert {path.stem: path.read_bytes() for path in study.path.rglob("*.dcm")} == FILES
        study.remove()


def test_pictures_of_our_own_are_left_out(fake, capsys):
    about = {"SOPClassUID": SecondaryCaptureImageStorage, "Manufacturer": "xray", "BurnedInAnnotation": "YES"}
    fake.rule = archive(FILES | {"1.2.3.1.9": file_of("1.2.3.1.9", **about)})
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        study.bring(client)
        assert sorted(path.stem for path in study.path.rglob("*.dcm")) == sorted(FILES)
        assert "1 of them left out: pictures of findings, made by xray" in capsys.readouterr().err
        study.remove()


def test_what_an_interrupted_command_left_is_deleted_after_a_day(fake, monkeypatch):
    fake.rule = archive(FILES)
    with client_of(fake.address) as client:
        study = retrieved(fake, client)
        study.bring(client)
        for path in (study.home, study.home / "index", study.home / "parts"):
            os.utime(path, (1e9, 1e9))
        retrieval.delete_old()
        # The command may still be running, in another process.
        study.close()
        retrieval.delete_old()
        assert not study.home.exists()


# ---- storing


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        (answer_of(["1.1", "1.2"]), [(STORED, ""), (STORED, "")]),
        (answer_of(["1.1"], [("1.2", 0x0122)], 202), [(STORED, ""), (NOT_STORED, f"{CLASS} (0122)")]),
        (answer_of(["1.1"], [("1.2", 0xA701)], 202), [(STORED, ""), (NOT_STORED, "out of resources (A701)")]),
        (
            answer_of([], [("1.1", 0xC0FF), ("1.2", 0x0111)], 409),
            [(NOT_STORED, "it cannot understand the object (C0FF)"), (THERE, "")],
        ),
        (answer_of(["1.1"], status=202), [(STORED, ""), (NOT_STORED, "not mentioned in the answer")]),
        ((200, {}, b""), [(STORED, ""), (STORED, "")]), ((200, {}, b"<xml/>"), [(STORED, ""), (STORED, "")]),
        ((202, {}, b""), [(NOT_STORED, "202 without a reason")] * 2),
        ((409, {}, b"[]"), [(NOT_STORED, "409 without a reason")] * 2),
        ((400, {}, b"[" * 10**5), [(NOT_STORED, "400 without a reason")] * 2),
    ],
)  # fmt: skip
def test_what_became_of_each_object_is_read_from_the_answer(fake, tmp_path, answer, outcomes):
    paths = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for path, uid in zip(paths, ("1.1", "1.2"), strict=True):
        path.write_bytes(file_of(uid))
    fake.answers = [(503, {"Retry-After": "1"}, b""), answer]
    with client_of(fake.address) as client:
        found = store(client, fake.address, paths)
    assert found == [Outcome(uid, *outcome) for uid, outcome in zip(("1.1", "1.2"), outcomes, strict=True)]
    for _, path, headers, body in fake.requests:
        assert path == "/dicom-web/studies"
        assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
        parts = [event for event in read_parts(headers["Content-Type"], [body]) if isinstance(event, bytes)]
        assert b"".join(parts) == b"".join(path.read_bytes() for path in paths)


def test_reasons_without_a_code():
    assert reason_of(None) == "no reason given"
    assert reason_of(5) == "unknown reason (0005)"


def test_credentials_of_nobody():
    assert Credentials(None, frozenset()).of(HOST) is None
    assert not Credentials(None, frozenset()).have_changed()
