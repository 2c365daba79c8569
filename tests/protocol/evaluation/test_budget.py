"""The budget of scoring: shares divide the held-out samples, and time stays below the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.settings import WorkerConfig
from protocol.evaluation.budget import (
    EVALUATION_SHARE,
    MIN_SAMPLES,
    EvaluationBudget,
    first_shares,
)
from protocol.ports.trainer import Evaluation, HeldOutShare

MEMBERS = tuple(f"peer-{i}" for i in range(4))


def evaluation(samples: int, seconds: float) -> Evaluation:
    return Evaluation(loss=1.0, samples=samples, seconds=seconds)


def known(sample_s: float) -> EvaluationBudget:
    return EvaluationBudget(began_s=0.0, sample_s=sample_s)


def share_of(
    budget: EvaluationBudget, me: str, number: int, held_out: int, now_s: float = 0.0
) -> HeldOutShare | None:
    return budget.share(
        members=MEMBERS, me=me, number=number, held_out=held_out, round_s=5.0, now_s=now_s
    )


def test_budget_first_scores_a_small_part_and_then_the_whole_share() -> None:
    budget = EvaluationBudget(began_s=0.0)
    first = share_of(budget, "peer-2", 1, 1024)
    assert first is not None
    assert (first.index, first.count) == (2, 16)
    assert first in first_shares(4, 1024)
    share = share_of(budget.scored(evaluation(64, 0.0064)), "peer-2", 1, 1024)
    assert share is not None
    assert (share.index, share.count) == (2, 4)


def test_budget_gives_each_member_other_samples_and_strangers_none() -> None:
    shares = [share_of(known(1e-6), me, 8, 10) for me in MEMBERS]
    scored = [i for share in shares if share for i in range(share.index, 10, share.count)]
    assert sorted(scored) == list(range(10))
    for me, held_out in (("stranger", 10), ("peer-0", 0), ("peer-3", 3)):
        assert share_of(known(1e-6), me, 8, held_out) is None


def test_budget_skips_certificates_so_that_members_meet_at_the_larger_stride() -> None:
    def scores(sample_s: float) -> set[int]:
        numbers = range(1, 65)
        return {number for number in numbers if share_of(known(sample_s), "peer-0", number, 256)}

    assert scores(0.001) == set(range(1, 65))
    assert scores(0.005) == set(range(4, 65, 4))
    assert scores(0.012) == set(range(8, 65, 8))
    assert scores(0.012) < scores(0.005) < scores(0.001)


def test_budget_takes_parts_that_contain_each_other_and_grow_with_time() -> None:
    sets = []
    for now_s in (0.0, 100.0, 200.0, 600.0):
        share = share_of(known(0.001), "peer-1", 64, 4096, now_s)
        assert share is not None
        sets.append(set(range(share.index, 4096, share.count)))
    assert sets[0] < sets[1] < sets[2] < sets[3]
    assert len(sets[0]) == MIN_SAMPLES
    assert len(sets[3]) == 1024


def test_budget_expects_what_training_costs_before_the_first_score() -> None:
    """A slow trainer's first score once stopped its steps for two rounds."""
    slow, fast = (
        EvaluationBudget(began_s=0.0).expecting(6.0),
        EvaluationBudget(began_s=0.0).expecting(3e5),
    )
    assert not [number for number in range(1, 32) if share_of(slow, "peer-0", number, 256)]
    assert share_of(slow, "peer-0", 64, 256) is not None
    assert share_of(fast, "peer-0", 1, 256) is not None


def test_budget_without_a_limit_above_zero_scores_nothing() -> None:
    assert not EvaluationBudget(began_s=0.0, limit=0.0).affords(1000.0)
    assert EvaluationBudget(began_s=0.0).affords(0.0)
    assert WorkerConfig().evaluation_share == EVALUATION_SHARE


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
            members=members,
            me="peer-0",
            number=number,
            held_out=held_out,
            round_s=round_s,
            now_s=now,
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
