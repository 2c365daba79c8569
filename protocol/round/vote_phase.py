"""VOTE: casting a vote, counting votes, and certifying what a majority voted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from protocol.certificates.certificate import certificate_from
from protocol.certificates.leader_order import vote_collectors
from protocol.digest import EMPTY_ROOT, digest
from protocol.identity import PeerId, short
from protocol.messages.envelope import payload_of
from protocol.messages.round import Vote
from protocol.planning.outcome import TrustFields, vote_for
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import fetch_phase
from protocol.round.phase import Phase
from protocol.round.quorum import certifies, is_full
from protocol.round.state import RoundState, VotedOutcome
from protocol.round.transitions import Transition, enter, note_lost, note_withdrawal
from protocol.round.views import pass_view

# The different outcomes after one tip whose votes a node keeps: honest members make one in a view.
OUTCOMES_KEPT = 8
# The peers whose last vote a node remembers: four times the largest group.
VOTERS_KEPT = 256
# Up to this many members, each vote goes to all of them: then all have the certificate one message
# after the last vote. Members that are no vote collectors had it one message later, and the next
# round's leader waited as long for their offers. The votes grow with the square of the members.
VOTES_TO_ALL = 6
# A node without a certificate asks the leader and two more members.
INQUIRED_MEMBERS = 3


def collectors_of(state: RoundState) -> tuple[PeerId, ...]:
    """The members that collect this view's votes: the plan's leader and the next two candidates."""
    plan = state.plan
    assert plan is not None
    order = tuple(peer for peer in state.leader_order if peer in plan.members)
    start = order.index(plan.leader) if plan.leader in order else 0
    return vote_collectors(order, start)


def _first_collector(state: RoundState, absent: frozenset[PeerId]) -> PeerId | None:
    """The first vote collector that is not absent; None where all are."""
    return next((peer for peer in collectors_of(state) if peer not in absent), None)


def cast(state: RoundState, event: e.OutcomeComputed, now: float) -> Transition:
    """Vote for the outcome computed here; adopt it if its certificate arrived before."""
    if (
        state.plan is None
        or state.inclusion_signed is None
        or state.plan_signed is None
        or event.vote.inclusion != state.inclusion_signed.digest
    ):
        return state, []
    target = state.target
    if target is not None:
        if target.outcome == event.vote:
            return fetch_phase.adopt(replace(state, spare=event.vote), target, now)
        return fetch_phase.fetch(state, target, now)
    outcome = VotedOutcome(
        vote=event.vote,
        plan=state.plan,
        plan_signed=state.plan_signed,
        inclusion_signed=state.inclusion_signed,
    )
    collectors = collectors_of(state)
    names = ", ".join(short(peer) for peer in collectors)
    me, members = state.context.me, state.plan.members
    receivers = members if len(members) <= VOTES_TO_ALL else collectors
    state, actions = enter(
        state,
        Phase.VOTE,
        now,
        f"voted for state {event.vote.state.hex()[:12]}; the votes go to {names}",
        deadline=now + state.context.manifest.round.vote_s,
        vote=event.vote,
        spare=event.vote,
        outcomes={digest(payload_of(event.vote)): outcome},
        inquired=False,
    )
    ours_last = (*(peer for peer in receivers if peer != me), me)
    return state, [
        *actions,
        *_disputes(state, state.last_votes),
        *_forward_results(state),
        a.Send(to=ours_last, message=event.vote),
    ]


def cast_merge(state: RoundState, now: float) -> Transition:
    """Vote for a merge's averaged state, which waited in the spare buffer for the inclusion."""
    merge, plan, inclusion_signed = state.merge, state.plan, state.inclusion_signed
    assert merge is not None
    assert plan is not None
    assert inclusion_signed is not None
    vote = vote_for(
        plan,
        state.parents,
        inclusion_signed.digest,
        EMPTY_ROOT,
        merge.state,
        TrustFields(record=state.record.digest) if state.record is not None else None,
    )
    return cast(state, e.OutcomeComputed(vote=vote), now)


