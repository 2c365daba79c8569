"""The port of a stream: ordered bytes to and from one authenticated peer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from protocol.identity import PeerId


class ByteStream(Protocol):
    """An ordered, reliable, encrypted two-way byte stream to one authenticated peer.

    Guaranteed: `peer` holds the key of that id (bulk: it showed exactly the expected certificate).
    Bytes arrive in order, or the stream breaks.

    Not guaranteed: that the peer received the bytes that were sent. Only an answer proves that.
    """

    @property
    def peer(self) -> PeerId: ...

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of `data`; wait while the other side does not read.

        Raises:
            Unreachable: the stream is broken.
        """

    async def receive_some(self, max_bytes: int) -> bytes:
        """Receive 1 to `max_bytes` bytes, or b"" when the other side has finished.

        Raises:
            Unreachable: the stream is broken.
        """

    async def receive_into(self, target: memoryview) -> int:
        """Receive into the front of `target` (bytes, writable, not empty).

        Returns:
            The number of bytes received; 0 when the other side has finished.

        Raises:
            Unreachable: the stream is broken.
        """

    def unsent(self) -> int:
        """Count the bytes given to `send_all` that the other side has not acknowledged.

        The count is 0 where this machine cannot tell.
        """

    async def send_eof(self) -> None:
        """End the sending direction: the peer's `receive_some` returns b"" after the last byte.

        A bulk stream may close both directions.
        """

    async def aclose(self) -> None:
        """Close the stream. Never raises; safe to call twice and under cancellation."""


StreamHandler = Callable[[ByteStream], Awaitable[None]]
