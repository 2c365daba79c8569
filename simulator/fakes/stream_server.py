"""The serving side of a fake network: who handles which protocol, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, short
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.network import MAX_STREAMS_PER_PEER
from simulator.fakes.connection import HEADER_BYTES
from simulator.fakes.stream import FakeStream


class FakeStreamServer:
    """Handles the streams that others open to one node.

    Nothing is served before `nursery` is set.
    """

    def __init__(self, peer: PeerId, refuse: Callable[[str], None]) -> None:
        self.nursery: trio.Nursery | None = None
        self._peer, self._refuse = peer, refuse
        # By plane: lasting links (True) and bulk connections (False).
        self._handlers: dict[bool, dict[str, StreamHandler]] = {True: {}, False: {}}
        self._serving: Counter[tuple[PeerId, bool]] = Counter()

    def register(self, protocol: str, handler: StreamHandler, *, is_link: bool) -> None:
        if self.nursery is not None or protocol in self._handlers[is_link]:
            raise ValueError(f"{protocol} must be registered once, before the network starts")
        self._handlers[is_link][protocol] = handler

    def unregister(self, protocol: str, *, is_link: bool) -> None:
        """Refuse a protocol from now on, as a node does that does not know it."""
        del self._handlers[is_link][protocol]

    def accept(self, opener: FakeStream) -> None:
        """Serve the stream that a peer opened, or refuse it."""
        connection, side = opener.connection, 1 - opener.side
        if opener.closed:
            # The opener gave it up while it was under way.
            connection.retire_unused(side)
            return
        source = connection.ends[opener.side].peer
        handler = self._handlers[connection.is_link].get(opener.protocol)
        plane = (source, connection.is_link)
        if handler is None or self._serving[plane] >= MAX_STREAMS_PER_PEER or self.nursery is None:
            self._refuse("unknown_kind" if handler is None else "busy")
            reason = f"{short(self._peer)} refused a stream of {opener.protocol}"
            connection.send(side, HEADER_BYTES, opener.break_off, reason)
            connection.retire_unused(side)
            return
        stream = FakeStream(connection, side, opener.protocol)
        stream.other, opener.other = opener, stream
        connection.send(side, HEADER_BYTES, opener.mark_accepted, None)
        self._serving[plane] += 1
        self.nursery.start_soon(self._handle, handler, stream, plane)

    async def _handle(
        self, handler: StreamHandler, stream: FakeStream, plane: tuple[PeerId, bool]
    ) -> None:
        try:
            await handler(stream)
        except PeerFault as fault:
            self._refuse(fault.reason)
            stream.reset(f"{short(self._peer)} refused what was sent: {fault.reason}")
        except Unreachable as error:
            stream.reset(str(error))
        finally:
            stream.close()
            self._serving[plane] -= 1
            if not self._serving[plane]:
                del self._serving[plane]
