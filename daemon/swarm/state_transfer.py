"""The anchor from a peer, in chunks, every one checked against the certificate before it is kept.

A `StateRequest` names a tip and a range of chunks; the answer is a `StateReply` and the bytes. The leaves come first: they must lead to the
digest that the certificate names, and from then on each chunk proves itself. What was fetched stays fetched: another peer goes on where one
broke off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import trio

from daemon.swarm.framing import FrameReader, frame
from daemon.swarm.turns import Turns
from protocol.digest import DIGEST_BYTES, Digest, leaf_digest, merkle_root
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.layout import STATE_CHUNK_BYTES
from protocol.messages import UNREADABLE, Hash, Natural
from protocol.ports import ByteStream, Disk, Network, Vector

PROTOCOL = "/hypergpu/state/1"
REQUEST_BYTES = 256
CHUNKS_PER_REQUEST = 16  # 4 MiB: long enough to fill a link, short enough to change the peer
SERVED_AT_ONCE, SERVED_TO_PEER = 16, 2  # pieces on their way, to all peers and to one: 64 MiB, however many ask
PIECE_S = 60.0  # for one answer: 4 MiB at half a megabit a second


class StateRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`count` 0 asks for the leaves."""

    tip: Hash
    first: Natural
    count: Natural


class StateReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`size` bytes follow. `held` False: this peer keeps no checkpoint of that tip."""

    held: bool
    size: Natural


def chunk_sizes(parameters: int) -> list[tuple[int, int]]:
    """(offset, size) of each chunk of a state's bytes: the anchor's chunks, then the momentum's."""
    part = 4 * parameters
    return [(base + start, min(STATE_CHUNK_BYTES, part - start)) for base in (0, part) for start in range(0, part, STATE_CHUNK_BYTES)]


def serve_state(network: Network, disk: Disk, leaves: Mapping[Digest, list[Digest]], parameters: Callable[[], int]) -> None:
    """Hand out the states whose leaves are in `leaves`, from their checkpoints. Each piece on its way holds 4 MiB."""
    turns = Turns(SERVED_TO_PEER, SERVED_AT_ONCE)

    async def take(stream: ByteStream) -> None:
        reader = FrameReader(stream)
        while (data := await reader.next_frame(REQUEST_BYTES)) is not None:
            try:
                request = msgspec.msgpack.decode(data, type=StateRequest)
            except UNREADABLE as error:
                raise PeerFault("malformed", f"not a state request: {error}") from None
            async with turns.turn(stream.peer):
                with trio.move_on_after(PIECE_S) as patience:
                    payload = await _answer(request)
                    await stream.send_all(frame(msgspec.msgpack.encode(StateReply(held=payload is not None, size=len(payload or b"")))))
                    if payload:
                        await stream.send_all(payload)
            if patience.cancelled_caught:
                raise PeerFault("timeout", f"a piece of the state was not taken within {PIECE_S:g} s")

    async def _answer(request: StateRequest) -> bytes | None:
        known = leaves.get(request.tip)
        if known is None:
            return None
        if request.count == 0:
            return b"".join(known)
        chunks = chunk_sizes(parameters())[request.first : request.first + min(request.count, CHUNKS_PER_REQUEST)]
        if not chunks:
            raise PeerFault("malformed", f"state chunk {request.first} does not exist")
        offset, last = chunks[0][0], chunks[-1]
        return await disk.read_state(request.tip, offset, last[0] + last[1] - offset)

    network.serve(PROTOCOL, take)


class Download:
    """One state on its way in. Keeps what was checked while peers come and go."""

    def __init__(self, tip: Digest, state: Digest, anchor: Vector, momentum: Vector) -> None:
        """Writes into `anchor` and `momentum`, each shape (parameters,); they are only complete when `done`."""
        self.tip = tip
        self.received_bytes = 0
        self._state = state
        self._parts = (anchor, momentum)
        self._chunks = chunk_sizes(anchor.size)
        self._leaves: list[Digest] | None = None
        self._next = 0

    @property
    def done(self) -> bool:
        return self._next == len(self._chunks)

    async def from_peer(self, network: Network, peer: PeerId) -> None:
        """Fetch what is missing from this peer. Raises `Unreachable` or `PeerFault` when it cannot or does not give it."""
        stream = await network.open_stream(peer, PROTOCOL)
        try:
            reader = FrameReader(stream)
            if self._leaves is None:
                self._leaves = await self._fetch_leaves(stream, reader, peer)
            while not self.done:
                await self._fetch_piece(stream, reader, peer)
        finally:
            await stream.aclose()

    async def _ask(self, stream: ByteStream, reader: FrameReader, first: int, count: int, size: int) -> bytearray:
        with trio.move_on_after(PIECE_S):
            await stream.send_all(frame(msgspec.msgpack.encode(StateRequest(tip=self.tip, first=first, count=count))))
            try:
                reply = msgspec.msgpack.decode(await reader.expect_frame(REQUEST_BYTES), type=StateReply)
            except UNREADABLE as error:
                raise PeerFault("malformed", f"not a state reply: {error}") from None
            if not reply.held:
                raise Unreachable("that peer keeps no checkpoint of this certificate")
            if reply.size != size:
                raise PeerFault("malformed", f"{reply.size} bytes of state where {size} belong")
            data = bytearray(size)
            await reader.read_into(memoryview(data))
            self.received_bytes += size
            return data
        raise Unreachable(f"{size} bytes of state did not come within {PIECE_S:g} s")

    async def _fetch_leaves(self, stream: ByteStream, reader: FrameReader, peer: PeerId) -> list[Digest]:
        data = await self._ask(stream, reader, 0, 0, DIGEST_BYTES * len(self._chunks))
        leaves = [bytes(data[i : i + DIGEST_BYTES]) for i in range(0, len(data), DIGEST_BYTES)]
        if merkle_root(leaves) != self._state:
            raise PeerFault("bad_proof", f"the leaves from {peer} do not lead to the certified state")
        return leaves

    async def _fetch_piece(self, stream: ByteStream, reader: FrameReader, peer: PeerId) -> None:
        assert self._leaves is not None
        chunks = self._chunks[self._next : self._next + CHUNKS_PER_REQUEST]
        offset = chunks[0][0]
        data = await self._ask(stream, reader, self._next, len(chunks), chunks[-1][0] + chunks[-1][1] - offset)
        for at, size in chunks:
            piece = memoryview(data)[at - offset : at - offset + size]
            if leaf_digest(piece) != self._leaves[self._next]:
                raise PeerFault("bad_proof", f"state chunk {self._next} from {peer} is not the certified one")
            self._write(at, piece)
            self._next += 1

    def _write(self, offset: int, piece: memoryview) -> None:
        anchor, momentum = self._parts
        part, start = (anchor, offset) if offset < 4 * anchor.size else (momentum, offset - 4 * anchor.size)
        part[start // 4 : (start + len(piece)) // 4] = np.frombuffer(piece, "<f4")
