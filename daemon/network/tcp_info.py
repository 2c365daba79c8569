"""What the kernel counted on a TCP connection (`TCP_INFO`, linux/tcp.h): segments of data sent, and
how many of them again.

Where the system does not say, nothing is known. Segments sent again are those that were lost, and a
few that were only late.
"""

from __future__ import annotations

import socket
import struct

import msgspec

# The fields up to here have not moved since Linux 4.6; an older kernel answers with fewer.
_ASKED_BYTES = 192
_RETRANSMITTED = struct.Struct("=100xI")  # tcpi_total_retrans
# tcpi_data_segs_out, those sent again included.
_SENT = struct.Struct("=156xI")


class SegmentCounts(msgspec.Struct, frozen=True):
    """Of one connection so far."""

    sent: int = 0
    again: int = 0

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        return SegmentCounts(self.sent + other.sent, self.again + other.again)


def segments(connection: socket.socket) -> SegmentCounts:
    """Nothing for a closed connection, or one of which the system does not tell."""
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
