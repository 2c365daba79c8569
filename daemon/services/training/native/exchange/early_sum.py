"""Sums this node's slice while its parts arrive, and sends each range of the result at once.

Theory of operation
-------------------

Without this, every link waited for the slowest flow of the scatter before the first result moved.
A reducer sums a range of its slice as soon as that range has arrived from every member that the
plan expects to contribute. It encodes the range and sends the bytes as a piece of the result.

Nothing is taken for granted. The bytes of a part are checked when the whole part has arrived, and
the leader's inclusion may leave a member out. So the pieces prove nothing: the signed result
follows them, and only if the inclusion is the expected one and each part that was summed is the
part that passed its check. Otherwise this node sums anew, as if there had been no pieces.

Each codec works chunk by chunk, and the sum element by element. So the bytes are those of a sum
over the whole slice.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import trio

from daemon.services.training.native.exchange.bulk_headers import (
    Parcel,
    ResultPieceHeader,
    ResultProofHeader,
    parcel,
)
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
    SliceSizes,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from daemon.services.training.native.exchange.signal import Signal
from protocol.averaging.inclusion import expected_contributors
from protocol.averaging.plan_sum import ClipTally, PlanSum
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import chunk_bytes
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.messages.base import Signed
from protocol.planning.plan import OpenPlan

# A slice leaves in about this many pieces.
PIECES = 16
# Smaller pieces cost more than they gain: a turn of a thread and a header for each receiver take
# 0.3 ms, in which 1 Gbit/s moves 40 KB.
LEAST_PIECE_BYTES = 1 << 18
# Larger pieces would keep the links idle while a piece is summed.
MOST_PIECE_BYTES = 1 << 20


class EarlySum:
    """The sum of this node's slice over all contributions that its plan expects."""

    def __init__(
        self, plan: OpenPlan, context: ExchangeContext, ports: ExchangePorts, results: ResultBuffer
    ) -> None:
        """`results` provides the memory of the result."""
        self._plan, self._context, self._ports, self._results = plan, context, ports, results
        self._me = plan.index[context.signer.peer]
        self._contributors = expected_contributors(plan)
        self._sums = PlanSum(plan, self._contributors, context.parameters)
        # What the clip left of the contributions.
        self.tally = ClipTally()
        first, stop = plan.layout.parts[self._me]
        self._chunks = stop - first
        sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        self._elements = sizes.part_elements(self._me)
        self._part_bytes = sizes.part_bytes(self._me)
        piece_bytes = max(LEAST_PIECE_BYTES, sizes.result_bytes(self._me) // PIECES)
        chunk = chunk_bytes(context.codec.result)
        self._least_chunks = max(1, min(piece_bytes, MOST_PIECE_BYTES) // chunk)
        self._most_chunks = max(1, MOST_PIECE_BYTES // chunk)
        # By contributor: the memory of its part, and the bytes that have arrived there.
        self._parts: dict[int, memoryview] = {}
        self._arrived: dict[int, int] = {}
        self._summed_chunks = 0
        self._failed = False
        self._encoded = memoryview(b"")
        # The mean; where the codec loses something, then what encoding lost.
        self._mean: Vector = np.empty(0, np.float32)
        self._leaves: list[Digest] = []
        self._pieces: list[Parcel] = []
        self._changed = Signal()
        self._scope = trio.CancelScope()

    # ---------------------------------------------------------------- parts

    def note_arrival(self, contributor: int, part: memoryview, size_bytes: int) -> None:
        """Note that the first `size_bytes` of a contributor's part have arrived in `part`."""
        if self._scope.cancel_called:
            return
        bound = self._parts.setdefault(contributor, part)
        if bound is not part:
            if self._arrived[contributor] < self._part_bytes:
                # The part comes again because its stream broke. What was summed of it is unproven.
                self._fail()
            return
        self._arrived[contributor] = size_bytes
        if self._ready_chunks() > self._summed_chunks:
            self._changed.notify()

    def _ready_chunks(self) -> int:
        """Return up to which chunk of the slice the next piece may reach."""
        arrived = min(self._arrived.get(c, 0) for c in self._contributors)
        if arrived == self._part_bytes:
            ready = self._chunks
        else:
            ready = arrived // chunk_bytes(self._context.codec)
            ready -= ready % self._least_chunks
        return min(ready, self._summed_chunks + self._most_chunks)

    # ---------------------------------------------------------------- summing

    async def run(self) -> None:
        """Sum and send until the slice is done, or until `close`."""
        with self._scope:
            try:
                while self._summed_chunks < self._chunks:
                    await self._changed.until(
                        lambda: self._stopped or self._ready_chunks() > self._summed_chunks
                    )
                    if self._stopped:
                        return
                    await self._sum(self._summed_chunks, self._ready_chunks())
            except PeerFault:
                # A part does not decode. The check of the whole part refuses its sender.
                self._fail()
        self._changed.notify()

    async def _sum(self, first: int, stop: int) -> None:
        context, codec = self._context, self._context.codec.result
        if not self._summed_chunks:
            self._acquire()
        start, end = self._element(first), self._element(stop)
        begin, behind = codec.size(start), codec.size(end)
        encoded = self._encoded[begin:behind]
        mean = self._mean[start:end]
        ranges = [
            (c, self._parts[c][context.codec.size(start) : context.codec.size(end)])
            for c in self._contributors
        ]

        def work() -> list[Digest]:
            weight = self._loss_weight(self._sums.mean(ranges, context.codec, mean, self.tally))
            if not self._in_place:
                codec.encode_into(mean, 1.0, encoded)
            if not codec.lossless:
                codec.add(encoded, -1.0, mean)
                np.multiply(mean, np.float32(weight), out=mean)
            return self._ports.commitment.leaves(encoded, chunk_bytes(codec))

        self._leaves += await self._ports.offload(work)
        self._summed_chunks = stop
        if not self._stopped:
            self._send(begin, encoded)

    def _loss_weight(self, total: int) -> int:
        return self._sums.loss_weight(total, self._plan.offers[self._me].samples, self._me)

    def _element(self, chunk: int) -> int:
        """Return the first element of a chunk, counted from the start of the slice."""
        return min(chunk * CHUNK_ELEMENTS, self._elements)

    def _acquire(self) -> None:
        self._encoded = self._results.memory(self._me)
        memory = (
            self._encoded if self._in_place else self._ports.buffers.acquire(4 * self._elements)
        )
        self._mean = np.frombuffer(memory, np.float32)

    @property
    def _in_place(self) -> bool:
        return self._context.codec.result.lossless and sys.byteorder == "little"

    # ---------------------------------------------------------------- sending

    def _send(self, begin: int, encoded: memoryview) -> None:
        header = ResultPieceHeader(
            plan=self._plan.digest, slice=self._me, start=begin, size=len(encoded)
        )
        self._send_to_others(parcel(header, encoded))

    def send_proof(self, result: Signed) -> None:
        """Send the proof of the whole result behind its pieces.

        A receiver without the pieces gets the whole result after the inclusion.
        """
        self._send_to_others(parcel(ResultProofHeader(result=result), memoryview(b"")))

    def _send_to_others(self, item: Parcel) -> None:
        self._pieces.append(item)
        for member in self._others():
            fingerprint = self._plan.offers[member].fingerprint
            self._ports.sender.send(self._plan.members[member], fingerprint, item)

    def _others(self) -> list[int]:
        """Return all other members, this node's successor first."""
        count = len(self._plan.members)
        return [(self._me + i) % count for i in range(1, count)]

    # ---------------------------------------------------------------- the outcome

    async def is_of(self, parts: Mapping[int, Buffer]) -> bool:
        """Wait for the sum. Return whether it is the sum of exactly these parts."""
        await self._changed.until(lambda: self._stopped or self._done)
        return (
            self._done
            and not self._stopped
            and self._parts.keys() == parts.keys()
            and all(parts[c] is part for c, part in self._parts.items())
        )

    @property
    def _stopped(self) -> bool:
        return self._failed or self._scope.cancel_called

    @property
    def _done(self) -> bool:
        return self._summed_chunks == self._chunks

    def outcome(self) -> tuple[memoryview, Digest, Vector | None]:
        """Return the encoded mean, its root, and weight x (mean - decoded).

        The last one is None where the codec loses nothing.
        """
        root = self._ports.commitment.root_of(self._leaves)
        lossless = self._context.codec.result.lossless
        return self._encoded, root, None if lossless else self._mean

    def _fail(self) -> None:
        self._failed = True
        self._changed.notify()

    def withdraw(self) -> None:
        """Stop, and drop the pieces that have not left."""
        for member in self._others():
            self._ports.sender.withdraw(self._plan.members[member], self._pieces)
        self.close()

    def close(self) -> None:
        """Stop, and forget all vectors."""
        self._scope.cancel()
        self._changed.notify()
        self._pieces.clear()
        self._parts.clear()
        self._encoded, self._mean = memoryview(b""), np.empty(0, np.float32)
