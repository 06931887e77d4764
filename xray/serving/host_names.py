"""Under which names a server may be asked.

A page of a foreign site can have its own name lead to 127.0.0.1 (DNS rebinding): the browser then takes it for the
server's own page, and shows it what the server answers. The name in Host gives it away.
"""

import dataclasses
import re
from collections.abc import Sequence

from xray.errors import FlagError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
WILDCARDS = ("0.0.0.0", "::", "")
SAGEMAKER = ("/ping", "/invocations", "/execution-parameters")
"""Paths that SageMaker asks for, by a name or address of its own that it does not tell."""

_NAME = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]{2,45}\])"


@dataclasses.dataclass(frozen=True)
class HostNames:
    """Names of a server.

    names: lower-case NAME or NAME:PORT, as in Host. port: it listens at. is_anywhere: whether it listens at all
    addresses of its machine, each of which is then a name, too. is_sagemaker: whether SAGEMAKER's paths go by any.
    """

    names: frozenset[str]
    port: int
    is_anywhere: bool = False
    is_sagemaker: bool = False

    def has(self, hosts: Sequence[str], path: str, server: tuple[str, int | None]) -> bool:
        """Whether a request may be answered. hosts: its Host headers. server: address that it came in at."""
        if self.is_sagemaker and path in SAGEMAKER:
            return True
        return len(hosts) == 1 and self.is_own(hosts[0], server)

    def is_own(self, host: str, server: tuple[str, int | None]) -> bool:
        """Whether a NAME or NAME:PORT is the server's."""
        host = host.strip().lower()
        if host in self.names:
            return True
        address = f"[{server[0]}]" if ":" in server[0] else server[0]
        return self.is_anywhere and host in with_port(address.lower(), self.port)


def with_port(name: str, port: int) -> set[str]:
    """What Host says of a name at a port: HTTP's own port is left out."""
    return {f"{name}:{port}"} | ({name} if port == 80 else set())


def host_names(host: str, port: int, given: Sequence[str] = (), is_sagemaker: bool = False) -> HostNames:
    """The names of a server that listens at `host`, `port`. given: more of them, NAME or NAME:PORT.

    A name without a port is allowed as it is, as behind a proxy at the port of http or https, and with `port`. Raises
    FlagError for what is no name.
    """
    own = host if ":" not in host else f"[{host.strip('[]')}]"
    names = set[str]()
    for name in (*LOOPBACK, *(() if host in WILDCARDS else (own,))):
        names |= with_port(name.lower(), port)
    for name in given:
        match = re.fullmatch(rf"({_NAME})(?::(\d{{1,5}}))?", name)
        if match is None or not 0 < int(match[2] or 1) < 65536:
            raise FlagError(f"--host-name is {name!r}: give NAME or NAME:PORT, such as xray.example.org")
        names |= {name.lower()} if match[2] else {name.lower(), f"{name.lower()}:{port}"}
    return HostNames(frozenset(names), port, host in WILDCARDS, is_sagemaker)


def netloc_of(origin: str) -> str | None:
    """The NAME or NAME:PORT of an Origin, None where it is "null" or anything else."""
    match = re.fullmatch(rf"https?://({_NAME}(?::\d{{1,5}})?)", origin.strip(), re.IGNORECASE)
    return match[1].lower() if match else None
