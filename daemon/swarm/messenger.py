"""Signed messages to and from single peers, over one long-lived stream in each direction.

Guarantees: messages to one peer keep their order, and `send` never waits. Delivery is not
guaranteed. A message that could not be sent over a fresh stream, or did not fit the queue of a peer
that does not read, is dropped and counted. The round has a deadline for everything that may be
lost.

Checking a message costs more than sending one. A peer above its rates is read more slowly, over all
its streams together, so that its flood waits in its own buffers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.messages.base import MAX_MESSAGE_BYTES, Signed
from protocol.messages.envelope import AnyMessage, decode_signed, encode_signed, open_signed
from protocol.messages.membership import Leave
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.rate_limiter import RateLimiters

PROTOCOL = "/hypergpu/message/1"
# A leave speaks for itself, whoever sends it: a peer that came after it hears of it from others.
PASSED_ON = (Leave,)
# Messages queued for one peer. A round sends it fewer than ten.
QUEUED_MESSAGES = 64
# An unused outgoing stream is closed after two default rounds...
IDLE_S = 120.0
# ...or up to this much later. One sweep of all streams costs less than a deadline for each message.
SWEEP_S = 30.0
# Streams of one peer that are read: its current one, and the last one, whose messages may still be
# under way. Each holds up to one unfinished message.
STREAMS_READ = 2
# The id, the signature and the framing around a message.
ENVELOPE_BYTES = 256

# Messages from one peer. A round has fewer than ten, and 200 signatures are 2% of a core.
MESSAGES_PER_S, MESSAGES_AT_ONCE = 200.0, 1000.0
# Bytes for which a message counts as one more. Hashing them costs a tenth of the signature check.
MESSAGE_BYTES = 1 << 13
# A refused message counts as many. The journal records it, and no honest peer sends one.
REFUSED_COUNTS = 20

Refuse = Callable[[str, PeerId, str], None]
"""Counts a refusal by reason, peer and detail."""
Deliver = Callable[[Signed, AnyMessage], Awaitable[None]]


class Messenger:
    """Sends and receives the messages of one run.

    `deliver` is awaited for each verified message, one at a time for one stream.
    """

    def __init__(self, network: Network, run: Digest, deliver: Deliver, refuse: Refuse) -> None:
        self._network = network
        self._run = run
        self._deliver = deliver
        self._refuse = refuse
        self._queues: dict[PeerId, trio.MemorySendChannel[bytes]] = {}
        # When something was last queued, for each of them.
        self._used_s: dict[PeerId, float] = {}
        self._nursery: trio.Nursery | None = None
        # The streams of each peer, the oldest first.
        self._reading: dict[PeerId, dict[trio.CancelScope, None]] = {}
        self._rates = RateLimiters(per_s=MESSAGES_PER_S, burst=MESSAGES_AT_ONCE)
        network.serve(PROTOCOL, self._serve)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what is queued, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    await trio.sleep(SWEEP_S)
                    self._close_unused(trio.current_time() - IDLE_S)
            finally:
                self._nursery = None

    def send(self, peer: PeerId, signed: Signed) -> None:
        """Queue a message.

        A message that does not fit the queue is dropped and counted as "busy" against the peer.
        """
        if self._nursery is None:
            # The node is stopping, and none of its messages needs to arrive.
            return
        queue = self._queues.get(peer)
        if queue is None:
            queue, outgoing = trio.open_memory_channel[bytes](QUEUED_MESSAGES)
            self._queues[peer] = queue
            self._nursery.start_soon(self._deliver_to, peer, queue, outgoing)
        self._used_s[peer] = trio.current_time()
        try:
            queue.send_nowait(frame(encode_signed(signed)))
        except trio.WouldBlock:
            self._refuse(
                "busy", peer, f"{QUEUED_MESSAGES} messages wait for a peer that reads none"
            )

    def _close_unused(self, before_s: float) -> None:
        """Close the queues that are idle since `before_s`, which ends their streams."""
        for peer in [peer for peer, used_s in self._used_s.items() if used_s < before_s]:
            if self._queues[peer].statistics().tasks_waiting_receive:
                self._queues.pop(peer).close()
                del self._used_s[peer]

    async def _deliver_to(
        self,
        peer: PeerId,
        queue: trio.MemorySendChannel[bytes],
        outgoing: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        stream: ByteStream | None = None
        try:
            async for data in outgoing:
                # An old stream may have broken unnoticed, so a second try uses a fresh one.
                for _attempt in range(2):
                    try:
                        if stream is None:
                            stream = await self._network.open_stream(peer, PROTOCOL)
                        await stream.send_all(data)
                        break
                    except Unreachable:
                        if stream is not None:
                            await stream.aclose()
                        stream = None
                else:
                    return
        finally:
            if self._queues.get(peer) is queue:
                del self._queues[peer], self._used_s[peer]
            if stream is not None:
                await stream.aclose()

    async def _serve(self, stream: ByteStream) -> None:
        """Read the newest streams of a peer, and drop an older one with its unread bytes."""
        scope, mine = trio.CancelScope(), self._reading.setdefault(stream.peer, {})
        mine[scope] = None
        if len(mine) > STREAMS_READ:
            oldest = next(iter(mine))
            del mine[oldest]
            oldest.cancel()
        try:
            with scope:
                await self._read(stream)
        finally:
            mine.pop(scope, None)
            if not mine and self._reading.get(stream.peer) is mine:
                del self._reading[stream.peer]
        if scope.cancelled_caught:
            raise PeerFault("busy", f"it opened {STREAMS_READ} newer streams for messages")

    async def _read(self, stream: ByteStream) -> None:
        reader = FrameReader(stream)
        while True:
            try:
                data = await reader.next_frame(MAX_MESSAGE_BYTES + ENVELOPE_BYTES)
                if data is None:
                    return
                await self._throttle(stream.peer, 1 + len(data) / MESSAGE_BYTES)
                signed = decode_signed(data)
                message = self._open(signed, stream.peer)
            except PeerFault as fault:
                self._refuse(fault.reason, stream.peer, str(fault))
                await self._throttle(stream.peer, REFUSED_COUNTS)
                if fault.reason in {"malformed", "oversized"}:
                    # The framing of this stream cannot be trusted any more.
                    return
                continue
            await self._deliver(signed, message)

    def _open(self, signed: Signed, sender: PeerId) -> AnyMessage:
        """Verify and decode a message that `sender` sent.

        Raises:
            PeerFault: for a message that is not its sender's, except a leave that it passes on.
        """
        if signed.peer == sender:
            return open_signed(signed, self._run)
        stolen = PeerFault("identity", f"a message signed by {signed.peer} on a stream of {sender}")
        try:
            message = open_signed(signed, self._run)
        except PeerFault:
            raise stolen from None
        if not isinstance(message, PASSED_ON):
            raise stolen
        return message

    async def _throttle(self, peer: PeerId, messages: float) -> None:
        """Count what a peer costs, and wait when it is above its rate."""
        now = trio.current_time()
        owed_s = self._rates.of(peer, now).owe(messages, now)
        if owed_s > 0:
            await trio.sleep(owed_s)
