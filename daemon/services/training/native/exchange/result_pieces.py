"""Holds the pieces of results that arrive before anything proves them.

A reducer sends the result of its own slice in pieces, in order, and then its proof
(`early_sum.py`). Each piece is hashed as it arrives, so that the proof is checked at once.

A stream that was reopened sends all pieces anew. They go into other memory: a piece of the broken
stream must not be written to memory that was checked.
"""

from __future__ import annotations

from functools import partial

from daemon.services.training.native.exchange.bulk_headers import ResultPieceHeader
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, discard
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
    SliceSizes,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import chunk_bytes
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import short
from protocol.planning.plan import OpenPlan


class _Pieces:
    """The pieces of one slice."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        # The bytes whose pieces were announced, from the first one on.
        self.announced_bytes = 0
        self.arrived_bytes = 0
        # By the place of the piece in bytes: its leaves.
        self.leaves: dict[int, list[Digest]] = {}


class ResultPieces:
    """The pieces of all slices under one plan, as far as they have arrived."""

    def __init__(
        self, plan: OpenPlan, context: ExchangeContext, ports: ExchangePorts, results: ResultBuffer
    ) -> None:
        """`results` provides the memory, and knows which results are proven."""
        self._plan, self._ports, self._results = plan, ports, results
        self._codec = context.codec.result
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        self._slices: dict[int, _Pieces] = {}
        self._closed = False

    def accept(self, contributor: int, header: ResultPieceHeader) -> ExpectedParcel:
        """Expect a piece. Raises `PeerFault` unless it is one of the sender's own slice."""
        index, start, stop = header.slice, header.start, header.start + header.size
        if index != contributor:
            raise PeerFault(
                "not_member",
                f"{short(self._plan.members[contributor])} does not own slice {index}",
            )
        size_bytes, chunk = self._sizes.result_bytes(index), chunk_bytes(self._codec)
        if not start < stop <= size_bytes or start % chunk or (stop % chunk and stop < size_bytes):
            raise PeerFault("malformed", f"bytes {start} to {stop} are no piece of slice {index}")
        if self._closed or index in self._results:
            return ExpectedParcel(header.size, discard)
        if start == 0:
            self._slices[index] = _Pieces(self._results.memory(index))
        pieces = self._slices.get(index)
        if pieces is None or start != pieces.announced_bytes:
            # The piece belongs to a stream that broke.
            return ExpectedParcel(header.size, discard)
        pieces.announced_bytes = stop
        first, last = self._sizes.elements(index)
        elements = last - first if stop == size_bytes else stop // chunk * CHUNK_ELEMENTS
        elements -= start // chunk * CHUNK_ELEMENTS
        return ExpectedParcel(
            header.size,
            partial(self._receive, pieces, start, elements),
            lambda: pieces.memory[start:stop],
        )

    async def _receive(self, pieces: _Pieces, start: int, elements: int, data: memoryview) -> None:
        commitment, codec = self._ports.commitment, self._codec

        def check() -> list[Digest]:
            codec.check(data, elements)
            return commitment.leaves(data, chunk_bytes(codec))

        pieces.leaves[start] = await self._ports.offload(check)
        pieces.arrived_bytes += len(data)

    def take(self, index: int) -> tuple[memoryview, Digest] | None:
        """Return the whole result of a slice and its root; None unless all pieces have arrived."""
        pieces = self._slices.get(index)
        if pieces is None or pieces.arrived_bytes < self._sizes.result_bytes(index):
            return None
        leaves = [leaf for start in sorted(pieces.leaves) for leaf in pieces.leaves[start]]
        return pieces.memory, self._ports.commitment.root_of(leaves)

    def close(self) -> None:
        """Drop all pieces, and those that still arrive."""
        self._closed = True
        self._slices.clear()
