"""Runs the handlers of incoming streams: bounded by peer and in all, each in its own task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from libp2p.network.stream.net_stream import NetStream

from daemon.network.byte_counter import ByteCounter
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser, ServedStream, close_gracefully
from daemon.network.libp2p.control_stream import ControlStream
from daemon.network.limits.stream_quota import StreamQuota
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.network import MAX_STREAMS_PER_PEER

# Handlers of all peers together, 20 KB each: five for every connection that there may be.
MAX_STREAMS_IN_ALL = 1024


class StreamServer:
    """The running handlers of one node. Streams are cut off while `nursery` is None.

    When strangers hold all the places that they may, the stranger that holds most gives up its
    oldest stream. So handlers that wait for bytes that never come keep no newcomer out.
    """

    def __init__(
        self,
        refusals: Refusals,
        traffic: ByteCounter,
        closer: BackgroundCloser,
        matters: Callable[[PeerId], bool],
    ) -> None:
        """`matters` says for which peers the last quarter of all places is kept."""
        self.nursery: trio.Nursery | None = None
        self._refusals = refusals
        self._traffic = traffic
        self._closer = closer
        self._matters = matters
        self._quota = StreamQuota(MAX_STREAMS_PER_PEER, MAX_STREAMS_IN_ALL)
        # The oldest handler of each peer comes first.
        self._running: dict[PeerId, dict[trio.CancelScope, None]] = {}

    def acceptor(self, handler: StreamHandler) -> Callable[[NetStream, PeerId], Awaitable[None]]:
        """The function that accepts libp2p's streams for this handler."""

        async def accept(net_stream: NetStream, peer: PeerId) -> None:
            stream = ControlStream(net_stream, peer, self._traffic, self._closer)
            if not self._has_room(peer):
                self._refusals.count(
                    "busy",
                    f"{peer} has its {MAX_STREAMS_PER_PEER} streams, "
                    f"or all have {MAX_STREAMS_IN_ALL}",
                )
                await stream.abort()
            else:
                await self.run_handler(stream, handler, self._quota.acquire(peer))

        return accept

    def _has_room(self, peer: PeerId) -> bool:
        """Whether `peer` may have another handler; a stranger's handler may end for that."""
        if not self._quota.full(peer, self._matters(peer)):
            return True
        crowded = max(
            self._running,
            key=lambda one: (not self._matters(one), len(self._running[one])),
            default="",
        )
        held = len(self._running.get(peer, ()))
        if (
            self._quota.full(peer)
            or self._matters(crowded)
            or len(self._running.get(crowded, ())) <= held + 1
        ):
            return False
        next(iter(self._running[crowded])).cancel()
        self._refusals.count(
            "busy", f"{crowded} gave up one of its {len(self._running[crowded])} streams"
        )
        return True

    async def run_handler(
        self, stream: ServedStream, handler: StreamHandler, release: Callable[[], None]
    ) -> None:
        """Run a handler in our own nursery, where an exception of ours is seen.

        Calls `release` when the handler ends. Returns when the stream is over.
        """
        over, scope = trio.Event(), trio.CancelScope()

        async def run() -> None:
            running = self._running.setdefault(stream.peer, {})
            running[scope] = None
            try:
                with scope:
                    await handler(stream)
                release()
                if not scope.cancelled_caught:
                    await close_gracefully(stream)
            except PeerFault as fault:
                self._refusals.count(fault.reason, f"{stream.peer}: {fault}")
            except Unreachable:
                await stream.linger()
            finally:
                release()
                del running[scope]
                if not running and self._running.get(stream.peer) is running:
                    del self._running[stream.peer]
                with trio.CancelScope() as cancelled:
                    cancelled.cancel()
                    await stream.abort()
                over.set()

        if self.nursery is None:
            release()
            await stream.abort()
            return
        self.nursery.start_soon(run, name=handler)
        await over.wait()
