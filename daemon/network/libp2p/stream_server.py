"""Runs the handlers of streams that others open: bounded by peer and in all, each in a task of
ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from libp2p.network.stream.net_stream import NetStream

from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser, close_gracefully
from daemon.network.libp2p.control_stream import ControlStream, ControlTraffic
from daemon.network.limits.stream_quota import StreamQuota
from daemon.network.paths.direct import DirectStream
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.network import MAX_STREAMS_PER_PEER

# Handlers of all peers together, 20 KB each: five for every connection that there may be.
MAX_STREAMS_IN_ALL = 1024


class StreamServer:
    """One node's. Until `nursery` is set and after it is None, streams are cut off.

    When strangers hold all that they may, the one that holds most gives up the stream that it
    opened first. So handlers that wait for a word that never comes keep no newcomer out.
    """

    def __init__(
        self,
        refusals: Refusals,
        traffic: ControlTraffic,
        endings: BackgroundCloser,
        matters: Callable[[PeerId], bool],
    ) -> None:
        """`matters` says for whom the last quarter of all places is kept."""
        self.nursery: trio.Nursery | None = None
        self._refusals = refusals
        self._traffic = traffic
        self._endings = endings
        self._matters = matters
        self._slots = StreamQuota(MAX_STREAMS_PER_PEER, MAX_STREAMS_IN_ALL)
        self._running: dict[PeerId, dict[trio.CancelScope, None]] = {}  # the oldest first

    def taker(self, handler: StreamHandler) -> Callable[[NetStream, PeerId], Awaitable[None]]:
        """What takes libp2p's streams for this handler."""

        async def take(stream: NetStream, peer: PeerId) -> None:
            mine = ControlStream(stream, peer, self._traffic, self._endings)
            if not self._has_room(peer):
                self._refusals.count(
                    "busy",
                    f"{peer} has its {MAX_STREAMS_PER_PEER} streams, or all have {MAX_STREAMS_IN_ALL}",
                )
                await mine.abort()
            else:
                await self.run_handler(mine, handler, self._slots.take(peer))

        return take

    def _has_room(self, peer: PeerId) -> bool:
        if not self._slots.full(peer, self._matters(peer)):
            return True
        most = max(
            self._running,
            key=lambda one: (not self._matters(one), len(self._running[one])),
            default="",
        )
        mine = len(self._running.get(peer, ()))
        if (
            self._slots.full(peer)
            or self._matters(most)
            or len(self._running.get(most, ())) <= mine + 1
        ):
            return False
        next(iter(self._running[most])).cancel()
        self._refusals.count(
            "busy", f"{most} gave up one of its {len(self._running[most])} streams"
        )
        return True

    async def run_handler(
        self,
        stream: ControlStream | DirectStream,
        handler: StreamHandler,
        release: Callable[[], None],
    ) -> None:
        """In our own nursery, not the library's: an exception of ours must be seen.

        Returns when the stream is over.
        """
        over, room = trio.Event(), trio.CancelScope()

        async def run() -> None:
            running = self._running.setdefault(stream.peer, {})
            running[room] = None
            try:
                with room:
                    await handler(stream)
                release()
                if not room.cancelled_caught:
                    await close_gracefully(stream)
            except PeerFault as fault:
                self._refusals.count(fault.reason, f"{stream.peer}: {fault}")
            except Unreachable:
                await stream.linger()
            finally:
                release()
                del running[room]
                if not running and self._running.get(stream.peer) is running:
                    del self._running[stream.peer]
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await stream.abort()
                over.set()

        if self.nursery is None:
            release()
            await stream.abort()
            return
        self.nursery.start_soon(run, name=handler)
        await over.wait()
