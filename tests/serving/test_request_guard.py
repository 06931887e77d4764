"""What every request passes first: names, pages of other sites, and failures that tell nothing."""

import logging

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xray.serving.request_guard import Guard, host_names

PLANTED = "Planted^Name"
OWN = {"host": "localhost:8080"}


async def hello(request):
    return PlainTextResponse("hello")


async def fail(request):
    raise ValueError(PLANTED)


async def break_off(request):
    async def parts():
        yield b"a"
        raise ValueError(PLANTED)

    from starlette.responses import StreamingResponse

    return StreamingResponse(parts())


ROUTES = [Route("/fail", fail, methods=["POST"]), Route("/break", break_off)] + [
    Route(path, hello, methods=["GET", "POST"]) for path in ("/", "/predict", "/ping", "/invocations", "/page/main.js")
]


def client_of(names):
    app = Starlette(routes=ROUTES)
    app.add_middleware(Guard, names=names)
    return TestClient(app, base_url="http://localhost:8080")


@pytest.fixture(scope="module")
def client():
    return client_of(host_names("127.0.0.1", 8080))


@pytest.mark.parametrize("path", ["/", "/predict", "/ping", "/invocations", "/page/main.js", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_name_is_refused_on_every_path(client, path, method):
    forwarded = dict.fromkeys(("x-forwarded-host", "x-host", "x-original-host", "x-forwarded-server"), "localhost:8080")
    forwarded["forwarded"] = "host=localhost:8080"
    response = client.request(method, path, headers={"host": "evil.example:8080", **forwarded})
    assert response.status_code == 421
    assert list(response.json()) == ["detail"]
    assert "evil" not in response.text
    assert response.headers["connection"] == "close"
    assert "default-src 'self'" in response.headers["content-security-policy"]
    others = dict.fromkeys(("x-forwarded-host", "x-host", "x-original-host"), "evil.example")
    assert client.request(method, path, headers={**OWN, **others}).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/nowhere"])
@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:8081", "https://evil.example:8080", ""]
)
def test_foreign_pages_are_refused(client, path, origin):
    response = client.post(path, headers={**OWN, "origin": origin})
    assert response.status_code == 403
    assert response.json() == {"detail": "requests from other sites' pages are not answered"}
    assert client.get(path, headers={**OWN, "origin": origin}).status_code == 403
    assert client.post(path, headers={**OWN, "sec-fetch-site": "cross-site"}).status_code == 403


def test_its_own_page_is_answered(client):
    for origin in ("http://localhost:8080", "http://127.0.0.1:8080", "http://LOCALHOST:8080"):
        assert client.post("/predict", headers={**OWN, "origin": origin}).status_code == 200
    assert client.post("/predict", headers=OWN).status_code == 200


def test_behind_a_proxy_it_goes_by_the_name_that_was_given():
    client = client_of(host_names("127.0.0.1", 8080, ("xray.example.org",)))
    own = {"host": "xray.example.org"}
    assert client.post("/predict", headers={**own, "origin": "https://xray.example.org"}).status_code == 200
    assert client.post("/predict", headers={**own, "origin": "https://other.example.org"}).status_code == 403


def test_sagemakers_paths_go_by_any_name_but_for_no_foreign_page():
    client = client_of(host_names("0.0.0.0", 8080, (), is_sagemaker=True))
    other = {"host": "model-container.internal"}
    assert client.get("/ping", headers=other).status_code == 200
    assert client.post("/invocations", headers=other).status_code == 200
    assert client.get("/", headers=other).status_code == 421
    for origin in ("null", "http://model-container.internal", "http://evil.example"):
        assert client.post("/invocations", headers={**other, "origin": origin}).status_code == 403


def test_where_any_name_will_do_a_page_still_asks_only_for_itself():
    client = client_of(None)
    assert client.post("/predict", headers={"host": "a:1", "origin": "http://a:1"}).status_code == 200
    assert client.post("/predict", headers={"host": "a:1", "origin": "http://b:1"}).status_code == 403
    assert client.post("/predict", headers={"host": "a:1", "origin": "null"}).status_code == 403


def test_a_failure_tells_its_kind_and_nothing_else(client, caplog, capsys):
    caplog.set_level(logging.INFO)
    response = client.post("/fail", headers=OWN)
    assert response.status_code == 500
    assert response.json() == {"detail": "the request failed (ValueError)"}
    assert "ValueError" in caplog.text
    assert PLANTED not in caplog.text + "".join(capsys.readouterr())
    assert not any(record.exc_info for record in caplog.records)
    client.get("/break", headers=OWN)
    assert PLANTED not in caplog.text + "".join(capsys.readouterr())
