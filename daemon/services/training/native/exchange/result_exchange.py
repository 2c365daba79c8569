"""Makes, receives, checks and passes on the results under one inclusion.

A result is the encoded mean of one slice, signed by the member that made it. The signature proves
the result, so any member may send it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from daemon.services.training.native.exchange.bulk_headers import (
    GroupSumHeader,
    Parcel,
    ResultHeader,
    ResultProofHeader,
    parcel,
    whole_only,
)
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel
from daemon.services.training.native.exchange.early_sum import EarlySum
from daemon.services.training.native.exchange.exchange_context import (
    ClosedSet,
    ExchangeContext,
    ExchangePorts,
    SliceSizes,
)
from daemon.services.training.native.exchange.inter_group_reduce import (
    GroupSumSample,
    InterGroupReduce,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from daemon.services.training.native.exchange.result_pieces import ResultPieces
from daemon.services.training.native.exchange.signal import Signal
from protocol.averaging.group_layout import receivers
from protocol.averaging.plan_sum import ClipTally
from protocol.averaging.vector_layout import Vector
from protocol.codec import chunk_bytes
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import short
from protocol.messages.base import Signed
from protocol.messages.envelope import sign
from protocol.messages.round import GroupSum, SliceResult
from protocol.planning.plan import OpenPlan
from protocol.round.events import ResultReceived


class ResultExchange:
    """The results under one inclusion.

    `closed` is true once a later inclusion has replaced this one: results that still arrive are
    ignored. No object that it refers to refers back: a cycle would keep its vectors until the
    garbage collector runs.
    """

    def __init__(
        self,
        plan: OpenPlan,
        closed_set: ClosedSet,
        context: ExchangeContext,
        ports: ExchangePorts,
        changed: Signal,
        gone: frozenset[int],
        results: ResultBuffer | None = None,
    ) -> None:
        """`changed` is notified of each result; `gone` are the members that are lost already.

        `results` has the memory that pieces of results were received into, if there is any.
        """
        self.inclusion, self.digest = closed_set.inclusion, closed_set.digest
        self.closed = False
        self._plan, self._layout = plan, plan.layout
        self._context, self._ports, self._changed = context, ports, changed
        self._me = plan.index[context.signer.peer]
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        self.results = results or ResultBuffer(
            plan.layout, context.codec.result, context.parameters, ports.buffers
        )
        # Only a plan of several groups has this.
        self.inter_group = (
            InterGroupReduce(plan, closed_set, context, ports)
            if len(plan.layout.groups) > 1
            else None
        )
        # What the clip left of the contributions that this node summed.
        self.tally = self.inter_group.tally if self.inter_group is not None else ClipTally()
        # By slice: the result that this node made.
        self._finished: dict[int, Parcel] = {}
        # Each (slice, member) to which this node has sent the slice's result.
        self._passed: set[tuple[int, int]] = set()
        self._gone = set(gone)
        # By slice: this group's sums, each with the member that it was sent to.
        self._group_sums: dict[int, list[tuple[int, Parcel]]] = {}

    def clip_shares(self) -> dict[int, float]:
        """Return which share of each contribution the clip left, by member of the plan."""
        return self.tally.shares()

    @property
    def samples(self) -> list[GroupSumSample]:
        """The drawn chunks of other groups' sums that went into this node's slices."""
        return self.inter_group.samples if self.inter_group is not None else []

    # ---------------------------------------------------------------- receiving

    def _check_owner(self, signed: Signed, result: SliceResult) -> None:
        if result.slice >= len(self._plan.members):
            raise PeerFault("malformed", f"a result for slice {result.slice}")
        owner = self._plan.members[self.inclusion.owners[result.slice]]
        if signed.peer != owner:
            raise PeerFault("not_member", f"{short(signed.peer)} does not own slice {result.slice}")

    def accept_proof(
        self, header: ResultProofHeader, result: SliceResult, pieces: ResultPieces
    ) -> ExpectedParcel:
        """Expect the proof of a result that came in pieces; raises as `accept_result` does."""
        self._check_owner(header.result, result)

        async def prove(_: memoryview) -> None:
            if self.closed or result.slice in self.results:
                return
            taken = pieces.take(result.slice)
            if taken is None:
                raise Unreachable(f"pieces of the result of slice {result.slice} are missing")
            encoded, root = taken
            if root != result.root:
                raise _wrong_root(result)
            self._complete(result.slice, root, encoded, header.result)

        return ExpectedParcel(0, prove)

    def accept_result(self, header: ResultHeader, result: SliceResult) -> ExpectedParcel:
        """Expect a result. Raises `PeerFault` unless its signer owns the slice."""
        self._check_owner(header.result, result)
        return ExpectedParcel(
            self._sizes.result_bytes(result.slice),
            partial(self._receive, header.result, result),
            partial(self.results.memory, result.slice),
        )

    async def _receive(self, signed: Signed, result: SliceResult, data: memoryview) -> None:
        if self.closed or result.slice in self.results:
            return
        start, stop = self._sizes.elements(result.slice)
        codec = self._context.codec.result

        def check() -> None:
            if self._ports.commitment.root(data, chunk_bytes(codec)) != result.root:
                raise _wrong_root(result)
            codec.check(data, stop - start)

        await self._ports.offload(check)
        if not self.closed and result.slice not in self.results:
            if self.inter_group is not None:
                item = parcel(ResultHeader(result=signed, size=len(data)), data)
                self._pass_on(result.slice, item)
            self._complete(result.slice, result.root, data, signed)

    def accept_group_sum(
        self, contributor: int, header: GroupSumHeader, summed: GroupSum
    ) -> ExpectedParcel:
        """Expect another group's sum. Raises `PeerFault` where this plan has one group."""
        if self.inter_group is None:
            raise PeerFault("not_member", "the plan has one group, so no group's sum is needed")
        return self.inter_group.accept(contributor, header, summed, self._changed.notify)

    # ---------------------------------------------------------------- making

    def keep_group_sum(self, index: int, member: int, item: Parcel) -> None:
        """Keep a sum that was sent for slice `index`, until the slice's result arrives."""
        self._group_sums.setdefault(index, []).append((member, item))

    async def finish(
        self, index: int, write_mean: Callable[[Vector], int]
    ) -> tuple[int, Vector] | None:
        """Encode, sign and send the mean of a slice.

        `write_mean` writes the mean and returns its weight.

        Returns:
            What encoding lost, as (first element, weight x (mean - decoded)); None where the codec
            loses nothing.
        """
        start, stop = self._sizes.elements(index)
        codec, commitment = self._context.codec.result, self._ports.commitment
        encoded = self.results.memory(index)
        memory = (
            encoded
            if codec.lossless and sys.byteorder == "little"
            else self._ports.buffers.acquire(4 * (stop - start))
        )

        def work() -> tuple[Digest, Vector | None]:
            mean = np.frombuffer(memory, np.float32)
            weight = write_mean(mean)
            if memory is not encoded:
                codec.encode_into(mean, 1.0, encoded)
            root = commitment.root(encoded, chunk_bytes(codec))
            if codec.lossless:
                return root, None
            # The mean becomes what encoding lost.
            codec.add(encoded, -1.0, mean)
            return root, np.multiply(mean, np.float32(weight), out=mean)

        root, error = await self._ports.offload(work)
        self._publish(index, encoded, root, in_pieces=False)
        return None if error is None else (start, error)

    def finish_pieces(
        self, index: int, total: EarlySum, *, proved: bool
    ) -> tuple[int, Vector] | None:
        """Sign the mean of a slice whose pieces were sent, and send the proof; see `finish`.

        `proved` says that the proof has left already.
        """
        encoded, root, error = total.outcome()
        self._publish(index, encoded, root, in_pieces=True, proved=proved)
        return None if error is None else (self._sizes.elements(index)[0], error)

    def _publish(
        self,
        index: int,
        encoded: memoryview,
        root: Digest,
        *,
        in_pieces: bool,
        proved: bool = False,
    ) -> None:
        result = SliceResult(plan=self._plan.digest, inclusion=self.digest, slice=index, root=root)
        signed = sign(self._context.signer, self._context.run, result)
        whole = parcel(ResultHeader(result=signed, size=len(encoded)), encoded)
        self._finished[index] = whole
        proof = (
            whole_only(whole)
            if proved
            else parcel(ResultProofHeader(result=signed), memoryview(b""), whole=whole)
        )
        self._pass_on(index, proof if in_pieces else whole)
        self._complete(index, root, encoded)

    def _complete(
        self, index: int, root: Digest, encoded: Buffer, signed: Signed | None = None
    ) -> None:
        self.results.put(index, root, encoded, signed)
        for member, item in self._group_sums.pop(index, ()):
            self._ports.sender.forget(self._plan.members[member], item)
        self._ports.emit(ResultReceived(inclusion=self.digest, slice=index))
        self._changed.notify()

    # ---------------------------------------------------------------- passing on

    def _pass_on(self, index: int, item: Parcel) -> None:
        """Send a result to the members that receive it from this node."""
        for member in receivers(self._layout, self.inclusion, index, self._me, self._gone):
            self._send(index, member, item)

    def lost(self, member: int) -> None:
        """Send the group of a lost member what that member would have passed on."""
        self._gone.add(member)
        for index, item in self._finished.items():
            self._pass_on(index, item)

    def forward_results(self, slices: Sequence[int], to: Sequence[int]) -> None:
        """Send results that others signed to members that may lack them."""
        made = self.results.received()
        for index in slices:
            if index in made:
                signed, encoded = made[index]
                item = parcel(ResultHeader(result=signed, size=len(encoded)), memoryview(encoded))
                for member in to:
                    self._send(index, member, item)

    def _send(self, index: int, member: int, item: Parcel) -> None:
        if (index, member) not in self._passed:
            self._passed.add((index, member))
            offer = self._plan.offers[member]
            self._ports.sender.send(self._plan.members[member], offer.fingerprint, item)


def _wrong_root(result: SliceResult) -> PeerFault:
    return PeerFault(
        "bad_proof", f"the result of slice {result.slice} does not match its signature"
    )
