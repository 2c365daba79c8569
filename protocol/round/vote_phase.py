"""Votes and what becomes of them: who takes them, when they are a certificate, what a certificate
does to a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate, certificate_from
from protocol.certificates.leader_order import vote_takers
from protocol.digest import EMPTY_ROOT, digest
from protocol.identity import PeerId, short
from protocol.journal import Stuck
from protocol.messages.envelope import payload_of
from protocol.messages.round import Vote
from protocol.round.actions import (
    AbandonExchange,
    Action,
    AdoptCertificate,
    AuditReducers,
    FetchState,
    ForwardResults,
    GiveUpState,
    PublishCertificate,
    RecordEvent,
    Refuse,
    RequestCertificate,
    ResumeTraining,
    Send,
)
from protocol.round.events import (
    CertificateReceived,
    DeadlinePassed,
    LivePeersChanged,
    OutcomeComputed,
    PeerLost,
    StateBytesReceived,
    StateReceived,
    StateUnavailable,
    VoteReceived,
    WithdrawalReceived,
)
from protocol.round.phase import Phase
from protocol.round.state import RoundState, VotedOutcome
from protocol.round.views import (
    Step,
    back_to_training,
    enter,
    note_lost,
    note_withdrawal,
    pass_view,
)

# Different outcomes whose votes are kept after one tip: honest members make one per view.
OUTCOMES_KEPT = 8
# Peers whose last vote is remembered: four times the largest group.
VOTERS_KEPT = 256
# A download that brought verified bytes is waited for so much longer: a chunk of 256 KiB at 250
# kbit/s.
ADVANCE_S = 10.0
# For how many rounds a download may keep a node out of its rounds while others live at its tip. A
# state that takes longer comes beside the rounds: its certificate may be anybody's, and its bytes
# may come as slowly as somebody likes.
HELD_ROUNDS = 3.0
# Asked for a certificate when none came: the leader and two more, as ROUND says.
INQUIRED_MEMBERS = 3


def takers(state: RoundState) -> tuple[PeerId, ...]:
    """The plan members that collect this view's votes: its leader and the next two candidates."""
    plan = state.plan
    assert plan is not None
    order = tuple(peer for peer in state.leader_order if peer in plan.members)
    start = order.index(plan.leader) if plan.leader in order else 0
    return vote_takers(order, start)


def cast(state: RoundState, event: OutcomeComputed, now: float) -> Step:
    """Everything is summed and the outer step done: say which state we would move to."""
    if (
        state.plan is None
        or state.inclusion_signed is None
        or state.plan_signed is None
        or event.vote.inclusion != state.inclusion_signed.digest
    ):
        return state, []
    if state.target is not None:
        same = _is(state.target, event.vote)
        return (
            _adopt(replace(state, spare=event.vote), state.target, now)
            if same
            else fetch(state, state.target, now)
        )
    key = digest(payload_of(event.vote))
    outcome = VotedOutcome(
        vote=event.vote,
        plan=state.plan,
        plan_signed=state.plan_signed,
        inclusion_signed=state.inclusion_signed,
    )
    to = takers(state)
    me = state.context.me
    state, actions = enter(
        state,
        Phase.VOTE,
        now,
        f"voted for state {event.vote.state.hex()[:12]}; the votes go to {', '.join(short(peer) for peer in to)}",
        deadline=now + state.context.manifest.round.vote_s,
        vote=event.vote,
        spare=event.vote,
        outcomes={key: outcome},
        inquired=False,
    )
    ours_last = (*(peer for peer in to if peer != me), me)
    return state, [
        *actions,
        *_disputes(state, state.last_votes),
        *_hand_on(state),
        Send(to=ours_last, message=event.vote),
    ]


def cast_merge(state: RoundState, now: float) -> Step:
    """The averaged state is in the spare buffer already: the cut is all that the vote waited for."""
    merge, plan, inclusion_signed = state.merge, state.plan, state.inclusion_signed
    assert merge is not None
    assert plan is not None
    assert inclusion_signed is not None
    vote = Vote(
        parents=state.parents,
        number=state.number,
        view=state.view,
        plan=plan.digest,
        inclusion=inclusion_signed.digest,
        result=EMPTY_ROOT,
        state=merge.state,
    )
    return cast(state, OutcomeComputed(vote=vote), now)