def vote_received(state: RoundState, event: e.VoteReceived, now: float) -> Transition:
    """Keep a vote for a round after this tip, of any view; adopt the outcome of a majority."""
    if event.vote.parents != state.parents:
        return state, []
    key, peer = event.signed.digest, event.signed.peer
    known = state.votes.get(key, {})
    if peer in known:
        return state, []
    before = state.last_votes.get(peer)
    if before is not None and before.view == event.vote.view:
        detail = f"two votes in view {event.vote.view}"
        return state, [a.Refuse(peer=peer, reason="equivocation", detail=detail)]
    if before is not None or len(state.last_votes) < VOTERS_KEPT:
        state = replace(state, last_votes={**state.last_votes, peer: event.vote})
    disputed = _disputes(state, {peer: event.vote})
    votes = {**state.votes, key: {**known, peer: event.signed.signature}}
    if len(votes) > OUTCOMES_KEPT:
        del votes[next(old for old in votes if old != key and old not in state.outcomes)]
    state = replace(state, votes=votes)
    state, actions = certify(state, key, now)
    if not actions and state.phase is Phase.VOTE:
        state, actions = _leave_if_divided(state, now)
    return state, [*disputed, *actions]


def lost_in_vote(state: RoundState, event: e.PeerLost, now: float) -> Transition:
    """Go on without the vote of a lost peer."""
    state, _ = note_lost(state, event, now)
    return _continue_without(state, now)


def withdrawn_in_vote(state: RoundState, event: e.WithdrawalReceived, now: float) -> Transition:
    """Go on without the vote of a member that takes no part."""
    state, _ = note_withdrawal(state, event, now)
    return _continue_without(state, now)


def _continue_without(state: RoundState, now: float) -> Transition:
    state, actions = _leave_if_divided(state, now)
    return state, [*actions, *_forward_results(state)]


def _forward_results(state: RoundState) -> list[a.Action]:
    """Send the results of absent reducers to the members that have not voted.

    A reducer may die while it sends its result out. The leader has all results when it votes, so no
    inclusion replaces that reducer. Without this, the members that lack the result, and all others
    with them, waited for the end of the view (10 s with the default deadlines). The first present
    vote collector sends the results.
    """
    plan, inclusion, vote, absent = state.plan, state.inclusion, state.vote, state.absent
    if (
        state.phase is not Phase.VOTE
        or plan is None
        or inclusion is None
        or vote is None
        or state.merge is not None
    ):
        return []
    me = state.context.me
    first = _first_collector(state, absent)
    slices = tuple(
        i
        for i in range(len(plan.members))
        if plan.layout.finishes(i) and plan.members[inclusion.owners[i]] in absent
    )
    voted = {
        peer
        for peer, theirs in state.last_votes.items()
        if (theirs.plan, theirs.view) == (vote.plan, vote.view)
    }
    lacking = tuple(i for i in inclusion.present if plan.members[i] not in absent | voted | {me})
    if first != me or not slices or not lacking:
        return []
    return [a.ForwardResults(plan=plan.digest, slices=slices, to=lacking)]


def _leave_if_divided(state: RoundState, now: float) -> Transition:
    """End a view in which no outcome can win any more, however the others vote.

    When a reducer dies while it sends its result out, some members have all results and vote. The
    others vote under the next inclusion. Only a vote collector can see this; its offer to the next
    view tells the rest. An outcome that no collector computed cannot win, whatever its votes:
    certifying needs its state.
    """
    plan, vote = state.plan, state.vote
    if (
        plan is None
        or vote is None
        or state.decided
        or state.context.me not in collectors_of(state)
    ):
        return state, []
    cast_here = _votes_of_view(state, plan, vote)
    silent = [peer for peer in plan.members if peer not in cast_here and peer not in state.absent]
    votes = Counter(payload_of(one) for one in cast_here.values()).most_common()
    collectors = [peer for peer in collectors_of(state) if peer not in state.lost]
    open_to_all = any(peer in silent for peer in collectors)
    certifiable = {payload_of(cast_here[peer]) for peer in collectors if peer in cast_here}

    def can_win(outcome: bytes) -> bool:
        signers = {peer for peer, one in cast_here.items() if payload_of(one) == outcome}
        return certifies(state, plan, signers.union(silent), now)

    if any(can_win(outcome) and (open_to_all or outcome in certifiable) for outcome, _ in votes):
        return state, []
    counts = " to ".join(str(count) for _, count in votes)
    why = (
        f"{_needed(state, plan)} are needed"
        if not can_win(votes[0][0])
        else "no vote collector has the majority's state"
    )
    return pass_view(state, now, f"the votes of view {state.view} are divided, {counts}, and {why}")


