"""The node's bulk certificate: self-signed, made on first use, and kept beside the key.

The certificate proves no name. A peer believes it, byte for byte, because it arrived inside
something that the node signed. It is backdated and long-lived, so that a wrong clock does not
matter. Freshness comes from rounds, not from certificates.
"""

from __future__ import annotations

import datetime
import os
import secrets
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from protocol.errors import UserError
from protocol.status.figures import clean

# Peers pin the certificate itself. TLS nevertheless checks its dates against the clocks of two
# machines, one of which may be decades off. So validity begins in the first year of the format and
# ends at the date that RFC 5280 (4.1.2.5) gives to certificates without an end.
VALID_FROM = datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)
VALID_TO = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
# cryptography bounds a common name at 64 bytes of UTF-8 (X.520). The other 17 bytes make the name
# unique, since OpenSSL looks trusted certificates up by name.
MAX_NAME_BYTES = 47


class BulkCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate: `path` holds key and certificate in PEM, `der` is what peers pin."""

    path: Path
    der: bytes


def load_or_make(path: Path, name: str) -> BulkCertificate:
    """Load the certificate at `path`, and make it first when the file does not exist.

    Raises:
        UserError: "CERTIFICATE" when the file is damaged or cannot be made.
    """
    try:
        if path.exists():
            pem = path.read_bytes()
        else:
            pem = _make(name)
            _write_private(path, pem)
    except OSError as error:
        raise UserError(
            "CERTIFICATE",
            f"Cannot read or make the bulk certificate {path}.",
            why=error.strerror or str(error),
            fix=f"check that you own {path.parent} and that its disk has space; "
            f"you may move {path.name} away, and the next start makes a new certificate",
        ) from None
    try:
        serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise UserError(
            "CERTIFICATE",
            f"The bulk certificate {path} cannot be read.",
            why="it does not hold a private key and a certificate in PEM",
            fix=f"rm {path} (a new one is made at the next start; nothing else depends on it)",
        ) from None
    return BulkCertificate(path=path, der=certificate.public_bytes(serialization.Encoding.DER))


def _make(name: str) -> bytes:
    """A new key and certificate in PEM.

    With Ed25519 a mutual TLS 1.3 handshake costs both sides together 1.14 ms of one core, with
    P-256 1.18 ms.
    """
    key = Ed25519PrivateKey.generate()
    shown = clean(name, MAX_NAME_BYTES).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    common_name = f"{shown or 'hypergpu'} {secrets.token_hex(8)}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_TO)
        .sign(key, algorithm=None)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _write_private(path: Path, content: bytes) -> None:
    """Write a whole file or nothing, readable by the owner alone from the first moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
