"""Who is let in: names and tokens, what a refusal says, and how long who is wrong has to wait."""

import asyncio
import base64
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_cases import Clock, Oracle
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xray.outputs.dicom.objects import Algorithm
from xray.serving import accounts
from xray.serving.accounts import Accounts, AccountsFile, Hash
from xray.serving.app import create_app
from xray.serving.authentication import (
    Authentication,
    Checker,
    Credentials,
    Failures,
    TooManyError,
    credentials_of,
    network_of,
)
from xray.serving.metrics import Metrics
from xray.serving.operations import Operations
from xray.serving.service import Limits, Service

SECRET = "Käse: 100 %"


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """Hashes that take no time."""
    before = accounts.LN, accounts.R, accounts.P
    accounts.LN, accounts.R, accounts.P = 1, 1, 1
    yield
    accounts.LN, accounts.R, accounts.P = before


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def checker(clock):
    return Checker(Accounts({"ali": Hash.of(SECRET), "bot": Hash.of("token-token")}), clock)


@pytest.fixture
def client(checker):
    async def hello(request):
        return PlainTextResponse("hello")

    paths = ("/", "/predict", "/ping", "/health", "/metrics", "/page/main.js")
    app = Starlette(routes=[Route(path, hello, methods=["GET", "POST"]) for path in paths])
    app.add_middleware(Authentication, checker=checker, open_paths=frozenset({"/health"}))
    return TestClient(app)


def basic(name, secret):
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def test_names_and_tokens_are_let_in(client):
    for headers in (
        basic("ali", SECRET), basic("bot", "token-token"), {"authorization": "Bearer token-token"},
        {"authorization": "bearer  token-token "},
        {"authorization": basic("ali", SECRET)["authorization"].replace("B", "b", 1)},
    ):  # fmt: skip
        for _ in range(2):  # the second time it is remembered
            assert client.post("/predict", headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_a_token_that_is_not_ascii_is_let_in_however_it_is_sent(clock, coding):
    checker = Checker(Accounts({"ali": Hash.of("Schlüssel-Wort")}), clock)
    statuses = []

    async def hello(scope, receive, send):
        statuses.append(200)

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        raise AssertionError

    headers = [(b"authorization", "Bearer Schlüssel-Wort".encode(coding))]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("1.2.3.4", 5)}
    asyncio.run(Authentication(hello, checker)(scope, receive, send))
    assert statuses == [200]


def test_a_refusal_says_what_is_needed(client):
    response = client.get("/")
    assert response.status_code == 401
    assert response.json() == {"detail": "an account is needed: give its name and secret"}
    schemes = response.headers.get_list("www-authenticate")
    assert schemes == ['Basic realm="xray", charset="UTF-8"', 'Bearer realm="xray"']
    assert "connection" not in response.headers
    response = client.get("/", headers={"authorization": "Bearer wrong-wrong"})
    assert response.headers.get_list("www-authenticate")[1] == 'Bearer realm="xray", error="invalid_token"'
    response = client.post("/predict", headers=basic("ali", "wrong"), content=b"x" * 100)
    assert (response.status_code, response.headers["connection"]) == (401, "close")
    assert response.json() == {"detail": "the name or the secret is wrong"}


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !", "Basic YWxp", "Bearer", "Digest x", "Basic " + base64.b64encode(b"\xff:\xfe").decode()],
)
def test_other_headers_are_no_account(client, header):
    assert client.get("/", headers={"authorization": header}).status_code == 401


def test_two_headers_are_no_account(client):
    headers = [("authorization", basic("ali", SECRET)["authorization"])] * 2
    assert client.get("/", headers=headers).status_code == 401


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_breaks_it(header):
    found = credentials_of(header)
    assert found is None or isinstance(found, Credentials)


@given(
    st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_basic_credentials_come_back(name, secret):
    assert credentials_of(basic(name, secret)["authorization"]) == Credentials(name, secret)


def test_open_paths_need_none(client):
    assert client.get("/ping").status_code == 200
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.get("/ping/").status_code == 401
    assert client.get("/health?x=/ping").status_code == 200
    assert client.get("/page/main.js").status_code == 401


def test_who_is_wrong_again_and_again_waits_and_others_do_not(client, clock):
    for _ in range(3):
        assert client.get("/", headers=basic("ali", "wrong")).status_code == 401
    pauses = []
    for _ in range(8):
        response = client.get("/", headers=basic("ali", SECRET))
        assert response.status_code == 429  # not even what is right is looked at now
        assert "www-authenticate" not in response.headers
        pauses.append(int(response.headers["retry-after"]))
        clock.now += pauses[-1]
        assert client.get("/", headers=basic("ali", "wrong")).status_code == 401
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2
    assert pauses[-1] == 60
    # Another name of the same address is not held up, nor is a token.
    assert client.get("/", headers=basic("bot", "token-token")).status_code == 200
    assert client.get("/", headers={"authorization": "Bearer token-token"}).status_code == 200
    clock.now += 60.5
    assert client.get("/", headers=basic("ali", SECRET)).status_code == 200
    # What was right once is let in at once, whatever others try meanwhile.
    for _ in range(5):
        client.get("/", headers=basic("ali", "wrong"))
    assert client.get("/", headers=basic("ali", SECRET)).status_code == 200


def test_failures_are_forgiven_and_never_grow_without_end(clock):
    failures = Failures(clock)
    for _ in range(20):
        failures.failed(("a", "ali"))
    assert failures.pause(("a", "ali")) == 60
    assert failures.pause(("b", "ali")) == 0
    clock.now += 901
    assert failures.pause(("a", "ali")) == 0
    for number in range(10_000):
        failures.failed((str(number), "ali"))
    assert len(failures._of) == 4096
    failures.succeeded(("9999", "ali"))
    assert len(failures._of) == 4095


def test_a_network_of_ipv6_is_one_client():
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    assert network_of("10.0.0.1") == "10.0.0.1" == network_of("::ffff:10.0.0.1")
    assert network_of("testclient") == "testclient"


def test_one_secret_is_checked_once_for_several_connections_and_few_at_a_time(clock):
    gate, seen = threading.Event(), []

    class Slow(Accounts):
        def named(self, name, secret):
            seen.append(name)
            gate.wait(20)
            return name == "ali"

    checker = Checker(Slow({}), clock)

    async def ask(name, address="10.0.0.1"):
        return await checker.is_right(Credentials(name, "secret"), address)

    async def main():
        same = [asyncio.ensure_future(ask("ali")) for _ in range(5)]
        others = [asyncio.ensure_future(ask(f"other{number}")) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyError):
            await ask("one too many")
        elsewhere = asyncio.ensure_future(ask("other", "10.0.0.2"))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*same) == [True] * 5
        assert await asyncio.gather(*others, elsewhere) == [False] * 4

    asyncio.run(main())
    assert sorted(seen) == ["ali", "other", "other0", "other1", "other2"]


