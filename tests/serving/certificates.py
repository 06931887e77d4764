"""Certificates for the tests of TLS: an authority, and what it signs."""

import datetime
import ipaddress
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

START = datetime.datetime(2020, 1, 1)


class Authority:
    """Writes NAME.pem and NAME.key into a folder; its own certificate is in `path`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self._key = folder, rsa.generate_private_key(65537, 2048)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = (x509.BasicConstraints(ca=True, path_length=None), True)
        self.path = self._write(name, self._key, self._made(self._name, self._key, [constraint]))

    def sign(self, name: str, host: str = "127.0.0.1", days: int = 36_500) -> tuple[Path, Path]:
        """A certificate for an address → the files of it and of its key."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
        path = self._write(name, key, self._made(subject, key, [names], days))
        return path, path.with_suffix(".key")

    def _made(self, subject, key, extensions, days=36_500):
        made = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(START).not_valid_after(START + datetime.timedelta(days))
        for extension, is_critical in extensions:
            made = made.add_extension(extension, is_critical)
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name, key, certificate):
        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.with_suffix(".key").write_bytes(key.private_bytes(*kind))
        return path
