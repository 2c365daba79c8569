"""Encrypts what a session sends into TLS 1.3 records (RFC 8446, 5.2)."""

from __future__ import annotations

from daemon.network.tls.control_messages import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, KEY_UPDATE
from daemon.network.tls.records import (
    FULL_HEADER,
    HEADER,
    RECORD_BYTES,
    TAG_BYTES,
    VERSION,
    WIRE_BYTES,
    RecordBuffer,
)
from daemon.network.tls.traffic_keys import CipherSuite, TrafficKeys

# Records under one key. The bound for AES-GCM is 2^24.5 full records (RFC 8446, 5.5).
MAX_KEY_RECORDS = 1 << 24

# Levels of alerts. In TLS 1.3 only the code matters.
_WARNING, _FATAL = 1, 2


class RecordSealer(TrafficKeys):
    """Seals data, key updates and alerts, each under the next record number."""

    def __init__(
        self, suite: CipherSuite, secret: bytes, *, limit: int = RECORD_BYTES, used: int = 0
    ) -> None:
        super().__init__(suite, secret, limit=limit, used=used)
        # A full record's content, and the byte that says what it holds.
        self._plain = memoryview(bytearray(RECORD_BYTES) + bytes((DATA,)))

    @property
    def spent(self) -> bool:
        """Whether another key is due."""
        return self._records >= MAX_KEY_RECORDS

    def data(self, content: memoryview, buffer: RecordBuffer) -> list[memoryview | bytes]:
        """`content` as records.

        The full records lie in `buffer`, which must have room for them and is used for nothing
        else.
        """
        if self._limit < RECORD_BYTES:
            starts = range(0, len(content), self._limit)
            # One piece of memory, since writev(2) accepts at most 1,024.
            return [
                b"".join(self._seal(DATA, content[start : start + self._limit]) for start in starts)
            ]
        plain, seal, iv, number = self._plain, self._aead.encrypt_into, self._iv, self._records
        full, rest = divmod(len(content), RECORD_BYTES)
        at = 0
        # This and the loop in `RecordOpener._open_full` are the innermost loops of a round.
        for body in buffer.bodies[:full]:
            plain[:RECORD_BYTES] = content[at : at + RECORD_BYTES]
            seal((iv ^ number).to_bytes(12, "big"), plain, FULL_HEADER, body)
            at += RECORD_BYTES
            number += 1
        self._records = number
        sealed: list[memoryview | bytes] = [buffer.memory[: full * WIRE_BYTES]] if full else []
        return [*sealed, self._seal(DATA, content[-rest:])] if rest else sealed

    def update(self) -> bytes:
        """A record that announces our next key; this object then uses that key.

        The other side need not change its own key.
        """
        record = self._seal(HANDSHAKE, bytes((KEY_UPDATE, 0, 0, 1, 0)))
        self._update()
        return record

    def close(self) -> bytes:
        """A record that says that nothing follows."""
        return self._seal(ALERT, bytes((_WARNING, CLOSE_NOTIFY)))

    def alert(self, code: int) -> bytes:
        """A record that says what the other side did wrong. Nothing may follow the record."""
        return self._seal(ALERT, bytes((_FATAL, code)))

    def _seal(self, kind: int, content: memoryview | bytes) -> bytes:
        header = HEADER.pack(DATA, VERSION, len(content) + 1 + TAG_BYTES)
        nonce = (self._iv ^ self._records).to_bytes(12, "big")
        self._records += 1
        return header + self._aead.encrypt(nonce, b"".join((content, bytes((kind,)))), header)
