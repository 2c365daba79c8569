"""The round's rules as one transition table.

A node trains until the round's end and makes an offer of what it learned (TRAIN, OFFER). The offer goes to the leader of the view
(READY); a leader that says nothing in time is passed over, and the same offer goes to the next one. The leader's plan makes a node a member:
it sends every reducer its slice (SCATTER) until the leader's cut says whose contributions count. Then slices are summed, results gathered, the
outer step computed (REDUCE) and a vote cast for the state that came out (VOTE). A majority of the plan is a certificate. A node that computed
that state adopts it (ADOPT), any other downloads it (FETCH), and whoever was left out watches for it (WATCH). Whatever fails ends the view,
never the round: offer and votes are kept.

In each view a node scatters and votes at most once. It never goes back to an earlier view.

`TABLE` is the whole of it: an event that has no row in a phase is ignored there, and a handler that led elsewhere than its row says is our bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from protocol.certificate import Tip, check_cut
from protocol.errors import InvariantBroken, PeerFault
from protocol.identity import PeerId, short
from protocol.journal import Planned, Stuck
from protocol.merge import merge_parents, merge_round
from protocol.messages import Held, Ready
from protocol.round import leading, voting
from protocol.round.phases import (
    Abandon,
    Action,
    Adopted,
    CertificateGot,
    Computed,
    CutGot,
    Fetch,
    FetchFailed,
    ForkGot,
    Happening,
    HeldGot,
    HeldHere,
    Lead,
    LiveChanged,
    MakeOffer,
    Merge,
    MergeFailed,
    MergePrepared,
    Note,
    OfferMade,
    PeerGone,
    Phase,
    PlanGot,
    PrepareMerge,
    ReadyGot,
    Reduce,
    Refuse,
    ResultGot,
    RoundEnded,
    Rules,
    Scatter,
    Send,
    State,
    Tick,
    VoteGot,
)
from protocol.round.views import (
    FOLLOWER_PATIENCE,
    Step,
    back_to_training,
    begin_view,
    enter,
    follow_order,
    go_alone,
    keep_ready,
    left_out,
    pass_view,
    remember_view,
    resend_plan,
    train_again,
    training_deadline,
)

PARTIAL_HELD = 0.5  # at this share of the scatter's time a reducer tells the leader what it has, whole or not
FETCH_ATTEMPTS = 5  # and then the round is done without it: ten seconds, in which a holder that lives has written its checkpoint
FETCH_AGAIN_S = 2.0  # between attempts to download an anchor: long enough for a peer to write its checkpoint


def begin(rules: Rules, tip: Tip, now: float, *, live: frozenset[PeerId] = frozenset(), age_s: float = 0.0) -> State:
    """The state of a node that holds the anchor of `tip` and trains; the others have trained for `age_s` already."""
    state = State(rules=rules, tip=tip, phase=Phase.TRAIN, deadline=math.inf, live=live)
    return replace(state, deadline=training_deadline(state, now, age_s))


def end_training(state: State, event: Happening, now: float) -> Step:
    state, actions = enter(state, Phase.OFFER, now, f"the round's local training is over; making the offer for round {state.number}")
    return state, [*actions, MakeOffer()]


def offer_made(state: State, event: OfferMade, now: float) -> Step:
    # Our own offer to this view from before we went on training alone is over: a plan with it would be our first of two in one view.
    others = {peer: entry for peer, entry in state.readies.items() if peer != state.rules.me}
    state = replace(state, offer=event.ready, readies=others)
    if len(state.live - state.gone) + 1 < state.rules.manifest.group.min_peers:
        return go_alone(state, now)
    return begin_view(state, now, state.view, f"{event.ready.samples} samples offered as seq {event.ready.seq}")


def live_changed(state: State, event: LiveChanged, now: float) -> Step:
    """Who is alive, as beacons say. Whoever was lost and is heard again is lost no more: else two nodes could miss each other for good."""
    state = replace(state, live=event.live, gone=state.gone - (event.live - state.live))
    state, actions = follow_order(state)
    state, planning = leading.try_plan(state, now, final=False)
    return state, [*actions, *planning]


def note_gone(state: State, event: PeerGone, now: float) -> Step:
    return replace(state, gone=state.gone | {event.peer}), []


def gone_in_ready(state: State, event: PeerGone, now: float) -> Step:
    state, _ = note_gone(state, event, now)
    if event.peer == state.leader:
        return pass_view(state, now, f"the leader of view {state.view}, {short(event.peer)}, was lost")
    return leading.try_plan(state, now, final=False)


def _is_decided(state: State) -> bool:
    """Whether this round's certificate is here already and only our own computation of it is not."""
    return state.target is not None


