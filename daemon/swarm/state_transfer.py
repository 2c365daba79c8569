"""The messages that carry a state from peer to peer, and the side that gives the state.

A `StateRequest` names a tip and a range of chunks; the answer is a `StateReply` and the bytes. The
leaves come first: they must lead to the digest that the certificate names, and from then on each
chunk proves itself. `daemon/swarm/state_download.py` is the side that asks.

A state is given from memory while it is the current anchor, and from its checkpoint otherwise.
A peer that has begun to read a state can finish. The checkpoint stays open when the disk removes
it, until no request has arrived for `IDLE_S`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.messages.base import UNREADABLE, Hash, Natural
from protocol.ports.byte_stream import ByteStream
from protocol.ports.disk import Disk, KeptState
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/state/1"
REQUEST_BYTES = 256
# One request may ask for 4 MiB.
CHUNKS_PER_REQUEST = 16
# Pieces under way, to all peers and to one: 64 MiB, however many peers ask.
SERVED_AT_ONCE, SERVED_TO_PEER = 16, 2
# The time for one answer: 4 MiB at half a megabit per second.
PIECE_S = 60.0
# A state without a request for this time is closed. A downloader asks every few seconds, and tries
# again after a lost connection.
IDLE_S = 60.0
# States open at once: as many as a disk keeps, and as many again that it has removed. A removed
# file that is open still takes its place on the disk.
OPEN_STATES = 6

Current = Callable[[Digest, int, int], bytes | None]
"""Maps (tip, offset, size) to bytes of the anchor in memory; None for another tip."""


class StateRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A range of chunks. `count` 0 asks for the leaves."""

    tip: Hash
    first: Natural
    count: Natural


class StateReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The head of an answer. `size` bytes follow; `held` says whether the peer has the state."""

    held: bool
    size: Natural


def chunk_sizes(parameters: int) -> list[tuple[int, int]]:
    """The (offset, size) of each chunk of a state: the anchor's chunks, then the momentum's."""
    part = 4 * parameters
    return [
        (base + start, min(STATE_CHUNK_BYTES, part - start))
        for base in (0, part)
        for start in range(0, part, STATE_CHUNK_BYTES)
    ]


class _OpenCheckpoint(msgspec.Struct):
    """A checkpoint that is being read."""

    state: KeptState
    leaves: list[Digest]
    asked_at: float


class StateServer:
    """The states that one node gives to others."""

    def __init__(
        self,
        disk: Disk,
        leaves: Callable[[Digest], list[Digest] | None],
        parameters: Callable[[], int],
        current: Current = lambda *_: None,
    ) -> None:
        """`leaves` returns the leaves of the state of a tip, if it is one of the last few."""
        self._disk = disk
        self._leaves = leaves
        self._parameters = parameters
        self._current = current
        # The state asked for longest ago comes first.
        self._open: OrderedDict[Digest, _OpenCheckpoint] = OrderedDict()
        self._opening = trio.Lock()

    async def answer(self, request: StateRequest) -> bytes | None:
        """The bytes asked for; None when this node does not have them.

        Raises:
            PeerFault: For a range that no state has.
        """
        await self._begin(request.tip)
        held = self._open.get(request.tip)
        leaves = held.leaves if held is not None else self._leaves(request.tip)
        if leaves is None:
            return None
        if request.count == 0:
            return b"".join(leaves)
        chunks = chunk_sizes(self._parameters())[
            request.first : request.first + min(request.count, CHUNKS_PER_REQUEST)
        ]
        if not chunks:
            raise PeerFault("malformed", f"state chunk {request.first} does not exist")
        offset, last = chunks[0][0], chunks[-1]
        size = last[0] + last[1] - offset
        in_memory = self._current(request.tip, offset, size)
        if in_memory is not None:
            return in_memory
        return await held.state.read(offset, size) if held is not None else None

    async def _begin(self, tip: Digest) -> None:
        """Open the checkpoint of a requested state as soon as it is written.

        From then on the state stays readable.
        """
        now = trio.current_time()
        async with self._opening:
            if tip not in self._open and (leaves := self._leaves(tip)) is not None:
                state = await self._disk.open_state(tip)
                if state is not None:
                    self._open[tip] = _OpenCheckpoint(state, leaves, now)
            if tip in self._open:
                self._open[tip].asked_at = now
                self._open.move_to_end(tip)
            await self._close_oldest_while(lambda held: len(self._open) > OPEN_STATES)

    async def sweep(self) -> None:
        """Close states without a request for a while."""
        now = trio.current_time()
        async with self._opening:
            await self._close_oldest_while(lambda held: now - held.asked_at > IDLE_S)

    async def _close_oldest_while(self, over: Callable[[_OpenCheckpoint], bool]) -> None:
        while self._open and over(next(iter(self._open.values()))):
            _, held = self._open.popitem(last=False)
            await held.state.aclose()


def serve_state(network: Network, given: StateServer) -> None:
    """Answer requests for states. Each piece under way holds up to 4 MiB."""
    limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def handle(stream: ByteStream) -> None:
        reader = FrameReader(stream)
        while (data := await _next_request(reader)) is not None:
            try:
                request = msgspec.msgpack.decode(data, type=StateRequest)
            except UNREADABLE as error:
                raise PeerFault("malformed", f"not a state request: {error}") from None
            async with limiter.slot(stream.peer):
                with trio.move_on_after(PIECE_S) as timeout:
                    payload = await given.answer(request)
                    await stream.send_all(
                        frame(
                            msgspec.msgpack.encode(
                                StateReply(held=payload is not None, size=len(payload or b""))
                            )
                        )
                    )
                    if payload:
                        await stream.send_all(payload)
            if timeout.cancelled_caught:
                raise PeerFault(
                    "timeout", f"a piece of the state was not read within {PIECE_S:g} s"
                )
        await given.sweep()

    network.serve(PROTOCOL, handle)


async def _next_request(reader: FrameReader) -> bytes | None:
    """The next request of a stream; None at its end, and after `IDLE_S` without a request."""
    with trio.move_on_after(IDLE_S):
        return await reader.next_frame(REQUEST_BYTES)
    return None
