"""The length of rounds: bounds, shares of the exchange, and how fast it may change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.planning.round_length import (
    CONTROL_S,
    MOST_CHANGE,
    first_round_s,
    length_bounds,
    length_reason,
    next_round_s,
    round_length,
)
from protocol.run.manifest import RoundRules

RULES = RoundRules(seconds=60.0, min_seconds=2.0)

rules = st.builds(
    lambda one, two, overlap: RoundRules(
        seconds=max(one, two), min_seconds=min(one, two), overlap=overlap
    ),
    st.floats(0.1, 1000.0),
    st.floats(0.1, 1000.0),
    st.booleans(),
)
predictions = st.none() | st.floats(0.0, 1e4)


def settled(predicted_s: float, bounds: RoundRules = RULES) -> float:
    """The length after many certificates with one prediction."""
    length = first_round_s(bounds)
    for _ in range(40):
        length = next_round_s(length, predicted_s, bounds)
    return length


@given(rules, predictions, st.data())
def test_a_length_keeps_its_bounds_and_changes_by_half_at_most(
    bounds: RoundRules, predicted_s: float | None, data: st.DataObject
) -> None:
    left = data.draw(st.none() | st.floats(bounds.min_seconds, bounds.seconds))
    before = round_length(left, bounds)
    after = next_round_s(left, predicted_s, bounds)
    assert bounds.min_seconds <= after <= bounds.seconds
    assert before / MOST_CHANGE * (1 - 1e-12) <= after <= before * MOST_CHANGE * (1 + 1e-12)
    if predicted_s is None:
        assert after == before
    assert length_reason(after, predicted_s, bounds)


@given(rules, st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_a_longer_exchange_never_makes_a_shorter_round(
    bounds: RoundRules, one: float, two: float
) -> None:
    quick, slow = sorted((one, two))
    assert next_round_s(None, quick, bounds) <= next_round_s(None, slow, bounds)


@pytest.mark.parametrize(
    ("overlap", "given", "share"),
    [(True, 0.1, 0.1), (False, 0.1, 0.05), (True, 0.25, 0.25), (False, 0.25, 0.125)],
)
def test_an_exchange_takes_its_share_of_a_round(overlap: bool, given: float, share: float) -> None:
    bounds = replace(RULES, overlap=overlap, exchange_share=given)
    assert settled(0.9, bounds) == pytest.approx((0.9 + CONTROL_S) / share)
    assert settled(0.0, bounds) == 2.0
    assert settled(30.0, bounds) == 60.0


def test_a_run_begins_between_its_bounds_and_reaches_either_in_five_certificates() -> None:
    assert first_round_s(RULES) == pytest.approx(120**0.5)
    for predicted_s, goal in ((0.0, 2.0), (100.0, 60.0)):
        length, certificates = first_round_s(RULES), 0
        while length != goal:
            length, certificates = next_round_s(length, predicted_s, RULES), certificates + 1
        assert certificates == 5


@pytest.mark.parametrize(
    "bounds", [RoundRules(seconds=7.0, min_seconds=7.0), RoundRules(seconds=7.0, steps=3)]
)
def test_rounds_of_one_length_stay_so(bounds: RoundRules) -> None:
    assert first_round_s(bounds) == 7.0
    assert next_round_s(None, 100.0, bounds) == 7.0
    assert next_round_s(None, 0.0, bounds) == 7.0
    assert "as the manifest says" in length_reason(7.0, 1.0, bounds)


@pytest.mark.parametrize(
    ("round_s", "predicted_s", "reason"),
    [
        (
            10.0,
            0.9,
            "rounds of 10 s: the exchange takes 0.9 s, at most 10% of a round with its control",
        ),
        (7.3, 0.9, "rounds of 7.3 s: the exchange takes 0.9 s; on the way to 10 s"),
        (2.0, 0.01, "rounds of 2 s: the exchange takes 0.01 s, and no round may be shorter"),
        (60.0, 9.0, "rounds of 60 s: the exchange takes 9 s, and no round may be longer"),
        (40.0, 9.0, "rounds of 40 s: the exchange takes 9 s; on the way to 60 s"),
        (11.0, None, "rounds of 11 s: too little is measured to choose another length"),
    ],
)
def test_the_reason_has_the_numbers(round_s: float, predicted_s: float | None, reason: str) -> None:
    assert length_reason(round_s, predicted_s, RULES) == reason


def test_golden_lengths() -> None:
    """A difference means that two releases of rules 3 no longer plan alike."""
    found, length = [], None
    for predicted_s in (None, 0.05, 0.05, 0.4, 2.5, 2.5, 9.0, None, 0.3):
        length = next_round_s(length, predicted_s, RULES)
        found.append(length.hex())
    assert found == [
        "0x1.5e8add236a58fp+3",
        "0x1.d363d1848dcbfp+2",
        "0x1.3797e1030932ap+2",
        "0x1.4000000000000p+2",
        "0x1.e000000000000p+2",
        "0x1.6800000000000p+3",
        "0x1.0e00000000000p+4",
        "0x1.0e00000000000p+4",
        "0x1.6800000000000p+3",
    ]


def test_length_bounds_name_both_ends_only_where_rounds_adapt() -> None:
    assert length_bounds(RULES) == "rounds of 2 to 60 s"
    assert length_bounds(replace(RULES, min_seconds=60.0)) == "rounds of 60 s"
    assert length_bounds(replace(RULES, steps=5)) == "rounds of 5 steps"
