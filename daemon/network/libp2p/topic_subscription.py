"""The messages of one topic, from the library to their reader."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from protocol.identity import PeerId

# Messages, and their bytes, of one subscription that is not read.
QUEUE_MESSAGES = 1024
QUEUE_BYTES = 64 << 20


class TopicSubscription:
    """The `Subscription` of one topic. To the library it is the sending end of a channel."""

    def __init__(self, own: PeerId, *, keep: bool = True) -> None:
        """`own` is this node, whose messages are left out. Without `keep` nothing is queued."""
        self.dropped = 0
        self._keep = keep
        self._own = own
        self._messages: deque[tuple[PeerId, bytes]] = deque()
        self._size = 0
        self._arrived = trio.Event()

    def send_nowait(self, message: rpc_pb2.Message) -> None:
        """Queue a message; the library calls this for each one that was accepted."""
        if not self._keep:
            return
        signer: PeerId = ID(message.from_id).to_base58()
        if signer == self._own:
            return
        self._messages.append((signer, message.data))
        self._size += len(message.data)
        while len(self._messages) > QUEUE_MESSAGES or self._size > QUEUE_BYTES:
            _, data = self._messages.popleft()
            self._size -= len(data)
            self.dropped += 1
        self._arrived.set()

    async def aclose(self) -> None:
        """Do nothing; the library closes the channels that it sends to."""

    def __aiter__(self) -> AsyncIterator[tuple[PeerId, bytes]]:
        return self

    async def __anext__(self) -> tuple[PeerId, bytes]:
        await trio.lowlevel.checkpoint()
        while not self._messages:
            self._arrived = trio.Event()
            await self._arrived.wait()
        signer, data = self._messages.popleft()
        self._size -= len(data)
        return signer, data
