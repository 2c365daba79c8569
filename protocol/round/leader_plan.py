"""When a view's leader plans, and with whom."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from protocol.identity import PeerId, short
from protocol.membership.admission import admitted_together
from protocol.membership.invited import invitations_in
from protocol.membership.plan_check import leave_fault, revocations_to_list
from protocol.planning.plan import Offer, PlanTrust, make_plan
from protocol.round import actions as a
from protocol.round.phase import Phase
from protocol.round.quorum import missing_quorum
from protocol.round.state import RoundState
from protocol.round.transitions import Transition, train_alone
from protocol.round.views import pass_view


def try_plan(state: RoundState, now: float, *, final: bool) -> Transition:
    """Plan when all expected nodes are ready.

    With `final`, plan with the nodes that are ready; where they are too few, pass the view or train
    on alone.
    """
    if state.phase is not Phase.READY or not state.leads:
        return state, []
    context, least = state.context, state.context.manifest.group.min_peers
    offers = [entry for entry in state.readies.values() if entry[1].view == state.view]
    ready = {signed.peer for signed, _ in offers}
    expected = (state.live - state.lost - state.in_later_view) | {context.me}
    avoided = _avoided(state, ready)
    kept = _admitted(state, [entry for entry in offers if entry[0].peer not in avoided])
    ready, expected = ready - avoided, expected - avoided
    waited_for = expected - state.passed_over - state.unreachable
    all_ready = waited_for <= ready and len(ready) >= least
    missing = missing_quorum(state, ready, now)
    if context.me in ready and len(ready) >= least and not missing and (all_ready or final):
        plan = make_plan(
            state.parent,
            state.view,
            state.number,
            kept,
            context.manifest,
            context.chunks,
            leader=context.me,
            before=state.group_history,
            round_s=state.left_round_s,
            trust=plan_trust(state, {signed.peer for signed, _ in kept}),
        )
        members = tuple(signed.peer for signed in plan.offers)
        # The leader may not carry the plan out either. The deadline bounds how often it tries.
        state = replace(state, deadline=now + context.manifest.round.ready_s)
        return state, [
            a.PersistView(parent=state.parent, view=state.view),
            a.Send(to=(*sorted(avoided), *self_last(members, context.me)), message=plan),
        ]
    if not final:
        return state, []
    if len(expected) >= least and not missing_quorum(state, expected, now):
        absent = ", ".join(short(peer) for peer in sorted(expected - ready))
        return pass_view(
            state,
            now,
            f"no plan in view {state.view}: {absent or 'no other node'} not ready "
            f"within {context.manifest.round.ready_s:g} s",
        )
    return train_alone(state, now, missing)


def _admitted(state: RoundState, offers: list[Offer]) -> list[Offer]:
    """The offers that one plan may hold: two peers may bring one use of an invitation."""
    if state.record is None:
        return offers
    peers, manifest = [signed.peer for signed, _ in offers], state.context.manifest
    invited = invitations_in(peers, [ready for _, ready in offers], state.context.run, manifest)
    admitted = frozenset(admitted_together(state.record, manifest, peers, invited))
    return [entry for entry in offers if entry[0].peer in admitted]


def plan_trust(state: RoundState, ready: Collection[PeerId]) -> PlanTrust | None:
    """What a plan of this node lists beside the offers; None in runs of rules 2 and 3."""
    record, notices = state.record, state.notices
    if record is None:
        return None
    run, manifest = state.context.run, state.context.manifest
    return PlanTrust(
        run=run,
        record=record,
        parent_votes=tuple(
            (peer, vote) for peer, vote in notices.parent_votes if peer in record.voters
        ),
        leaves=tuple(
            signed
            for peer, signed in sorted(notices.leaves.items())
            if peer not in ready and not leave_fault(signed, record, run)
        ),
        revocations=revocations_to_list(notices.revocations, record, run, manifest),
    )


def _avoided(state: RoundState, ready: set[PeerId]) -> frozenset[PeerId]:
    """The ready nodes that wait, because most of their rounds with this node failed.

    A leader chooses whose offers it waits for. It leaves no node out where the others would be few:
    a plan without that node might lead to no certificate at all.
    """
    avoided = (state.avoided & ready) - {state.context.me}
    rest = len(ready) - len(avoided)
    enough = rest >= state.context.manifest.group.min_peers and 2 * rest > len(ready)
    return frozenset(avoided) if enough else frozenset()


def self_last(members: tuple[PeerId, ...], me: PeerId) -> tuple[PeerId, ...]:
    """All members with this node last: it acts on a message when the others' copies are sent."""
    return (*(peer for peer in members if peer != me), me)
