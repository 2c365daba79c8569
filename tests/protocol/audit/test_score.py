"""The score of an audit, the verdict over three, and how often a voter audits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.audit.budget import SPARE_BYTES_PER_S, AuditBudget
from protocol.audit.history import KEPT_PEERS, AuditHistory
from protocol.audit.score import (
    AGAINST_BELOW,
    AUDITS,
    FOR_FROM,
    GROSS_BELOW,
    NO_WORK,
    score_of,
    verdict,
)

drops = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


def test_score_of_groups_above_the_others_median_is_their_share() -> None:
    assert score_of([2.0, 2.0, 0.0, 5.0], [1.0, 1.0, 3.0]) == 0.75
    assert score_of([2.0], [1.0, 3.0]) == 0.0
    assert score_of([2.1], [1.0, 3.0]) == 1.0


def test_score_of_a_contribution_that_changes_nothing_is_0() -> None:
    assert score_of([0.0] * 16, [0.0] * 16) == 0.0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_score_of_a_destroyed_model_is_0(broken: float) -> None:
    assert score_of([broken] * 16, [broken] * 16) == 0.0
    assert score_of([broken] * 16, [1.0] * 16) == 0.0


def test_score_of_needs_groups_of_both_kinds() -> None:
    for own, others in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="at least one group"):
            score_of(own, others)


@given(drops, drops, st.floats(-100, 100))
def test_score_of_is_a_share_that_only_order_decides(
    own: list[float], others: list[float], moved: float
) -> None:
    score = score_of(own, others)
    assert 0.0 <= score <= 1.0
    assert score_of([drop + 1e9 for drop in own], others) == 1.0
    assert score_of(sorted(own), sorted(others)) == score


@given(st.lists(st.floats(0, 1), max_size=12))
def test_verdict_counts_the_last_scores(scores: list[float]) -> None:
    said = verdict(scores)
    assert verdict(scores[-AUDITS:]) is said
    if sum(scores[-3:]) < 3 * GROSS_BELOW and len(scores) >= 3:
        assert said is False
    elif len(scores) < AUDITS:
        assert said is None
    else:
        mean = sum(scores[-AUDITS:]) / AUDITS
        assert said is (True if mean >= FOR_FROM else False if mean < AGAINST_BELOW else None)


def test_history_keeps_a_verdict_between_the_bounds() -> None:
    history = AuditHistory()
    assert [history.add("a", 0.9) for _ in range(5)] == [None, None, None, None, True]
    assert [history.add("a", 0.4) for _ in range(2)] == [True, True], "the mean is 0.7"
    assert [history.add("a", 0.4) for _ in range(2)] == [True, False]
    assert [history.add("a", 0.9) for _ in range(3)] == [False, False, False], "0.7 at most"
    assert history.add("a", 0.9) is True


def test_history_speaks_against_zeros_after_three_audits() -> None:
    history = AuditHistory()
    assert [history.add("a", 0.0) for _ in range(3)] == [None, None, False]
    assert [history.add("b", 0.5) for _ in range(5)] == [None, None, None, None, False]


def test_history_forgives_two_offers_without_named_data() -> None:
    history = AuditHistory()
    for score in (0.95, NO_WORK, 0.95, NO_WORK, 0.95):
        said = history.add("a", score)
    assert said is True


def test_history_forgets_the_peer_that_was_audited_longest_ago() -> None:
    history = AuditHistory()
    for number in range(KEPT_PEERS):
        for _ in range(AUDITS):
            history.add(str(number), 1.0)
    history.add("0", 1.0)
    history.add("new", 1.0)
    assert "1" not in history.verdicts
    assert history.verdicts["0"]
    assert history.scores("1") == ()


def test_budget_spends_at_most_a_twentieth_of_time_and_link() -> None:
    budget = AuditBudget(began_s=100.0)
    assert budget.affords(100.0, 2.0), "the first audit comes at once"
    assert not budget.affords(100.0, 34.0), "a dear one waits"
    assert budget.affords(100.0 + 34.0 / 0.05 + 1.0, 34.0)
    budget = budget.audited(seconds=1.0, size_bytes=20 * SPARE_BYTES_PER_S)
    assert not budget.affords(119.0, 2.0)
    assert budget.affords(121.0, 2.0)
    budget = budget.audited(seconds=0.0, size_bytes=2 * SPARE_BYTES_PER_S)
    assert not budget.affords(121.0, 2.0)
    assert budget.offered(10 * SPARE_BYTES_PER_S).affords(121.0, 2.0)
