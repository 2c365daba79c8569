"""The data plane of a node runs at most one exchange, that of the current view.

Bytes for an exchange that is over are received and dropped, so that their stream stays in use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from daemon.services.training.native.exchange.all_reduce import EARLY_S, AllReduce
from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import (
    BulkHeader,
    ResultHeader,
    ResultPieceHeader,
    ResultProofHeader,
    SliceHeader,
)
from daemon.services.training.native.exchange.bulk_receiver import (
    ExpectedParcel,
    discard,
    serve_bulk,
)
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
    PartArrival,
)
from daemon.services.training.native.exchange.inter_group_reduce import GroupSumSample
from daemon.services.training.native.exchange.peer_links import note_part, note_sent
from daemon.services.training.native.exchange.result_buffer import OwnSums, ReceivedResults
from daemon.services.training.native.exchange.signal import Signal
from daemon.services.training.native.state.anchor import Anchor
from daemon.services.training.native.state.result_store import ResultStore
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from protocol.averaging.plan_sum import codec_of, step_terms
from protocol.averaging.reduction import GROUP_CODEC
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import codec_named
from protocol.contribution.offer import Offer
from protocol.digest import Digest, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, Signer, short
from protocol.messages.envelope import open_as
from protocol.messages.round import GroupSum, Inclusion, SliceResult
from protocol.planning.outcome import TrustFields, vote_for
from protocol.planning.plan import OpenPlan
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.round.actions import Reduce
from protocol.round.events import Event, OutcomeComputed

# The number of plans that are over and whose late bytes are dropped.
PLANS_KEPT = 16


def fingerprint_of(endpoint: Endpoint) -> Digest:
    """Return the name of a bulk endpoint in an offer."""
    return digest(endpoint.certificate)


class DataPlane:
    """Runs the exchanges of one node's rounds."""

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
        self.sender = BulkSender(network, self._endpoint_of, refuse, self._on_sent)
        self._run = run
        self._signer = signer
        self._codec = codec_named(codec)
        self._members = members
        self._offload, self._emit, self._refuse = offload, emit, refuse
        # The model's size; 0 until the first plan.
        self._parameters = 0
        self._current: AllReduce | None = None
        self._changed = Signal()
        self._over: deque[Digest] = deque(maxlen=PLANS_KEPT)
        self._reducing = trio.CancelScope()
        self._buffers = Buffers()
        self._download_meter = serve_bulk(network, self._accept, refuse, self._buffers)

    @property
    def uplink_bps(self) -> int:
        """The measured rate of this node's uplink.

        It is 0 until this link has limited a transfer of enough length.
        """
        return self.sender.meter.bps

    @property
    def downlink_bps(self) -> int:
        """The measured rate of this node's downlink; 0 as for `uplink_bps`."""
        return self._download_meter.bps

    # ---------------------------------------------------------------- carrying out a plan

    def scatter(self, plan: OpenPlan, offer: Offer, anchor: Anchor) -> None:
        """Begin the exchange of a plan, and end any other exchange."""
        self.abandon()
        self._parameters = anchor.parameters
        current = self._current = AllReduce(
            plan,
            offer,
            ExchangeContext(
                run=self._run,
                signer=self._signer,
                codec=codec_of(plan, self._codec),
                parameters=anchor.parameters,
            ),
            ExchangePorts(
                sender=self.sender,
                buffers=self._buffers,
                offload=self._offload,
                emit=self._emit,
                on_part=self._on_part,
                refuse=self._refuse,
            ),
        )
        offers = zip(plan.members, plan.offers, strict=True)
        self._members.link_estimates.note_coordinates(
            (peer, offer.coordinate) for peer, offer in offers
        )
        self._changed.notify()
        current.scatter()

    async def reduce(self, action: Reduce, anchor: Anchor, kept: ResultStore) -> None:
        """Carry out an inclusion in place of an earlier one, then emit `OutcomeComputed`.

        The mean goes to `kept` first: what a vote names must be durable on its keepers before they
        vote.
        """
        inclusion, name, outer, record = (
            action.inclusion,
            action.digest,
            action.outer,
            action.record,
        )
        current = self._current
        self._reducing.cancel()
        with trio.CancelScope() as self._reducing:
            if current is not None and current.plan.digest == inclusion.plan:
                result = await current.average(inclusion, name)
                plan = current.plan
                terms = step_terms(plan, inclusion.contributors)
                stepped = await anchor.step(current.results().mean, terms, outer, self._offload)
                trust = None
                if record is not None:
                    norm = stepped.norm / action.round_s
                    trust = TrustFields(record=record.digest, step_norm=norm)
                vote = vote_for(plan, (plan.plan.parent,), name, result, stepped.digest, trust)
                await kept.keep_outcome(vote, current.plan, inclusion, current.results().encoded())
                self._emit(OutcomeComputed(vote=vote))

    async def serve(self, inclusion: Inclusion, name: Digest) -> None:
        """Carry out an inclusion for the other members, and keep the state computed before."""
        current = self._current
        self._reducing.cancel()
        with trio.CancelScope() as self._reducing:
            if current is not None and current.plan.digest == inclusion.plan:
                await current.average(inclusion, name)

    def forward_results(self, plan: Digest, slices: tuple[int, ...], to: tuple[int, ...]) -> None:
        """Send the results of absent members to members that may lack them."""
        if self._current is not None and self._is_current(plan):
            self._current.forward_results(slices, to)

    def lost(self, peer: PeerId) -> None:
        """React to a member whose connection broke."""
        if self._current is not None:
            self._current.lost(peer)

    # ---------------------------------------------------------------- reading an exchange

    def own_sums(self, certificate: OpenCertificate) -> OwnSums:
        """Return what this node's own sums for a certificate left."""
        current, name = self._current, certificate.outcome.inclusion
        if current is None:
            return OwnSums()
        return OwnSums(
            losses=current.lost_by_encoding.get(name, []),
            kept=current.clip_shares() if current.inclusion_digest == name else {},
        )

    def received(self, certificate: OpenCertificate) -> ReceivedResults:
        """Return the results of other members for a certificate, as far as they arrived."""
        current = self._exchange_of(certificate)
        return current.received() if current is not None else {}

    def samples(self, certificate: OpenCertificate) -> list[GroupSumSample]:
        """Return the drawn chunks of other groups' sums for a certificate."""
        current = self._exchange_of(certificate)
        return current.samples() if current is not None else []

    def _exchange_of(self, certificate: OpenCertificate) -> AllReduce | None:
        current = self._current
        of_it = current is not None and current.inclusion_digest == certificate.outcome.inclusion
        return current if of_it else None

    # ---------------------------------------------------------------- ending a plan

    def abandon(self) -> None:
        """Stop the exchange of a view that has failed."""
        self._reducing.cancel()
        self.sender.clear(failed=self._current is not None)
        self.release()

    def release(self) -> None:
        """End the exchange of a round that is certified.

        Parcels on their way still arrive. A member that is behind needs them: with them it adopts
        the state instead of downloading it.
        """
        if self._current is not None:
            self._current.close()
            self._over.append(self._current.plan.digest)
        self._current = None

    def certified(self, plan: Digest) -> None:
        """Drop the bytes of a certified plan that this node does not carry out.

        Without this, a node in a later view kept those bytes waiting for the plan, and with them
        everything behind them on their streams. The next round then excluded the node as too slow.
        """
        if plan not in self._over and not self._is_current(plan):
            self._over.append(plan)
            self._changed.notify()

    # ---------------------------------------------------------------- receiving

    async def _accept(self, peer: PeerId, header: BulkHeader) -> ExpectedParcel:
        plan = self._plan_of(header)
        if plan not in self._over and not self._is_current(plan):
            await self._until_known(plan)
        if plan in self._over:
            longest = max(
                codec.size(self._parameters)
                for codec in (self._codec, self._codec.result, codec_named(GROUP_CODEC))
            )
            return ExpectedParcel(min(header.size, longest), discard)
        assert self._current is not None
        return await self._current.accept(peer, header)

    def _plan_of(self, header: BulkHeader) -> Digest:
        match header:
            case SliceHeader() | ResultPieceHeader():
                return header.plan
            case ResultHeader() | ResultProofHeader():
                return open_as(SliceResult, header.result, self._run).plan
        return open_as(GroupSum, header.summed, self._run).plan

    def _is_current(self, plan: Digest) -> bool:
        return self._current is not None and self._current.plan.digest == plan

    async def _until_known(self, plan: Digest) -> None:
        with trio.move_on_after(EARLY_S):
            await self._changed.until(lambda: plan in self._over or self._is_current(plan))
            return
        raise PeerFault("stale", "this node does not carry out the plan of these bytes")

    def _endpoint_of(self, peer: PeerId, fingerprint: Digest) -> Endpoint:
        endpoint = self._members.endpoint_of(peer, fingerprint, fingerprint_of)
        if endpoint is None:
            raise Unreachable(f"the beacon of {short(peer)} with its bulk endpoint has not arrived")
        return endpoint

    # ---------------------------------------------------------------- measuring

    def _on_part(self, arrival: PartArrival) -> None:
        note_part(self._members.link_estimates, arrival, self.downlink_bps)

    def _on_sent(self, peer: PeerId, size_bytes: int, seconds: float) -> None:
        if self._current is not None:
            plan, estimates = self._current.plan, self._members.link_estimates
            note_sent(estimates, plan, peer, size_bytes, seconds, self.uplink_bps)