def _hopeless(state: State) -> bool:
    """Whether so many members are lost, or have left this view for a later one, that no majority can vote."""
    plan = state.plan
    later = {peer for peer, (_, ready) in state.readies.items() if ready.view > state.view}
    return plan is not None and sum(peer not in state.gone and peer not in later for peer in plan.members) < plan.majority


def gone_in_scatter(state: State, event: PeerGone, now: float) -> Step:
    state, _ = note_gone(state, event, now)
    plan = state.plan
    if _is_decided(state):
        return state, []
    if plan is not None and (event.peer == plan.leader or _hopeless(state)):
        return pass_view(
            state, now, f"{short(event.peer)} was lost in scatter, {'its leader' if event.peer == plan.leader else 'and the majority'}"
        )
    if state.merge is not None:
        return state, []
    state, telling = _tell_held(state)
    state, cutting = leading.try_cut(state, now, final=False)
    return state, [*telling, *cutting]


def gone_in_reduce(state: State, event: PeerGone, now: float) -> Step:
    state, _ = note_gone(state, event, now)
    if _is_decided(state):
        return state, []
    if _hopeless(state):
        return pass_view(state, now, f"{short(event.peer)} was lost in reduce, and the majority with it")
    if leading.beyond_recut(state):
        return pass_view(
            state, now, f"{short(event.peer)} was lost in reduce: a slice is missing, and the leader that could name a substitute"
        )
    return leading.recut(state, now, final=False)


def _wrong_offer(state: State, peer: PeerId, ready: Ready) -> tuple[str, str] | None:
    """Why an offer to this round can be in no certificate, as (reason, detail). One such offer in a plan would spoil the round for all."""
    most = state.rules.manifest.limits.max_samples
    if ready.samples > most:
        return "malformed", f"{short(peer)} offers {ready.samples} samples, the run allows {most}"
    if bool(ready.samples) != bool(ready.seq) or (state.merge is not None and ready.samples):
        return "malformed", f"{short(peer)} offers seq {ready.seq} with {ready.samples} samples"
    if ready.seq and ready.seq <= state.tip.last_seq.get(peer, 0):
        return "duplicate", f"{short(peer)} offers seq {ready.seq}, which was certified before"
    return None


def ready_got(state: State, event: ReadyGot, now: float) -> Step:
    """Keep an offer for this round; go along when half of the others are ahead of us."""
    view, peer = event.ready.view, event.signed.peer
    if event.ready.parent != state.parent or event.ready.number != state.number or view < state.view:
        return state, []
    if (wrong := _wrong_offer(state, peer, event.ready)) is not None:
        return state, [Refuse(peer=peer, reason=wrong[0], detail=wrong[1])]
    state = keep_ready(state, peer, (event.signed, event.ready))
    others = state.live - state.gone
    ahead = {p: r.view for p, (_, r) in state.readies.items() if p in others and (r.view > state.view or state.phase is Phase.TRAIN)}
    many = bool(ahead) and 2 * len(ahead) >= len(others)
    if state.phase is Phase.TRAIN:
        return end_training(state, event, now) if many else (state, [])
    if state.phase is Phase.READY:
        if many:
            return begin_view(state, now, min(ahead.values()), f"{len(ahead)} of {len(others)} others are in a later view")
        return leading.try_plan(state, now, final=False)
    if _is_decided(state):
        return state, []
    if state.phase in {Phase.SCATTER, Phase.REDUCE} and state.plan is not None and peer == state.plan.leader and view > state.view:
        return pass_view(state, now, f"{short(peer)}, which led view {state.view}, gave it up")
    if state.phase in {Phase.SCATTER, Phase.REDUCE} and view > state.view and _hopeless(state):
        # Without this a leader carries out a plan that nobody else does any more, while they wait for it in a view that they leave in turn.
        return pass_view(state, now, f"{short(peer)} is in view {view}, and the majority of view {state.view} with it")
    if state.leads and state.plan is not None and peer not in state.plan.members and view == state.view:
        return state, resend_plan(state, peer)
    return state, []


