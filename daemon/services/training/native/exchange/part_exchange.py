"""Sends this node's parts to the members that sum them, and receives the parts that it sums."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from daemon.services.training.native.exchange.bulk_headers import Parcel, SliceHeader, parcel
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel
from daemon.services.training.native.exchange.early_exchange import EarlyExchange
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
    SliceSizes,
)
from daemon.services.training.native.exchange.part_buffer import PartBuffer
from daemon.services.training.native.exchange.signal import Signal
from protocol.contribution.offer import Offer
from protocol.digest import Buffer
from protocol.planning.plan import OpenPlan
from protocol.round.events import ContributionsReceived


class PartExchange:
    """The parts of one plan.

    `measured` is true until the first inclusion: the arrivals of parts that are sent again, or
    sent to a substitute, measure nothing.
    """

    def __init__(
        self,
        plan: OpenPlan,
        offer: Offer,
        context: ExchangeContext,
        ports: ExchangePorts,
        changed: Signal,
        early: EarlyExchange | None,
    ) -> None:
        """`changed` is notified of each part; `early` sums this node's slice as parts arrive."""
        self.measured = True
        self._plan, self._layout, self._ports = plan, plan.layout, ports
        self._changed, self._early = changed, early
        self._me = plan.index[context.signer.peer]
        self._group = self._layout.group_members(self._me)
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        self._buffer = PartBuffer(plan, offer, context, ports)
        self._has_offer = bool(offer.weight)
        # Each (slice, member) to which this node has sent its part, or need not send one.
        self._sent: set[tuple[int, int]] = {(i, self._me) for i in range(len(plan.members))}
        self._began_s = trio.current_time()

    # ---------------------------------------------------------------- sending

    def scatter(self) -> None:
        """Send each member of this group the part that the member sums.

        Each member begins with its successor, so that not all members send to the first one first.
        """
        place = self._group.index(self._me)
        for i in (*self._group[place + 1 :], *self._group[:place]):
            self._send_part(i, i)
        if self._early is not None:
            self._early.begin(self._buffer.own_parts(self._me))
        self._report_received()

    def send_to(self, owners: Sequence[int]) -> None:
        """Send each owner of this group's slices the parts that it lacks."""
        for i in self._group:
            self._send_part(i, owners[i])

    def _send_part(self, index: int, owner: int) -> None:
        if not self._has_offer or not self._layout.sums(index) or (index, owner) in self._sent:
            return
        self._sent.add((index, owner))
        payload = self._buffer.own(index)
        header = SliceHeader(
            plan=self._plan.digest,
            slice=index,
            proof=self._buffer.own_proof(index),
            size=len(payload),
        )
        self.send(owner, parcel(header, payload))

    def send(self, member: int, item: Parcel) -> None:
        """Queue a parcel for a member of the plan."""
        offer = self._plan.offers[member]
        self._ports.sender.send(self._plan.members[member], offer.fingerprint, item)

    def _report_received(self) -> None:
        if self._layout.sums(self._me):
            received = self._buffer.contributors(self._me)
            self._ports.emit(ContributionsReceived(plan=self._plan.digest, contributors=received))

    # ---------------------------------------------------------------- receiving

    def check_sender(self, contributor: int, header: SliceHeader) -> None:
        """Raise `PeerFault` unless the plan has `contributor` send this part."""
        self._buffer.check_sender(header.slice, contributor)

    def expect(self, contributor: int, header: SliceHeader) -> ExpectedParcel:
        """Expect a part from a sender that was checked."""

        async def receive(data: memoryview) -> None:
            await self._receive(header, contributor, data)

        early = self._early
        return ExpectedParcel(
            self._sizes.part_bytes(header.slice),
            receive,
            progress=None if early is None else early.arrivals_of(header.slice, contributor),
        )

    async def _receive(self, header: SliceHeader, contributor: int, data: memoryview) -> None:
        index = header.slice
        if (index, contributor) in self._buffer:
            return
        if index == self._me and self.measured:
            seconds = trio.current_time() - self._began_s
            self._ports.on_part(self._buffer.arrival(contributor, len(data), seconds))
        await self._buffer.receive(index, contributor, data, header.proof)
        self._changed.notify()
        if index == self._me:
            self._report_received()

    async def all_of(self, index: int, contributors: Sequence[int]) -> dict[int, Buffer]:
        """Wait for the contributors' parts for member `index`; return them in that order."""
        await self._changed.until(lambda: self._buffer.has_all(index, contributors))
        return self._buffer.parts(index, contributors)
