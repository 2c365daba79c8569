"""The score of an audit, the verdict over three, and the statements that follow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.audit.budget import AuditBudget
from protocol.audit.history import KEPT_PEERS, MAX_STATEMENTS, AuditHistory, statements_due
from protocol.audit.score import AGAINST_BELOW, FOR_FROM, NO_WORK, score_of, verdict

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


@given(st.lists(st.floats(0, 1), max_size=8))
def test_verdict_counts_the_last_three_scores(scores: list[float]) -> None:
    said = verdict(scores)
    if len(scores) < 3:
        assert said is None
        return
    mean = sum(scores[-3:]) / 3
    assert said is (True if mean >= FOR_FROM else False if mean < AGAINST_BELOW else None)
    assert verdict([0.0, *scores]) is said


def test_history_keeps_a_verdict_between_the_bounds() -> None:
    history = AuditHistory()
    assert [history.add("a", 0.9) for _ in range(3)] == [None, None, True]
    assert history.add("a", 0.4) is True, "one bad audit between good ones"
    assert history.add("a", 0.4) is False
    assert history.add("a", 0.9) is False, "the mean is 0.57"
    assert history.add("a", 0.9) is False, "0.73: the word against stands"
    assert history.add("a", 0.9) is True


def test_history_forgives_one_offer_without_named_data() -> None:
    history = AuditHistory()
    for score in (0.95, NO_WORK, 0.95, NO_WORK, 0.95):
        said = history.add("a", score)
    assert said is True
    assert [history.add("b", NO_WORK) for _ in range(3)] == [None, None, False]


def test_history_forgets_the_peer_that_was_audited_longest_ago() -> None:
    history = AuditHistory()
    for number in range(KEPT_PEERS):
        for _ in range(3):
            history.add(str(number), 1.0)
    history.add("0", 1.0)
    history.add("new", 1.0)
    assert "1" not in history.verdicts
    assert history.verdicts["0"]
    assert history.scores("1") == ()


def test_statements_due_repeats_until_the_record_has_them_and_says_against_first() -> None:
    verdicts = {"a": True, "b": False, "c": True}
    due = statements_due(verdicts, guilty={"d"}, recorded={}, trusted=set())
    assert due == [("b", False), ("d", False), ("a", True), ("c", True)]
    recorded = {"b": False, "d": False, "a": True}
    due = statements_due(verdicts, guilty={"d"}, recorded=recorded, trusted=set())
    assert due == [("c", True)]


def test_statements_due_favours_a_trusted_peer_only_to_take_a_word_back() -> None:
    arguments = {"guilty": set(), "trusted": {"a"}}
    assert statements_due({"a": True}, recorded={}, **arguments) == []
    assert statements_due({"a": True}, recorded={"a": False}, **arguments) == [("a", True)]
    assert statements_due({"a": False}, recorded={}, **arguments) == [("a", False)]


def test_statements_due_of_a_guilty_peer_are_against_it_whatever_audits_say() -> None:
    due = statements_due({"a": True}, guilty={"a"}, recorded={"a": True}, trusted=set())
    assert due == [("a", False)]


@given(
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=30),
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=30),
)
def test_statements_due_reach_the_record_in_the_end(
    verdicts: dict[str, bool], recorded: dict[str, bool]
) -> None:
    for _ in range(5):
        due = statements_due(verdicts, guilty=(), recorded=recorded, trusted=())
        assert len(due) <= MAX_STATEMENTS
        recorded = {**recorded, **dict(due)}
    assert all(recorded[peer] is favours for peer, favours in verdicts.items())


def test_budget_spends_at_most_a_twentieth_of_time_and_link() -> None:
    budget = AuditBudget(began_s=100.0)
    assert budget.affords(100.0), "the first audit comes at once"
    budget = budget.offered(1000).audited(seconds=1.0, size_bytes=90)
    assert not budget.affords(119.0)
    assert budget.affords(121.0)
    budget = budget.audited(seconds=0.0, size_bytes=20)
    assert not budget.affords(121.0)
    assert budget.offered(1000).affords(121.0)
