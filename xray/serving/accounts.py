"""Accounts: a file of names with hashed secrets, and whether credentials are those of one.

Each line is NAME:HASH; empty lines and those that begin with # do not count. HASH is scrypt (RFC 7914) in the PHC
string format, which passlib and others write, too:

    $scrypt$ln=14,r=8,p=5$SALT$KEY          base64 without padding
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import logging
import re
import secrets
import stat
import time
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from xray.errors import InputError, spelled
from xray.files import replacing

log = logging.getLogger("xray.serving")

LN, R, P = 14, 8, 5
"""Cost: 16 MiB and about 0.2 s for a secret; as hard as 128 MiB at p = 1, by OWASP's table of equals."""
SALT_BYTES, KEY_BYTES = 16, 32
MOST_ACCOUNTS = 100
"""A bearer token says no name: each account has to be tried."""
MOST_BYTES = 2**16
SHORTEST = 8
"""Letters of a secret."""
LONGEST = 1024
MOST_MEMORY = 2**28
"""Bytes that a hash of the file may take to check."""

LOOK = 1.0
"""Seconds between two looks at whether the file has changed."""
HOW = f"{spelled('account')} NAME prints a line"
_NAME = r"[A-Za-z0-9._@-]{1,64}"
_HASH = r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"


@dataclasses.dataclass(frozen=True)
class Hash:
    """A hashed secret. ln, r, p: scrypt's cost, N being 2 to the power of ln."""

    ln: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def matches(self, secret: str) -> bool:
        """Whether it is of this secret; takes as long for one as for another."""
        return hmac.compare_digest(self._key_of(secret), self.key)

    def _key_of(self, secret: str) -> bytes:
        n = 2**self.ln
        most = 2 * 128 * self.r * (n + self.p)
        # RFC 7617: what is typed on different keyboards is the same secret.
        text = unicodedata.normalize("NFC", secret).encode("utf-8", "surrogatepass")
        return hashlib.scrypt(
            text, salt=self.salt, n=n, r=self.r, p=self.p, maxmem=most, dklen=len(self.key) or KEY_BYTES
        )

    def __str__(self) -> str:
        return f"$scrypt$ln={self.ln},r={self.r},p={self.p}${_text(self.salt)}${_text(self.key)}"

    @classmethod
    def of(cls, secret: str) -> "Hash":
        """Of a new secret, with a salt of its own."""
        empty = cls(LN, R, P, secrets.token_bytes(SALT_BYTES), b"")
        return dataclasses.replace(empty, key=empty._key_of(secret))

    @classmethod
    def read(cls, text: str) -> "Hash":
        """From its text. Raises ValueError where it is none, or would take too much memory."""
        match = re.fullmatch(_HASH, text)
        if match is None:
            raise ValueError(f"no hash that {spelled('account')} makes")
        ln, r, p = map(int, match.groups()[:3])
        if not (1 <= ln <= 20 and 1 <= r <= 32 and 1 <= p <= 16) or 128 * r * 2**ln > MOST_MEMORY:
            raise ValueError("a hash that takes too long, or too much memory")
        try:
            return cls(ln, r, p, *(base64.b64decode(part + "=" * (-len(part) % 4)) for part in match.groups()[3:]))
        except binascii.Error:
            raise ValueError(f"no hash that {spelled('account')} makes") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


NOBODY = Hash(LN, R, P, bytes(SALT_BYTES), bytes(KEY_BYTES))
"""What the secret of an unknown name is held against, so that it takes as long as that of a known one."""


class Accounts:
    """Who may ask a server. of: name → hash."""

    def __init__(self, of: Mapping[str, Hash]) -> None:
        self.of = dict(of)

    def named(self, name: str, secret: str) -> bool:
        """Whether a name and its secret, as of Basic authentication, are those of an account. Takes long: see LN."""
        return self.of.get(name, NOBODY).matches(secret) and name in self.of

    def any(self, secret: str) -> bool:
        """Whether a secret alone, as a bearer token, is that of an account. Takes long for each account."""
        found = False
        for one in self.of.values():
            # No account is left out, so that time does not tell which one it is.
            found = one.matches(secret) or found
        return found


