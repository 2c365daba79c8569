"""The control plane: streams over libp2p connections, and who answers those of others."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.network.byte_counter import ByteCounter
from daemon.network.graceful_close import BackgroundCloser
from daemon.network.libp2p.control_stream import ControlStream
from daemon.network.peers.exchange import PEERS_PROTOCOL
from daemon.network.running_parts import WhileRunning
from daemon.network.traversal.messages import TRAVERSAL_PROTOCOL
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream, StreamHandler


class ControlPlane:
    """Opens control streams, and keeps the handlers until the network starts."""

    def __init__(
        self, running: WhileRunning, traffic: ByteCounter, closer: BackgroundCloser
    ) -> None:
        """`traffic` counts the bytes of each stream."""
        self._running = running
        self._traffic = traffic
        self._closer = closer
        self._handlers: dict[str, StreamHandler] = {}

    @property
    def handlers(self) -> Mapping[str, StreamHandler]:
        """The handler of each protocol that was given to `serve`."""
        return self._handlers

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream to a known peer, and connect first where needed. Raises `Unreachable`."""
        stream = await self._running.open_stream(peer, protocol)
        return ControlStream(stream, peer, self._traffic, self._closer)

    async def open_connected(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream over a connection that is up. Raises `Unreachable`."""
        stream = await self._running.open_connected(peer, protocol)
        return ControlStream(stream, peer, self._traffic, self._closer)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Run `handler` for each stream of `protocol`. Call this before the network starts."""
        if protocol in self._handlers or protocol in (PEERS_PROTOCOL, TRAVERSAL_PROTOCOL):
            raise ValueError(f"{protocol} is served already")
        if self._running.parts is not None:
            raise RuntimeError("protocols are served before the network starts")
        self._handlers[protocol] = handler
