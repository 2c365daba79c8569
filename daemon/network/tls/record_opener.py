"""Decrypts the TLS 1.3 records that a session receives (RFC 8446, 5.2)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from daemon.network.tls.control_messages import (
    BAD_RECORD_MAC,
    DATA,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    ControlMessages,
    RecordError,
)
from daemon.network.tls.records import (
    FULL_HEADER,
    HEADER,
    HEADER_BYTES,
    MAX_PROTECTED_BYTES,
    RECORD_BYTES,
    TAG_BYTES,
    WIRE_BYTES,
    RecordBuffer,
)
from daemon.network.tls.traffic_keys import CipherSuite, TrafficKeys

# Short records opened in one call: 1 ms of CPU when each brings one byte. Then other tasks run.
TURN_RECORDS = 256
# Records in a row without data. OpenSSL has the same bound, so that no peer can keep us busy with
# empty records.
MAX_IDLE_RECORDS = 32


class RecordOpener(TrafficKeys):
    """Opens records and deals with alerts, tickets and key updates among them.

    `update_asked` says that the other side wants another key from us before the next data.
    """

    def __init__(
        self,
        suite: CipherSuite,
        secret: bytes,
        *,
        limit: int = RECORD_BYTES,
        from_server: bool = True,
    ) -> None:
        """`from_server` says whether the other side may send tickets: only a server does."""
        super().__init__(suite, secret, limit=limit)
        self._control = ControlMessages(self._update, from_server=from_server)
        self.update_asked = False
        # The part of the last record for which its reader had no room.
        self._left: memoryview = memoryview(b"")
        self._idle = 0

    @property
    def ended(self) -> bool:
        """Whether the other side said that nothing follows."""
        return self._control.ended

    def open(self, buffer: RecordBuffer, have: int, target: memoryview) -> tuple[int, int]:
        """Decrypt records into `target`.

        The contents of `target` behind what was written are undefined.

        Args:
            buffer: Holds the records; the first record begins at the first byte.
            have: How many bytes of `buffer` are filled.

        Returns:
            How many bytes were used and how many were written. The caller passes unused bytes
            again, with more behind them.

        Raises:
            RecordError: When nothing that follows can be read.
        """
        room = len(target)
        written = min(len(self._left), room)
        if written:
            target[:written] = self._left[:written]
            self._left = self._left[written:]
        used = 0
        if (
            written < room
            and not self.ended
            and not self._control.partial
            and self._limit == RECORD_BYTES
        ):
            used, written = self._open_full(buffer, have, target, written)
        opened = 0
        while (
            written < room
            and not self.ended
            and have - used >= HEADER_BYTES
            and opened < TURN_RECORDS
        ):
            kind, _, size = HEADER.unpack_from(buffer.memory, used)
            if kind != DATA or not TAG_BYTES < size <= MAX_PROTECTED_BYTES:
                raise RecordError(
                    f"a record of kind {kind} and {size} bytes", _header_alert(kind, size)
                )
            body = used + HEADER_BYTES
            if have - body < size:
                break
            content = self._content(
                self._decrypt(buffer.memory[used:body], buffer.memory[body : body + size])
            )
            used, opened = body + size, opened + 1
            fits = min(len(content), room - written)
            target[written : written + fits] = content[:fits]
            self._left = content[fits:]
            written += fits
        return used, written

    def _open_full(
        self, buffer: RecordBuffer, have: int, target: memoryview, written: int
    ) -> tuple[int, int]:
        """Decrypt the leading full records straight to where they belong in `target`.

        Stops at the first record of another kind or size, or without room.
        """
        opened, most = 0, min(have // WIRE_BYTES, (len(target) - written - 1) // RECORD_BYTES)
        decrypt, iv, number = self._aead.decrypt_into, self._iv, self._records
        try:
            for header, body in zip(buffer.headers[:most], buffer.bodies, strict=False):
                if header != FULL_HEADER:
                    break
                plain = target[written : written + RECORD_BYTES + 1]
                decrypt((iv ^ number).to_bytes(12, "big"), body, FULL_HEADER, plain)
                if plain[RECORD_BYTES] != DATA:
                    # The record is padded. `open` decrypts it once more.
                    break
                number += 1
                opened += 1
                written += RECORD_BYTES
        except InvalidTag:
            raise _forged() from None
        if opened:
            self._records, self._idle = number, 0
        return opened * WIRE_BYTES, written

    def _decrypt(self, header: memoryview, body: memoryview) -> memoryview:
        plain = memoryview(bytearray(len(body) - TAG_BYTES))
        try:
            self._aead.decrypt_into(
                (self._iv ^ self._records).to_bytes(12, "big"), body, header, plain
            )
        except InvalidTag:
            raise _forged() from None
        self._records += 1
        return plain

    def _content(self, plain: memoryview) -> memoryview:
        """The data in a record. Everything else that a record may hold is dealt with here."""
        size = len(plain) - 1
        # Padding counts (RFC 8446, 5.4).
        if size > self._limit:
            raise RecordError(f"a record of {size} bytes", RECORD_OVERFLOW)
        # A zero instead of a content type means that the record is padded.
        if plain[size] == 0:
            size = len(bytes(plain).rstrip(b"\0")) - 1
        if size < 0:
            raise RecordError("a record without content", UNEXPECTED_MESSAGE)
        if plain[size] != DATA or self._control.partial:
            self._control.read(plain[size], bytes(plain[:size]))
            self.update_asked = self.update_asked or self._control.pop_key_request()
        elif size:
            self._idle = 0
            return plain[:size]
        self._idle += 1
        if self._idle > MAX_IDLE_RECORDS:
            raise RecordError(f"{self._idle} records in a row without data", UNEXPECTED_MESSAGE)
        return plain[:0]


def _header_alert(kind: int, size: int) -> int:
    """The alert for a header that no data record has."""
    if kind != DATA:
        return UNEXPECTED_MESSAGE
    return RECORD_OVERFLOW if size > MAX_PROTECTED_BYTES else BAD_RECORD_MAC


def _forged() -> RecordError:
    return RecordError("a record that was damaged or forged", BAD_RECORD_MAC)
