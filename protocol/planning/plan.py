"""The plan: who averages with whom, a pure function of the Ready messages and the run's rules.

A member that carries out a plan makes it again from the offers inside and compares (`open_plan`).
So a leader can choose whose offers it waits for, and nothing else. The majority that voted under a
certificate's digest checked its plan in this way. Later readers check signatures and shape
(`read_plan`) and never plan again: a run outlives the code that planned its rounds.

Up to `max_group` members form one group, in which slices follow the members' bandwidths
(`protocol/averaging/slice_sizes.py`). If several groups are faster, or one may not be so large,
near members form groups, by what they measured of each other
(`protocol/network/network_snapshot.py`). `protocol/averaging/group_layout.py` says what each member
then sums and finishes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from protocol.averaging.group_layout import GroupLayout, layout
from protocol.averaging.plan_terms import check_terms
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, MAX_PARAMETERS
from protocol.chain.account_binding import wallet_of_offer
from protocol.codec import chunk_bytes, codec_named
from protocol.codec.wide_results import with_results_for
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.membership.invited import invited_by
from protocol.membership.record import MembershipRecord
from protocol.membership.role import Role, roles_in
from protocol.membership.terms import terms_by_record
from protocol.messages.base import MAX_REASON_CHARS, Signed
from protocol.messages.envelope import open_as
from protocol.messages.kinds import check_kinds
from protocol.messages.offer import Ready
from protocol.messages.round import PacedPlan, Plan, TrustPlan
from protocol.messages.sum_terms import SumTerms
from protocol.network.network_snapshot import NetworkSnapshot, snapshot_of
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_proposals import GroupBounds
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.paced_plan import check_length, paced
from protocol.planning.paths import without_path
from protocol.planning.places import RANKS, choose_among_members, placed
from protocol.planning.relay_load import relay_text
from protocol.planning.round_length import round_length
from protocol.planning.time_model import TimeModel
from protocol.planning.vector_sizes import VectorSizes
from protocol.rules.registry import rule_set, rules_of
from protocol.rules.versions import CURRENT_RULES, RULES_4
from protocol.run.admission import check_admission
from protocol.run.manifest import MAX_GROUP_LIMIT, Manifest


class OpenPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan whose offers are decoded and checked. Member i is `members[i]` everywhere."""

    plan: Plan
    digest: Digest
    leader: PeerId
    members: tuple[PeerId, ...]
    offers: tuple[Ready, ...]
    # The version of the rules that the run's manifest names.
    rules: int = CURRENT_RULES
    # Whether members train during the exchange.
    overlap: bool = False
    # The run's admission policy.
    policy: str = "open"

    @property
    def layout(self) -> GroupLayout:
        """Which member sums and finishes which chunks."""
        return layout(self.plan, rule_set(self.rules).share_out)

    @property
    def index(self) -> dict[PeerId, int]:
        """The index of each member."""
        return {peer: i for i, peer in enumerate(self.members)}

    @property
    def majority(self) -> int:
        """The number of votes that make a certificate."""
        return len(self.members) // 2 + 1


Offer = tuple[Signed, Ready]


