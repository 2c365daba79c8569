"""One state that is being downloaded, from several peers at once.

Every chunk is checked against the certificate before it is kept. A kept chunk stays, even when the
peer that gave it leaves. Until the download is complete, its vectors belong to it alone.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Sequence

import msgspec
import numpy as np
import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.state_transfer import (
    PROTOCOL,
    REQUEST_BYTES,
    StateReply,
    StateRequest,
    chunk_sizes,
)
from protocol.averaging.vector_layout import Vector
from protocol.digest import DIGEST_BYTES, Digest, leaf_digest, merkle_root
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.messages.base import UNREADABLE
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

# Chunks of 256 KiB that one peer is asked for at once: 42 Mbit/s over 200 ms, from each of several
# peers. With one chunk the link would be idle for a round trip after each. With many, slow peers
# would hold the last chunks at the end.
ASKED_AHEAD = 4
# To connect to a peer and open a stream.
OPEN_S = 15.0
# For one chunk of 256 KiB: 70 kbit/s. Another peer gives the chunk of a slower peer sooner.
CHUNK_S = 30.0


class KnownState(msgspec.Struct, frozen=True):
    """A state that this node holds at least in part, so that equal chunks need not be fetched."""

    leaves: Sequence[Digest]
    value: Vector
    momentum: Vector


class StateDownload:
    """The state of one certificate.

    `value` and `momentum` have shape (parameters,). They are complete when `done`.
    """

    def __init__(
        self,
        tip: Digest,
        state: Digest,
        parameters: int,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            state: The digest that the certificate names.
            on_chunk: Called when verified bytes arrived.
        """
        self.tip = tip
        self.value: Vector = np.empty(parameters, np.float32)
        self.momentum: Vector = np.empty(parameters, np.float32)
        self.leaves: list[Digest] | None = None
        self.received_bytes = 0
        self.reused_bytes = 0
        # Verified bytes by the peer that gave them.
        self.given: Counter[PeerId] = Counter()
        self._began_at = trio.current_time()
        # When verified bytes arrived last.
        self.advanced_at = self._began_at
        self._state, self._on_chunk = state, on_chunk
        self._chunks = chunk_sizes(parameters)
        self._missing = set(range(len(self._chunks)))
        # How many peers are asked for each chunk now.
        self._asked = [0] * len(self._chunks)
        self._changed = trio.Event()

    @property
    def done(self) -> bool:
        return self.leaves is not None and not self._missing

    def eta_s(self) -> float:
        """Seconds until the download is complete, at its speed so far."""
        if self.leaves is None or not self.given:
            return math.inf
        rest = sum(self._chunks[i][1] for i in self._missing)
        return rest * (trio.current_time() - self._began_at) / self.given.total()

    def known(self) -> KnownState | None:
        """The chunks that are complete, for another download that may want some of them."""
        if self.leaves is None:
            return None
        leaves = [b"" if i in self._missing else leaf for i, leaf in enumerate(self.leaves)]
        return KnownState(leaves, self.value, self.momentum)

    async def reuse(self, states: Iterable[KnownState]) -> None:
        """Copy the chunks that are equal in other states.

        Each copy is checked as if it had been fetched, since its source may change meanwhile.
        """
        assert self.leaves is not None
        for known in states:
            for i in sorted(self._missing):
                if i < len(known.leaves) and known.leaves[i] == self.leaves[i]:
                    vector, start, stop = self._place(i, known.value, known.momentum)
                    piece = vector[start:stop].astype("<f4", copy=True)
                    if leaf_digest(piece.data.cast("B")) == self.leaves[i]:
                        self._keep(i, piece.data.cast("B"))
                        self.reused_bytes += piece.nbytes
                    await trio.lowlevel.checkpoint()

    async def from_peer(
        self, network: Network, peer: PeerId, known: Callable[[], Iterable[KnownState]] = tuple
    ) -> None:
        """Fetch missing chunks from this peer, beside others, until the download is complete.

        Raises:
            Unreachable: When the peer does not give them.
            PeerFault: When the peer gives wrong ones.
        """
        stream = await _opened(network, peer)
        try:
            reader = FrameReader(stream)
            if self.leaves is None:
                leaves = await self._fetch_leaves(stream, reader, peer)
                if self.leaves is None:
                    self.leaves = leaves
                    self._advance()
                    await self.reuse(known())
            await self._fetch(stream, reader, peer)
        finally:
            await stream.aclose()

    # ---------------------------------------------------------------------------------- one peer

    async def _fetch_leaves(
        self, stream: ByteStream, reader: FrameReader, peer: PeerId
    ) -> list[Digest]:
        await stream.send_all(self._request(0, 0))
        data = bytearray(DIGEST_BYTES * len(self._chunks))
        await _expect(reader, len(data))
        await _read(reader, data)
        leaves = [bytes(data[i : i + DIGEST_BYTES]) for i in range(0, len(data), DIGEST_BYTES)]
        if merkle_root(leaves) != self._state:
            raise PeerFault(
                "bad_proof", f"the leaves from {peer} do not lead to the certified state"
            )
        return leaves

    async def _fetch(self, stream: ByteStream, reader: FrameReader, peer: PeerId) -> None:
        asked: deque[int] = deque()
        try:
            while not self.done:
                while len(asked) < ASKED_AHEAD and (index := self._acquire(asked)) is not None:
                    asked.append(index)
                    await stream.send_all(self._request(index, 1))
                if asked:
                    await self._receive(reader, peer, asked[0])
                    self._release(asked.popleft())
                else:
                    # Other peers are asked for all missing chunks.
                    await self._changed.wait()
        finally:
            for index in asked:
                self._release(index)

    def _acquire(self, ours: Container[int]) -> int | None:
        """The next chunk to ask a peer for.

        It is one that no peer is asked for, else one that a single other peer is asked for, which
        may be slow.
        """
        free = (i for i in self._missing if i not in ours)
        index = min(free, key=lambda i: (self._asked[i], i), default=None)
        if index is None or self._asked[index] > 1:
            return None
        self._asked[index] += 1
        return index

    def _release(self, index: int) -> None:
        self._asked[index] -= 1
        self._wake()

    async def _receive(self, reader: FrameReader, peer: PeerId, index: int) -> None:
        data = bytearray(self._chunks[index][1])
        await _expect(reader, len(data))
        await _read(reader, data)
        self.received_bytes += len(data)
        assert self.leaves is not None
        if leaf_digest(data) != self.leaves[index]:
            raise PeerFault(
                "bad_proof", f"state chunk {index} from {peer} is not the certified one"
            )
        if index in self._missing:
            self._keep(index, memoryview(data))
            self.given[peer] += len(data)

    def _request(self, first: int, count: int) -> bytes:
        return frame(msgspec.msgpack.encode(StateRequest(tip=self.tip, first=first, count=count)))

    # ---------------------------------------------------------------------------------- chunks

    def _place(self, index: int, value: Vector, momentum: Vector) -> tuple[Vector, int, int]:
        """The vector that a chunk lies in, and its first and last element in that vector."""
        offset, size = self._chunks[index]
        vector, start = (
            (value, offset) if offset < 4 * value.size else (momentum, offset - 4 * value.size)
        )
        return vector, start // 4, (start + size) // 4

    def _keep(self, index: int, data: memoryview) -> None:
        vector, start, stop = self._place(index, self.value, self.momentum)
        vector[start:stop] = np.frombuffer(data, "<f4")
        self._missing.discard(index)
        self._advance()

    def _advance(self) -> None:
        self.advanced_at = trio.current_time()
        self._on_chunk()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _opened(network: Network, peer: PeerId) -> ByteStream:
    with trio.move_on_after(OPEN_S):
        return await network.open_stream(peer, PROTOCOL)
    raise Unreachable(f"no connection within {OPEN_S:g} s")


async def _expect(reader: FrameReader, size: int) -> None:
    """Read the head of an answer, which must announce `size` bytes."""
    with trio.move_on_after(CHUNK_S):
        try:
            reply = msgspec.msgpack.decode(
                await reader.expect_frame(REQUEST_BYTES), type=StateReply
            )
        except UNREADABLE as error:
            raise PeerFault("malformed", f"not a state reply: {error}") from None
        if not reply.held:
            raise Unreachable("that peer keeps no state of this certificate")
        if reply.size != size:
            raise PeerFault("malformed", f"{reply.size} bytes of state where {size} belong")
        return
    raise Unreachable(f"no answer within {CHUNK_S:g} s")


async def _read(reader: FrameReader, data: bytearray) -> None:
    with trio.move_on_after(CHUNK_S):
        await reader.read_into(memoryview(data))
        return
    raise Unreachable(f"{len(data)} bytes of state did not arrive within {CHUNK_S:g} s")
