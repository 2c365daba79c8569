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
    Parcel,
    ResultHeader,
    SliceHeader,
    parcel,
)
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, discard
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
from daemon.services.training.native.exchange.part_buffer import PartBuffer
from daemon.services.training.native.exchange.result_buffer import (
    EncodingLosses,
    ReceivedResults,
    ResultBuffer,
)
from daemon.services.training.native.exchange.result_exchange import ResultExchange
from daemon.services.training.native.exchange.signal import Signal
from protocol.averaging.reduction import mean_of_groups
from protocol.averaging.vector_layout import Vector
from protocol.contribution.offer import Offer
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.messages.envelope import open_as
from protocol.messages.round import GroupSum, Inclusion, SliceResult
from protocol.planning.plan import OpenPlan
from protocol.round.events import ContributionsReceived
from protocol.rules.registry import rule_set

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
        self._began_s = trio.current_time()
        self._context, self._ports = context, ports
        self._me = plan.index[context.signer.peer]
        self._layout = plan.layout
        self._group = self._layout.group_members(self._me)
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        ports.buffers.next_round()
        self._has_offer = bool(offer.weight)
        self._parts = PartBuffer(plan, offer, context, ports)
        # Each (slice, member) to which this node has sent its part, or need not send one.
        self._sent: set[tuple[int, int]] = {(i, self._me) for i in range(len(plan.members))}
        # The results under the current inclusion; None until the leader's first inclusion arrives.
        self._results: ResultExchange | None = None
        self._earlier_inclusions: set[Digest] = set()
        self._gone: set[int] = set()
        self._changed = Signal()

    # ---------------------------------------------------------------- sending

    def scatter(self) -> None:
        """Send each member of this group the part that the member sums.

        Each member begins with its successor, so that not all members send to the first one first.
        """
        place = self._group.index(self._me)
        for i in (*self._group[place + 1 :], *self._group[:place]):
            self._send_part(i, i)
        self._report_received()

    def _send_part(self, index: int, owner: int) -> None:
        if not self._has_offer or not self._layout.sums(index) or (index, owner) in self._sent:
            return
        self._sent.add((index, owner))
        payload = self._parts.own(index)
        header = SliceHeader(
            plan=self.plan.digest,
            slice=index,
            proof=self._parts.own_proof(index),
            size=len(payload),
        )
        self._send(owner, parcel(header, payload))

    def _send(self, member: int, item: Parcel) -> None:
        offer = self.plan.offers[member]
        self._ports.sender.send(self.plan.members[member], offer.fingerprint, item)

    def _report_received(self) -> None:
        if self._layout.sums(self._me):
            received = self._parts.contributors(self._me)
            self._ports.emit(ContributionsReceived(plan=self.plan.digest, contributors=received))

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
            case ResultHeader():
                return await self._accept_result(header)
            case GroupSumHeader():
                return await self._accept_group_sum(contributor, header)

    async def _accept_part(self, contributor: int, header: SliceHeader) -> ExpectedParcel:
        self._parts.check_sender(header.slice, contributor)
        await self._until(lambda: header.slice == self._me or self._owns(header.slice))
        return ExpectedParcel(
            self._sizes.part_bytes(header.slice),
            lambda data: self._receive_part(header, contributor, data),
        )

    def _owns(self, index: int) -> bool:
        return self._results is not None and self._results.inclusion.owners[index] == self._me

    async def _receive_part(self, header: SliceHeader, contributor: int, data: memoryview) -> None:
        index = header.slice
        if (index, contributor) in self._parts:
            return
        if index == self._me and self._results is None:
            seconds = trio.current_time() - self._began_s
            self._ports.on_part(self._parts.arrival(contributor, len(data), seconds))
        await self._parts.receive(index, contributor, data, header.proof)
        self._changed.notify()
        if index == self._me:
            self._report_received()

    async def _accept_result(self, header: ResultHeader) -> ExpectedParcel:
        result = open_as(SliceResult, header.result, self._context.run)
        if result.inclusion in self._earlier_inclusions and result.slice < len(self.plan.members):
            return ExpectedParcel(self._sizes.result_bytes(result.slice), discard)
        return (await self._results_under(result.inclusion)).accept_result(header, result)

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
        if self._results is not None:
            self._earlier_inclusions.add(self._results.digest)
            self._results.closed = True
        results = self._results = ResultExchange(
            self.plan,
            ClosedSet(inclusion=inclusion, digest=digest),
            self._context,
            self._ports,
            self._changed,
            frozenset(self._gone),
        )
        self._changed.notify()
        if self._me in inclusion.contributors:
            for i in self._group:
                self._send_part(i, inclusion.owners[i])
        ours = [
            i
            for i, owner in enumerate(inclusion.owners)
            if owner == self._me and self._layout.sums(i)
        ]
        if results.inter_group is None:
            for i in ours:
                parts = await self._await_parts(i, inclusion.contributors)
                weighted = [(self.plan.offers[c].samples, data) for c, data in parts.items()]
                mean_of = rule_set(self.plan.rules).weighted_mean
                await self._finish(results, i, partial(mean_of, weighted, self._context.codec))
        else:
            await self._reduce_between_groups(results, results.inter_group, ours)
        await self._changed.until(lambda: results.results.complete)
        return results.results.root()

    async def _reduce_between_groups(
        self, results: ResultExchange, inter_group: InterGroupReduce, ours: list[int]
    ) -> None:
        # This node sends the sums for all groups before it finishes any slice. Otherwise two
        # members that also do each other's work could wait for each other.
        for i in ours:
            parts = await self._await_parts(
                i, inter_group.contributors_of(self._layout.group_of[i])
            )
            for index, member, item in await inter_group.sum_group(i, parts, self._send):
                results.keep_group_sum(index, member, item)
        for i in ours:
            if self._layout.finishes(i):
                await self._changed.until(lambda i=i: inter_group.has_all(i))  # type: ignore[misc]
                mean_of = rule_set(self.plan.rules).weighted_mean
                sums = inter_group.pop(i)
                await self._finish(results, i, partial(mean_of_groups, sums, mean_of=mean_of))

    async def _await_parts(self, index: int, contributors: Sequence[int]) -> dict[int, Buffer]:
        """Wait for the contributors' parts for member `index`."""
        await self._changed.until(lambda: self._parts.has_all(index, contributors))
        return self._parts.parts(index, contributors)

    async def _finish(
        self, results: ResultExchange, index: int, write_mean: Callable[[Vector], int]
    ) -> None:
        lost = await results.finish(index, write_mean)
        if lost is not None:
            self.lost_by_encoding.setdefault(results.digest, []).append(lost)

    # ---------------------------------------------------------------- results

    def received(self) -> ReceivedResults:
        """Return the results that other members reduced, by slice."""
        return self._results.results.received() if self._results is not None else {}

    def samples(self) -> list[GroupSumSample]:
        """Return the drawn chunks of other groups' sums that went into this node's slices."""
        return self._results.samples if self._results is not None else []

    def results(self) -> ResultBuffer:
        """Return the mean that the last `average` computed."""
        assert self._results is not None, "`results` is called after `average` has returned"
        return self._results.results
