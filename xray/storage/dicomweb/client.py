"""Requests to a DICOMweb service: who asks, whom it trusts, how long it waits, and how often it asks again.

What may pass (silence, a line that is cut, 429, 502 to 504) is tried again after pauses that grow, or for as long as
Retry-After says. Credentials go to the host that the user named and to no other, patients' data likewise.
"""

import contextlib
import datetime
import email.utils
import random
import re
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from xray import __version__
from xray.errors import FlagError, InputError, need
from xray.storage.dicomweb.addresses import PORTS, is_dicomweb, origin_of, shown
from xray.storage.dicomweb.credentials import Credentials

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

T = TypeVar("T")

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""How long a host may keep silent."""
N_ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
PATIENCE = 600.0
"""Seconds of pauses that Retry-After may ask for, in all, before one request is given up."""
N_REDIRECTS = 5
N_CONNECTIONS = 8
MAX_LINE = 200
"""Letters of what a server says of a failure that a message repeats."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes after which the same request may succeed."""

CUT_SHORT = 1
"""Stands for the status of an answer that began well: what is wrong may be the object, and not the service."""


def sleep(seconds: float, stopped: threading.Event | None = None) -> None:
    """Waits so long, or until something is stopped."""
    if stopped is None:
        time.sleep(seconds)
    else:
        stopped.wait(seconds)


class RefusedError(InputError):
    """A request was answered, and not as it should be. status: of HTTP, 0 where there was
    none, or a good one with a body that cannot be used."""

    def __init__(self, line: str, status: int = 0) -> None:
        super().__init__(line)
        self.status = status


class PassingError(Exception):
    """What may be over when it is tried again. line: what to say where it is not. told: seconds to wait, None if the
    server did not say. status: of HTTP, 0 where there was no answer, or CUT_SHORT."""

    def __init__(self, line: str, told: float | None = None, status: int = 0) -> None:
        super().__init__(line)
        self.line, self.told, self.status = line, told, status


class Client:
    """Connections to the hosts of DICOMweb services, for any thread of this process; a context manager."""

    def __init__(self, credentials: Credentials, ca: str = "", read_seconds: float = READ_SECONDS) -> None:
        """ca: a PEM file with certificates to trust beside those of the system. Raises FlagError if it is none."""
        need("a DICOMweb address", "dicomweb", "urllib3")
        self.credentials, self._read_seconds = credentials, read_seconds
        self._trust = trust_of(ca)
        self._managers: dict[str, PoolManager] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        for manager in self._managers.values():
            manager.clear()

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
        also: Iterable[int] = (),
    ) -> "Iterator[BaseHTTPResponse]":
        """The answer to a request, its body not read yet; redirections are followed.

        body: may be iterated several times. also: status codes beside 2xx that the caller understands.
        Raises PassingError, also for what goes wrong while the caller reads the body, or RefusedError.
        """
        with self._explained(url):
            response, end = self._follow(method, url, dict(headers or {}), body)
            try:
                if not 200 <= response.status < 300 and response.status not in also:
                    raise _refusal(response, url, end, self.credentials)
                yield response
            finally:
                _let_go(response)

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: Iterable[bytes] | None
    ) -> "tuple[BaseHTTPResponse, str]":
        """The last answer, and the address that gave it."""
        start = url
        for _ in range(N_REDIRECTS):
            response = self._send(method, url, headers, body)
            if response.status == 401 and self.credentials.have_changed():
                _let_go(response)
                response = self._send(method, url, headers, body)
            to = response.headers.get("location", "")
            if response.status not in (301, 302, 303, 307, 308) or not to:
                return response, url
            _let_go(response)
            url = self._redirected(start, url, to, method)
        raise RefusedError(f"{shown(start)} leads through more than {N_REDIRECTS} redirections: check the address")

    def _redirected(self, start: str, url: str, to: str, method: str) -> str:
        try:
            to = urljoin(url, to)
            is_place = is_dicomweb(to) and bool(origin_of(to)) and "@" not in urlsplit(to).netloc
        except ValueError:
            is_place = False
        if not is_place:
            raise RefusedError(f"{shown(start)} leads to what is no address of HTTP: check the address")
        if urlsplit(url).scheme == "https" and urlsplit(to).scheme != "https":
            raise RefusedError(f"{shown(start)} leads to {shown(to)}, which is not encrypted: it is not followed")
        if method != "GET" and origin_of(to) != origin_of(start):
            raise RefusedError(
                f"{shown(start)} leads to {origin_of(to)}: patients' data are sent to no host but the one that was "
                "given; give that address, if it is right"
            )
        return to

    def _send(self, method: str, url: str, headers: dict[str, str], body: Iterable[bytes] | None) -> "BaseHTTPResponse":
        import urllib3

        fields = {"User-Agent": f"xray/{__version__}", "Accept-Encoding": "identity", **headers}
        if (authorization := self.credentials.of(url)) is not None:
            fields["Authorization"] = authorization
        if isinstance(body, Sized):
            fields["Content-Length"] = str(len(body))
        return self._manager(url).urlopen(
            method,
            url,
            body=None if body is None else iter(body),
            headers=fields,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, self._read_seconds), read=self._read_seconds),
        )

    def _manager(self, url: str) -> "PoolManager":
        """The connections for an address, through a proxy where the environment names one (HTTPS_PROXY, NO_PROXY)."""
        import urllib3

        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
        is_direct = urllib.request.proxy_bypass(f"{parts.hostname}:{port}")
        proxy = "" if is_direct else urllib.request.getproxies().get(parts.scheme, "")
        options: dict[str, Any] = {"maxsize": N_CONNECTIONS, "ssl_context": self._trust}
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = (
                    urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
                )
            return self._managers[proxy]

    @contextlib.contextmanager
    def _explained(self, url: str) -> Iterator[None]:
        """PassingError or RefusedError for whatever goes wrong on the way."""
        from urllib3 import exceptions

        where = origin_of(url)
        try:
            yield
        except exceptions.SSLError as error:
            raise RefusedError(_of_tls(where, error)) from error
        except exceptions.ProxyError as error:
            raise PassingError(f"the proxy for {where} does not let through ({_cause(error)})") from error
        except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError) as error:
            raise PassingError(
                f"{where} does not answer ({_cause(error)}): check the address and the network"
            ) from error
        except (exceptions.TimeoutError, TimeoutError) as error:
            raise PassingError(
                f"{where} was silent for {self._read_seconds:g} s: --dicomweb-timeout sets how long"
            ) from error
        except (exceptions.HTTPError, ConnectionError) as error:
            raise PassingError(f"the answer of {where} was cut short ({_cause(error)})", status=CUT_SHORT) from error


