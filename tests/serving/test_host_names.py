"""Names by which a server may be asked, and addresses of its own pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.errors import FlagError
from xray.serving.request_guard import host_names, netloc_of

HERE = ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("host", "port", "given_names", "asked", "server", "is_own"),
    [
        ("127.0.0.1", 8080, (), "localhost:8080", HERE, True),
        ("127.0.0.1", 8080, (), "LocalHost:8080", HERE, True),
        ("127.0.0.1", 8080, (), "[::1]:8080", HERE, True),
        ("127.0.0.1", 8080, (), "127.0.0.1", HERE, False),
        ("127.0.0.1", 80, (), "127.0.0.1", ("127.0.0.1", 80), True),
        ("127.0.0.1", 8080, (), "127.0.0.1:8081", HERE, False),
        ("127.0.0.1", 8080, (), "evil.example:8080", HERE, False),
        ("127.0.0.1", 8080, (), "localhost.evil.example:8080", HERE, False),
        ("127.0.0.1", 8080, (), "", HERE, False),
        ("192.168.1.5", 8080, (), "192.168.1.5:8080", ("192.168.1.5", 8080), True),
        ("xray.lan", 8080, (), "xray.lan:8080", ("192.168.1.5", 8080), True),
        ("::1", 8080, (), "[::1]:8080", ("::1", 8080), True),
        # At all addresses: that which the request came in at is one of its names, any other is not.
        ("0.0.0.0", 8080, (), "192.168.1.5:8080", ("192.168.1.5", 8080), True),
        ("0.0.0.0", 8080, (), "192.168.1.6:8080", ("192.168.1.5", 8080), False),
        ("0.0.0.0", 8080, (), "evil.example:8080", ("192.168.1.5", 8080), False),
        ("::", 8080, (), "[fe80::1]:8080", ("fe80::1", 8080), True),
        ("127.0.0.1", 8080, ("Xray.Example.org",), "xray.example.org", HERE, True),
        ("127.0.0.1", 8080, ("xray.example.org",), "xray.example.org:8080", HERE, True),
        ("127.0.0.1", 8080, ("xray.example.org",), "xray.example.org:8443", HERE, False),
        ("127.0.0.1", 8080, ("xray.example.org",), "Xray.example.org:443", HERE, True),
        ("127.0.0.1", 8080, ("xray.example.org",), "xray.example.org:80", HERE, True),
        ("127.0.0.1", 8080, ("a:9000",), "a:443", HERE, False),
        ("127.0.0.1", 8080, (), "localhost:443", HERE, False),
        ("127.0.0.1", 8080, ("a:9000", "b:9001"), "b:9001", HERE, True),
        ("127.0.0.1", 8080, ("a:9000", "b:9001"), "a:8080", HERE, False),
    ],
)
def test_which_names_are_its_own(host, port, given_names, asked, server, is_own):
    assert host_names(host, port, given_names).is_own(asked, server) == is_own


def test_sagemaker_has_names_of_its_own_for_its_paths():
    names = host_names("0.0.0.0", 8080, (), is_sagemaker=True)
    for path in ("/ping", "/invocations", "/execution-parameters"):
        assert names.has(["model.internal"], path, HERE)
        assert not host_names("0.0.0.0", 8080).has(["model.internal"], path, HERE)
    for path in ("/", "/predict", "/ping/", "/about"):
        assert not names.has(["model.internal"], path, HERE)


def test_one_host_and_no_more():
    names = host_names("127.0.0.1", 8080)
    assert names.has(["localhost:8080"], "/", HERE)
    assert not names.has([], "/", HERE)
    assert not names.has(["localhost:8080", "evil.example"], "/", HERE)


@pytest.mark.parametrize("name", ["", "*", "http://a", "a b", "a/b", "a:0", "a:70000", "-a", "a:", "a@b", "a,b", "ü"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(FlagError, match="--host-name"):
        host_names("127.0.0.1", 8080, (name,))


def test_the_place_of_an_origin():
    assert netloc_of("http://localhost:8080") == "localhost:8080"
    assert netloc_of("HTTPS://Xray.Example.org") == "xray.example.org"
    assert netloc_of("http://[::1]:80") == "[::1]:80"
    for other in (
        "null",
        "",
        "localhost:8080",
        "file://",
        "http://",
        "http://a/b",
        "http://u@a",
        "ftp://a",
        "http://a b",
    ):
        assert netloc_of(other) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_nothing_else_is_its_own(host, origin):
    names = host_names("127.0.0.1", 8080)
    assert names.is_own(host, HERE) == (host.strip().lower() in names.names)
    assert netloc_of(origin) is None or "://" in origin
