"""Inclusions: their reasons, their numbers, and a certificate that comes first."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.messages.base import MAX_REASON_CHARS
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import leader_inclusion
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RunContext
from tests.protocol.round.sample_events import EVENTS, MADE, TIP, training_node
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people, ready


def test_reason_of_an_inclusion_fits_its_message() -> None:
    """A reason that names half of 64 members twice is cut to the limit of its message.

    Before the fix, no node accepted such an inclusion.
    """
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


def test_two_inclusions_with_one_number_are_equivocation() -> None:
    state = replace(
        training_node(),
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


def test_node_with_the_certificate_only_finishes_or_fetches() -> None:
    """A leader that has its round's certificate does not end the view.

    Before the fix, the certificate then arrived in a phase that does not expect it.
    """
    leader = MADE.leader.peer
    certificate = open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)
    state = replace(
        training_node(),
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
