"""Exchanges the parts, sums and results of one view, and checks each of them.

Everything that a member sends is checked against the plan. A part must lead to the digest that the
member offered, a result to the digest that its reducer signed. Numeric work goes through `Offload`,
one slice at a time, so that no call blocks the event loop for long.

No vector is copied on its way. Parts are sent from the offer's encoding; results are kept as they
arrive and decoded where they are needed. At float32 that is the offer (1 vector), what a reducer
received ((n-1)/n) and the results (1): less than 3 vectors.

In a plan of several groups a member scatters within its group. The sums of each group pass between
the members at one position (`inter_group_reduce.py`). These members finish their shares of the sums
and pass the results to each other. Each member then passes the results to its own group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from daemon.services.training.native.exchange.bulk_headers import (
    BulkHeader,
    GroupSumHeader,
    ResultHeader,
    ResultPieceHeader,
    ResultProofHeader,
    SliceHeader,
)
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, discard
from daemon.services.training.native.exchange.early_exchange import EarlyExchange
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
from daemon.services.training.native.exchange.part_exchange import PartExchange
from daemon.services.training.native.exchange.result_buffer import (
    EncodingLosses,
    ReceivedResults,
    ResultBuffer,
)
from daemon.services.training.native.exchange.result_exchange import ResultExchange
from daemon.services.training.native.exchange.signal import Signal
from protocol.averaging.inclusion import expected_contributors
from protocol.averaging.plan_sum import PlanSum
from protocol.averaging.vector_layout import Vector
from protocol.contribution.offer import Offer
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.messages.envelope import open_as
from protocol.messages.round import GroupSum, Inclusion, SliceResult
from protocol.planning.plan import OpenPlan

# How long bytes that arrive before their inclusion wait for it.
EARLY_S = 15.0


class AllReduce:
    """The exchange of one plan. Its owner cancels `average` when the view ends."""

    def __init__(
        self, plan: OpenPlan, offer: Offer, context: ExchangeContext, ports: ExchangePorts
    ) -> None:
        self.plan = plan
        # By inclusion: what encoding lost of the slices that this node finished, as
        # (first element, weight x (mean - decoded)).
        self.lost_by_encoding: dict[Digest, EncodingLosses] = {}
        self._context, self._ports = context, ports
        self._me = plan.index[context.signer.peer]
        self._layout = plan.layout
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        ports.buffers.next_round()
        self._changed = Signal()
        # None in a plan of several groups.
        self._early = EarlyExchange(plan, context, ports) if len(self._layout.groups) == 1 else None
        self._parts = PartExchange(plan, offer, context, ports, self._changed, self._early)
        # The results under the current inclusion; None until the leader's first inclusion arrives.
        self._results: ResultExchange | None = None
        self._earlier_inclusions: set[Digest] = set()
        self._gone: set[int] = set()
        self._scope = trio.CancelScope()

    # ---------------------------------------------------------------- sending

    def scatter(self) -> None:
        """Send each member of this group the part that the member sums."""
        self._parts.scatter()
        if self._early is not None and self._layout.sums(self._me):
            self._ports.sender.start_soon(self._prove_early)

    async def _prove_early(self) -> None:
        """Prove this node's result as soon as all parts of it are here and checked."""
        assert self._early is not None
        with self._scope:
            wanted = expected_contributors(self.plan)
            await self._early.prove(await self._parts.all_of(self._me, wanted))

    def forward_results(self, slices: Sequence[int], to: Sequence[int]) -> None:
        """Send results that others signed to members that may lack them."""
        if self._results is not None:
            self._results.forward_results(slices, to)

    def lost(self, peer: PeerId) -> None:
        """Send the group of a lost member what that member would have passed on."""
        member = self.plan.index.get(peer)
        if member is not None and len(self._layout.groups) > 1:
            self._gone.add(member)
            if self._results is not None:
                self._results.lost(member)

    # ---------------------------------------------------------------- receiving

    async def accept(self, peer: PeerId, header: BulkHeader) -> ExpectedParcel:
        """Expect a parcel of this plan. Raises `PeerFault` for an unwanted parcel.

        An early parcel waits: its inclusion may be on the way.
        """
        contributor = self.plan.index.get(peer)
        if contributor is None:
            raise PeerFault("not_member", "bytes from a peer that is not in the plan")
        match header:
            case SliceHeader():
                return await self._accept_part(contributor, header)
            case ResultHeader() | ResultProofHeader():
                return await self._accept_result(header)
            case ResultPieceHeader():
                if self._early is None or header.slice >= len(self.plan.members):
                    raise PeerFault("malformed", "a piece of a result that the plan does not have")
                return self._early.pieces.accept(contributor, header)
            case GroupSumHeader():
                return await self._accept_group_sum(contributor, header)

    async def _accept_part(self, contributor: int, header: SliceHeader) -> ExpectedParcel:
        self._parts.check_sender(contributor, header)
        await self._until(lambda: header.slice == self._me or self._owns(header.slice))
        return self._parts.expect(contributor, header)

    def _owns(self, index: int) -> bool:
        return self._results is not None and self._results.inclusion.owners[index] == self._me

    async def _accept_result(self, header: ResultHeader | ResultProofHeader) -> ExpectedParcel:
        result = open_as(SliceResult, header.result, self._context.run)
        proof = isinstance(header, ResultProofHeader)
        if result.inclusion in self._earlier_inclusions and result.slice < len(self.plan.members):
            size = 0 if proof else self._sizes.result_bytes(result.slice)
            return ExpectedParcel(size, discard)
        if (
            isinstance(header, ResultProofHeader)
            and self._early is not None
            and self._early.expects(result)
        ):
            return self._early.accept_proof(header, result)
        results = await self._results_under(result.inclusion)
        if not isinstance(header, ResultProofHeader):
            return results.accept_result(header, result)
        if self._early is None:
            raise PeerFault("malformed", "a proof without pieces")
        return results.accept_proof(header, result, self._early.pieces)

    async def _accept_group_sum(self, contributor: int, header: GroupSumHeader) -> ExpectedParcel:
        summed = open_as(GroupSum, header.summed, self._context.run)
        if summed.inclusion in self._earlier_inclusions:
            most = self._sizes.largest_part_bytes
            return ExpectedParcel(header.size if header.size <= most else 0, discard)
        results = await self._results_under(summed.inclusion)
        return results.accept_group_sum(contributor, header, summed)

    async def _results_under(self, inclusion: Digest) -> ResultExchange:
        """Wait until `inclusion` is the current one; return its results."""
        await self._until(lambda: self.inclusion_digest == inclusion)
        if self._results is None:
            raise PeerFault("malformed", "the bytes name an inclusion without a digest")
        return self._results

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait until bytes are wanted, and let their sender wait. Raises `PeerFault("stale")`."""
        with trio.move_on_after(EARLY_S):
            await self._changed.until(reached)
            return
        raise PeerFault("stale", "the current inclusion does not ask for these bytes")

    # ---------------------------------------------------------------- averaging

    @property
    def inclusion_digest(self) -> Digest:
        """Names the current inclusion; empty before the first one."""
        return self._results.digest if self._results is not None else b""

    async def average(self, inclusion: Inclusion, digest: Digest) -> Digest:
        """Carry out an inclusion until the result of every slice has arrived.

        Results under an earlier inclusion are discarded.

        Returns:
            The root over the results.
        """
        first = self._results is None
        if self._results is not None:
            self._earlier_inclusions.add(self._results.digest)
            self._results.closed = True
        early = self._early.results_for(inclusion, first=first) if self._early else None
        if self._early is not None and digest != self._early.expected:
            self._earlier_inclusions.add(self._early.expected)
        results = self._results = ResultExchange(
            self.plan,
            ClosedSet(inclusion=inclusion, digest=digest),
            self._context,
            self._ports,
            self._changed,
            frozenset(self._gone),
            early,
        )
        self._parts.measured = False
        self._changed.notify()
        if self._early is not None:
            await self._early.use_proofs(results)
        if self._me in inclusion.contributors:
            self._parts.send_to(inclusion.owners)
        ours = [
            i
            for i, owner in enumerate(inclusion.owners)
            if owner == self._me and self._layout.sums(i)
        ]
        if results.inter_group is None:
            for i in ours:
                await self._reduce(results, i)
        else:
            await self._reduce_between_groups(results, results.inter_group, ours)
        await self._changed.until(lambda: results.results.complete)
        return results.results.root()

    async def _reduce(self, results: ResultExchange, index: int) -> None:
        parts = await self._parts.all_of(index, results.inclusion.contributors)
        total = await self._early.total_of(index, parts) if self._early is not None else None
        if total is not None:
            results.tally = total.tally
            early = self._early
            proved = early is not None and early.proved and results.digest == early.expected
            self._note_loss(results, results.finish_pieces(index, total, proved=proved))
            return
        sums = PlanSum(self.plan, results.inclusion.contributors, self._context.parameters)
        given = list(parts.items())

        def write_mean(mean: Vector) -> int:
            return self._loss_weight(
                sums, sums.mean(given, self._context.codec, mean, results.tally)
            )

        await self._finish(results, index, write_mean)

    def _loss_weight(self, sums: PlanSum, total: int) -> int:
        return sums.loss_weight(total, self.plan.offers[self._me].samples, self._me)

    async def _reduce_between_groups(
        self, results: ResultExchange, inter_group: InterGroupReduce, ours: list[int]
    ) -> None:
        # This node sends the sums for all groups before it finishes any slice. Otherwise two
        # members that also do each other's work could wait for each other.
        for i in ours:
            parts = await self._parts.all_of(
                i, inter_group.contributors_of(self._layout.group_of[i])
            )
            for index, member, item in await inter_group.sum_group(i, parts, self._parts.send):
                results.keep_group_sum(index, member, item)
        for i in ours:
            if self._layout.finishes(i):
                await self._changed.until(lambda i=i: inter_group.has_all(i))  # type: ignore[misc]
                await self._finish(
                    results, i, partial(self._mean_of_groups, inter_group, inter_group.pop(i))
                )

    def _mean_of_groups(
        self, inter_group: InterGroupReduce, means: list[tuple[int, Buffer]], out: Vector
    ) -> int:
        return self._loss_weight(inter_group.sums, inter_group.sums.mean_of_groups(means, out))

    async def _finish(
        self, results: ResultExchange, index: int, write_mean: Callable[[Vector], int]
    ) -> None:
        self._note_loss(results, await results.finish(index, write_mean))

    def _note_loss(self, results: ResultExchange, lost: tuple[int, Vector] | None) -> None:
        if lost is not None:
            self.lost_by_encoding.setdefault(results.digest, []).append(lost)

    def close(self) -> None:
        """End what runs beside `average`: the plan is over."""
        self._scope.cancel()
        if self._early is not None:
            self._early.close()

    # ---------------------------------------------------------------- results

    def received(self) -> ReceivedResults:
        """Return the results that other members reduced, by slice."""
        return self._results.results.received() if self._results is not None else {}

    def samples(self) -> list[GroupSumSample]:
        """Return the drawn chunks of other groups' sums that went into this node's slices."""
        return self._results.samples if self._results is not None else []

    def clip_shares(self) -> dict[int, float]:
        """Return which share of each contribution the clip left in what this node summed.

        The shares are by member of the plan, of the last inclusion; empty where nothing is clipped.
        """
        return self._results.clip_shares() if self._results is not None else {}

    def results(self) -> ResultBuffer:
        """Return the mean that the last `average` computed."""
        assert self._results is not None, "`results` is called after `average` has returned"
        return self._results.results
