"""The held-out loss of a certificate: each member counts once, and nobody else counts."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.status import KEPT_POINTS, KEPT_ROUNDS, StatusState, fold, status_at
from protocol.status.held_out_scores import MAX_LOSS, MAX_WEIGHT, RISING_ROUNDS
from protocol.status.reference import ReferenceCurve, ReferencePoint
from tests.story import AT, PEERS, certified, day, folded, scored, started

ANY_LOSS = st.floats(allow_nan=True, allow_infinity=True)


def test_held_out_loss_is_the_mean_over_the_members_samples() -> None:
    state = folded([*day(), scored(0, 6, 2.0, samples=100), scored(1, 6, 3.0, samples=300)])
    run = status_at(state, AT).run
    assert run.held_out == pytest.approx(2.75)
    assert (run.held_out_round, run.held_out_samples, run.held_out_scorers) == (6, 400, 2)
    newest = status_at(state, AT).rounds[0]
    assert (newest.held_out, newest.held_out_scorers) == (pytest.approx(2.75), 2)
    # The training loss stays what the members claim.
    assert newest.loss == pytest.approx(5.7)


def test_a_scorer_of_held_out_samples_counts_once_with_its_newest_score() -> None:
    state = folded([*day(), *[scored(1, 6, 3.0)] * 5, scored(1, 6, 2.5), scored(2, 6, 2.0)])
    run = status_at(state, AT).run
    assert run.held_out == pytest.approx(2.25)
    assert run.held_out_scorers == 2


def test_held_out_scores_of_strangers_and_of_unknown_certificates_do_not_count() -> None:
    state = folded(day())
    # PEERS[4] is no member of these rounds, and no certificate has number 99.
    for event in (scored(4, 6, 9.0), scored(1, 99, 9.0), scored(1, 6, 9.0, samples=0)):
        fold(state, event)
    for i in range(1000):
        fold(state, msgspec.structs.replace(scored(1, 6, 9.0), peer=f"stranger-{i}"))
    status = status_at(state, AT)
    assert status.run.held_out is None
    assert status.held_out == ()


@given(loss=ANY_LOSS, samples=st.integers(-(2**70), 2**70))
def test_one_members_held_out_claim_stays_finite_and_does_not_outweigh_the_others(
    loss: float, samples: int
) -> None:
    honest = [scored(i, 6, 2.0) for i in (0, 2, 3)]
    state = folded([*day(), *honest, scored(1, 6, loss, samples=samples)])
    held_out = status_at(state, AT).run.held_out
    assert held_out is not None
    assert math.isfinite(held_out)
    bound = min(abs(loss), MAX_LOSS) if math.isfinite(loss) else 0.0
    assert abs(held_out - 2.0) <= MAX_WEIGHT / (3 + MAX_WEIGHT) * (bound + 2.0) * 1.001


def test_held_out_curve_is_bounded_and_keeps_the_last_point() -> None:
    state = folded([started()])
    rounds = 2 * KEPT_POINTS
    for number in range(1, rounds + 1):
        fold(state, certified(number, at=AT + number))
        fold(state, scored(0, number, 5.0 - number / rounds))
    # A certificate that is too old accepts no more scores.
    fold(state, scored(1, rounds - KEPT_ROUNDS - 1, 9.0))
    points = status_at(state, AT).held_out
    assert len(points) <= KEPT_POINTS + KEPT_ROUNDS
    assert [point.number for point in points] == sorted(point.number for point in points)
    assert points[-1].number == rounds
    assert max(point.loss for point in points) <= 5.0
    assert points[-1].samples == rounds * 400


def _rounds(held_out: list[float], training: list[float], role: str = "node") -> StatusState:
    state = folded([started(role)])
    outcome = "observed" if role == "observer" else "counted"
    for number, (scored_loss, claimed) in enumerate(zip(held_out, training, strict=True), 1):
        fold(state, certified(number, outcome, at=AT - 10 + number, loss=claimed))
        fold(state, scored(1, number, scored_loss))
    return state


@pytest.mark.parametrize("role", ["node", "observer"])
def test_verdict_warns_of_a_held_out_loss_that_rises_while_the_training_loss_falls(
    role: str,
) -> None:
    rises = [2.0 + 0.1 * i for i in range(RISING_ROUNDS + 1)]
    falls = [2.0 - 0.1 * i for i in range(RISING_ROUNDS + 1)]
    status = status_at(_rounds(rises, falls, role), AT)
    assert status.level == "warning"
    assert (
        "The held-out loss rose for 5 scored rounds (2.000 → 2.500) while the members' training"
        " loss fell (2.000 → 1.500)" in status.verdict
    )
    for held_out, training in (
        (rises, rises),
        (falls, falls),
        (rises[1:], falls[1:]),
        ([*rises[:3], 2.05, *rises[4:]], falls),
    ):
        assert "held-out loss rose" not in status_at(_rounds(held_out, training, role), AT).verdict


def test_reference_curve_is_linear_between_its_points() -> None:
    points = tuple(
        ReferencePoint(seconds=at, samples=int(at), loss=loss)
        for at, loss in ((0.0, 5.0), (10.0, 3.0), (20.0, 2.0))
    )
    curve = ReferenceCurve(label="one machine alone", began_at=AT, points=points)
    assert curve.loss_at(0.0) == 5.0
    assert curve.loss_at(5.0) == pytest.approx(4.0)
    assert curve.loss_at(15.0) == pytest.approx(2.5)
    assert curve.loss_at(20.5) is None
    assert PEERS[0] not in curve.label
