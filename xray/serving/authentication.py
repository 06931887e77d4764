"""Lets those through who have an account, by Basic authentication (RFC 7617) or a bearer token (RFC 6750).

Checking a secret takes long on purpose, so what was right once is remembered, hashed by a key of this process. Who is
wrong again and again has to wait, longer each time; others, of the same address too, do not wait for that.
"""

import asyncio
import base64
import binascii
import collections
import dataclasses
import functools
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from xray.serving.accounts import LONGEST, Accounts, AccountsFile

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REALM = "xray"
FREE = 3
"""Wrong secrets without a pause."""
LONGEST_PAUSE = 60.0
FORGIVEN = 900.0
"""Seconds after which wrong secrets are forgotten."""
MOST_REMEMBERED = 4096
WAITING_EACH = 4
"""Of one address, how many may wait at a time for their secret to be checked."""
WAITING = 64
"""The same of all addresses."""
ALWAYS_OPEN = frozenset({"/ping"})
"""Paths that need no account: SageMaker and health checks ask for them."""


@dataclasses.dataclass(frozen=True)
class Credentials:
    """What a request came with. name: None of a bearer token."""

    name: str | None
    secret: str


def _decoded(header: bytes) -> str:
    """A header as UTF-8, as curl and others send a token that is not ASCII; else as HTTP has it, in Latin-1."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def credentials_of(header: str) -> Credentials | None:
    """What an Authorization header holds; None for anything else."""
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and 0 < len(rest) <= LONGEST:
        return Credentials(None, rest)
    if scheme.lower() == "basic":
        try:
            name, colon, secret = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            return None
        return Credentials(name, secret) if colon and len(name) <= LONGEST and len(secret) <= LONGEST else None
    return None


class Failures:
    """How long whoever was wrong has to wait. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Key → number of failures, and when the last one was; the one that failed last is last.
        self._of: collections.OrderedDict[tuple[str, str], tuple[int, float]] = collections.OrderedDict()

    def pause(self, key: tuple[str, str]) -> float:
        """Seconds that are left to wait, 0 for none."""
        n, last = self._of.get(key, (0, 0.0))
        elapsed = self._clock() - last
        if elapsed >= FORGIVEN:
            self._of.pop(key, None)
            return 0.0
        wanted = min(LONGEST_PAUSE, 2.0 ** (n - FREE)) if n >= FREE else 0.0
        return max(0.0, wanted - elapsed)

    def failed(self, key: tuple[str, str]) -> None:
        """Notes one more failure."""
        n = self._of.pop(key, (0, 0.0))[0]
        self._of[key] = (n + 1, self._clock())
        while len(self._of) > MOST_REMEMBERED:
            self._of.popitem(last=False)

    def succeeded(self, key: tuple[str, str]) -> None:
        """Forgets what was before."""
        self._of.pop(key, None)


