"""The budget of scoring: shares divide the held-out samples, and time stays below the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.evaluation.budget import EVALUATION_SHARE, SCORED_EVERY_S, EvaluationBudget
from protocol.ports.trainer import Evaluation

MEMBERS = tuple(f"peer-{i}" for i in range(4))


def evaluation(samples: int, seconds: float) -> Evaluation:
    return Evaluation(loss=1.0, samples=samples, seconds=seconds)


def known(sample_s: float) -> EvaluationBudget:
    return EvaluationBudget(began_s=0.0, sample_s=sample_s)


def test_budget_first_scores_a_small_part_and_then_the_whole_share() -> None:
    budget = EvaluationBudget(began_s=0.0)
    first = budget.share(members=MEMBERS, me="peer-2", number=1, held_out=1024, round_s=5.0)
    assert first is not None
    assert (first.index, first.count) == (2, 64)
    budget = budget.scored(evaluation(16, 0.0016))
    share = budget.share(members=MEMBERS, me="peer-2", number=1, held_out=1024, round_s=5.0)
    assert share is not None
    assert (share.index, share.count) == (2, 4)


def test_budget_gives_each_member_other_samples_and_strangers_none() -> None:
    budget = known(1e-6)
    shares = [
        budget.share(members=MEMBERS, me=me, number=8, held_out=10, round_s=5.0) for me in MEMBERS
    ]
    scored = [i for share in shares if share for i in range(share.index, 10, share.count)]
    assert sorted(scored) == list(range(10))
    for me, held_out in (("stranger", 10), ("peer-0", 0), ("peer-3", 3)):
        share = budget.share(members=MEMBERS, me=me, number=8, held_out=held_out, round_s=5.0)
        assert share is None


def test_budget_skips_certificates_so_that_members_meet_at_the_larger_stride() -> None:
    def scores(sample_s: float) -> set[int]:
        budget = known(sample_s)
        return {
            number
            for number in range(1, 65)
            if budget.share(members=MEMBERS, me="peer-0", number=number, held_out=400, round_s=5.0)
        }

    assert scores(0.001) == set(range(1, 65))
    assert scores(0.003) == set(range(4, 65, 4))
    assert scores(0.006) == set(range(8, 65, 8))
    assert scores(0.006) < scores(0.003) < scores(0.001)


def test_budget_scores_a_part_of_a_share_that_costs_minutes() -> None:
    share = known(1.0).share(members=MEMBERS, me="peer-1", number=64, held_out=400, round_s=5.0)
    assert share is not None
    samples = len(range(share.index, 400, share.count))
    assert 0 < samples <= EVALUATION_SHARE * SCORED_EVERY_S
    assert share.index == 1


@given(
    sample_s=st.floats(1e-6, 100.0),
    held_out=st.integers(0, 5000),
    round_s=st.floats(0.5, 300.0),
    count=st.integers(1, 64),
)
def test_budget_stays_below_its_share_of_the_time(
    sample_s: float, held_out: int, round_s: float, count: int
) -> None:
    members = tuple(f"peer-{i}" for i in range(count))
    budget = EvaluationBudget(began_s=0.0)
    now, longest = 0.0, 0.0
    for number in range(1, 200):
        now += round_s
        if not budget.affords(now):
            continue
        share = budget.share(
            members=members, me="peer-0", number=number, held_out=held_out, round_s=round_s
        )
        if share is not None:
            samples = len(range(share.index, held_out, share.count))
            assert samples > 0
            longest = max(longest, samples * sample_s)
            budget = budget.scored(evaluation(samples, samples * sample_s))
    # Scoring begins only while nothing is owed, so at most one score is ahead of the budget.
    assert budget.spent_s <= EVALUATION_SHARE * now + longest
    assert budget.spent_s == 0.0 or held_out > 0
    assert budget.scored(evaluation(1, 0.5)).sample_s == pytest.approx(0.5)
