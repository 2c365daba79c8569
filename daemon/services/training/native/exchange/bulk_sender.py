"""Sends parcels over the bulk protocol: one long-lived stream to each member of a plan.

The sender reopens a stream that breaks, and sends every parcel of the current view once more. The
receiver knows which parcels it has already. A peer whose address changed takes bytes for minutes in
silence, so a stream of which the peer acknowledges nothing counts as broken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from daemon.services.training.native.exchange.bulk_headers import (
    ABILITIES_BYTES,
    PROTOCOL,
    Parcel,
    read_abilities,
)
from daemon.services.training.native.exchange.link_meter import LinkMeter
from daemon.swarm.frames import FrameReader
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Network

# Pauses before a stream is reopened: the receiver may be about to admit this node's certificate.
RECONNECT_S = (0.1, 0.3, 1.0, 2.0, 4.0)
# A socket's buffer of 4 MB leaves in this time at 6 Mbit/s.
DRAIN_S = 5.0
# Without an acknowledgement for this time a stream is broken: lost packets are repeated after 1 s
# and 3 s, and the deadlines of a round leave room for a new stream.
STALL_S = 4.0
# The time between checks of what the socket has not sent.
POLL_S = 0.02

FindEndpoint = Callable[[PeerId, Digest], Endpoint]
"""Returns a peer's endpoint with this fingerprint. Raises `Unreachable` until a beacon names it."""


class _Outbox:
    """The parcels for one peer in the current view, and the task that sends them."""

    def __init__(self, fingerprint: Digest) -> None:
        self.fingerprint = fingerprint
        # Parcels of the current view, sent and unsent.
        self.parcels: list[Parcel] = []
        self.sent = 0
        self.news = trio.Event()
        self.scope = trio.CancelScope()
        # Whether the meter counts this stream as busy.
        self.busy = False
        # The bytes sent since the stream became busy.
        self.sent_bytes = 0
        self.busy_since_s = 0.0
        # Whether the receiver has announced that it understands result pieces.
        self.understands_pieces = False
        # Whether the pieces of this view go to it; None before the first piece. A receiver gets all
        # pieces of a result or none.
        self.gets_pieces: bool | None = None

    def form_of(self, item: Parcel) -> Parcel | None:
        """Return what the receiver gets for a parcel; None for nothing."""
        if not item.piecewise:
            return item
        if self.gets_pieces is None:
            self.gets_pieces = self.understands_pieces
        return item if self.gets_pieces else item.whole

    def reopen(self) -> None:
        """Send all parcels of the view once more, on a new stream."""
        self.sent = 0
        self.understands_pieces, self.gets_pieces = False, None


