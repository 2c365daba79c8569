"""Verified bytes that are being downloaded in pieces, from several peers at once.

The digests of the pieces come first and must lead to a digest that a certificate names. From then
on each piece proves itself. A piece that was kept stays, even when the peer that gave it leaves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.piece_server import REQUEST_BYTES, PieceReply, PieceRequest
from daemon.swarm.piece_source import STALLED_S, PieceSource
from protocol.digest import DIGEST_BYTES, Buffer, Digest
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


class PieceDownload(ABC):
    """The pieces of one certificate's bytes."""

    # The protocol of the streams, and what the bytes are, as the words of a message.
    protocol: str
    what: str

    def __init__(
        self, tip: Digest, sizes: Sequence[int], on_piece: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            tip: Names the certificate.
            sizes: The bytes of each piece.
            on_piece: Called when verified bytes arrived.
        """
        self.tip = tip
        # The digests of the pieces; None until a peer gave them.
        self.leaves: list[Digest] | None = None
        self.received_bytes = 0
        # Verified bytes by the peer that gave them.
        self.given: Counter[PeerId] = Counter()
        # When verified bytes arrived last.
        self.advanced_at = self._began_at = trio.current_time()
        self._sizes, self._on_piece = sizes, on_piece
        self._missing = set(range(len(sizes)))
        # The peers that are asked now.
        self._sources: list[PieceSource] = []
        self._changed = trio.Event()

    @abstractmethod
    def _lead_to_certificate(self, leaves: list[Digest]) -> bool:
        """Whether the digests of all pieces lead to the certified digest."""

    @abstractmethod
    def _digest_of(self, data: Buffer) -> Digest:
        """The digest of one piece."""

    @abstractmethod
    def _store(self, index: int, data: memoryview) -> None:
        """Keep a verified piece."""

    @abstractmethod
    async def _reuse(self) -> None:
        """Keep the pieces that this node has already; called once the digests are known."""

    @property
    def done(self) -> bool:
        return self.leaves is not None and not self._missing

    @property
    def begun(self) -> bool:
        """Whether verified bytes arrived, and more may come from a peer that gave or is asked.

        A peer that has moved on may still give the digests of pieces that nobody holds any more.
        """
        return self.leaves is not None and bool(self.given or self._sources)

    def eta_s(self) -> float:
        """Seconds until the download is complete, at its speed so far."""
        if self.leaves is None or not self.given:
            return math.inf
        rest = sum(self._sizes[i] for i in self._missing)
        return rest * (trio.current_time() - self._began_at) / self.given.total()

    async def from_peer(self, network: Network, peer: PeerId) -> None:
        """Fetch missing pieces from this peer, beside others, until the download is complete.

        Raises:
            Unreachable: When the peer does not give them.
            PeerFault: When the peer gives wrong ones.
        """
        stream = await _opened(network, peer, self.protocol)
        try:
            reader = FrameReader(stream)
            if self.leaves is None:
                leaves = await self._fetch_leaves(stream, reader, peer)
                if self.leaves is None:
                    self.leaves = leaves
                    self._advance()
                    await self._reuse()
            await self._fetch(stream, reader, peer)
        finally:
            await stream.aclose()

    # ---------------------------------------------------------------------------------- one peer

    async def _fetch_leaves(
        self, stream: ByteStream, reader: FrameReader, peer: PeerId
    ) -> list[Digest]:
        await stream.send_all(self._request(0, 0))
        data = bytearray(DIGEST_BYTES * len(self._sizes))
        await self._expect(reader, len(data))
        await _read(reader, data)
        leaves = [bytes(data[i : i + DIGEST_BYTES]) for i in range(0, len(data), DIGEST_BYTES)]
        if not self._lead_to_certificate(leaves):
            raise PeerFault(
                "bad_proof", f"the leaves from {peer} do not lead to the certified {self.what}"
            )
        return leaves

    async def _fetch(self, stream: ByteStream, reader: FrameReader, peer: PeerId) -> None:
        source = PieceSource(trio.current_time())
        self._sources.append(source)
        try:
            while not self.done:
                while len(source.asked) < ASKED_AHEAD:
                    index = self._next_for(source)
                    if index is None:
                        break
                    source.note_request(trio.current_time())
                    source.asked.append(index)
                    await stream.send_all(self._request(index, 1))
                if source.asked:
                    await self._receive(reader, peer, source)
                    source.asked.popleft()
                    self._wake()
                else:
                    # Other peers are asked for all missing pieces, and one of them may stall.
                    with trio.move_on_after(STALLED_S / 2):
                        await self._changed.wait()
        finally:
            self._sources.remove(source)
            self._wake()

    def _next_for(self, source: PieceSource) -> int | None:
        """The next piece to ask a peer for.

        It is one that no peer is asked for, else one of a single other peer that is far slower or
        gives nothing. Other pieces are not asked for twice: on a slow downlink the second copy
        would delay the first.
        """
        asked = Counter(index for one in self._sources for index in one.asked)
        free = min((i for i in self._missing if not asked[i]), default=None)
        if free is not None:
            return free
        now = trio.current_time()
        return min(
            (
                i
                for one in self._sources
                if one is not source and one.is_outrun_by(source, now)
                for i in one.asked
                if i in self._missing and asked[i] == 1
            ),
            default=None,
        )

    async def _receive(self, reader: FrameReader, peer: PeerId, source: PieceSource) -> None:
        """Receive the first piece that the peer is asked for."""
        index = source.asked[0]
        data = bytearray(self._sizes[index])
        await self._expect(reader, len(data))
        await _read(reader, data, lambda size: source.note_partial(size, trio.current_time()))
        source.note_whole(len(data), trio.current_time())
        self.received_bytes += len(data)
        assert self.leaves is not None
        if self._digest_of(data) != self.leaves[index]:
            raise PeerFault(
                "bad_proof", f"{self.what} chunk {index} from {peer} is not the certified one"
            )
        if index in self._missing:
            self._keep(index, memoryview(data))
            self.given[peer] += len(data)

    def _request(self, first: int, count: int) -> bytes:
        return frame(msgspec.msgpack.encode(PieceRequest(tip=self.tip, first=first, count=count)))

    async def _expect(self, reader: FrameReader, size: int) -> None:
        """Read the head of an answer, which must announce `size` bytes."""
        with trio.move_on_after(CHUNK_S):
            try:
                reply = msgspec.msgpack.decode(
                    await reader.expect_frame(REQUEST_BYTES), type=PieceReply
                )
            except UNREADABLE as error:
                raise PeerFault("malformed", f"not a {self.what} reply: {error}") from None
            if not reply.held:
                raise Unreachable(f"that peer keeps no {self.what} of this certificate")
            if reply.size != size:
                raise PeerFault(
                    "malformed", f"{reply.size} bytes of {self.what} where {size} belong"
                )
            return
        raise Unreachable(f"no answer within {CHUNK_S:g} s")

    # ---------------------------------------------------------------------------------- pieces

    def _keep(self, index: int, data: memoryview) -> None:
        self._store(index, data)
        self._missing.discard(index)
        self._advance()

    def _advance(self) -> None:
        self.advanced_at = trio.current_time()
        self._on_piece()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _opened(network: Network, peer: PeerId, protocol: str) -> ByteStream:
    with trio.move_on_after(OPEN_S):
        return await network.open_stream(peer, protocol)
    raise Unreachable(f"no connection within {OPEN_S:g} s")


async def _read(
    reader: FrameReader, data: bytearray, progress: Callable[[int], None] | None = None
) -> None:
    with trio.move_on_after(CHUNK_S):
        await reader.read_into(memoryview(data), progress)
        return
    raise Unreachable(f"{len(data)} bytes did not arrive within {CHUNK_S:g} s")
