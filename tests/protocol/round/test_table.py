"""The transition table is complete, has no dead ends, and ignores the events that it lacks."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.errors import InvariantBroken
from protocol.round import events as e
from protocol.round import machine, offer_phase
from protocol.round.machine import TABLE, step
from protocol.round.phase import Phase
from tests.protocol.round.sample_events import EVENTS, MADE, training_node


def test_table_covers_every_event_and_phase() -> None:
    assert {event for _, event in TABLE} == set(EVENTS)
    assert {phase for phase, _ in TABLE} == set(Phase)
    for _, leads_to in TABLE.values():
        assert leads_to <= set(Phase)


def test_every_phase_leads_to_training() -> None:
    """No phase is a dead end: each leads to TRAIN, and TRAIN leads to each."""
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


def test_phases_that_wait_for_others_have_a_deadline() -> None:
    for phase in set(Phase) - {Phase.OFFER, Phase.ADOPT}:
        assert (phase, e.DeadlinePassed) in TABLE, f"only other nodes can end {phase.value}"


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_event_without_an_entry_is_ignored(phase: Phase) -> None:
    state = replace(training_node(), phase=phase)
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
def test_step_accepts_every_event_in_every_phase(phase: Phase, kind: type[e.Event]) -> None:
    """The states are those of one round, with its plan and inclusion where a phase has them."""
    state = replace(
        training_node(),
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
    assert step(state, EVENTS[kind], 5.0) == first, "step depends on more than its arguments"


def test_handler_that_leaves_the_table_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine,
        "TABLE",
        {**TABLE, (Phase.TRAIN, e.DeadlinePassed): (offer_phase.end_training, {Phase.VOTE})},
    )
    with pytest.raises(InvariantBroken, match="DeadlinePassed in train led to offer"):
        step(training_node(), e.DeadlinePassed(), 1.0)
