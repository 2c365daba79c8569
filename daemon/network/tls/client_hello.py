"""Reads what a node needs from a ClientHello (RFC 8446, 4.1.2), and counts a server's records."""

from __future__ import annotations

from daemon.network.tls.control_messages import DATA
from daemon.network.tls.records import HEADER_BYTES, RECORD_BYTES

# Bytes of plaintext in a record, by the code of `max_fragment_length` (RFC 6066, 4).
FRAGMENT_BYTES = {1: 512, 2: 1024, 3: 2048, 4: 4096}
# A longer ClientHello is not searched for extensions. OpenSSL refuses one above 131,396 bytes. The
# longest that a TLS library sends, with two post-quantum key shares, has about 3,000.
MAX_HELLO_BYTES = 1 << 14
_CLIENT_HELLO = 1
_MAX_FRAGMENT_LENGTH = 1


class ClientHello:
    """Collects the parts of a ClientHello until its extensions can be read."""

    def __init__(self) -> None:
        self._hello = bytearray()
        # The most bytes of plaintext that the client accepts in a record.
        self.record_limit = RECORD_BYTES
        self.done = False

    def add(self, part: bytes) -> None:
        """The next part.

        OpenSSL acknowledges `max_fragment_length` by itself, so the limit binds us. A second hello
        after a retry request repeats the extension and is not read.
        """
        if self.done:
            return
        hello = self._hello
        hello += part
        size = 4 + int.from_bytes(hello[1:4], "big") if len(hello) >= 4 else MAX_HELLO_BYTES
        if len(hello) >= size or len(hello) > MAX_HELLO_BYTES:
            code = _fragment_code(bytes(hello[:size]))
            self.record_limit = FRAGMENT_BYTES.get(code, RECORD_BYTES)
            self.done = True
            self._hello = bytearray()


def _fragment_code(hello: bytes) -> int:
    """The code in the `max_fragment_length` extension, or 0.

    OpenSSL refuses a malformed hello by itself, so a hello that does not parse here has code 0.
    """
    if not hello or hello[0] != _CLIENT_HELLO:
        return 0
    # Skip the message's header, the version and the random.
    at = 4 + 2 + 32
    # Skip the session id, the cipher suites and the compression methods.
    for length_bytes in (1, 2, 1):
        at += length_bytes + int.from_bytes(hello[at : at + length_bytes], "big")
    # Skip the length of all extensions.
    at += 2
    while at + 4 <= len(hello):
        kind = int.from_bytes(hello[at : at + 2], "big")
        size = int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _MAX_FRAGMENT_LENGTH:
            return hello[at + 4] if size == 1 and at + 4 < len(hello) else 0
        at += 4 + size
    return 0


def count_data_records(wire: bytes) -> int:
    """How many records of kind "data" lie in `wire`, which holds whole records."""
    count = at = 0
    while at + HEADER_BYTES <= len(wire):
        count += wire[at] == DATA
        at += HEADER_BYTES + int.from_bytes(wire[at + 3 : at + HEADER_BYTES], "big")
    return count