def persist(act: Callable[[], T], stopped: threading.Event | None = None) -> T:
    """`act()`, again and again while it raises PassingError; in the end that becomes a RefusedError of its line.

    stopped: ends that at once, for threads whose result nobody needs any more. Raises what else `act` raises.
    """
    pause, left, waited = FIRST_PAUSE, N_ATTEMPTS, 0.0
    while True:
        try:
            return act()
        except PassingError as error:
            if error.told is None:
                left -= 1
                wait, pause = pause * random.uniform(0.75, 1.25), min(2 * pause, LONGEST_PAUSE)
                line = f"{error.line}, {N_ATTEMPTS} times"
            else:
                wait = error.told
                waited += wait
                line = f"{error.line} and asks to come back in {wait:.0f} s: give the same command again then"
            if not left or waited > PATIENCE or (stopped is not None and stopped.is_set()):
                raise RefusedError(line, error.status) from error
            if wait >= 5:
                print(f"{error.line}: trying again in {wait:.0f} s", file=sys.stderr)
            sleep(wait, stopped)


def read_all(response: "BaseHTTPResponse", max_bytes: int, where: str) -> bytes:
    """The whole body. Raises RefusedError where it has more bytes."""
    parts, n_bytes = [], 0
    for chunk in response.stream(2**16):
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise RefusedError(f"{where} answers with more than {max_bytes >> 20} MiB: ask for less")
        parts.append(chunk)
    return b"".join(parts)


def trust_of(ca: str) -> ssl.SSLContext:
    """Whom to trust: the system's authorities, and those of a PEM file. Raises FlagError if it is none."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            reason = (
                error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no certificates in PEM"
            )
            raise FlagError(
                f"--ca {ca} cannot be used ({reason}): give a PEM file of a certificate authority"
            ) from None
    return context


def seconds_told(value: str | None) -> float | None:
    """What Retry-After says (RFC 9110 10.2.3), in seconds from now, at least 0; None for nothing usable."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _let_go(response: "BaseHTTPResponse") -> None:
    """Ends an answer; where little of it is left, its connection can be used again."""
    with contextlib.suppress(Exception):
        response.read(2**14)
    response.close()


def _refusal(response: "BaseHTTPResponse", url: str, end: str, credentials: Credentials) -> Exception:
    """What to raise for an answer that is none of those that were hoped for. end: the address that gave it."""
    status, where = response.status, shown(url)
    if status in PASSING:
        names = {429: "has too many requests (429)", 503: "is busy (503)"}
        line = f"{origin_of(url)} {names.get(status, f'fails ({status})')}"
        return PassingError(line, seconds_told(response.headers.get("retry-after")), status)
    if status in (401, 403):
        if origin_of(end) != origin_of(url):
            hint = f"it leads to {origin_of(end)}, which is sent no credentials: give that address, if it is right"
        elif credentials.of(url) is None:
            hint = "give --dicomweb-auth FILE, or set XRAY_DICOMWEB_TOKEN"
        else:
            hint = "its credentials may be wrong or too old, or lack this right"
        return RefusedError(f"no permission for {where} ({status}): {hint}", status)
    reasons = {
        404: "there is nothing at this address: check it",
        410: "it was deleted",
        405: "it does not offer this service",
        406: "it has no format that xray asks for",
        413: "it takes no bodies as large as this",
        415: "it does not take DICOM files here",
    }
    return RefusedError(f"{where} answers {status}: {reasons.get(status, 'check the address')}", status)


def _of_tls(where: str, error: Exception) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text or "certificate" in text.lower():
        found = re.search(r"certificate verify failed: ([^(\n]*)", text)
        reason = (found[1] if found else "it does not match").strip()
        return f"the certificate of {where} is not trusted ({reason}): --ca FILE adds its certificate authority"
    return f"{where} does not speak TLS as it should ({_cause(error)}): check scheme and port"


def _cause(error: BaseException) -> str:
    """A few words about an error of the network that repeat no path of a request."""
    inner: Any = error
    while (reason := getattr(inner, "reason", None)) is not None and isinstance(reason, BaseException):
        inner = reason
    while isinstance(inner.__cause__ or inner.__context__, OSError):
        inner = inner.__cause__ or inner.__context__
    return (getattr(inner, "strerror", None) or type(inner).__name__)[:MAX_LINE]