def read_accounts(path: Path, warn: Callable[[str], object]) -> Accounts:
    """The accounts of a file. warn: is told, in one line, where others may read it.

    Raises InputError where it cannot be read, or a line is no account: by its number, without what it says.
    """
    found, _ = _read(path, warn)
    if not 0 < len(found) <= MOST_ACCOUNTS:
        raise InputError(f"--auth {path} has {len(found)} accounts, 1 to {MOST_ACCOUNTS} are possible: {HOW}")
    return Accounts(found)


class AccountsFile:
    """A file of accounts that is read again once it has changed, so that who was removed is let in no more.

    now: what it held when it was read last. clock: seconds.
    """

    def __init__(self, path: Path, warn: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InputError as `read_accounts`."""
        self._path, self._clock, self._looked = path, clock, clock()
        self._stamp = self._stamp_now()
        self.now = read_accounts(path, warn)

    def has_changed(self) -> bool:
        """Looks, once in LOOK seconds at most, whether `now` is another one by now.

        A file that cannot be used changes nothing, as it may be about to be written; one without any account lets
        nobody in. Both are logged.
        """
        if self._clock() - self._looked < LOOK:
            return False
        self._looked, stamp = self._clock(), self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            found, _ = _read(self._path, log.warning)
            if len(found) > MOST_ACCOUNTS:
                raise InputError(f"--auth {self._path} has {len(found)} accounts, {MOST_ACCOUNTS} are possible")
        except InputError as error:
            log.error("accounts stay as they were: %s", error)
            return False
        self.now = Accounts(found)
        log.warning("accounts were read again: %s", len(found) or "none is left, and nobody is let in")
        return True

    def _stamp_now(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path, warn: Callable[[str], object]) -> tuple[dict[str, Hash], list[str]]:
    """What a file has, however many accounts: name → hash, and its lines. Raises as `read_accounts`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise InputError(f"--auth {path} is no file of accounts: {HOW}")
        # Editors of Windows begin a file with a mark of its coding.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"--auth {path} cannot be read ({error.strerror}): {HOW}") from None
    except UnicodeDecodeError:
        raise InputError(f"--auth {path} is no text in UTF-8: {HOW}") from None
    found: dict[str, Hash] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        try:
            if not re.fullmatch(_NAME, name):
                raise ValueError("no NAME:HASH")
            if name in found:
                raise ValueError("a name that stands there twice")
            found[name] = Hash.read(hashed.strip())
        except ValueError as error:
            raise InputError(f"--auth {path}, line {number}: {error}: {HOW}") from None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"warning: others than its owner may read {path}: chmod 600 {path}")
    return found, lines


def account_line(name: str, secret: str) -> str:
    """A line of the file. Raises InputError for a name or a secret that cannot be one."""
    if not re.fullmatch(_NAME, name):
        raise InputError(f"{name!r:.70} is no name of an account: give 1 to 64 letters, digits and . _ @ -")
    if not SHORTEST <= len(secret) <= LONGEST:
        raise InputError(f"the secret has a length of {len(secret)}: give {SHORTEST} to {LONGEST} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in secret):
        raise InputError("the secret has control characters: give one that can be typed")
    return f"{name}:{Hash.of(secret)}"


def put_line(path: Path, line: str) -> bool:
    """Puts an account into a file that only its owner may read, in place of one with its name.

    Returns whether there was one. Raises InputError as `read_accounts`, but for a file without any account, and where
    there would be more than a server takes.
    """
    found, lines = _read(path, lambda warning: None) if path.exists() else ({}, [])
    name = line.partition(":")[0]
    if name not in found and len(found) >= MOST_ACCOUNTS:
        raise InputError(f"--auth {path} has {len(found)} accounts, and no more are possible: remove one's line")
    kept = [one for one in lines if one.strip().partition(":")[0] != name]
    try:
        with replacing(path, private=True) as temporary:
            temporary.touch(mode=0o600)
            temporary.chmod(0o600)
            temporary.write_text("\n".join([*kept, line]) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--auth {path} cannot be written ({error.strerror}): give another file") from None
    return name in found
