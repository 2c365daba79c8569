"""Gives the encoded means of recent certificates to members that missed them, and fetches them.

A member that missed rounds replays their means onto its own anchor. It needs no state of another
member for that, so it comes back even if a state takes longer than a round to arrive.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from daemon.swarm.piece_download import PieceDownload
from daemon.swarm.piece_server import PieceRequest, range_of, serve_pieces
from protocol.averaging.encoded_mean import EncodedMean, MeanPieces
from protocol.codec import Codec
from protocol.digest import Buffer, Digest
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/results/1"

MeanReader = Callable[[int, int], Awaitable[bytes | None]]
"""Maps (offset, size) to bytes of a mean; None where they are gone."""


class HeldMean:
    """A mean that a node can give away: its pieces, their digests, and a reader of its bytes."""

    def __init__(self, pieces: MeanPieces, digests: list[Digest], read: MeanReader) -> None:
        self.pieces, self.digests, self.read = pieces, digests, read


class ResultServer:
    """The means that one node gives to others. Implements `PieceServer`."""

    def __init__(self, held: Callable[[Digest], Awaitable[HeldMean | None]]) -> None:
        """`held` returns the mean of a certificate, if this node has it."""
        self._held = held

    async def answer(self, request: PieceRequest) -> bytes | None:
        """The bytes asked for; None when this node does not have them.

        Raises:
            PeerFault: For a range that the mean does not have.
        """
        held = await self._held(request.tip)
        if held is None:
            return None
        if request.count == 0:
            return b"".join(held.digests)
        return await held.read(*range_of(held.pieces.sizes, request, "result"))

    async def sweep(self) -> None:
        """Do nothing: no mean is kept open."""


def serve_results(network: Network, server: ResultServer) -> None:
    """Answer requests for means."""
    serve_pieces(network, PROTOCOL, server)


class MeanDownload(PieceDownload):
    """The mean of one certificate, which is complete when `done`."""

    protocol, what = PROTOCOL, "result"

    def __init__(
        self,
        tip: Digest,
        result: Digest,
        pieces: MeanPieces,
        size_bytes: int,
        on_piece: Callable[[], None] = lambda: None,
    ) -> None:
        """`result` is the root that the certificate names."""
        super().__init__(tip, [size for _, size in pieces.sizes], on_piece)
        self._result, self._pieces = result, pieces
        self._data = bytearray(size_bytes)

    def mean(self, codec: Codec) -> EncodedMean:
        """The complete mean; `codec` is the codec of results."""
        return EncodedMean(codec, [(0, self._data)])

    def _lead_to_certificate(self, leaves: list[Digest]) -> bool:
        return self._pieces.root(leaves) == self._result

    def _digest_of(self, data: Buffer) -> Digest:
        return self._pieces.digest_of(data)

    async def _reuse(self) -> None:
        """Do nothing: the mean of one round has no piece of another's."""

    def _store(self, index: int, data: memoryview) -> None:
        offset, size = self._pieces.sizes[index]
        self._data[offset : offset + size] = data