def plan_got(state: State, event: PlanGot, now: float) -> Step:
    plan = event.plan
    if plan.plan.parent != state.parent or plan.plan.view != state.view:
        return state, []
    if plan.leader not in state.asked:
        return state, [Refuse(peer=plan.leader, reason="not_leader", detail=f"a plan for view {state.view}, which it does not lead")]
    me = plan.index.get(state.rules.me)
    if me is None:
        return left_out(state, now, f"too late for the plan of view {state.view}; the work waits a round")
    if state.offer is None or plan.offers[me] != replace(state.offer, view=state.view):
        return state, [Refuse(peer=plan.leader, reason="bad_plan", detail="a plan with an offer we did not make")]
    for peer, offer in zip(plan.members, plan.offers, strict=True):
        if (wrong := _wrong_offer(state, peer, offer)) is not None:
            return state, [Refuse(peer=plan.leader, reason="bad_plan", detail=f"a plan in which {wrong[1]}")]
    if state.merge is None and not any(offer.samples for offer in plan.offers):
        return train_again(state, now, f"none of the {len(plan.members)} members of view {state.view} has anything to offer")
    rules = state.rules.manifest.round
    leads = plan.leader == state.rules.me
    state, actions = enter(
        state,
        Phase.SCATTER,
        now,
        f"plan of view {state.view} by {short(plan.leader)}: {plan.plan.reason}",
        deadline=now + rules.scatter_s * (1.0 if leads else PARTIAL_HELD),
        plan=plan,
        plan_signed=event.signed,
        overdue=False,
    )
    planned = Planned(number=state.number, view=state.view, leader=plan.leader, members=plan.members, reason=plan.plan.reason)
    if state.merge is not None:
        return state, [*actions, Note(event=planned), *(leading.merge_cut(state) if leads else [])]
    return state, [*actions, Note(event=planned), Scatter(plan=plan)]


def _tell_held(state: State) -> Step:
    """Tell the leader what we hold: once it is all that living members offered, and at every change from then on."""
    plan = state.plan
    assert plan is not None
    wanted = {i for i, offer in enumerate(plan.offers) if offer.samples and plan.members[i] not in state.gone}
    if not (state.told or wanted <= state.held):
        return state, []
    held = Held(plan=plan.digest, contributors=tuple(sorted(state.held)))
    return replace(state, told=True), [Send(to=(plan.leader,), message=held)]


def held_here(state: State, event: HeldHere, now: float) -> Step:
    if state.plan is None or event.plan != state.plan.digest:
        return state, []  # of the plan before
    return _tell_held(replace(state, held=event.contributors))


def held_got(state: State, event: HeldGot, now: float) -> Step:
    plan = state.plan
    if plan is None or event.held.plan != plan.digest or event.peer not in plan.members or not state.leads or _is_decided(state):
        return state, []
    held = {**state.lead.held, event.peer: frozenset(event.held.contributors)}
    return leading.try_cut(replace(state, lead=Lead(held=held, silent=state.lead.silent)), now, final=False)


