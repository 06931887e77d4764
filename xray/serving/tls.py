"""HTTPS: the certificate of a server, checked before it begins."""

import ssl
from collections.abc import Callable
from pathlib import Path

from xray.errors import FlagError, InputError

HANDSHAKE = 10.0
"""Seconds that a client has for TLS's handshake, before HTTP's own limits hold."""


def tls_context(certificate: Path | None, key: Path | None, warn: Callable[[str], object]) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with a certificate (PEM, with those that lead to its root) and its key; None without both.

    warn: is told, in one line, of a key that others may read.
    Raises FlagError for one without the other, and InputError for files that are none, or do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise FlagError("--tls-cert and --tls-key belong together: give both")
    for flag, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"{flag} {path} cannot be read ({error.strerror})") from None
        if b"-----BEGIN " not in text:
            raise InputError(f"{flag} {path} is no PEM file: convert it with openssl")
    if b"ENCRYPTED" in key.read_bytes():
        raise InputError(f"--tls-key {key} is encrypted: give a key without a passphrase that only its owner may read")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        if reason == "KEY_VALUES_MISMATCH":
            raise InputError(f"--tls-key {key} is not the key of --tls-cert {certificate}") from None
        raise InputError(f"--tls-cert {certificate} with --tls-key {key} cannot be used ({reason})") from None
    if key.stat().st_mode & 0o077:
        warn(f"warning: others than its owner may read {key}: chmod 600 {key}")
    return context
