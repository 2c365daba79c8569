"""TLS records made by hand, and a reader that receives them in any pieces."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from daemon.network.tls.record_opener import RecordOpener
from daemon.network.tls.records import RECORD_BYTES, RecordBuffer
from daemon.network.tls.traffic_keys import CIPHER_SUITES

AES_256 = CIPHER_SUITES["TLS_AES_256_GCM_SHA384"]
AES_128 = CIPHER_SUITES["TLS_AES_128_GCM_SHA256"]
SECRET = bytes(range(48))


def sealed(number: int, inner: bytes) -> bytes:
    """Record `number` under `SECRET`, whose inner plaintext is content, kind and padding."""
    iv = int.from_bytes(AES_256.expand(SECRET, "iv", 12), "big")
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    aead = AESGCM(AES_256.expand(SECRET, "key", 32))
    return header + aead.encrypt((iv ^ number).to_bytes(12, "big"), inner, header)


def opened(
    opener: RecordOpener,
    wire: bytes,
    steps: Callable[[], int] = lambda: 1 << 20,
    rooms: Callable[[], int] = lambda: 1 << 16,
) -> bytes:
    """What a reader reads of `wire`.

    `steps()` bytes arrive at a time, and the reader has room for `rooms()` bytes.
    """
    buffer, have, at, content = RecordBuffer(len(wire) // RECORD_BYTES + 3), 0, 0, bytearray()
    while True:
        target = memoryview(bytearray(rooms()))
        used, size = opener.open(buffer, have, target)
        content += target[:size]
        buffer.memory[: have - used] = bytes(buffer.memory[used:have])
        have -= used
        if not size and not used:
            if at == len(wire) or opener.ended:
                return bytes(content)
            arrived = wire[at : at + steps()]
            buffer.memory[have : have + len(arrived)] = arrived
            have, at = have + len(arrived), at + len(arrived)