def vote_received(state: RoundState, event: VoteReceived, now: float) -> Step:
    """Keep a vote for a round after this tip, of any view; adopt the outcome that a majority chose."""
    if event.vote.parents != state.parents:
        return state, []
    key, peer = event.signed.digest, event.signed.peer
    known = state.votes.get(key, {})
    if peer in known:
        return state, []
    before = state.last_votes.get(peer)
    if before is not None and before.view == event.vote.view:
        return state, [
            Refuse(peer=peer, reason="equivocation", detail=f"two votes in view {event.vote.view}")
        ]
    if before is not None or len(state.last_votes) < VOTERS_KEPT:
        state = replace(state, last_votes={**state.last_votes, peer: event.vote})
    disputed = _disputes(state, {peer: event.vote})
    votes = {**state.votes, key: {**known, event.signed.peer: event.signed.signature}}
    if len(votes) > OUTCOMES_KEPT:
        del votes[next(old for old in votes if old != key and old not in state.outcomes)]
    state = replace(state, votes=votes)
    state, actions = certify(state, key, now)
    if not actions and state.phase is Phase.VOTE:
        state, actions = _leave_if_divided(state, now)
    return state, [*disputed, *actions]


def lost_in_vote(state: RoundState, event: PeerLost, now: float) -> Step:
    """Who is lost votes no more."""
    state, _ = note_lost(state, event, now)
    return _without(state, now)


def withdrawn_in_vote(state: RoundState, event: WithdrawalReceived, now: float) -> Step:
    """The same of a member that takes no part."""
    return _without(note_withdrawal(state, event), now)


def _without(state: RoundState, now: float) -> Step:
    state, actions = _leave_if_divided(state, now)
    return state, [*actions, *_hand_on(state)]


