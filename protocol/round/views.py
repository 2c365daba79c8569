"""Beginning and ending views: passing over a leader, sending the offer to the next one."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.leader_order import leader_of
from protocol.identity import PeerId, short
from protocol.journal import ViewPassed
from protocol.round import actions as a
from protocol.round.phase import Phase
from protocol.round.state import LeaderState, RoundState
from protocol.round.transitions import Transition, enter, return_to_training

FOLLOWER_TIMEOUTS = 2.0
"""How many of the leader's timeouts a follower waits for the leader.

One is the leader's own wait. The other is for a leader whose clock started later and for the way
back of the plan.
"""

MERGE_TURNS = 2
"""Turns through all leaders before a node gives a merge up: each leader had two chances."""

LEADERS_PASSED = 2
"""The earlier leaders that a plan does not wait for.

With no limit, a plan after failed views of all leaders would wait for no member.
"""


def begin_view(state: RoundState, now: float, view: int, reason: str) -> Transition:
    """Send the offer to the leader of `view`, or of a later view where half of the others wait.

    The node passes over leaders that it knows to be absent.
    """
    assert state.offer is not None
    # Offers for later views arrived while this node was busy with an earlier one. Two nodes that
    # ignore such offers can chase each other forever: each waits in a view that the other left
    # 50 ms before (seen with two real nodes, for 36 views).
    if (later := later_view(state, view)) is not None:
        reason += f"; going to view {later}, where others wait"
        view = later
    view, skipped = _skip_absent(state, now, view)
    if skipped:
        names = ", ".join(short(peer) for peer in dict.fromkeys(skipped))
        reason += f"; passed over {names}, not connected or in a later view"
    order = state.leader_order
    leader = leader_of(order, view)
    # Other nodes may have noticed first that a leader is dead, and moved this node along. Without
    # this, a plan waited for a stopped leader until the view's end (3 s, seen among four nodes). A
    # leader that lives offers by itself, or its work counts in the next round.
    passed_over = frozenset(
        leader_of(order, earlier) for earlier in range(max(state.view, view - LEADERS_PASSED), view)
    )
    me = state.context.me
    # Earlier leaders that have this node's offer must not plan with it: they would plan with a node
    # that has left.
    left = tuple(sorted(state.offered_to - {leader, me} - state.lost)) if view > state.view else ()
    timeout_s = state.context.manifest.round.ready_s
    leads = leader == me
    state, actions = enter(
        state,
        Phase.READY,
        now,
        f"{reason}; {'leading' if leads else 'led by ' + short(leader)}",
        deadline=now + (timeout_s if leads else FOLLOWER_TIMEOUTS * timeout_s),
        view=view,
        passed_over=passed_over,
        offered_to=frozenset({leader}),
        plan=None,
        plan_signed=None,
        inclusion=None,
        inclusion_signed=None,
        held_contributors=frozenset(),
        hold_reported=False,
        results=frozenset(),
        inquired=False,
        leader_state=LeaderState(),
    )
    return state, [*actions, *_offer_to(state, leader), *announce_view(state, left)]


def _skip_absent(state: RoundState, now: float, view: int) -> tuple[int, list[PeerId]]:
    """The first view from `view` on whose leader may be alive, and the leaders passed over.

    A merge may begin at the instant of a certificate, before any beacon at the new tip has come.
    Without `may_lead`, each of four nodes then led a view of its own (5 s were lost).
    """
    here = state.may_lead(now)
    order = state.leader_order
    skipped: list[PeerId] = []
    while len(skipped) < len(order):
        leader = leader_of(order, view)
        if leader in here and not _is_beyond(state, leader, view):
            break
        skipped.append(leader)
        view += 1
    return view, skipped


def _is_beyond(state: RoundState, peer: PeerId, view: int) -> bool:
    """Whether a peer is in a later view than `view`, which it then no longer leads."""
    entry = state.readies.get(peer)
    return entry is not None and entry[1].view > view


def later_view(state: RoundState, view: int) -> int | None:
    """The first view after `view` that another node is in, if at least half of them are later."""
    others = state.awaited
    ahead = [
        ready.view
        for peer, (_, ready) in state.readies.items()
        if peer in others and ready.view > view
    ]
    return min(ahead) if ahead and 2 * len(ahead) >= len(others) else None


def _offer_to(state: RoundState, leader: PeerId) -> list[a.Action]:
    """Send the offer and the vote of an earlier view.

    A leader that comes to hold a majority of votes publishes that certificate.
    """
    actions = announce_view(state, (leader,))
    if state.vote is not None:
        actions.append(a.Send(to=(leader,), message=state.vote))
    return actions


def announce_view(state: RoundState, to: tuple[PeerId, ...]) -> list[a.Action]:
    """Send the offer, which says the view that this node is in."""
    assert state.offer is not None
    return [a.Send(to=to, message=replace(state.offer, view=state.view))] if to else []


def follow_order(state: RoundState) -> Transition:
    """Send the offer also to a new leader of the same view.

    At genesis the order of leaders changes as peers become known.
    """
    if state.phase is not Phase.READY or state.leader in state.offered_to or state.offer is None:
        return state, []
    leader = state.leader
    state = replace(state, offered_to=state.offered_to | {leader})
    return state, _offer_to(state, leader)


def pass_view(state: RoundState, now: float, reason: str) -> Transition:
    """End a view that failed and send the same offer to the next leader.

    A merge that failed in `MERGE_TURNS` turns is given up.
    """
    tried = state.view + 1 - (state.merge.first_view if state.merge else 0)
    if state.merge is not None and tried > MERGE_TURNS * len(state.leader_order):
        return return_to_training(
            state, now, f"the merge failed in {tried} views, the last time because {reason}"
        )
    passed = a.RecordEvent(event=ViewPassed(number=state.number, view=state.view, reason=reason))
    # The members that follow this plan need not wait for its deadline: this node's offer to a later
    # view tells them that the plan is over, or over without this node.
    carried_out = state.plan is not None and (
        state.leads or state.phase in {Phase.SCATTER, Phase.REDUCE}
    )
    members = state.plan.members if state.plan is not None and carried_out else ()
    state, actions = begin_view(state, now, state.view + 1, reason)
    others = tuple(peer for peer in members if peer not in state.offered_to | {state.context.me})
    return state, [a.AbandonExchange(), passed, *actions, *announce_view(state, others)]


def resend_plan(state: RoundState, peer: PeerId) -> list[a.Action]:
    """Answer an offer that came too late with the plan, so that its sender need not wait."""
    if state.plan_signed is None:
        return []
    return [a.Forward(to=(peer,), signed=state.plan_signed)]
