"""Gives verified bytes in pieces: the messages, and the side that answers.

A `PieceRequest` names a certificate and a range of pieces; the answer is a `PieceReply` and the
bytes. The digests of the pieces come first: they must lead to a digest that the certificate names,
and from then on each piece proves itself. `daemon/swarm/piece_download.py` is the side that asks.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.errors import PeerFault
from protocol.messages.base import UNREADABLE, Hash, Natural
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

REQUEST_BYTES = 256
# One request may ask for 4 MiB.
PIECES_PER_REQUEST = 16
# Pieces under way, to all peers and to one: 64 MiB, however many peers ask.
SERVED_AT_ONCE, SERVED_TO_PEER = 16, 2
# The time for one answer: 4 MiB at half a megabit per second.
PIECE_S = 60.0
# A stream without a request for this time ends. A downloader asks every few seconds, and tries
# again after a lost connection.
IDLE_S = 60.0


class PieceRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A range of pieces. `count` 0 asks for the digests of all pieces."""

    tip: Hash
    first: Natural
    count: Natural


class PieceReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The head of an answer. `size` bytes follow; `held` says whether the peer has the bytes."""

    held: bool
    size: Natural


class PieceServer(Protocol):
    """What answers requests for pieces."""

    async def answer(self, request: PieceRequest) -> bytes | None:
        """The bytes asked for; None when this node does not have them.

        Raises:
            PeerFault: For a range that does not exist.
        """

    async def sweep(self) -> None:
        """Close what no request has named for a while."""


def range_of(sizes: list[tuple[int, int]], request: PieceRequest, of: str) -> tuple[int, int]:
    """The (offset, size) of the bytes that a request names, of pieces that follow each other.

    Raises:
        PeerFault: For a range that does not exist.
    """
    pieces = sizes[request.first : request.first + min(request.count, PIECES_PER_REQUEST)]
    if not pieces:
        raise PeerFault("malformed", f"{of} chunk {request.first} does not exist")
    offset, last = pieces[0][0], pieces[-1]
    return offset, last[0] + last[1] - offset


def serve_pieces(network: Network, protocol: str, server: PieceServer) -> None:
    """Answer requests for pieces. Each answer under way holds up to 4 MiB."""
    limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def handle(stream: ByteStream) -> None:
        reader = FrameReader(stream)
        while (data := await _next_request(reader)) is not None:
            try:
                request = msgspec.msgpack.decode(data, type=PieceRequest)
            except UNREADABLE as error:
                raise PeerFault("malformed", f"not a request for pieces: {error}") from None
            async with limiter.slot(stream.peer):
                with trio.move_on_after(PIECE_S) as timeout:
                    payload = await server.answer(request)
                    await stream.send_all(
                        frame(
                            msgspec.msgpack.encode(
                                PieceReply(held=payload is not None, size=len(payload or b""))
                            )
                        )
                    )
                    if payload:
                        await stream.send_all(payload)
            if timeout.cancelled_caught:
                raise PeerFault("timeout", f"a piece was not read within {PIECE_S:g} s")
        await server.sweep()

    network.serve(protocol, handle)


async def _next_request(reader: FrameReader) -> bytes | None:
    """The next request of a stream; None at its end, and after `IDLE_S` without a request."""
    with trio.move_on_after(IDLE_S):
        return await reader.next_frame(REQUEST_BYTES)
    return None
