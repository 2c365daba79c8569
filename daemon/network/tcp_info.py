"""What the kernel counts on a TCP connection (`TCP_INFO`, linux/tcp.h).

Retransmitted segments are those that were lost, and a few that were only late.
"""

from __future__ import annotations

import socket
import struct

import msgspec
import trio

# The fields up to here have not moved since Linux 4.6. An older kernel answers with fewer bytes.
_ASKED_BYTES = 192
# The field tcpi_total_retrans.
_RETRANSMITTED = struct.Struct("=100xI")
# The field tcpi_data_segs_out, which includes retransmits.
_SENT = struct.Struct("=156xI")


class SegmentCounts(msgspec.Struct, frozen=True):
    """Data segments of one connection so far; retransmits are included in `sent`."""

    sent: int = 0
    retransmits: int = 0

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        return SegmentCounts(self.sent + other.sent, self.retransmits + other.retransmits)


def count_segments(connection: socket.socket | trio.socket.SocketType) -> SegmentCounts:
    """The counts of a connection; zeros when it is closed or the system does not count."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or connection.fileno() < 0:
        return SegmentCounts()
    try:
        answer = connection.getsockopt(socket.IPPROTO_TCP, option, _ASKED_BYTES)
    except OSError:
        return SegmentCounts()
    if len(answer) < _SENT.size:
        return SegmentCounts()
    return SegmentCounts(_SENT.unpack_from(answer)[0], _RETRANSMITTED.unpack_from(answer)[0])
