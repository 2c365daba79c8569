"""A late node joins the view in which the others wait, so nodes never chase each other."""

from __future__ import annotations

import pytest

from protocol.certificates.leader_order import leader_of
from protocol.certificates.tip import genesis
from protocol.contribution.offer import NOTHING
from protocol.messages.envelope import sign
from protocol.round.events import DeadlinePassed, OfferMade, ReadyReceived
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RoundState, RunContext
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, people, ready

TIP = genesis(RUN)


def late(views: tuple[int, ...]) -> RoundState:
    """Return a node that makes its offer after the others, which wait in `views`."""
    me, *others = people(1 + len(views))
    live = frozenset(person.peer for person in others)
    state = begin(
        RunContext(run=RUN, me=me.peer, manifest=MANIFEST, chunks=CHUNKS), TIP, 0.0, live=live
    )
    state, _ = step(state, DeadlinePassed(), state.deadline)
    assert state.phase is Phase.OFFER
    # The leader of the first of these views waits in it: nodes pass over a leader that went on.
    leader = leader_of(state.leader_order, min(views))
    for person, view in zip(
        sorted(others, key=lambda person: person.peer != leader), sorted(views), strict=True
    ):
        offer = ready(TIP, person, view=view)
        state, _ = step(state, ReadyReceived(signed=sign(person, RUN, offer), ready=offer), 60.0)
    state, _ = step(state, OfferMade(ready=ready(TIP, me), offer=NOTHING), 60.1)
    return state


@pytest.mark.parametrize(
    ("views", "view"),
    [((1,), 1), ((5,), 5), ((0,), 0), ((3, 3, 4), 3), ((2, 0, 0), 0)],
    ids=[
        "one view late",
        "many views late",
        "in time",
        "to the first of several",
        "one of three in a later view",
    ],
)
def test_a_late_node_joins_the_view_of_half_of_the_others(
    views: tuple[int, ...], view: int
) -> None:
    state = late(views)
    assert (state.phase, state.view) == (Phase.READY, view)
