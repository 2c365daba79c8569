"""A count of payload bytes, shared by all streams of one plane."""

from __future__ import annotations


class ByteCounter:
    """Payload bytes sent and received since the start."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
