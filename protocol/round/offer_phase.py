"""TRAIN and OFFER: the end of training, this node's offer, and the offers of others."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.chain.account_binding import wallet_of_offer
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.membership.admission import admission_fault
from protocol.membership.invited import invited_by
from protocol.messages.kinds import is_of
from protocol.messages.offer import Ready
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import leader_plan
from protocol.round.phase import Phase
from protocol.round.quorum import majority_lost, missing_quorum
from protocol.round.state import RoundState
from protocol.round.transitions import Transition, enter, keep_ready, note_lost, train_alone
from protocol.round.views import announce_view, begin_view, follow_order, pass_view, resend_plan
from protocol.run.admission import check_admission


def end_training(state: RoundState, event: e.Event, now: float) -> Transition:
    """Make the offer when local training is over."""
    state, actions = enter(
        state,
        Phase.OFFER,
        now,
        f"local training is over; making the offer for round {state.number}",
    )
    return state, [*actions, a.MakeOffer()]


def offer_made(state: RoundState, event: e.OfferMade, now: float) -> Transition:
    """Send the durable offer to the view's leader, or train on alone."""
    # An own offer for this view may remain from before this node trained on alone. A plan with it
    # would be this node's first of two in one view.
    others = {peer: entry for peer, entry in state.readies.items() if peer != state.context.me}
    state = replace(state, offer=event.ready, contribution=event.offer, readies=others)
    if len(state.live - state.lost) + 1 < state.context.manifest.group.min_peers:
        return train_alone(state, now)
    if why := missing_quorum(state, state.live - state.lost, now):
        return train_alone(state, now, why)
    return begin_view(
        state, now, state.view, f"{event.ready.samples} samples offered as seq {event.ready.seq}"
    )


def live_changed(state: RoundState, event: e.LivePeersChanged, now: float) -> Transition:
    """Update the live peers, as beacons report them.

    A peer that was lost and is heard again is lost no more. Without this, two nodes could miss each
    other for good.
    """
    came = event.live - state.live
    state = replace(
        state,
        live=event.live,
        avoided=event.avoided,
        unreachable=event.unreachable,
        lost=state.lost - came,
    )
    state, actions = follow_order(state)
    state, planning = leader_plan.try_plan(state, now, final=False)
    return state, [*forward_leaves(state, came), *actions, *planning]


def forward_leaves(state: RoundState, came: frozenset[PeerId]) -> list[a.Action]:
    """Pass on the leaves of voters to peers that came after them.

    A peer that does not know of a leave waits for that voter until it is patient, and the peers
    that know wait for it: two of four members did so for two minutes.
    """
    if not came:
        return []
    to = tuple(sorted(came))
    return [
        a.Forward(to=to, signed=signed)
        for peer, signed in sorted(state.notices.leaves.items())
        if peer not in came
    ]


def lost_in_ready(state: RoundState, event: e.PeerLost, now: float) -> Transition:
    """Pass the view when its leader was lost; else plan without the peer."""
    state, _ = note_lost(state, event, now)
    if event.peer == state.leader:
        return pass_view(
            state, now, f"the leader of view {state.view}, {short(event.peer)}, was lost"
        )
    return leader_plan.try_plan(state, now, final=False)


def offer_fault(state: RoundState, peer: PeerId, ready: Ready) -> tuple[str, str] | None:
    """Why an offer to this round can be in no certificate, as (reason, detail).

    One such offer in a plan would spoil the round for all.
    """
    manifest = state.context.manifest
    most = manifest.limits.max_samples
    if not is_of(ready, manifest.rules):
        return "malformed", f"{short(peer)} makes an offer that is not of rules {manifest.rules}"
    if ready.samples > most:
        return "malformed", f"{short(peer)} offers {ready.samples} samples; the run allows {most}"
    if bool(ready.samples) != bool(ready.seq) or (state.merge is not None and ready.samples):
        return "malformed", f"{short(peer)} offers seq {ready.seq} with {ready.samples} samples"
    try:
        wallet_of_offer(manifest, peer, ready)
        check_admission(manifest, peer, ready)
    except PeerFault as fault:
        return fault.reason, str(fault)
    if state.record is not None:
        invitation = invited_by(ready, peer, state.context.run, manifest)
        if why := admission_fault(state.record, manifest, peer, invitation):
            return "not_admitted", why
    if ready.seq and ready.seq <= state.tip.last_seq.get(peer, 0):
        return "duplicate", f"{short(peer)} offers seq {ready.seq}, which was certified before"
    return None


def ready_received(state: RoundState, event: e.ReadyReceived, now: float) -> Transition:
    """Keep an offer for this round; follow the others when half of them are ahead."""
    view, peer = event.ready.view, event.signed.peer
    if event.ready.parent != state.parent or event.ready.number != state.number:
        return state, []
    if view < state.view:
        return state, _tell_view(state, peer)
    if (fault := offer_fault(state, peer, event.ready)) is not None:
        return state, [a.Refuse(peer=peer, reason=fault[0], detail=fault[1])]
    state = keep_ready(state, peer, (event.signed, event.ready))
    if peer in state.notices.leaves:
        # The voter is back.
        leaves = {other: leave for other, leave in state.notices.leaves.items() if other != peer}
        state = replace(state, notices=replace(state.notices, leaves=leaves))
    if state.phase in {Phase.TRAIN, Phase.READY}:
        return _follow_those_ahead(state, event, now)
    if state.decided or state.plan is None:
        return state, []
    if (
        state.phase in {Phase.SCATTER, Phase.REDUCE, Phase.VOTE}
        and peer == state.plan.leader
        and view > state.view
    ):
        return pass_view(state, now, f"its leader {short(peer)} gave up")
    if (
        state.phase in {Phase.SCATTER, Phase.REDUCE, Phase.VOTE}
        and view > state.view
        and majority_lost(state, now)
    ):
        # Without this, a leader carries out a plan that all others have left. They wait for it in
        # a later view, which they leave in turn. A member that voted keeps its vote, and sends it
        # to the leader of the later view, which waits for that member's offer.
        return pass_view(
            state, now, f"{short(peer)} and the majority of view {state.view} are in later views"
        )
    if state.leads and peer not in state.plan.members and view == state.view:
        return state, resend_plan(state, peer)
    return state, []


def _tell_view(state: RoundState, peer: PeerId) -> list[a.Action]:
    """Tell a peer that is in an earlier view which view this node leads (rules 4).

    Only voters lead. Where one voter leads every view, its members hear of its view from nobody
    else: they stay behind it, each in a view of its own (seen with two real nodes, for 47 views).
    """
    if state.record is None or state.phase is not Phase.READY or not state.leads:
        return []
    return announce_view(state, (peer,))


def _follow_those_ahead(state: RoundState, event: e.ReadyReceived, now: float) -> Transition:
    """End training, or go to a later view, when half of the other nodes are ahead."""
    others = state.awaited
    ahead = {
        peer: ready.view
        for peer, (_, ready) in state.readies.items()
        if peer in others and (ready.view > state.view or state.phase is Phase.TRAIN)
    }
    many = bool(ahead) and 2 * len(ahead) >= len(others)
    if state.phase is Phase.TRAIN:
        return end_training(state, event, now) if many else (state, [])
    if many:
        return begin_view(
            state,
            now,
            min(ahead.values()),
            f"{len(ahead)} of {len(others)} others are in a later view",
        )
    return leader_plan.try_plan(state, now, final=False)