class BulkSender:
    """The streams to the members of the current view."""

    def __init__(
        self,
        network: Network,
        find_endpoint: FindEndpoint,
        refuse: Callable[[str, PeerId, str], None],
        on_sent: Callable[[PeerId, int, float], None] = lambda _peer, _size_bytes, _seconds: None,
    ) -> None:
        """`on_sent(peer, size_bytes, seconds)` receives what a stream sent until it is idle.

        The seconds last from the first parcel until the peer acknowledged the last one.
        """
        self.meter = LinkMeter()
        self._on_sent = on_sent
        self._network = network
        self._find_endpoint = find_endpoint
        self._refuse = refuse
        self._outboxes: dict[PeerId, _Outbox] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def send(self, peer: PeerId, fingerprint: Digest, item: Parcel) -> None:
        """Queue a parcel of the current view for the endpoint with this fingerprint.

        The plan of a view bounds what it can queue.
        """
        if self._nursery is None:
            # The node is stopping: a sum may be complete only after the streams have ended.
            return
        outbox = self._outboxes.get(peer)
        if outbox is None or outbox.fingerprint != fingerprint:
            outbox = self._outboxes[peer] = _Outbox(fingerprint)
            self._nursery.start_soon(self._drive, peer, outbox)
        outbox.parcels.append(item)
        outbox.news.set()

    def clear(self, *, failed: bool) -> None:
        """End the current view: drop its parcels.

        A parcel that is being sent is finished, so that its stream stays usable. When the view
        `failed`, the stream is closed instead. Its bytes may have reached a peer that never saw
        the plan. That peer would keep the bytes, and everything behind them on the stream, waiting
        for the plan. With a leader that was stopped while it sent its plan, the next round took
        20 s more.
        """
        for peer, outbox in list(self._outboxes.items()):
            if failed and outbox.parcels:
                del self._outboxes[peer]
                outbox.scope.cancel()
            outbox.parcels.clear()
            outbox.sent, outbox.gets_pieces = 0, None

    def withdraw(self, peer: PeerId, items: Sequence[Parcel]) -> None:
        """Drop parcels that nobody needs any more, except for one that is being sent."""
        outbox, unwanted = self._outboxes.get(peer), {id(item) for item in items}
        if outbox is not None and unwanted:
            # The parcel at `outbox.sent` may be half sent.
            kept = [
                item
                for place, item in enumerate(outbox.parcels)
                if place == outbox.sent or id(item) not in unwanted
            ]
            outbox.sent -= sum(id(item) in unwanted for item in outbox.parcels[: outbox.sent])
            outbox.parcels = kept

    def start_soon(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work beside the streams, until it ends or this sender is cancelled."""
        if self._nursery is not None:
            self._nursery.start_soon(work)

    def forget(self, peer: PeerId, item: Parcel) -> None:
        """Drop a parcel that has arrived, so that a reopened stream does not send it again."""
        outbox = self._outboxes.get(peer)
        place = (
            next((i for i, sent in enumerate(outbox.parcels[: outbox.sent]) if sent is item), None)
            if outbox is not None
            else None
        )
        if outbox is not None and place is not None:
            del outbox.parcels[place]
            outbox.sent -= 1

    async def _drive(self, peer: PeerId, outbox: _Outbox) -> None:
        with outbox.scope:
            await self._send_all(peer, outbox)

    async def _send_all(self, peer: PeerId, outbox: _Outbox) -> None:
        stream: ByteStream | None = None
        failures = 0
        try:
            while True:
                try:
                    if outbox.sent >= len(outbox.parcels):
                        await self._rest(peer, outbox, stream)
                        continue
                    if not outbox.busy:
                        outbox.busy, outbox.busy_since_s = True, trio.current_time()
                        self.meter.begin()
                    item = outbox.parcels[outbox.sent]
                    if stream is None:
                        stream = await self._open(peer, outbox)
                    form = outbox.form_of(item)
                    await self._write(stream, form)
                except Unreachable as error:
                    if stream is not None:
                        await stream.aclose()
                    stream, failures = None, failures + 1
                    outbox.reopen()
                    if failures > len(RECONNECT_S):
                        self._refuse(
                            "timeout",
                            peer,
                            f"the bulk stream failed after {failures} attempts: {error}",
                        )
                        return
                    await trio.sleep(RECONNECT_S[failures - 1])
                    continue
                failures = 0
                outbox.sent_bytes += len(form.payload) if form is not None else 0
                if outbox.sent < len(outbox.parcels) and outbox.parcels[outbox.sent] is item:
                    outbox.sent += 1
                # An idle stream must not keep the memory of a view that is over.
                del item, form
        finally:
            self._report(peer, outbox)
            if self._outboxes.get(peer) is outbox:
                del self._outboxes[peer]
            if stream is not None:
                await stream.aclose()

    async def _open(self, peer: PeerId, outbox: _Outbox) -> ByteStream:
        endpoint = self._find_endpoint(peer, outbox.fingerprint)
        stream = await self._network.open_bulk(endpoint, PROTOCOL)
        if self._nursery is not None:
            self._nursery.start_soon(self._hear, stream, outbox)
        return stream

    async def _hear(self, stream: ByteStream, outbox: _Outbox) -> None:
        """Read what the receiver understands. A receiver of an earlier release says nothing."""
        try:
            said = await FrameReader(stream).next_frame(ABILITIES_BYTES)
            outbox.understands_pieces = read_abilities(said).result_pieces
        except Unreachable:
            return
        except PeerFault as fault:
            self._refuse(fault.reason, stream.peer, str(fault))

    async def _rest(self, peer: PeerId, outbox: _Outbox, stream: ByteStream | None) -> None:
        """Wait until there is something to send.

        Raises `Unreachable` where the peer acknowledges nothing for `STALL_S`.
        """
        outbox.news = trio.Event()
        if stream is not None and outbox.busy and (unsent := stream.unsent()):
            # A socket's buffer may hold all the bytes. The transfer ends when the peer has
            # acknowledged them, as far as the stream can tell.
            acknowledged_at = trio.current_time()
            with trio.move_on_after(DRAIN_S):
                while (left := stream.unsent()) and not outbox.news.is_set():
                    if left < unsent:
                        unsent, acknowledged_at = left, trio.current_time()
                    elif trio.current_time() - acknowledged_at > STALL_S:
                        raise Unreachable(f"{peer} acknowledged nothing for {STALL_S:g} s")
                    await trio.sleep(POLL_S)
        if not outbox.news.is_set():
            self._report(peer, outbox)
            await outbox.news.wait()

    def _report(self, peer: PeerId, outbox: _Outbox) -> None:
        if outbox.busy:
            self.meter.end(outbox.sent_bytes)
            self._on_sent(peer, outbox.sent_bytes, trio.current_time() - outbox.busy_since_s)
            outbox.busy, outbox.sent_bytes = False, 0

    @staticmethod
    async def _write(stream: ByteStream, item: Parcel | None) -> None:
        if item is None or not item.header:
            return
        await stream.send_all(item.header)
        if item.payload:
            # The stream sends the payload in pieces and can be cancelled between two of them.
            await stream.send_all(item.payload)
