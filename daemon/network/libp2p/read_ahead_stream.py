"""The TCP stream under a libp2p connection."""

from __future__ import annotations

import trio
from libp2p.io.trio import TrioTCPStream

from daemon.network.addresses import plain_host
from daemon.network.tcp_info import SegmentCounts, count_segments
from protocol.network.reachability import PathKind

# Bytes read from the socket at once: one Noise message, and the small ones of the same turn.
READ_AHEAD_BYTES = 1 << 16


class ReadAheadStream(TrioTCPStream):
    """Reads ahead, knows when it last received, and can be cut.

    Without reading ahead, each message costs two reads of the socket, one of them for its two
    bytes of length.
    """

    def __init__(self, stream: trio.SocketStream, path: PathKind = "direct") -> None:
        """`path` says how the connection came about.

        Over a relay, the other side's address is the relay's and proves nothing.
        """
        super().__init__(stream)
        self.path = path
        self.received_at = trio.current_time()
        self.closed = trio.Event()
        # Whether the other side has sent anything.
        self.heard = False
        self._ahead = memoryview(b"")

    async def read(self, n: int | None = None) -> bytes:
        """At most `n` bytes; empty at the end."""
        if self._ahead:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._ahead = memoryview(await super().read(READ_AHEAD_BYTES))
            self.received_at = trio.current_time()
        data, self._ahead = self._ahead[:n], self._ahead[len(self._ahead) if n is None else n :]
        return bytes(data)

    async def close(self) -> None:
        self.closed.set()
        await super().close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The host and the port of the other side; None over a relay, and when it is gone already.

        The library itself knows those of IPv4 alone.
        """
        if self.path == "relayed":
            return None
        if self._cached_remote_address is None and isinstance(self.stream, trio.SocketStream):
            try:
                host, port = self.stream.socket.getpeername()[:2]
            except OSError:
                return None
            self._cached_remote_address = (plain_host(host), port)
        return self._cached_remote_address

    @property
    def remote_host(self) -> str:
        """The address of the other side; empty over a relay, and when the connection is gone."""
        remote = self.get_remote_address()
        return remote[0] if remote else ""

    def segments(self) -> SegmentCounts:
        """What the kernel counted."""
        if not isinstance(self.stream, trio.SocketStream):
            return SegmentCounts()
        return count_segments(self.stream.socket)

    async def cut(self) -> None:
        """Close the socket now. Every reader and writer above notices."""
        self.closed.set()
        await trio.aclose_forcefully(self.stream)
