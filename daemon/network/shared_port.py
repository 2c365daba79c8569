"""One TCP port for both planes: the first byte of a connection says which plane it wants.

A TLS client begins with a handshake record, whose first byte is 22 (RFC 8446, section 5.1). A
libp2p client begins with the length of "/multistream/1.0.0", which is 19. Each plane gets a
listener of its own and accepts from it as from a port.
"""

from __future__ import annotations

import math
import socket
from contextlib import suppress

import trio

from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import prefix_of
from daemon.network.tcp import StreamListener, remote_host

TLS_HANDSHAKE = b"\x16"
# A connection must send its first byte within this time, as at a port of one plane.
FIRST_BYTE_S = 3.0
# Silent at once, from all addresses. When a connection has sent a byte, the limits of its plane
# apply.
MAX_SILENT = 128


class _Branch(trio.abc.Listener[trio.SocketStream]):
    """The connections of one plane. To close it closes the port."""

    def __init__(self, port: StreamListener) -> None:
        self._port = port
        self._send, self._receive = trio.open_memory_channel[trio.SocketStream](math.inf)

    def put(self, stream: trio.SocketStream) -> None:
        """Hand over a connection. After the branch was closed, the connection is closed too."""
        try:
            self._send.send_nowait(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            stream.socket.close()

    async def accept(self) -> trio.SocketStream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        with suppress(trio.WouldBlock, trio.ClosedResourceError):
            while True:
                self._receive.receive_nowait().socket.close()
        await self._receive.aclose()
        await self._port.aclose()


class SharedPort:
    """Divides the connections that arrive at one listener. `run` does the work."""

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self._control, self._bulk = _Branch(listener), _Branch(listener)
        self._silent = PendingConnections(MAX_SILENT)

    @property
    def control(self) -> StreamListener:
        return self._control

    @property
    def bulk(self) -> StreamListener:
        return self._bulk

    async def run(self) -> None:
        """Accept connections until cancelled."""
        await trio.serve_listeners(self._divide, [self._listener])

    async def _divide(self, stream: trio.SocketStream) -> None:
        scope = trio.CancelScope(deadline=trio.current_time() + FIRST_BYTE_S)
        silent = PendingConnection(
            prefix_of(remote_host(stream)), trio.current_time(), lambda: False, scope.cancel
        )
        self._silent.begin(silent)
        try:
            with scope:
                first = await stream.socket.recv(1, socket.MSG_PEEK)
                # `serve_listeners` closes its own socket when this function returns.
                mine = trio.SocketStream(stream.socket.dup())
                (self._bulk if first == TLS_HANDSHAKE else self._control).put(mine)
        except OSError:
            # The other side broke the connection, or no descriptor is left.
            return
        finally:
            self._silent.end(silent)
