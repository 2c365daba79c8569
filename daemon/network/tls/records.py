"""The layout of TLS 1.3 records (RFC 8446, 5.1 and 5.2), and memory for many of them.

OpenSSL makes the handshake; the keys that it agreed on are used in this package. Python's `ssl`
can give OpenSSL's records only to a memory buffer or to a blocking call, and moves every byte six
times between the caller's memory and the socket. Here a record is decrypted into the memory that
its reader gave, and encrypted into what the socket is written from. The AEAD comes from
`cryptography`, whose OpenSSL is the newer of the two that a node has loaded and twice as fast at
AES-GCM on processors with VAES. On the wire this is plain TLS 1.3.
"""

from __future__ import annotations

import struct

from daemon.network.tls.control_messages import DATA

# The most plaintext in a record (RFC 8446, 5.1).
RECORD_BYTES = 1 << 14
HEADER_BYTES = 5
TAG_BYTES = 16
# A record adds its header, the byte that says what it holds, and the tag.
OVERHEAD_BYTES = HEADER_BYTES + 1 + TAG_BYTES
# A full record as we write it.
WIRE_BYTES = RECORD_BYTES + OVERHEAD_BYTES
# The most that a header may announce (RFC 8446, 5.2): others may pad.
MAX_PROTECTED_BYTES = RECORD_BYTES + 256
# Records encrypted or read at a time, 0.2 ms of work. Fewer wake the other side too often: 4
# records cost a third more CPU.
PIECE_RECORDS = 32
PIECE_BYTES = PIECE_RECORDS * RECORD_BYTES

# The version that every record after the first carries (RFC 8446, 5.1).
VERSION = 0x0303
HEADER = struct.Struct(">BHH")
FULL_HEADER = HEADER.pack(DATA, VERSION, WIRE_BYTES - HEADER_BYTES)


class RecordBuffer:
    """Memory for `records` full records, one behind the other.

    The views of the places where full records lie are made once: making them anew for each record
    costs a quarter of what its encryption does. The headers of full records are in place from the
    beginning.
    """

    def __init__(self, records: int) -> None:
        empty = FULL_HEADER + bytes(WIRE_BYTES - HEADER_BYTES)
        self.memory = memoryview(bytearray(empty * records))
        starts = range(0, records * WIRE_BYTES, WIRE_BYTES)
        self.headers = [self.memory[start : start + HEADER_BYTES] for start in starts]
        self.bodies = [self.memory[start + HEADER_BYTES : start + WIRE_BYTES] for start in starts]