def scatter_overdue(state: State, event: Tick, now: float) -> Step:
    if state.target is not None:
        return voting.fetch(state, state.target, now)
    if state.merge is not None:
        return pass_view(state, now, f"no cut for the merge from {short(state.leader)}")
    if state.leads:
        return leading.try_cut(state, now, final=True)
    rules = state.rules.manifest.round
    rest = rules.scatter_s * (1.0 - PARTIAL_HELD) + FOLLOWER_PATIENCE * rules.ready_s
    if not state.overdue:
        state, actions = (state, []) if state.told else _tell_held(replace(state, told=True))
        return replace(state, overdue=True, deadline=now + rest), actions
    return pass_view(state, now, f"no cut from {short(state.leader)} within {rules.scatter_s * PARTIAL_HELD + rest:g} s")


def cut_got(state: State, event: CutGot, now: float) -> Step:
    plan, cut = state.plan, event.cut
    if plan is None or cut.plan != plan.digest:
        return state, []
    if event.signed.peer != plan.leader:
        return state, [Refuse(peer=event.signed.peer, reason="not_leader", detail="a cut for a plan that is not its own")]
    if _is_decided(state) and state.cut is not None:
        return state, []
    if state.cut is not None and cut.number <= state.cut.number:
        again = state.cut_signed is not None and cut.number == state.cut.number and event.signed.digest != state.cut_signed.digest
        return state, [Refuse(peer=event.signed.peer, reason="equivocation", detail=f"two cuts {cut.number}")] if again else []
    try:
        check_cut(cut, plan, state.rules.manifest, merging=state.merge is not None)
    except PeerFault as fault:
        return state, [Refuse(peer=event.signed.peer, reason=fault.reason, detail=str(fault))]
    if plan.index[state.rules.me] not in cut.present:
        if state.target is not None:
            return voting.fetch(state, state.target, now)
        return left_out(state, now, f"left out of cut {cut.number}: {short(plan.leader)} took this node for lost")
    if state.merge is not None:
        return voting.cast_merge(replace(state, cut=cut, cut_signed=event.signed), now)
    patience = state.rules.manifest.round.gather_s * (1.0 if state.leads else FOLLOWER_PATIENCE)
    state, actions = enter(
        state,
        Phase.REDUCE,
        now,
        cut.reason,
        deadline=now + patience,
        cut=cut,
        cut_signed=event.signed,
        results=frozenset(),
        spare=None,
    )
    return state, [*actions, Reduce(plan=plan, cut=cut, digest=event.signed.digest)]


def result_got(state: State, event: ResultGot, now: float) -> Step:
    if state.cut_signed is None or event.cut != state.cut_signed.digest:
        return state, []
    return replace(state, results=state.results | {event.slice}), []


def reduce_overdue(state: State, event: Tick, now: float) -> Step:
    if state.target is not None:
        return voting.fetch(state, state.target, now)
    if state.leads:
        return leading.recut(state, now, final=True)
    return pass_view(state, now, f"the results of view {state.view} did not come in time")


def ready_overdue(state: State, event: Tick, now: float) -> Step:
    if state.leads:
        return leading.try_plan(state, now, final=True)
    if not state.live - state.gone:
        return go_alone(state, now)
    return pass_view(state, now, f"no plan from {short(state.leader)} within {FOLLOWER_PATIENCE * state.rules.manifest.round.ready_s:g} s")


def vote_overdue(state: State, event: Tick, now: float) -> Step:
    if not state.inquired:
        return voting.inquire(state, now)
    return pass_view(state, now, f"view {state.view} ended without a certificate")


def watch_overdue(state: State, event: Tick, now: float) -> Step:
    return pass_view(state, now, f"no certificate came from those who went on without us in view {state.view}")


def adopted(state: State, event: Adopted, now: float) -> Step:
    fresh = begin(state.rules, event.tip, now, live=frozenset(), age_s=event.age_s)
    return enter(fresh, Phase.TRAIN, now, f"training for round {fresh.number} from certificate {event.tip.number}", deadline=fresh.deadline)