def _hand_on(state: RoundState) -> list[Action]:
    """Give what an absent reducer made to the members that have not voted: it may have died while
    it handed its result out.

    The leader has all results when it votes, so that no Cut names a substitute for what it does not
    lack. Without this the members that lack the result, and all others with them, waited for the
    end of the view (10 s with the default deadlines). One of those who take the votes does it.
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
    first = next((peer for peer in takers(state) if peer not in absent), None)
    slices = tuple(
        i
        for i in range(len(plan.members))
        if plan.layout.finishes(i) and plan.members[inclusion.owners[i]] in absent
    )
    last_votes = {
        peer
        for peer, theirs in state.last_votes.items()
        if (theirs.plan, theirs.view) == (vote.plan, vote.view)
    }
    lacking = tuple(
        i
        for i in inclusion.present
        if plan.members[i] not in absent | last_votes | {state.context.me}
    )
    return (
        [ForwardResults(plan=plan.digest, slices=slices, to=lacking)]
        if first == state.context.me and slices and lacking
        else []
    )


def _leave_if_divided(state: RoundState, now: float) -> Step:
    """End a view in which no outcome can win any more, whoever else still votes.

    Of a reducer that dies while it hands its result out, some have all that they need and vote, and
    the others vote under the next Cut. Only who takes the votes can tell; a leader's offer to the
    next view tells the rest. An outcome that no taker came to cannot win, whoever votes for it:
    certifying takes its state.
    """
    plan, vote = state.plan, state.vote
    if plan is None or vote is None or state.decided or state.context.me not in takers(state):
        return state, []
    cast_here = {
        p: v
        for p, v in state.last_votes.items()
        if p in plan.members and (v.plan, v.view) == (plan.digest, state.view)
    }
    cast_here[state.context.me] = vote
    absent = state.absent
    silent = [peer for peer in plan.members if peer not in cast_here and peer not in absent]
    votes = Counter(payload_of(one) for one in cast_here.values()).most_common()
    needed = max(plan.majority, state.context.manifest.group.min_peers)
    judges = [peer for peer in takers(state) if peer not in state.lost]
    open_to_all = any(peer in silent for peer in judges)
    certifiable = {payload_of(cast_here[peer]) for peer in judges if peer in cast_here}
    if any(
        count + len(silent) >= needed and (open_to_all or outcome in certifiable)
        for outcome, count in votes
    ):
        return state, []
    said = " to ".join(str(count) for _, count in votes)
    enough = (
        f"{needed} are needed"
        if votes[0][1] + len(silent) < needed
        else "none of those who take them has the state of most"
    )
    return pass_view(
        state, now, f"the votes of view {state.view} are divided, {said}, and {enough}"
    )


def _disputes(state: RoundState, last_votes: Mapping[PeerId, Vote]) -> list[Action]:
    """Who votes for another state than this node computed from the same Cut.

    One of the two, or a reducer between them, is wrong.
    """
    disputes: list[Action] = []
    for outcome in state.outcomes.values():
        ours = outcome.vote
        for peer, theirs in last_votes.items():
            if (theirs.plan, theirs.inclusion) == (ours.plan, ours.inclusion) and theirs != ours:
                detail = f"a vote for state {theirs.state.hex()[:12]} where the same cut gave {ours.state.hex()[:12]} here"
                disputes.append(Refuse(peer=peer, reason="bad_proof", detail=detail))
    return disputes


def certify(state: RoundState, key: bytes, now: float) -> Step:
    """Assemble, publish and adopt a certificate once a majority voted for the outcome computed here.

    Adopting it in the same step leaves no instant in which a late inclusion could overwrite the
    state that it names.
    """
    outcome = state.outcomes.get(key)
    if outcome is None or state.spare != outcome.vote:
        # Its state is not here (any more): a certificate that nobody could give the state of would
        # stop the run.
        return state, []
    members = outcome.plan.members
    votes = {
        peer: signature for peer, signature in state.votes.get(key, {}).items() if peer in members
    }
    if len(votes) < max(outcome.plan.majority, state.context.manifest.group.min_peers):
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
    others = tuple(peer for peer in members if peer != me)
    # Each of the three takers tells every member; one of them is enough for everybody else, who
    # notice within a beacon what gossip lost. Of an earlier view it is not known who else comes to
    # it.
    late = state.plan is None or state.plan.digest != outcome.plan.digest
    first = late or next((peer for peer in takers(state) if peer not in state.lost), me) == me
    publish = PublishCertificate(certificate=certificate, to=others, gossip=first)
    state, adopting = _adopt(state, certificate, now)
    return state, [publish, *adopting]


def inquire(state: RoundState, now: float) -> Step:
    """No certificate came: ask three members, once."""
    plan = state.plan
    offered_to = tuple(dict.fromkeys((*takers(state), *(plan.members if plan else ()))))
    others = tuple(peer for peer in offered_to if peer != state.context.me)[:INQUIRED_MEMBERS]
    state = replace(state, inquired=True, deadline=now + state.context.manifest.round.vote_s)
    return state, [RequestCertificate(peers=others)]


def follow(state: RoundState, event: CertificateReceived, now: float) -> Step:
    """A certificate after our tip: adopt what we computed when it is what was certified, download
    it when it is not.

    A majority may be there before we are: with the certificate's own plan still being carried out
    here, the rest of it costs less than a download.
    """
    certificate = event.certificate
    if certificate.hash == state.tip.hash:
        return state, []
    if state.spare is not None and _is(certificate, state.spare):
        return _adopt(state, certificate, now)
    nearly = (
        state.phase in {Phase.SCATTER, Phase.REDUCE}
        and state.plan is not None
        and state.plan.digest == certificate.plan.digest
    )
    if state.target is not None and state.target.hash == certificate.hash:
        return state, []
    if nearly and state.target is None:
        return replace(
            state,
            target=certificate,
            deadline=min(state.deadline, now + state.context.manifest.round.vote_s),
        ), []
    return fetch(state, certificate, now)


def _adopt(state: RoundState, certificate: OpenCertificate, now: float) -> Step:
    reason = f"certificate {certificate.outcome.number} names the state computed here"
    state, actions = enter(state, Phase.ADOPT, now, reason, target=certificate)
    return state, [
        *actions,
        AuditReducers(certificate=certificate, disputed=False),
        AdoptCertificate(certificate=certificate),
    ]


def fetch(state: RoundState, certificate: OpenCertificate, now: float) -> Step:
    """Go for the certificate's state.

    Training goes on meanwhile; rounds after the old tip are left to those who know no better.

    A state that does not begin to come, or does not come on, is done without: its certificate may
    be anybody's. A newer certificate in place of an older one gives no more time: there may be any
    number of them.
    """
    since = state.entered if state.phase is Phase.FETCH else now
    disputed = state.spare is not None and state.spare.inclusion == certificate.outcome.inclusion
    state, actions = enter(
        state,
        Phase.FETCH,
        now,
        f"certificate {certificate.outcome.number} names a state that is not here; downloading it",
        deadline=now + state.context.manifest.round.ready_s,
        target=certificate,
        spare=None,
    )
    state = replace(state, entered=since)
    state = replace(state, deadline=_held_until(state, state.deadline))
    return state, [
        AuditReducers(certificate=certificate, disputed=disputed),
        AbandonExchange(),
        *actions,
        ResumeTraining(),
        FetchState(certificate=certificate),
    ]


def live_in_fetch(state: RoundState, event: LivePeersChanged, now: float) -> Step:
    """Who lives at our tip says whether there are rounds to go on with."""
    gone = state.lost - (event.live - state.live)
    return replace(state, live=event.live, avoided=event.avoided, lost=gone), []


def state_bytes_received(state: RoundState, event: StateBytesReceived, now: float) -> Step:
    """Verified bytes came: there is reason to wait for the rest."""
    if state.target is None or event.certificate != state.target.hash:
        return state, []
    return replace(state, deadline=max(state.deadline, _held_until(state, now + ADVANCE_S))), []


def _held_until(state: RoundState, wanted: float) -> float:
    """Until when FETCH may last that should last until `wanted`. Alone at its tip a node has no
    rounds to go on with."""
    times = state.context.manifest.round
    most = state.entered + HELD_ROUNDS * (times.seconds + times.ready_s)
    return min(wanted, most) if state.live - state.lost else wanted


def state_received(state: RoundState, event: StateReceived, now: float) -> Step:
    """A state is here, whole.

    In FETCH it is what this node waits for; anywhere else it came after this node had gone on
    without it.
    """
    if event.tip != state.tip.hash or not event.ahead:
        # This node moved meanwhile, or gave up the merge that the state was for.
        return state, []
    reason = f"the state of certificate {event.certificate.outcome.number} is here"
    abandoned: list[Action] = (
        []
        if state.phase is Phase.FETCH
        else [AuditReducers(certificate=event.certificate, disputed=False), AbandonExchange()]
    )
    state, actions = enter(state, Phase.ADOPT, now, reason, target=event.certificate)
    return state, [
        *abandoned,
        *actions,
        AdoptCertificate(certificate=event.certificate, downloaded=True),
    ]


def state_unavailable(state: RoundState, event: StateUnavailable, now: float) -> Step:
    if state.target is None or event.certificate != state.target.hash:
        return state, []
    held_s = now - state.entered
    reason = f"training on from certificate {state.tip.number}, since {event.reason}"
    state, actions = back_to_training(state, now, reason)
    return state, [GiveUpState(certificate=event.certificate, held_s=held_s), *actions]


def fetch_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    """What comes of it later is taken then.

    Should its holders come back on a branch of their own, it is met and merged like any other.
    """
    assert state.target is not None
    name, number = state.target.hash, state.target.outcome.number
    held_s = now - state.entered
    reason = f"training on from certificate {state.tip.number}, since the state of certificate {number} does not come"
    state, actions = back_to_training(state, now, reason)
    return state, [
        GiveUpState(certificate=name, held_s=held_s),
        RecordEvent(event=Stuck(reason=reason)),
        *actions,
    ]


def _is(certificate: OpenCertificate, vote: Vote) -> bool:
    return certificate.outcome == vote


def retarget(state: RoundState, event: CertificateReceived, now: float) -> Step:
    """A newer certificate while an older one is being fetched: go for the newer."""
    target = state.target
    if target is not None and event.certificate.outcome.number <= target.outcome.number:
        return state, []
    return follow(state, event, now)
