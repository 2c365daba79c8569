"""FETCH and MERGE: downloads that stall, and where a node returns to."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.identity import PeerId
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.fetch_phase import MISSED_ROUNDS
from protocol.round.machine import step
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from tests.protocol.round.sample_events import EVENTS, MADE, ME, OTHERS, TIP, training_node
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people, ready


@pytest.mark.parametrize("phase", [Phase.READY, Phase.WATCH])
def test_failed_merge_returns_to_the_view_that_was_left_for_it(phase: Phase) -> None:
    """Before the fix, the node returned to view 1, in which it had scattered and voted already."""
    state = replace(training_node(), phase=phase, offer=ready(TIP, ME), deadline=5.0, view=4)
    merging, _ = step(state, EVENTS[e.ForkFound], 1.0)
    after, _ = step(
        merging,
        e.StateUnavailable(certificate=named("another branch"), reason="no peer has it"),
        2.0,
    )
    assert (after.phase, after.view) == (Phase.TRAIN, 4 if phase is Phase.READY else 5)
    fetching, _ = step(merging, EVENTS[e.CertificateReceived], 2.0)
    fetching, _ = step(fetching, EVENTS[e.StateUnavailable], 3.0)
    assert (fetching.phase, fetching.view) == (Phase.TRAIN, 4 if phase is Phase.READY else 5)


def fetching(live: tuple[PeerId, ...]) -> tuple[RoundState, float]:
    """Fetch a state of which one chunk arrives in 9 s, for at most 40 minutes.

    Returns:
        The state of the node, and how many seconds it fetched.
    """
    state, _ = step(training_node(live), EVENTS[e.CertificateReceived], 1.0)
    assert state.phase is Phase.FETCH
    now = 1.0
    while state.phase is Phase.FETCH and now < 2400.0:
        now = min(now + 9.0 if now > 1.0 else 2.0, state.deadline)
        state, actions = step(
            state, EVENTS[e.StateBytesReceived] if now < state.deadline else e.DeadlinePassed(), now
        )
    if state.phase is not Phase.FETCH:
        assert [action.missed_s for action in actions if isinstance(action, a.GiveUpState)] == [
            now - 1.0
        ]
    return state, now - 1.0


def test_slow_state_holds_a_node_for_few_rounds_while_others_live_at_its_tip() -> None:
    """Before the fix, a forged certificate kept a node out of rounds at one chunk in 10 s."""
    state, seconds = fetching(tuple(person.peer for person in OTHERS))
    assert state.phase is Phase.TRAIN
    assert seconds == pytest.approx(MISSED_ROUNDS * (state.round_s + MANIFEST.round.ready_s))


def test_node_alone_at_its_tip_waits_while_a_state_arrives() -> None:
    assert fetching(())[0].phase is Phase.FETCH


def test_newer_certificates_give_a_download_no_more_time() -> None:
    first = open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)
    state, _ = step(training_node(), e.CertificateReceived(certificate=first), 1.0)
    missed_s = MISSED_ROUNDS * (state.round_s + MANIFEST.round.ready_s)
    now, tip = 1.0, MADE.next_tip()
    for seq in range(2, 6):
        now += missed_s / 4
        made = Made(people(3), tip, seq=seq)
        tip = made.next_tip()
        state, _ = step(
            state,
            e.CertificateReceived(certificate=open_certificate(made.raw(), RUN, MANIFEST, CHUNKS)),
            now,
        )
        assert state.phase is Phase.FETCH
    assert state.deadline == pytest.approx(1.0 + missed_s)