def fetch_failed(state: State, event: FetchFailed, now: float) -> Step:
    """Try again, and then do without: its holders may all be dead. Should one come back, its branch is met and merged like any other."""
    failures = state.failures + 1
    if failures >= FETCH_ATTEMPTS:
        return back_to_training(state, now, f"training on from certificate {state.tip.number}, since {event.reason}")
    return replace(state, deadline=now + FETCH_AGAIN_S, failures=failures), [Note(event=Stuck(reason=event.reason))]


def fetch_again(state: State, event: Tick, now: float) -> Step:
    assert state.target is not None
    return replace(state, deadline=math.inf), [Fetch(certificate=state.target)]


def fork_got(state: State, event: ForkGot, now: float) -> Step:
    """Another branch lives: nothing is more urgent than being one run again."""
    if state.merge is not None and state.merge.other.hash == event.other.hash:
        return state, []
    reason = f"certificate {event.other.number} of another branch was met; averaging it with certificate {state.tip.number}"
    state = remember_view(state)
    state, actions = enter(
        state, Phase.MERGE, now, reason, merge=None, spare=None, offer=None, view=0, votes={}, voted={}, outcomes={}, vote=None, readies={}
    )
    return state, [Abandon(), *actions, PrepareMerge(other=event.other)]


def merge_prepared(state: State, event: MergePrepared, now: float) -> Step:
    merge = Merge(other=event.other, state=event.state)
    first = state.stands.get(merge_round(merge_parents(state.tip.hash, event.other.hash)), 0)
    state = replace(state, merge=replace(merge, first_view=first), offer=event.ready)
    return begin_view(state, now, first, f"the average with certificate {event.other.number} is computed")


def merge_failed(state: State, event: MergeFailed, now: float) -> Step:
    return back_to_training(state, now, event.reason)


Handler = Callable[[State, Any, float], Step]
P = Phase
_VIEW = {P.READY, P.TRAIN}  # where the end of a view can lead: to the next one, or to training alone
_MOVE = {P.ADOPT, P.FETCH}

