"""READY: which offers and plans a node accepts."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.messages.envelope import sign
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import step
from protocol.round.phase import Phase
from protocol.round.transitions import PEERS_KEPT
from tests.protocol.round.sample_events import EVENTS, MADE, ME, OTHERS, TIP, training_node
from tests.protocol.rounds import RUN, named, ready


def test_plan_of_another_parent_view_or_leader_is_refused() -> None:
    offer = MADE.open_plan().offers[0]
    waiting = replace(
        training_node(),
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
        assert step(after, EVENTS[e.PlanReceived], 1.0) == (after, []), "a node withdraws once"
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


def test_offer_for_an_earlier_view_or_round_is_not_kept() -> None:
    state = replace(training_node(), phase=Phase.READY, offer=ready(TIP, ME), deadline=5.0, view=3)
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


def test_kept_offers_are_bounded() -> None:
    state = replace(training_node(), phase=Phase.READY, offer=ready(TIP, ME), deadline=5.0, view=3)
    offer = ready(TIP, OTHERS[0], view=3)
    signed = sign(OTHERS[0], RUN, offer)
    for i in range(400):
        state, _ = step(
            state, e.ReadyReceived(signed=replace(signed, peer=f"sybil {i}"), ready=offer), 1.0
        )
    assert len(state.readies) == PEERS_KEPT
