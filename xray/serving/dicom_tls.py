"""TLS of the DICOM node: the BCP 195 secure transport connection profile (PS3.15 B.12), in and out.

TLS 1.2 or newer, ephemeral keys, authenticated ciphers. The other node's certificate is checked against the authorities
that are given.
"""

import dataclasses
import select
import socket
import ssl
from pathlib import Path
from typing import Any

from xray.errors import FlagError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""Of TLS 1.2: those that RFC 9325 (BCP 195) recommends; those of TLS 1.3 are all fit."""
ENOUGH = 2**14


class PeekingSocket(ssl.SSLSocket):
    """A TLS socket that can be read from with MSG_PEEK, as a plain one can."""

    _ahead = b""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As socket.recv; with MSG_PEEK, what comes stays to be read."""
        if flags & socket.MSG_PEEK:
            # What is there already stands before what comes next: only the first look waits.
            if len(self._ahead) < min(buflen, ENOUGH) and (not self._ahead or self._has_more()):
                self._ahead += super().recv(ENOUGH)
            return self._ahead[:buflen]
        if self._ahead:
            taken, self._ahead = self._ahead[:buflen], self._ahead[buflen:]
            return taken
        return super().recv(buflen)

    def _has_more(self) -> bool:
        return bool(super().pending() or select.select([self], [], [], 0)[0])

    def pending(self) -> int:
        """Bytes that can be read without waiting."""
        return len(self._ahead) + super().pending()


@dataclasses.dataclass(frozen=True)
class Tls:
    """Contexts for connections that come in and that go out; None for those that are plain."""

    accepting: ssl.SSLContext | None
    connecting: ssl.SSLContext | None


def tls_of(
    certificate: Path,
    key: Path,
    authorities: Path | None,
    clients: bool = True,
    names: bool = True,
    which: str = "both",
    flag: str = "--dicom-tls-",
) -> Tls:
    """The contexts of PEM files: our certificate (with its chain), its key, the authorities of other nodes.

    authorities: None for the system's. clients: whether those that connect need a certificate. names: whether a
    node's certificate has to be for its host. which: "both", "in" or "out". flag: how the flags' names begin.
    Raises FlagError for a file that cannot be used.
    """
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.sslsocket_class = PeekingSocket
    connecting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    connecting.check_hostname = names
    if clients:
        accepting.verify_mode = ssl.CERT_REQUIRED
    for context in (accepting, connecting):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        try:
            # Without a password a key that has one would ask for it on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except OSError as error:
            raise FlagError(
                f"{flag}cert {certificate} and {flag}key {key} cannot be used ({_reason(error)}): give PEM files that "
                "belong together, the key without a password"
            ) from None
        try:
            if authorities is not None:
                context.load_verify_locations(authorities)
            else:
                context.load_default_certs()
        except OSError as error:
            raise FlagError(f"{flag}ca {authorities} cannot be used ({_reason(error)}): give a PEM file") from None
    return Tls(accepting if which in ("both", "in") else None, connecting if which in ("both", "out") else None)


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


def wrapped(connection: Any, tls: Tls | None) -> Any:
    """A connection that came in, under TLS where that is wanted; the handshake is still to be made."""
    if tls is None or tls.accepting is None:
        return connection
    return tls.accepting.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