TABLE: Mapping[tuple[Phase, type[Happening]], tuple[Handler, set[Phase]]] = {
    (P.TRAIN, Tick): (end_training, {P.OFFER}),
    (P.TRAIN, RoundEnded): (end_training, {P.OFFER}),
    (P.TRAIN, ReadyGot): (ready_got, {P.TRAIN, P.OFFER}),
    (P.TRAIN, LiveChanged): (live_changed, {P.TRAIN}),
    (P.TRAIN, PeerGone): (note_gone, {P.TRAIN}),
    (P.TRAIN, CertificateGot): (voting.follow, {P.TRAIN, *_MOVE}),
    (P.OFFER, OfferMade): (offer_made, _VIEW),
    (P.OFFER, ReadyGot): (ready_got, {P.OFFER}),
    (P.OFFER, LiveChanged): (live_changed, {P.OFFER}),
    (P.OFFER, PeerGone): (note_gone, {P.OFFER}),
    (P.OFFER, CertificateGot): (voting.follow, {P.OFFER, *_MOVE}),
    (P.READY, Tick): (ready_overdue, _VIEW),
    (P.READY, ReadyGot): (ready_got, {P.READY}),
    (P.READY, LiveChanged): (live_changed, {P.READY}),
    (P.READY, PeerGone): (gone_in_ready, _VIEW),
    (P.READY, PlanGot): (plan_got, {P.READY, P.SCATTER, P.WATCH, P.TRAIN}),
    (P.READY, VoteGot): (voting.take_vote, {P.READY}),
    (P.READY, CertificateGot): (voting.follow, {P.READY, *_MOVE}),
    (P.SCATTER, Tick): (scatter_overdue, {P.SCATTER, P.FETCH, *_VIEW}),
    (P.SCATTER, ReadyGot): (ready_got, {P.SCATTER, P.READY}),
    (P.SCATTER, LiveChanged): (live_changed, {P.SCATTER}),
    (P.SCATTER, PeerGone): (gone_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, HeldHere): (held_here, {P.SCATTER}),
    (P.SCATTER, HeldGot): (held_got, {P.SCATTER, P.READY}),
    (P.SCATTER, CutGot): (cut_got, {P.SCATTER, P.REDUCE, P.VOTE, P.WATCH, *_MOVE}),
    (P.SCATTER, VoteGot): (voting.take_vote, {P.SCATTER}),
    (P.SCATTER, CertificateGot): (voting.follow, {P.SCATTER, *_MOVE}),
    (P.REDUCE, Tick): (reduce_overdue, {P.REDUCE, P.FETCH, P.READY}),
    (P.REDUCE, ReadyGot): (ready_got, {P.REDUCE, P.READY}),
    (P.REDUCE, LiveChanged): (live_changed, {P.REDUCE}),
    (P.REDUCE, PeerGone): (gone_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, CutGot): (cut_got, {P.REDUCE, P.WATCH}),
    (P.REDUCE, ResultGot): (result_got, {P.REDUCE}),
    (P.REDUCE, Computed): (voting.cast, {P.REDUCE, P.VOTE, *_MOVE}),
    (P.REDUCE, VoteGot): (voting.take_vote, {P.REDUCE}),
    (P.REDUCE, CertificateGot): (voting.follow, {P.REDUCE, P.FETCH}),
    (P.VOTE, Tick): (vote_overdue, {P.VOTE, *_VIEW}),
    (P.VOTE, ReadyGot): (ready_got, {P.VOTE}),
    (P.VOTE, LiveChanged): (live_changed, {P.VOTE}),
    (P.VOTE, PeerGone): (note_gone, {P.VOTE}),
    (P.VOTE, VoteGot): (voting.take_vote, {P.VOTE}),
    (P.VOTE, CertificateGot): (voting.follow, {P.VOTE, *_MOVE}),
    (P.WATCH, Tick): (watch_overdue, _VIEW),
    (P.WATCH, ReadyGot): (ready_got, {P.WATCH}),
    (P.WATCH, LiveChanged): (live_changed, {P.WATCH}),
    (P.WATCH, PeerGone): (note_gone, {P.WATCH}),
    (P.WATCH, CertificateGot): (voting.follow, {P.WATCH, *_MOVE}),
    (P.TRAIN, ForkGot): (fork_got, {P.MERGE}),
    (P.READY, ForkGot): (fork_got, {P.READY, P.MERGE}),
    (P.WATCH, ForkGot): (fork_got, {P.WATCH, P.MERGE}),
    (P.MERGE, MergePrepared): (merge_prepared, {P.READY}),
    (P.MERGE, MergeFailed): (merge_failed, {P.TRAIN}),
    (P.MERGE, LiveChanged): (live_changed, {P.MERGE}),
    (P.MERGE, PeerGone): (note_gone, {P.MERGE}),
    (P.MERGE, CertificateGot): (voting.follow, {P.MERGE, P.FETCH}),
    (P.ADOPT, Adopted): (adopted, {P.TRAIN}),
    (P.FETCH, Adopted): (adopted, {P.TRAIN}),
    (P.FETCH, FetchFailed): (fetch_failed, {P.FETCH, P.TRAIN}),
    (P.FETCH, Tick): (fetch_again, {P.FETCH}),
    (P.FETCH, CertificateGot): (voting.retarget, {P.FETCH}),
}


def step(state: State, event: Happening, now: float) -> tuple[State, list[Action]]:
    """One event. Pure: the same arguments give the same result. Raises `InvariantBroken` when a handler leaves the table."""
    row = TABLE.get((state.phase, type(event)))
    if row is None:
        return state, []
    handler, leads_to = row
    after, actions = handler(state, event, now)
    if after.phase not in leads_to:
        raise InvariantBroken(f"{type(event).__name__} in {state.phase.value} led to {after.phase.value}, which the table does not allow")
    if after.view < state.view and after.parent == state.parent and after.phase is not Phase.MERGE:
        raise InvariantBroken(f"from view {state.view} back to view {after.view}")
    return after, actions