def _needed(state: RoundState, plan: OpenPlan) -> str:
    """How many votes a full certificate needs."""
    if state.record is None:
        return str(max(plan.majority, state.context.manifest.group.min_peers))
    return f"more than half of {len(state.counted_voters(plan.members))} voters"


def _votes_of_view(state: RoundState, plan: OpenPlan, vote: Vote) -> dict[PeerId, Vote]:
    """The members' votes for the current plan and view, this node's own among them."""
    votes = {
        peer: theirs
        for peer, theirs in state.last_votes.items()
        if peer in plan.members and (theirs.plan, theirs.view) == (plan.digest, state.view)
    }
    return {**votes, state.context.me: vote}


def _disputes(state: RoundState, votes: Mapping[PeerId, Vote]) -> list[a.Action]:
    """Refuse votes for another state than this node computed from the same inclusion.

    One of the two voters, or a reducer between them, is wrong.
    """
    disputes: list[a.Action] = []
    for outcome in state.outcomes.values():
        ours = outcome.vote
        for peer, theirs in votes.items():
            if (theirs.plan, theirs.inclusion) == (ours.plan, ours.inclusion) and theirs != ours:
                detail = (
                    f"a vote for state {theirs.state.hex()[:12]}; "
                    f"the same inclusion gave {ours.state.hex()[:12]} here"
                )
                disputes.append(a.Refuse(peer=peer, reason="bad_proof", detail=detail))
    return disputes


def certify(state: RoundState, key: bytes, now: float, *, final: bool = False) -> Transition:
    """Assemble, publish and adopt a certificate once a majority voted for this node's outcome.

    In runs of rules 4 it takes a quorum of voters. A patient node also certifies with fewer, but
    waits for all votes that may still come, or with `final` not.

    Adopting it in the same step leaves no instant in which a late inclusion could overwrite the
    state that it names.
    """
    outcome = state.outcomes.get(key)
    if outcome is None or state.spare != outcome.vote:
        # The state is not in the spare buffer. A certificate whose state no node can serve would
        # stop the run.
        return state, []
    members = outcome.plan.members
    votes = {
        peer: signature for peer, signature in state.votes.get(key, {}).items() if peer in members
    }
    if not is_full(state, outcome.plan, votes) and not (
        (final or not _outstanding(state, outcome.plan))
        and certifies(state, outcome.plan, votes, now)
    ):
        return state, []
    certificate = certificate_from(
        state.context.run,
        vote=outcome.vote,
        plan=outcome.plan,
        plan_signed=outcome.plan_signed,
        inclusion_signed=outcome.inclusion_signed,
        votes=votes,
    )
    me = state.context.me
    # Each of the three vote collectors sends the certificate to every member. One of them gossips
    # it to all others, which notice a lost message by the next beacon. For an earlier view, this
    # node does not know which other collectors assemble the certificate.
    late = state.plan is None or state.plan.digest != outcome.plan.digest
    gossips = late or _first_collector(state, state.lost) in {None, me}
    sends = gossips or me in collectors_of(state)
    others = tuple(peer for peer in members if peer != me) if sends else ()
    publish = a.PublishCertificate(certificate=certificate, to=others, gossip=gossips)
    state, adopting = fetch_phase.adopt(state, certificate, now)
    return state, [publish, *adopting]


def _outstanding(state: RoundState, plan: OpenPlan) -> bool:
    """Whether members that are not absent have not voted on a plan yet."""
    voted = {peer for peer, theirs in state.last_votes.items() if theirs.plan == plan.digest}
    return any(peer not in voted | state.absent | {state.context.me} for peer in plan.members)


def vote_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Ask three members for a certificate, once; then pass the view.

    A patient node certifies with the votes that have come.
    """
    if state.vote is not None and state.record is not None:
        key = digest(payload_of(state.vote))
        certified, actions = certify(state, key, now, final=True)
        if actions:
            return certified, actions
    if state.inquired:
        return pass_view(state, now, f"view {state.view} ended without a certificate")
    plan = state.plan
    candidates = dict.fromkeys((*collectors_of(state), *(plan.members if plan else ())))
    others = tuple(peer for peer in candidates if peer != state.context.me)[:INQUIRED_MEMBERS]
    deadline = now + state.context.manifest.round.vote_s
    return replace(state, inquired=True, deadline=deadline), [a.RequestCertificate(peers=others)]