@pytest.fixture(scope="module")
def guarded():
    """The whole application, with accounts."""
    with Service(Oracle(), ["fold0"], Limits(places=2)) as service:
        checker = Checker(Accounts({"ali": Hash.of(SECRET)}))
        metrics = Metrics(lambda: service.model.load, [])
        operations = Operations(checker, metrics=metrics, card=lambda: "<p>card")
        app = create_app(service, Algorithm("xray", "1", {}), None, operations)
        yield app, TestClient(app)


def test_every_route_but_ping_needs_an_account(guarded):
    app, client = guarded
    paths = [route.path for route in app.routes]
    assert {"/", "/predict", "/metrics", "/card", "/openapi.json", "/docs", "/page", "/dicom/sr"} <= set(paths)
    for path in (*paths, "/page/main.js", "/nowhere", "//ping", "/ping/../predict", "/PING"):
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
            response = client.request(method, path)
            assert (response.status_code == 401) == (path != "/ping"), (method, path)
            assert "default-src" in response.headers["content-security-policy"]
    assert client.get("/ping").status_code == 200
    mine = basic("ali", SECRET)
    for path in ("/", "/page/main.js", "/metrics", "/card", "/about", "/docs"):
        assert client.get(path, headers=mine).status_code == 200


def test_the_card_can_do_nothing_in_a_browser(guarded):
    _, client = guarded
    response = client.get("/card", headers=basic("ali", SECRET))
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script" not in policy
    assert client.get("/about", headers=basic("ali", SECRET)).json()["has_card"] is True


def test_who_is_removed_from_the_file_is_let_in_no_more(tmp_path, clock, caplog):
    file, hashes = tmp_path / "accounts", {name: Hash.of(SECRET) for name in ("ali", "bea", "cem")}

    def hold(*names, more=""):
        before = file.stat().st_mtime_ns if file.exists() else 0
        file.write_text("".join(f"{name}:{hashes[name]}\n" for name in names) + more)
        # Whatever the clock of the file system tells apart.
        os.utime(file, ns=(before + 10**9, before + 10**9))
        file.chmod(0o600)
        # What was wrong before is forgiven by then.
        clock.now += 1000.0

    hold("ali", "bea")
    checker = Checker(AccountsFile(file, print, clock), clock)

    async def let_in():
        return [name for name in hashes if await checker.is_right(Credentials(name, SECRET), "10.0.0.1")]

    assert asyncio.run(let_in()) == ["ali", "bea"]
    hold("bea", "cem")
    assert asyncio.run(let_in()) == ["bea", "cem"]
    # Half of a line, as an editor that writes in place leaves it for a moment.
    hold("bea", more="cem:$scry")
    assert asyncio.run(let_in()) == ["bea", "cem"]
    assert "accounts stay as they were: --auth" in caplog.text
    assert "$scry" not in caplog.text
    hold("bea")
    assert asyncio.run(let_in()) == ["bea"]
    file.unlink()
    clock.now += 1000.0
    assert asyncio.run(let_in()) == ["bea"]
    hold()
    assert asyncio.run(let_in()) == []
    assert "none is left, and nobody is let in" in caplog.text


def test_a_secret_that_is_checked_while_its_account_is_removed_is_not_remembered(tmp_path, clock):
    file = tmp_path / "accounts"
    file.write_text(f"ali:{Hash.of(SECRET)}\nbot:{Hash.of(SECRET)}\n")
    checker = Checker(AccountsFile(file, lambda line: None, clock), clock)
    given = Credentials("ali", SECRET)

    async def removed_meanwhile():
        check = asyncio.ensure_future(checker.is_right(given, "10.0.0.1"))
        await asyncio.sleep(0)
        file.write_text(f"bot:{Hash.of(SECRET)}\n")
        clock.now += accounts.LOOK
        assert await checker.is_right(Credentials("bot", SECRET), "10.0.0.2")
        await check
        return await checker.is_right(given, "10.0.0.1")

    assert not asyncio.run(removed_meanwhile())
