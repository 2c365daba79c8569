"""Which exchange is being carried out: at most one, that of the current view.

Bytes for one that is over are read and dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from daemon.services.training.native.audit.auditor import Results
from daemon.services.training.native.exchange.all_reduce import EARLY_S, AllReduce
from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import (
    BulkHeader,
    ResultHeader,
    SliceHeader,
)
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, serve_bulk
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from daemon.services.training.native.exchange.inter_group_reduce import GroupSumSample
from daemon.services.training.native.state.anchor import Anchor
from daemon.services.training.native.state.state_sync import Credits
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from protocol.averaging.reduction import GROUP_CODEC
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import codec_named
from protocol.contribution.ledger import Offer
from protocol.digest import Digest, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, Signer, short
from protocol.messages.envelope import open_as
from protocol.messages.round import GroupSum, Inclusion, SliceResult, Vote
from protocol.planning.plan import OpenPlan
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.round.events import Event, OutcomeComputed

# Plans whose late bytes are read and dropped, so that the lane they come on stays in use.
PLANS_KNOWN = 16


def fingerprint_of(endpoint: Endpoint) -> Digest:
    """What Ready says of a bulk endpoint."""
    return digest(endpoint.certificate)


class DataPlane:
    """The data plane of one node's rounds."""

    def __init__(
        self,
        *,
        network: Network,
        run: Digest,
        signer: Signer,
        codec: str,
        members: Members,
        offload: Offload,
        emit: Callable[[Event], None],
        refuse: Refuse,
    ) -> None:
        self.sender = BulkSender(network, self._endpoint_of, refuse, self._moved)
        self._run = run
        self._signer = signer
        self._codec = codec_named(codec)
        self._members = members
        self._offload, self._emit = offload, emit
        self._parameters = 0
        self._current: AllReduce | None = None
        self._changed = trio.Event()
        self._over: deque[Digest] = deque(maxlen=PLANS_KNOWN)
        self._reducing = trio.CancelScope()
        self._buffers = Buffers()
        self._received = serve_bulk(network, self._accept, refuse, self._buffers)

    @property
    def uplink_bps(self) -> int:
        """What our link was seen to carry, bits a second; 0 when it was never the slow part of a
        transfer long enough to tell.
        """
        return self.sender.meter.bits

    @property
    def downlink_bps(self) -> int:
        """As `uplink_bps`, for what we receive."""
        return self._received.bits

    def scatter(self, plan: OpenPlan, offer: Offer, anchor: Anchor) -> None:
        """Begin the exchange of a plan, and end any other."""
        self.abandon()
        self._parameters = anchor.parameters
        self._current = AllReduce(
            plan=plan,
            run=self._run,
            signer=self._signer,
            offer=offer,
            codec=self._codec,
            parameters=anchor.parameters,
            sender=self.sender,
            buffers=self._buffers,
            offload=self._offload,
            emit=self._emit,
            seen=self._sent_us,
        )
        offers = zip(plan.members, plan.offers, strict=True)
        self._members.neighbours.placed((peer, offer.coordinate) for peer, offer in offers)
        self._changed.set()
        self._changed = trio.Event()
        self._current.scatter()

    def _sent_us(
        self, peer: PeerId, all_bytes: int, our_bytes: int, taken_bytes: int, seconds: float
    ) -> None:
        """A member's part is here; we took `taken_bytes` from everybody meanwhile, or nearly."""
        self._members.neighbours.sent_us(
            peer, all_bytes, our_bytes, seconds, _busy(taken_bytes, seconds, self.downlink_bps)
        )

    def _moved(self, peer: PeerId, size_bytes: int, seconds: float) -> None:
        """Everybody in a row sends a member as much as we do: its part, or what is finished.

        We sent the others about as much meanwhile.
        """
        plan = self._current.plan if self._current is not None else None
        if plan is not None and peer in plan.index:
            others = len(plan.layout.group_members(plan.index[peer])) - 1
            self._members.neighbours.took(
                peer,
                size_bytes * others,
                size_bytes,
                seconds,
                _busy(size_bytes * others, seconds, self.uplink_bps),
            )

    async def reduce(self, cut: Inclusion, name: Digest, anchor: Anchor) -> None:
        """Carry out a cut of the current plan, in place of an earlier one, and compute the state it
        leads to.
        """
        current = self._current
        self._reducing.cancel()
        with trio.CancelScope() as self._reducing:
            if current is not None and current.plan.digest == cut.plan:
                result = await current.average(cut, name)
                counted = [current.plan.offers[i] for i in cut.contributors]
                state = await anchor.step(current.gathered().mean, counted, self._offload)
                self._emit(OutcomeComputed(vote=_vote(current.plan, name, result, state)))

    async def serve(self, cut: Inclusion, name: Digest) -> None:
        """Carry out a cut for the others' sake: what was computed under the one before stays."""
        current = self._current
        self._reducing.cancel()
        with trio.CancelScope() as self._reducing:
            if current is not None and current.plan.digest == cut.plan:
                await current.average(cut, name)

    def hand_on(self, plan: Digest, slices: tuple[int, ...], to: tuple[int, ...]) -> None:
        """Send results that others made, who are absent now, to members that may lack them."""
        if self._current is not None and self._is_current(plan):
            self._current.hand_on(slices, to)

    def credits(self, certificate: OpenCertificate) -> Credits:
        """What encoding lost of the slices summed here for this certificate."""
        current = self._current
        return (
            current.lost_by_encoding.get(certificate.outcome.inclusion, [])
            if current is not None
            else []
        )

    def received(self, certificate: OpenCertificate) -> Results:
        """What others summed for this certificate, as far as it came here."""
        current = self._current
        return (
            current.received()
            if current is not None and current.cut_digest == certificate.outcome.inclusion
            else {}
        )

    def samples(self, certificate: OpenCertificate) -> list[GroupSumSample]:
        """Chunks of what others summed of their rows for this certificate, as far as this member
        draws them.
        """
        current = self._current
        return (
            current.samples()
            if current is not None and current.cut_digest == certificate.outcome.inclusion
            else []
        )

    def abandon(self) -> None:
        """The view came to nothing: neither sum nor send for it any more."""
        self._reducing.cancel()
        self.sender.clear(failed=self._current is not None)
        self.let_go()

    def certified(self, plan: Digest) -> None:
        """A certificate made from this plan is here.

        Whoever was in a later view and never carried it out lets its bytes pass: kept waiting for
        the plan, they held up all that came behind them on their lanes, and the next round left
        this member out as too slow.
        """
        if plan not in self._over and not self._is_current(plan):
            self._over.append(plan)
            self._changed.set()
            self._changed = trio.Event()

    def let_go(self) -> None:
        """The round is certified.

        What is on its way goes on its way: a member that is behind needs it to adopt and not to
        download.
        """
        if self._current is not None:
            self._over.append(self._current.plan.digest)
        self._current = None

    async def _accept(self, peer: PeerId, header: BulkHeader) -> ExpectedParcel:
        plan = self._plan_of(header)
        if plan not in self._over and not self._is_current(plan):
            await self._until_known(plan)
        if plan in self._over:
            longest = max(
                codec.size(self._parameters)
                for codec in (self._codec, self._codec.result, codec_named(GROUP_CODEC))
            )
            return ExpectedParcel(min(header.size, longest), _discard)
        assert self._current is not None
        return await self._current.accept(peer, header)

    def _plan_of(self, header: BulkHeader) -> Digest:
        match header:
            case SliceHeader():
                return header.plan
            case ResultHeader():
                return open_as(SliceResult, header.result, self._run).plan
        return open_as(GroupSum, header.summed, self._run).plan

    def lost(self, peer: PeerId) -> None:
        """The connection to a member broke."""
        if self._current is not None:
            self._current.lost(peer)

    def _is_current(self, plan: Digest) -> bool:
        return self._current is not None and self._current.plan.digest == plan

    async def _until_known(self, plan: Digest) -> None:
        with trio.move_on_after(EARLY_S):
            while plan not in self._over and not self._is_current(plan):
                await self._changed.wait()
            return
        raise PeerFault("stale", "bytes for a plan that is not being carried out here")

    def _endpoint_of(self, peer: PeerId, fingerprint: Digest) -> Endpoint:
        endpoint = self._members.endpoint_of(peer, fingerprint, fingerprint_of)
        if endpoint is None:
            raise Unreachable(
                f"the beacon of {short(peer)} with its bulk endpoint has not come yet"
            )
        return endpoint


def _busy(size_bytes: int, seconds: float, most_bits: int) -> float:
    """What a link carried, as a share of the most that it was seen to; 0 where that is not known."""
    return 8 * size_bytes / seconds / most_bits if most_bits and seconds > 0 else 0.0


def _vote(plan: OpenPlan, cut: Digest, result: Digest, state: Digest) -> Vote:
    parent, number, view = plan.plan.parent, plan.plan.number, plan.plan.view
    return Vote(
        parents=(parent,),
        number=number,
        view=view,
        plan=plan.digest,
        inclusion=cut,
        result=result,
        state=state,
    )


async def _discard(data: memoryview) -> None:
    """Bytes of a view that is over."""
