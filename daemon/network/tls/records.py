"""TLS 1.3's protection of records (RFC 8446, 5.2 and 7.3) with the AEAD of `cryptography`, for the
bytes behind a handshake.

OpenSSL shakes hands; what it agreed on is used here. Python's `ssl` can give OpenSSL's records to
nobody but a memory buffer or a blocking call, and moves every byte six times between the caller's
memory and the socket. Here a record is decrypted into the memory its reader gave and encrypted into
what the socket is written from, by the newer of the two OpenSSLs that a node has loaded, which is
also twice as fast at AES-GCM on processors with VAES. On the wire it is TLS 1.3, whoever speaks it
at the other end.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from daemon.network.tls.control_messages import (
    ALERT,
    BAD_RECORD_MAC,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    ControlMessages,
    RecordError,
)

# The most plaintext in a record (RFC 8446, 5.1).
RECORD_BYTES = 1 << 14
HEADER_BYTES = 5
TAG_BYTES = 16
# Of a record: its header, the byte that says what it is, the tag.
OVERHEAD_BYTES = HEADER_BYTES + 1 + TAG_BYTES
WIRE_BYTES = RECORD_BYTES + OVERHEAD_BYTES  # a full record as we write it
# What a header may announce (RFC 8446, 5.2): others may pad.
MAX_PROTECTED_BYTES = RECORD_BYTES + 256
# Under one key: the bound for AES-GCM is 2^24.5 full records (RFC 8446, 5.5).
MAX_KEY_RECORDS = 1 << 24
# That are not full, before others have their turn: 1 ms of CPU, sent with a byte of data in each.
TURN_RECORDS = 256
# In a row that bring no data: OpenSSL's own bound, so that nobody keeps us busy with nothing.
MAX_IDLE_RECORDS = 32

# Levels of alerts; TLS 1.3 goes by the code alone.
_WARNING, _FATAL = 1, 2
_header = struct.Struct(">BHH")
# What every record after the first says (RFC 8446, 5.1).
_VERSION = 0x0303
_FULL = _header.pack(DATA, _VERSION, WIRE_BYTES - HEADER_BYTES)


class CipherSuite:
    """A cipher suite: its AEAD is AES-GCM."""

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
        """After a key update (RFC 8446, 7.2)."""
        return self.expand(secret, "traffic upd", self._algorithm.digest_size)


CIPHER_SUITES = {
    "TLS_AES_256_GCM_SHA384": CipherSuite(32, hashes.SHA384),
    "TLS_AES_128_GCM_SHA256": CipherSuite(16, hashes.SHA256),
    # By the name OpenSSL gives; the third of TLS 1.3's common ones, ChaCha20-Poly1305, comes after
    # these in every default.
}


class _Direction:
    """Keys of one direction, and how many records they have protected.

    No record holds more than `limit` bytes of plaintext. The first `used` numbers of the first key
    were used up in the handshake.
    """

    def __init__(
        self, suite: CipherSuite, secret: bytes, *, limit: int = RECORD_BYTES, used: int = 0
    ) -> None:
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


class RecordBuffer:
    """Memory for records one behind the other.

    Views of the places where full ones lie are made once: for each record anew they cost a quarter
    of what its encryption does. Their headers are there from the beginning.
    """

    def __init__(self, records: int) -> None:
        self.memory = memoryview(bytearray((_FULL + bytes(WIRE_BYTES - HEADER_BYTES)) * records))
        starts = range(0, records * WIRE_BYTES, WIRE_BYTES)
        self.headers = [self.memory[start : start + HEADER_BYTES] for start in starts]
        self.bodies = [self.memory[start + HEADER_BYTES : start + WIRE_BYTES] for start in starts]


class RecordSealer(_Direction):
    """What we send."""

    def __init__(
        self, suite: CipherSuite, secret: bytes, *, limit: int = RECORD_BYTES, used: int = 0
    ) -> None:
        super().__init__(suite, secret, limit=limit, used=used)
        # A full record's content, and the byte that says what it is.
        self._plain = memoryview(bytearray(RECORD_BYTES) + bytes((DATA,)))

    @property
    def spent(self) -> bool:
        """Whether another key is due."""
        return self._records >= MAX_KEY_RECORDS

    def data(self, content: memoryview, buffer: RecordBuffer) -> list[memoryview | bytes]:
        """`content` as records, the full ones in `buffer`, which has room for them and is used for
        nothing else.
        """
        if self._limit < RECORD_BYTES:
            starts = range(0, len(content), self._limit)
            # In one piece: writev(2) takes no more than 1,024.
            return [
                b"".join(self._seal(DATA, content[start : start + self._limit]) for start in starts)
            ]
        plain, seal, iv, number = self._plain, self._aead.encrypt_into, self._iv, self._records
        full, rest = divmod(len(content), RECORD_BYTES)
        at = 0
        # The innermost loop of a round, as `_open_full` has its other one.
        for body in buffer.bodies[:full]:
            plain[:RECORD_BYTES] = content[at : at + RECORD_BYTES]
            seal((iv ^ number).to_bytes(12, "big"), plain, _FULL, body)
            at += RECORD_BYTES
            number += 1
        self._records = number
        sealed: list[memoryview | bytes] = [buffer.memory[: full * WIRE_BYTES]] if full else []
        return [*sealed, self._seal(DATA, content[-rest:])] if rest else sealed

    def update(self) -> bytes:
        """A record which says that another key follows, and the change to it.

        The other side's may stay.
        """
        record = self._seal(HANDSHAKE, bytes((KEY_UPDATE, 0, 0, 1, 0)))
        self._update()
        return record

    def close(self) -> bytes:
        """A record which says that nothing follows."""
        return self._seal(ALERT, bytes((_WARNING, CLOSE_NOTIFY)))

    def alert(self, code: int) -> bytes:
        """A record which says what the other side did wrong. Nothing may follow it."""
        return self._seal(ALERT, bytes((_FATAL, code)))

    def _seal(self, kind: int, content: memoryview | bytes) -> bytes:
        header = _header.pack(DATA, _VERSION, len(content) + 1 + TAG_BYTES)
        nonce = (self._iv ^ self._records).to_bytes(12, "big")
        self._records += 1
        return header + self._aead.encrypt(nonce, b"%b%c" % (content, kind), header)


class RecordOpener(_Direction):
    """What comes.

    `ended` when the other side said that nothing follows; `update_asked` when it wants another key
    from us before the next data.
    """

    def __init__(
        self,
        suite: CipherSuite,
        secret: bytes,
        *,
        limit: int = RECORD_BYTES,
        from_server: bool = True,
    ) -> None:
        """Only a server sends tickets: `from_server` says whether they are acceptable."""
        super().__init__(suite, secret, limit=limit)
        self._control = ControlMessages(self._update, from_server=from_server)
        self.update_asked = False
        # Of the last record, what its reader had no room for.
        self._left: memoryview = memoryview(b"")
        self._idle = 0

    @property
    def ended(self) -> bool:
        """Whether the other side said that nothing follows."""
        return self._control.ended

    def open(self, buffer: RecordBuffer, have: int, target: memoryview) -> tuple[int, int]:
        """Decrypt records, which begin with the first of the `have` bytes in `buffer`, into
        `target`.

        Returns how many bytes were used and written; what was not used comes again, with more
        behind it.

        What `target` holds behind what was written is nobody's. Raises `RecordError`: nothing that
        follows can be read.
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
            kind, _, size = _header.unpack_from(buffer.memory, used)
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
            taken = min(len(content), room - written)
            target[written : written + taken] = content[:taken]
            self._left = content[taken:]
            written += taken
        return used, written

    def _open_full(
        self, buffer: RecordBuffer, have: int, target: memoryview, written: int
    ) -> tuple[int, int]:
        """As many full records as there are, straight to where they belong.

        One that is something else, or for which there is no room, is left.
        """
        opened, most = 0, min(have // WIRE_BYTES, (len(target) - written - 1) // RECORD_BYTES)
        decrypt, iv, number = self._aead.decrypt_into, self._iv, self._records
        try:
            for header, body in zip(buffer.headers[:most], buffer.bodies, strict=False):
                if header != _FULL:
                    break
                plain = target[written : written + RECORD_BYTES + 1]
                decrypt((iv ^ number).to_bytes(12, "big"), body, _FULL, plain)
                if plain[RECORD_BYTES] != DATA:
                    break  # padded: it is decrypted once more
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
        """What of a record is data. Everything else it may hold is dealt with here."""
        size = len(plain) - 1
        if size > self._limit:  # padding counts (RFC 8446, 5.4)
            raise RecordError(f"a record of {size} bytes", RECORD_OVERFLOW)
        if plain[size] == 0:
            size = len(bytes(plain).rstrip(b"\0")) - 1  # it was padded
        if size < 0:
            raise RecordError("a record without content", UNEXPECTED_MESSAGE)
        if plain[size] != DATA or self._control.partial:
            self._control.read(plain[size], bytes(plain[:size]))
            self.update_asked = self.update_asked or self._control.take_request()
        elif size:
            self._idle = 0
            return plain[:size]
        self._idle += 1
        if self._idle > MAX_IDLE_RECORDS:
            raise RecordError(f"{self._idle} records in a row without data", UNEXPECTED_MESSAGE)
        return plain[:0]


def _header_alert(kind: int, size: int) -> int:
    """What a header does wrong that no record of data has."""
    if kind != DATA:
        return UNEXPECTED_MESSAGE
    return RECORD_OVERFLOW if size > MAX_PROTECTED_BYTES else BAD_RECORD_MAC


def _forged() -> RecordError:
    return RecordError("a record that was damaged or forged", BAD_RECORD_MAC)
