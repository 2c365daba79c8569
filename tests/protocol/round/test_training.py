"""TRAIN: when local training ends."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from protocol.planning.round_length import first_round_s
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RunContext
from tests.protocol.round.sample_events import ME, TIP, training_node
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN


def test_a_round_counted_in_steps_has_no_deadline() -> None:
    counted = replace(MANIFEST, round=replace(MANIFEST.round, steps=10))
    state = begin(RunContext(run=RUN, me=ME.peer, manifest=counted, chunks=CHUNKS), TIP, 0.0)
    assert state.deadline == math.inf
    assert training_node().deadline == first_round_s(MANIFEST.round)
    after, actions = step(state, e.TrainingFinished(), 1.0)
    assert after.phase is Phase.OFFER
    assert any(isinstance(action, a.MakeOffer) for action in actions)


def test_late_joiner_trains_for_the_rest_of_the_round() -> None:
    late = begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        100.0,
        age_s=first_round_s(MANIFEST.round) - 7,
    )
    assert late.deadline == pytest.approx(107.0)
    later = begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS), TIP, 100.0, age_s=1e9
    )
    assert later.deadline == 100.0
