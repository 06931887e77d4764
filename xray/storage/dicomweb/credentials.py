"""Who a command is to a DICOMweb service: a bearer token, or a user with a password (RFC 6750, RFC 7617).

They come from a file or from the environment, never from the command line, which everybody on a machine can read.
"""

import base64
import dataclasses
import functools
import os
import re
import stat
import sys
from collections.abc import Collection
from pathlib import Path

from xray.errors import FlagError, InputError
from xray.storage.dicomweb.addresses import origin_of

TOKEN, USER, PASSWORD = "XRAY_DICOMWEB_TOKEN", "XRAY_DICOMWEB_USER", "XRAY_DICOMWEB_PASSWORD"
LOOPBACK = re.compile(r"http://(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?")
MAX_BYTES = 2**16
FORM = 'lines "bearer TOKEN" or "basic USER:PASSWORD", with https://HOST in front where there are several hosts'


@dataclasses.dataclass
class Credentials:
    """What each origin is told.

    path: the file they come from, None for the environment. origins: that were asked for by the user; no other host
    ever gets anything.
    """

    path: Path | None
    origins: frozenset[str]
    headers: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def of(self, url: str) -> str | None:
        """The value of the header Authorization for an address, None where it gets none."""
        return self.headers.get(origin_of(url))

    def have_changed(self) -> bool:
        """Reads the file again: a token may have been renewed while the command runs."""
        if self.path is None:
            return False
        before = dict(self.headers)
        try:
            self.headers = _of_file(self.path, self.origins)
        except InputError:
            return False
        return self.headers != before


def credentials_of(file: str, urls: Collection[str]) -> Credentials:
    """The credentials for these addresses, if any: from a file or, where none is given, from the environment.

    Raises FlagError for what is no credentials, or does not say for which of several hosts they are. What is wrong is
    said without repeating any of it.
    """
    origins = frozenset(map(origin_of, urls))
    credentials = Credentials(Path(file) if file else None, origins)
    credentials.headers = _of_file(Path(file), origins) if file else _of_environment(origins)
    for origin in credentials.headers:
        if origin.startswith("http:") and not LOOPBACK.fullmatch(origin):
            _warn(f"what {origin} is told, the credentials too, can be read on the way: use https")
    return credentials


@functools.cache
def _warn(line: str) -> None:
    """Says something once, however often credentials are read."""
    print(f"warning: {line}", file=sys.stderr)


def _of_file(path: Path, origins: Collection[str]) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
        # Editors of Windows begin a file with a mark of its coding.
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise FlagError(f"--dicomweb-auth {path} cannot be read ({error.strerror}): give a file with {FORM}") from None
    except UnicodeDecodeError:
        raise FlagError(f"--dicomweb-auth {path} is no text: it must have {FORM}") from None
    if len(content) > MAX_BYTES:
        raise FlagError(f"--dicomweb-auth {path} has more than {MAX_BYTES >> 10} KiB: it must have {FORM}")
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        _warn(f"others can read {path}: chmod 600 it")
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        rest = line.strip()
        if not rest or rest.startswith("#"):
            continue
        given = []
        if re.match(r"https?://", rest, re.IGNORECASE):
            host, *others = rest.split(maxsplit=1)
            given, rest = [host], "".join(others)
        # A password may hold blanks.
        words = rest.split(maxsplit=1)
        if len(words) != 2 or (header := _header(*words)) is None:
            raise FlagError(f"--dicomweb-auth {path}, line {number}: it must have {FORM}")
        headers |= dict.fromkeys(_origins_of(given, origins, f"--dicomweb-auth {path}, line {number}:"), header)
    if not headers:
        raise FlagError(f"--dicomweb-auth {path} is empty: it must have {FORM}")
    return {origin: header for origin, header in headers.items() if origin in origins}


def _of_environment(origins: Collection[str]) -> dict[str, str]:
    token, user, password = (os.environ.get(name) or "" for name in (TOKEN, USER, PASSWORD))
    if not token and not user:
        return {}
    name = TOKEN if token else USER
    header = _header("bearer", token) if token else _header("basic", f"{user}:{password}")
    if header is None:
        raise FlagError(f"{name} holds characters that cannot be in credentials")
    return dict.fromkeys(_origins_of([], origins, f"{name} is set, and"), header)


def _header(kind: str, value: str) -> str | None:
    """The value of Authorization; None where it cannot be one."""
    if kind.lower() == "bearer" and re.fullmatch(r"[!-~]+", value):
        return f"Bearer {value}"
    if kind.lower() == "basic" and ":" in value.lstrip(":") and value.isprintable():
        return f"Basic {base64.b64encode(value.encode()).decode()}"
    return None


def _origins_of(given: list[str], origins: Collection[str], where: str) -> Collection[str]:
    if given:
        try:
            return [origin_of(given[0])]
        except ValueError:
            raise FlagError(f"{where} the host is none") from None
    if len(origins) > 1:
        raise FlagError(f"{where} the flags name several hosts: put them in a file for --dicomweb-auth, with {FORM}")
    return origins