def network_of(address: str) -> str:
    """Who is told apart by an address: in IPv6, a client has all addresses of its network of 64 bits."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv6Address):
        mapped = number.ipv4_mapped
        return str(mapped or ipaddress.ip_network((int(number), 64), strict=False))
    return str(number)


class TooManyError(Exception):
    """More secrets wait to be checked than can be. seconds: after which to come back."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Checker:
    """Whether credentials are right, in threads, so that other requests are not held up.

    accounts: those there are; of a file, those that it holds by now. clock: seconds.
    """

    def __init__(self, accounts: Accounts | AccountsFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = accounts if isinstance(accounts, AccountsFile) else None
        self.accounts = accounts.now if isinstance(accounts, AccountsFile) else accounts
        self.failures = Failures(clock)
        self._key = secrets.token_bytes(32)
        self._right: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._checking: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: collections.Counter[str] = collections.Counter()
        self._threads = ThreadPoolExecutor(2, "accounts")

    async def is_right(self, given: Credentials, address: str) -> bool:
        """Whether credentials are those of an account. Raises TooManyError where it is not checked now."""
        if self._file is not None and self._file.has_changed():
            self.accounts = self._file.now
            # By the former accounts; what is being checked is by those, too, and is not remembered (`_done`).
            self._right.clear()
            self._checking.clear()
        digest = self._digest(given)
        if digest in self._right:
            self._right.move_to_end(digest)
            return True
        if digest in self._checking:
            # The same from several connections, as browsers have them: one check for all.
            return await asyncio.shield(self._checking[digest])
        network = network_of(address)
        key = (network, given.name if given.name is not None else "")
        if pause := self.failures.pause(key):
            raise TooManyError(pause)
        if self._waiting[network] >= WAITING_EACH or self._waiting.total() >= WAITING:
            raise TooManyError(1.0)
        self._waiting[network] += 1
        check = asyncio.ensure_future(self._check(given))
        self._checking[digest] = check
        # Even if its client hangs up meanwhile, a wrong one counts.
        check.add_done_callback(functools.partial(self._done, digest, network, key, self.accounts))
        return await asyncio.shield(check)

    async def _check(self, given: Credentials) -> bool:
        work = functools.partial(self.accounts.any, given.secret)
        if given.name is not None:
            work = functools.partial(self.accounts.named, given.name, given.secret)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _done(
        self, digest: bytes, network: str, key: tuple[str, str], accounts: Accounts, check: "asyncio.Future[bool]"
    ) -> None:
        if self._checking.get(digest) is check:
            del self._checking[digest]
        self._waiting[network] -= 1
        if self._waiting[network] <= 0:
            del self._waiting[network]
        if check.cancelled() or check.exception() is not None:
            return
        if not check.result():
            self.failures.failed(key)
            return
        self.failures.succeeded(key)
        if accounts is not self.accounts:
            return
        self._right[digest] = None
        while len(self._right) > MOST_REMEMBERED:
            self._right.popitem(last=False)

    def _digest(self, given: Credentials) -> bytes:
        text = f"{'b' if given.name is None else f'n{len(given.name)}:{given.name}'}:{given.secret}"
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)


class Authentication:
    """Answers 401 to requests without an account, and 429 to who is wrong again and again.

    open_paths: need no account, besides ALWAYS_OPEN. on_refused: is called for each that is not let in.
    """

    def __init__(
        self,
        app: "ASGIApp",
        checker: Checker,
        open_paths: frozenset[str] = frozenset(),
        on_refused: Callable[[], object] = lambda: None,
    ) -> None:
        self.app, self.checker, self.on_refused = app, checker, on_refused
        self.open_paths = ALWAYS_OPEN | open_paths

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http" or scope["path"] in self.open_paths:
            await self.app(scope, receive, send)
            return
        given = [_decoded(value) for name, value in scope["headers"] if name == b"authorization"]
        found = credentials_of(given[0]) if len(given) == 1 else None
        address = (scope.get("client") or ("",))[0]
        try:
            is_let_in = found is not None and await self.checker.is_right(found, address)
        except TooManyError as error:
            await self._refuse(scope, receive, send, found, error.seconds)
            return
        if is_let_in:
            await self.app(scope, receive, send)
        else:
            await self._refuse(scope, receive, send, found)

    async def _refuse(
        self, scope: "Scope", receive: "Receive", send: "Send", given: Credentials | None, pause: float | None = None
    ) -> None:
        from starlette.responses import JSONResponse

        self.on_refused()
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        # What such a request brings is not read, so its connection cannot be used again.
        headers = {"connection": "close"} if has_body else {}
        if pause is not None:
            seconds = max(1, round(pause + 0.5))
            line = f"too many wrong secrets: try again in {seconds} s"
            answer = JSONResponse({"detail": line}, 429, {**headers, "Retry-After": str(seconds)})
        else:
            line = "the name or the secret is wrong" if given else "an account is needed: give its name and secret"
            answer = JSONResponse({"detail": line}, 401, headers)
            wrong = ', error="invalid_token"' if given is not None and given.name is None else ""
            # Basic first: it is what browsers know.
            answer.headers.append("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')
            answer.headers.append("WWW-Authenticate", f'Bearer realm="{REALM}"{wrong}')
        await answer(scope, receive, send)
