"""The keys of one direction of a session, and the cipher suites they belong to (RFC 8446, 7)."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from daemon.network.tls.records import RECORD_BYTES


class CipherSuite:
    """A cipher suite whose AEAD is AES-GCM."""

    def __init__(
        self, key_bytes: int, algorithm: type[hashes.SHA256] | type[hashes.SHA384]
    ) -> None:
        self.key_bytes = key_bytes
        self._algorithm = algorithm

    def expand(self, secret: bytes, label: str, size: int) -> bytes:
        """HKDF-Expand-Label with an empty context (RFC 8446, 7.1)."""
        name = b"tls13 " + label.encode()
        info = struct.pack(">HB", size, len(name)) + name + b"\0"
        return HKDFExpand(algorithm=self._algorithm(), length=size, info=info).derive(secret)

    def next_secret(self, secret: bytes) -> bytes:
        """The secret after a key update (RFC 8446, 7.2)."""
        return self.expand(secret, "traffic upd", self._algorithm.digest_size)


# By OpenSSL's names. The third common suite of TLS 1.3, ChaCha20-Poly1305, comes after these two
# in every library's default order.
CIPHER_SUITES = {
    "TLS_AES_256_GCM_SHA384": CipherSuite(32, hashes.SHA384),
    "TLS_AES_128_GCM_SHA256": CipherSuite(16, hashes.SHA256),
}


class TrafficKeys:
    """The keys of one direction, and how many records they have protected."""

    def __init__(
        self, suite: CipherSuite, secret: bytes, *, limit: int = RECORD_BYTES, used: int = 0
    ) -> None:
        """
        Args:
            limit: The most bytes of plaintext in a record.
            used: How many record numbers of the first key the handshake used up.
        """
        self._suite = suite
        self._limit = limit
        self._begin(secret)
        self._records = used

    def _begin(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(self._suite.expand(secret, "key", self._suite.key_bytes))
        self._iv = int.from_bytes(self._suite.expand(secret, "iv", 12), "big")
        self._records = 0

    def _update(self) -> None:
        self._begin(self._suite.next_secret(self._secret))
