"""The transition table by itself: whole, without dead ends, and deaf to what it does not name."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from protocol.certificates.certificate import genesis, open_certificate
from protocol.contribution.offer import NOTHING
from protocol.errors import InvariantBroken
from protocol.identity import PeerId
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.envelope import sign
from protocol.messages.round import HoldReport, Withdrawal
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import leader_inclusion, machine, offer_phase
from protocol.round.fetch_phase import HELD_ROUNDS
from protocol.round.machine import TABLE, begin, step
from protocol.round.phase import Phase
from protocol.round.state import RoundState, RunContext
from protocol.round.transitions import PEERS_KEPT
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people, ready

ME, *OTHERS = people(3)
MADE = Made(people(3))
TIP = genesis(RUN)
EVENTS: dict[type[e.Event], e.Event] = {
    type(event): event
    for event in (
        e.DeadlinePassed(),
        e.TrainingFinished(),
        e.OfferMade(ready=ready(TIP, ME), offer=NOTHING),
        e.LivePeersChanged(live=frozenset(person.peer for person in OTHERS)),
        e.PeerLost(peer=OTHERS[0].peer),
        e.ReadyReceived(signed=MADE.plan.offers[1], ready=MADE.open_plan().offers[1]),
        e.PlanReceived(signed=MADE.plan_signed, plan=MADE.open_plan()),
        e.ContributionsReceived(plan=MADE.plan_signed.digest, contributors=frozenset({0})),
        e.HoldReportReceived(
            peer=OTHERS[0].peer, report=HoldReport(plan=MADE.plan_signed.digest, contributors=(0,))
        ),
        e.WithdrawalReceived(
            peer=OTHERS[0].peer,
            withdrawal=Withdrawal(plan=MADE.plan_signed.digest, reason="elsewhere"),
        ),
        e.InclusionReceived(signed=MADE.inclusion_signed, inclusion=MADE.inclusion),
        e.ResultReceived(inclusion=MADE.inclusion_signed.digest, slice=0),
        e.OutcomeComputed(vote=MADE.vote),
        e.VoteReceived(signed=sign(OTHERS[0], RUN, MADE.vote), vote=MADE.vote),
        e.CertificateReceived(certificate=open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)),
        e.CertificateAdopted(tip=MADE.next_tip()),
        e.StateBytesReceived(certificate=MADE.next_tip().hash),
        e.StateReceived(
            certificate=open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS),
            tip=TIP.hash,
            ahead=True,
        ),
        e.StateUnavailable(certificate=MADE.next_tip().hash, reason="nobody"),
        e.ForkFound(other=replace(TIP, hash=named("another branch"), number=1)),
        e.MergePrepared(
            other=replace(TIP, hash=named("another branch"), number=1),
            state=named("state"),
            ready=ready(TIP, ME, samples=0, seq=0),
        ),
        e.ViewNotPersisted(reason="the disk is full"),
    )
}


def node(live: tuple[PeerId, ...] = tuple(person.peer for person in OTHERS)) -> RoundState:
    return begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        0.0,
        live=frozenset(live),
    )


def test_every_event_is_tried_and_every_phase_has_rows() -> None:
    assert {event for _, event in TABLE} == set(EVENTS)
    assert {phase for phase, _ in TABLE} == set(Phase)
    for _, leads_to in TABLE.values():
        assert leads_to <= set(Phase)


def test_every_phase_leads_to_training_again() -> None:
    """No dead end: from everywhere there is a way to TRAIN, and from TRAIN a way to everywhere."""
    ways = {
        phase: {
            other
            for (start, _), (_, leads_to) in TABLE.items()
            if start is phase
            for other in leads_to
        }
        for phase in Phase
    }

    def reached(start: Phase) -> set[Phase]:
        found, edge = {start}, {start}
        while edge := {other for phase in edge for other in ways[phase]} - found:
            found |= edge
        return found

    assert reached(Phase.TRAIN) == set(Phase)
    for phase in Phase:
        assert Phase.TRAIN in reached(phase)
        assert ways[phase] != {phase}


def test_what_waits_for_others_has_a_deadline() -> None:
    for phase in set(Phase) - {Phase.OFFER, Phase.ADOPT}:
        assert (phase, e.DeadlinePassed) in TABLE, f"nothing but others can end {phase.value}"


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_an_event_without_a_row_is_ignored(phase: Phase) -> None:
    state = replace(node(), phase=phase)
    for kind, event in EVENTS.items():
        if (phase, kind) not in TABLE:
            after, actions = step(state, event, 1.0)
            assert after is state
            assert actions == []


@pytest.mark.parametrize(
    "phase",
    [Phase.TRAIN, Phase.OFFER, Phase.READY, Phase.SCATTER, Phase.REDUCE, Phase.VOTE, Phase.WATCH],
)
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_whatever_comes_in_whatever_phase_is_taken(phase: Phase, kind: type[e.Event]) -> None:
    """Every event in every phase of a round that a plan of this round led to."""
    state = replace(
        node(),
        phase=phase,
        deadline=5.0,
        offer=MADE.open_plan().offers[0],
        offered_to=frozenset({MADE.leader.peer}),
    )
    if phase in {Phase.SCATTER, Phase.REDUCE, Phase.VOTE}:
        state = replace(state, plan=MADE.open_plan(), plan_signed=MADE.plan_signed)
    if phase in {Phase.REDUCE, Phase.VOTE}:
        state = replace(state, inclusion=MADE.inclusion, inclusion_signed=MADE.inclusion_signed)
    first = step(state, EVENTS[kind], 5.0)
    assert step(state, EVENTS[kind], 5.0) == first, "not a function of its arguments"


def test_a_handler_that_leaves_the_table_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine,
        "TABLE",
        {**TABLE, (Phase.TRAIN, e.DeadlinePassed): (offer_phase.end_training, {Phase.VOTE})},
    )
    with pytest.raises(InvariantBroken, match="DeadlinePassed in train led to offer"):
        step(node(), e.DeadlinePassed(), 1.0)


def test_with_rounds_counted_in_steps_time_alone_ends_nothing() -> None:
    counted = replace(MANIFEST, round=replace(MANIFEST.round, steps=10))
    state = begin(RunContext(run=RUN, me=ME.peer, manifest=counted, chunks=CHUNKS), TIP, 0.0)
    assert state.deadline == math.inf
    assert node().deadline == MANIFEST.round.seconds
    after, actions = step(state, e.TrainingFinished(), 1.0)
    assert after.phase is Phase.OFFER
    assert any(isinstance(action, a.MakeOffer) for action in actions)


def test_who_joins_late_trains_for_the_rest_of_the_round_alone() -> None:
    late = begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        100.0,
        age_s=MANIFEST.round.seconds - 7,
    )
    assert late.deadline == 107.0
    later = begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS), TIP, 100.0, age_s=1e9
    )
    assert later.deadline == 100.0


def test_a_cut_says_why_in_no_more_than_a_message_may_carry() -> None:
    """Half of 64 members lost, each named twice, made a reason that everybody refused to read."""
    persons = people(64)
    manifest = replace(MANIFEST, group=replace(MANIFEST.group, max_group=64))
    made = Made(persons, manifest=manifest, chunks=64)
    leader = made.leader.peer
    plan = OpenPlan(
        plan=made.plan,
        digest=made.plan_signed.digest,
        leader=leader,
        members=tuple(person.peer for person in persons),
        offers=tuple(ready(TIP, person) for person in persons),
    )
    lost = [person.peer for person in persons if person.peer != leader][:31]
    state = begin(
        RunContext(run=RUN, me=leader, manifest=manifest, chunks=64),
        TIP,
        0.0,
        live=frozenset(plan.members),
    )
    state = replace(
        state, phase=Phase.REDUCE, offer=plan.offers[0], plan=plan, plan_signed=made.plan_signed
    )
    state = replace(
        state,
        inclusion=made.inclusion,
        inclusion_signed=made.inclusion_signed,
        lost=frozenset(lost),
    )
    _, actions = leader_inclusion.include_again(state, 1.0, final=False)
    inclusion = next(action.message for action in actions if isinstance(action, a.Send))
    assert 300 < len(inclusion.reason) <= MAX_REASON_CHARS


def test_a_plan_of_another_parent_view_or_leader_changes_nothing() -> None:
    offer = MADE.open_plan().offers[0]
    waiting = replace(
        node(),
        phase=Phase.READY,
        deadline=5.0,
        offer=offer,
        offered_to=frozenset({MADE.leader.peer}),
    )
    assert step(waiting, EVENTS[e.PlanReceived], 1.0)[0].phase is Phase.SCATTER
    for changed in (
        replace(waiting, view=1),
        replace(waiting, tip=replace(TIP, hash=named("elsewhere"))),
    ):
        after, actions = step(changed, EVENTS[e.PlanReceived], 1.0)
        assert replace(after, declined=()) == changed
        assert [action.message.plan for action in actions if isinstance(action, a.Send)] == [
            MADE.plan_signed.digest
        ]
        assert step(after, EVENTS[e.PlanReceived], 1.0) == (after, []), "it is said once"
    after, actions = step(replace(waiting, offered_to=frozenset()), EVENTS[e.PlanReceived], 1.0)
    assert after.phase is Phase.READY
    assert [(action.peer, action.reason) for action in actions if isinstance(action, a.Refuse)] == [
        (MADE.leader.peer, "not_leader")
    ]
    after, actions = step(
        replace(waiting, offer=replace(offer, samples=99)), EVENTS[e.PlanReceived], 1.0
    )
    assert [(action.peer, action.reason) for action in actions if isinstance(action, a.Refuse)] == [
        (MADE.leader.peer, "bad_plan")
    ]


def test_two_inclusions_of_one_number_are_equivocation() -> None:
    state = replace(
        node(),
        phase=Phase.REDUCE,
        plan=MADE.open_plan(),
        plan_signed=MADE.plan_signed,
        inclusion=MADE.inclusion,
        inclusion_signed=MADE.inclusion_signed,
    )
    other = replace(MADE.inclusion, reason="another")
    _, actions = step(state, e.InclusionReceived(signed=MADE.signed(other), inclusion=other), 1.0)
    assert [(action.peer, action.reason) for action in actions if isinstance(action, a.Refuse)] == [
        (MADE.leader.peer, "equivocation")
    ]
    assert step(state, EVENTS[e.InclusionReceived], 1.0) == (state, [])
    stranger = next(person for person in people(3) if person is not MADE.leader)
    higher = replace(other, number=2)
    _, actions = step(
        state, e.InclusionReceived(signed=MADE.signed(higher, stranger), inclusion=higher), 1.0
    )
    assert [(action.peer, action.reason) for action in actions if isinstance(action, a.Refuse)] == [
        (stranger.peer, "not_leader")
    ]


def test_whoever_knows_the_certificate_only_finishes_or_fetches() -> None:
    """A leader that knew its round's certificate ended the view all the same, and met the
    certificate again where nothing expects it.
    """
    leader = MADE.leader.peer
    certificate = open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)
    state = replace(
        node(),
        context=RunContext(run=RUN, me=leader, manifest=MANIFEST, chunks=CHUNKS),
        phase=Phase.SCATTER,
        deadline=5.0,
    )
    state = replace(
        state,
        plan=MADE.open_plan(),
        plan_signed=MADE.plan_signed,
        offer=MADE.open_plan().offers[0],
        target=certificate,
    )
    for event in (
        *(e.PeerLost(peer=peer) for peer in MADE.open_plan().members if peer != leader),
        EVENTS[e.HoldReportReceived],
    ):
        state, actions = step(state, event, 1.0)
        assert (state.phase, state.target) == (Phase.SCATTER, certificate)
        assert not actions
    without = replace(MADE.inclusion, contributors=(0, 1), present=(0, 1), owners=(0, 1, 0))
    me = next(peer for peer in MADE.open_plan().members[2:])
    left = replace(
        state,
        context=RunContext(run=RUN, me=me, manifest=MANIFEST, chunks=CHUNKS),
        lost=frozenset(),
    )
    for after in (
        step(left, e.InclusionReceived(signed=MADE.signed(without), inclusion=without), 1.0),
        step(state, e.DeadlinePassed(), 5.0),
    ):
        assert after[0].phase is Phase.FETCH
        assert a.FetchState(certificate=certificate) in after[1]


def test_an_offer_to_an_earlier_view_or_round_is_not_kept() -> None:
    state = replace(node(), phase=Phase.READY, offer=ready(TIP, ME), deadline=5.0, view=3)
    for offer in (
        ready(TIP, OTHERS[0], view=2),
        replace(ready(TIP, OTHERS[0], view=3), number=2),
        replace(ready(TIP, OTHERS[0], view=3), parent=named("elsewhere")),
    ):
        assert step(
            state, e.ReadyReceived(signed=sign(OTHERS[0], RUN, offer), ready=offer), 1.0
        ) == (
            state,
            [],
        )
    later = ready(TIP, OTHERS[0], view=3)
    assert set(
        step(state, e.ReadyReceived(signed=sign(OTHERS[0], RUN, later), ready=later), 1.0)[
            0
        ].readies
    ) == {OTHERS[0].peer}


@pytest.mark.parametrize("phase", [Phase.READY, Phase.WATCH])
def test_a_merge_that_fails_leads_back_to_the_view_it_was_left_for(phase: Phase) -> None:
    """It led back to view 1, whatever had been scattered and voted for in the views from there on."""
    state = replace(node(), phase=phase, offer=ready(TIP, ME), deadline=5.0, view=4)
    merging, _ = step(state, EVENTS[e.ForkFound], 1.0)
    after, _ = step(
        merging, e.StateUnavailable(certificate=named("another branch"), reason="nobody"), 2.0
    )
    assert (after.phase, after.view) == (Phase.TRAIN, 4 if phase is Phase.READY else 5)
    fetching, _ = step(merging, EVENTS[e.CertificateReceived], 2.0)
    fetching, _ = step(fetching, EVENTS[e.StateUnavailable], 3.0)
    assert (fetching.phase, fetching.view) == (Phase.TRAIN, 4 if phase is Phase.READY else 5)


def test_strangers_offers_are_bounded() -> None:
    state = replace(node(), phase=Phase.READY, offer=ready(TIP, ME), deadline=5.0, view=3)
    offer = ready(TIP, OTHERS[0], view=3)
    signed = sign(OTHERS[0], RUN, offer)
    for i in range(400):
        state, _ = step(
            state, e.ReadyReceived(signed=replace(signed, peer=f"sybil {i}"), ready=offer), 1.0
        )
    assert len(state.readies) == PEERS_KEPT


def fetching(live: tuple[PeerId, ...]) -> tuple[RoundState, float]:
    """A node that fetches a state, whose chunks come one in 9 s, for 40 minutes; and for how long."""
    state, _ = step(node(live), EVENTS[e.CertificateReceived], 1.0)
    assert state.phase is Phase.FETCH
    now = 1.0
    while state.phase is Phase.FETCH and now < 2400.0:
        now = min(now + 9.0 if now > 1.0 else 2.0, state.deadline)
        state, actions = step(
            state, EVENTS[e.StateBytesReceived] if now < state.deadline else e.DeadlinePassed(), now
        )
    if state.phase is not Phase.FETCH:
        assert [action.held_s for action in actions if isinstance(action, a.GiveUpState)] == [
            now - 1.0
        ]
    return state, now - 1.0


def test_a_state_that_comes_slowly_holds_a_node_for_few_rounds_while_others_live_at_its_tip() -> (
    None
):
    """A forged certificate held a node out of its rounds for as long as a chunk came in 10 s."""
    times = MANIFEST.round
    state, held_s = fetching(tuple(person.peer for person in OTHERS))
    assert state.phase is Phase.TRAIN
    assert held_s == pytest.approx(HELD_ROUNDS * (times.seconds + times.ready_s))


def test_alone_at_its_tip_a_node_waits_for_as_long_as_a_state_comes() -> None:
    assert fetching(())[0].phase is Phase.FETCH


def test_newer_certificates_give_a_download_no_more_time() -> None:
    first = open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)
    state, _ = step(node(), e.CertificateReceived(certificate=first), 1.0)
    held_s = HELD_ROUNDS * (MANIFEST.round.seconds + MANIFEST.round.ready_s)
    now, tip = 1.0, MADE.next_tip()
    for seq in range(2, 6):
        now += held_s / 4
        made = Made(people(3), tip, seq=seq)
        tip = made.next_tip()
        state, _ = step(
            state,
            e.CertificateReceived(certificate=open_certificate(made.raw(), RUN, MANIFEST, CHUNKS)),
            now,
        )
        assert state.phase is Phase.FETCH
    assert state.deadline == pytest.approx(1.0 + held_s)