class PlanTrust(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan of rules 4 needs beside its offers."""

    run: Digest
    # The record of the (preferred) parent.
    record: MembershipRecord
    # What the plan lists; see `TrustPlan`.
    parent_votes: tuple[tuple[PeerId, bytes], ...] = ()
    leaves: tuple[Signed, ...] = ()
    revocations: tuple[Signed, ...] = ()


def make_plan(
    parent: Digest,
    view: int,
    number: int,
    offers: Iterable[Offer],
    manifest: Manifest,
    chunks: int,
    *,
    leader: PeerId = "",
    before: GroupSizeHistory | None = None,
    round_s: float | None = None,
    trust: PlanTrust | None = None,
) -> Plan:
    """Make the plan for these offers, where the parent's plan left `before` and `round_s`.

    `trust` is for runs of rules 4, which plan by roles (`places.py`).

    If more nodes are ready than a plan can hold, a hash that changes with every view decides whose
    work waits a round. A node that is too slow for the manifest's deadlines is left out, and its
    work waits too. The leader is never left out: a peer outside a plan does not carry it out.
    """
    group, rules = manifest.group, rules_of(manifest)
    by_peer = {signed.peer: (signed, ready) for signed, ready in offers}
    if len(by_peer) < group.min_peers:
        raise ValueError(f"{len(by_peer)} offers cannot make a plan of at least {group.min_peers}")
    roles = _roles(by_peer, manifest, trust)
    drawn = sorted(
        by_peer,
        key=lambda peer: (peer != leader, digest(parent, view.to_bytes(8, "big"), peer.encode())),
    )
    apart: dict[PeerId, PeerId] = {}
    if trust is not None:
        drawn = placed(drawn, roles, trust.record, MAX_GROUP_LIMIT)
        apart = without_path(
            [(peer, ready) for peer, (_, ready) in sorted(by_peer.items())],
            leader,
            lambda peer: RANKS[roles[peer]],
            drawn,
            group.min_peers,
        )
        drawn = [peer for peer in drawn if peer not in apart]
    chosen = [by_peer[peer] for peer in sorted(drawn[:MAX_GROUP_LIMIT])]
    sizes = sizes_of(manifest, chunks)
    # A voter that is slow keeps its vote, and its place.
    never_late = {leader, *(peer for peer, role in roles.items() if role is Role.VOTER)}
    in_time, late = _in_time(chosen, manifest, sizes, never_late)
    bounds = GroupBounds(least=min(group.min_group, len(in_time)), most=group.max_group)

    def choose(offers: list[Offer], bounds: GroupBounds) -> GroupChoice:
        return rules.choose(
            _snapshot(offers), bounds, sizes_of(manifest, chunks, _contributors(offers)), before
        )

    members = [i for i, (signed, _) in enumerate(in_time) if _reduces(signed.peer, roles)]
    if len(members) in {0, len(in_time)}:
        choice = choose(in_time, bounds)
    else:
        # Newcomers reduce nothing. Their false sums would own a slice until the audits find them.
        in_time, choice = choose_among_members(in_time, members, bounds, choose)
    reason = choice.reason
    reason += relay_text(_snapshot(in_time).relayed, choice.groups)
    if len(drawn) > len(chosen):
        reason += (
            f"; {len(drawn)} nodes were ready, but a plan holds {MAX_GROUP_LIMIT}: "
            "the others' work counts in the next round"
        )
    for peer, other in sorted(apart.items()):
        reason += f"; without {short(peer)}: no path between it and {short(other)}, its work waits"
    if late:
        reason += (
            f"; without {', '.join(late)}: too slow for the deadline of "
            f"{manifest.round.scatter_s:g} s, their work waits"
        )
    plan = Plan(
        parent=parent,
        view=view,
        number=number,
        offers=tuple(signed for signed, _ in in_time),
        borders=rules.share_out(chunks, choice.shares),
        groups=choice.groups,
        predicted_s=choice.predicted_s,
        reason=reason[:MAX_REASON_CHARS],
        before=before,
        after=choice.after,
    )
    ready_messages = [ready for _, ready in in_time]
    made = paced(plan, ready_messages, manifest, round_s)
    if trust is None:
        return made
    terms = terms_by_record(
        trust.record,
        [signed.peer for signed, _ in in_time],
        [ready.samples for ready in ready_messages],
        [roles[signed.peer] for signed, _ in in_time],
        round_length(round_s, manifest.round),
        manifest,
    )
    return _with_trust(made, trust, terms)


def _roles(
    by_peer: Mapping[PeerId, Offer], manifest: Manifest, trust: PlanTrust | None
) -> Mapping[PeerId, Role]:
    """The role of each peer that offers; empty in runs of rules 2 and 3."""
    if trust is None:
        if manifest.rules >= RULES_4:
            raise ValueError("a plan of rules 4 needs the membership record of its parent")
        return {}
    invited = {
        peer: invitation
        for peer, (_, ready) in by_peer.items()
        if (invitation := invited_by(ready, peer, trust.run, manifest)) is not None
    }
    peers = sorted(by_peer)
    return dict(zip(peers, roles_in(trust.record, manifest, peers, invited), strict=True))


def _reduces(peer: PeerId, roles: Mapping[PeerId, Role]) -> bool:
    return roles.get(peer, Role.MEMBER) is not Role.NEWCOMER


def _with_trust(plan: Plan, trust: PlanTrust, terms: SumTerms) -> TrustPlan:
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    return TrustPlan(
        **fields,
        parent_votes=trust.parent_votes,
        leaves=trust.leaves,
        revocations=trust.revocations,
        terms=terms,
    )


def _contributors(offers: Iterable[Offer]) -> int:
    return sum(1 for _, ready in offers if ready.samples)


def sizes_of(manifest: Manifest, chunks: int, contributors: int = 0) -> VectorSizes:
    """Return the bytes of the run's vector as an offer, as partial sums and as a result.

    In runs of rules 4, results of many contributors travel with more bits.
    """
    codec = codec_named(manifest.codec)
    if manifest.rules >= RULES_4:
        codec = with_results_for(codec, contributors)
    return VectorSizes(
        offer=chunks * chunk_bytes(codec),
        partial=chunks * CHUNK_ELEMENTS * 4,
        result=chunks * chunk_bytes(codec.result),
    )


def _snapshot(offers: Sequence[Offer]) -> NetworkSnapshot:
    return snapshot_of([(signed.peer, ready) for signed, ready in offers])


def _in_time(
    offers: list[Offer], manifest: Manifest, sizes: VectorSizes, never_late: Collection[PeerId]
) -> tuple[list[Offer], list[str]]:
    """Split off the members that cannot move their own vector within the deadline of a scatter.

    Without a member, its observations of others are missing too. So the check repeats until all
    remaining members are in time, and a plan that is made again from its own offers is the same. If
    more than a third is too slow, this swarm cannot keep the deadline, and no member is left out.

    Returns:
        The offers that are in time, and a name with the needed seconds for each other one.
    """
    late: list[str] = []
    while True:
        snapshot = _snapshot(offers)
        if not snapshot.measured:
            return offers, late
        model = TimeModel(snapshot, sizes)
        needed = {
            i: model.alone_s(i)
            for i, (signed, _) in enumerate(offers)
            if signed.peer not in never_late
        }
        slow = {i for i, seconds in needed.items() if seconds > manifest.round.scatter_s}
        if (
            not slow
            or len(slow) > len(offers) // 3
            or len(offers) - len(slow) < manifest.group.min_peers
        ):
            return offers, late
        late += [f"{short(offers[i][0].peer)} ({needed[i]:.3g} s)" for i in sorted(slow)]
        offers = [offer for i, offer in enumerate(offers) if i not in slow]


def open_plan(
    signed: Signed,
    run: Digest,
    manifest: Manifest,
    chunks: int | None,
    record: MembershipRecord | None = None,
) -> OpenPlan:
    """Check a plan that this node shall carry out, by making it again. Otherwise as `read_plan`.

    `record` is that of the plan's (preferred) parent; None in runs of rules 2 and 3.
    """
    read = read_plan(signed, run, manifest, chunks)
    plan, offers = read.plan, list(zip(read.plan.offers, read.offers, strict=True))
    remade = make_plan(
        plan.parent,
        plan.view,
        plan.number,
        offers,
        manifest,
        plan.borders[-1],
        leader=read.leader,
        before=plan.before,
        round_s=plan.round_s_before if isinstance(plan, PacedPlan) else None,
        trust=_trust_of(plan, run, record),
    )
    if replace(remade, reason=plan.reason) != plan:
        raise PeerFault("bad_plan", "the plan does not follow from its offers")
    return read


def _trust_of(plan: Plan, run: Digest, record: MembershipRecord | None) -> PlanTrust | None:
    if record is None or not isinstance(plan, TrustPlan):
        return None
    return PlanTrust(
        run=run,
        record=record,
        parent_votes=plan.parent_votes,
        leaves=plan.leaves,
        revocations=plan.revocations,
    )


def read_plan(
    signed: Signed, run: Digest, manifest: Manifest, chunks: int | None, *, trusted: bool = False
) -> OpenPlan:
    """Check a plan's signatures, its offers and its shape.

    Guarantees that every member is in one group and that slices cover the model, so that no
    invention of a stranger fails downstream. Does not guarantee that the plan follows from its
    offers.

    Args:
        chunks: the size of the run's model. None for an observer, which has no model and accepts
            the plan's size. trusted: whether only the shape is checked, because this node verified
            the plan before and read it back from its own disk.

    Raises:
        PeerFault: with a message that says what does not fit.
    """
    plan = open_as(Plan, signed, run, trusted=trusted)
    decoded = [(offer, open_as(Ready, offer, run, trusted=trusted)) for offer in plan.offers]
    members = tuple(offer.peer for offer in plan.offers)
    check_kinds(plan, [ready for _, ready in decoded], manifest.rules)
    for signed_offer, ready in decoded if not trusted else ():
        if (ready.parent, ready.view, ready.number) != (plan.parent, plan.view, plan.number):
            raise PeerFault(
                "bad_plan", f"the offer of {short(signed_offer.peer)} is for another round or view"
            )
        if ready.samples > manifest.limits.max_samples:
            raise PeerFault(
                "bad_plan",
                f"{short(signed_offer.peer)} offers {ready.samples} samples, "
                f"the run allows {manifest.limits.max_samples}",
            )
        wallet_of_offer(manifest, signed_offer.peer, ready)
        check_admission(manifest, signed_offer.peer, ready)
        if bool(ready.samples) != bool(ready.seq):
            raise PeerFault(
                "bad_plan",
                f"{short(signed_offer.peer)} offers seq {ready.seq} with {ready.samples} samples",
            )
    if len(set(members)) != len(members):
        raise PeerFault("bad_plan", "a member is in the plan twice")
    if not trusted and not manifest.group.min_peers <= len(members) <= MAX_GROUP_LIMIT:
        raise PeerFault("bad_plan", f"a plan of {len(members)} members")
    if signed.peer not in members:
        raise PeerFault("bad_plan", "a plan without its leader")
    _check_shape(plan, chunks)
    ready_messages = tuple(ready for _, ready in decoded)
    check_length(plan, ready_messages, manifest)
    if isinstance(plan, TrustPlan):
        check_terms(plan.terms, [ready.samples for ready in ready_messages])
    return OpenPlan(
        plan=plan,
        digest=signed.digest,
        leader=signed.peer,
        members=members,
        offers=ready_messages,
        rules=manifest.rules,
        overlap=manifest.round.overlaps,
        policy=manifest.admits,
    )


def _check_shape(plan: Plan, chunks: int | None) -> None:
    """Check that the groups divide the members and that the borders divide the model.

    Raises `PeerFault("bad_plan")` otherwise.
    """
    size = plan.borders[-1] if plan.borders else None
    if size is None or size > MAX_PARAMETERS // CHUNK_ELEMENTS:
        raise PeerFault("bad_plan", f"a plan for a model of {size} chunks")
    if chunks is not None and size != chunks:
        raise PeerFault(
            "bad_plan", f"a plan for a model of {size} chunks; the run's task makes {chunks}"
        )
    if sorted(i for group in plan.groups for i in group) != list(
        range(len(plan.offers))
    ) or not all(plan.groups):
        raise PeerFault("bad_plan", "a plan whose groups do not have every member once")
    positions = min(len(group) for group in plan.groups)
    if (
        len(plan.borders) != positions + 1
        or plan.borders[0] != 0
        or list(plan.borders) != sorted(plan.borders)
    ):
        raise PeerFault(
            "bad_plan", f"a plan whose {positions} slices do not cover the model in order"
        )
