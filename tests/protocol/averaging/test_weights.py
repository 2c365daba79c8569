"""The weights: bounded by the medians, by the others' sum, and by what the members weigh."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.weights import (
    MEDIANS,
    OWN_WEIGHTS,
    TRUSTED_MEDIANS,
    claimed_weight,
    lower_median,
    median_samples,
    usual_weight,
    weights_in,
)

# Claims, and whether each is a newcomer's.
PEOPLE = st.lists(st.tuples(st.integers(0, 1 << 40), st.booleans()), min_size=1, max_size=64)


def test_lower_median_is_the_element_before_the_middle() -> None:
    assert lower_median([4, 1, 3, 2]) == 2
    assert lower_median([5, 1, 3]) == 3
    with pytest.raises(IndexError):
        lower_median([])


def test_median_samples_is_that_of_the_voters_who_offer() -> None:
    assert median_samples([10, 0, 30, 999], voters=[0, 1, 2], newcomers=[]) == 10
    assert median_samples([0, 7, 9, 999], voters=[0], newcomers=[3]) == 7
    assert median_samples([0, 0, 5, 6], voters=[0], newcomers=[2, 3]) == 5
    assert median_samples([0, 0], voters=[0], newcomers=[1]) == 0


def test_usual_weight_takes_the_median_of_the_last_weights_per_second() -> None:
    steady = [(100, 10.0)] * OWN_WEIGHTS
    assert usual_weight(steady, 30.0) == 300.0
    assert usual_weight(steady[1:], 30.0) is None
    # One burst among the last eight moves nothing, and older weights do not count.
    assert usual_weight([(9_999, 1.0)] * 5 + steady[1:] + [(10_000, 10.0)], 10.0) == 100.0


@given(
    samples=st.integers(0, 1 << 62),
    median=st.integers(1, 1 << 40),
    usual=st.none() | st.floats(0, 1e12),
    policy=st.sampled_from(["open", "registered", "invite", "allowlist"]),
)
def test_claimed_weight_is_bounded(
    samples: int, median: int, usual: float | None, policy: str
) -> None:
    weight = claimed_weight(samples, median, usual, policy)
    assert (weight == 0) == (samples == 0)
    assert weight <= samples
    if policy in ("invite", "allowlist"):
        assert weight <= TRUSTED_MEDIANS * median
        assert weight == min(samples, TRUSTED_MEDIANS * median)
    else:
        assert weight <= MEDIANS * median
        assert usual is None or weight <= max(1, MEDIANS * usual)


def test_claimed_weight_of_a_burst_is_twice_the_usual_one() -> None:
    """A member that claims 100 times its samples in one round."""
    assert claimed_weight(10_000, 400, 100.0, "open") == 200
    assert claimed_weight(10_000, 400, None, "open") == 800


@given(people=PEOPLE, data=st.data())
def test_weights_in_an_open_run(people: list[tuple[int, bool]], data: st.DataObject) -> None:
    claimed = [one for one, _ in people]
    new = [i for i, (_, is_new) in enumerate(people) if is_new]
    contributors = sorted(
        data.draw(st.sets(st.sampled_from([i for i, one in enumerate(claimed) if one])))
        if any(claimed)
        else []
    )
    weights = weights_in(claimed, new, contributors, "open")
    assert len(weights) == len(contributors)
    for i, weight in zip(contributors, weights, strict=True):
        assert 1 <= weight <= claimed[i]
    newcomers = [weight for i, weight in zip(contributors, weights, strict=True) if i in new]
    members = sum(weights) - sum(newcomers)
    if members:
        # A weight of 1 is the least that a contribution can have.
        assert (
            4 * sum(newcomers) <= members
            or all(weight == 1 for weight in newcomers)
            or (4 * sum(weight for weight in newcomers if weight > 1) <= members)
        )
    if len(weights) - len(newcomers) >= 5:
        for i, weight in zip(contributors, weights, strict=True):
            if i not in new:
                assert 3 * weight <= sum(weights) - weight or weight == 1
    assert weights_in(claimed, new, contributors, "invite") == tuple(
        claimed[i] for i in contributors
    )


@given(claims=st.lists(st.integers(1, 1 << 40), min_size=5, max_size=64))
def test_a_third_of_the_others_takes_no_more_than_it_must(claims: list[int]) -> None:
    weights = weights_in(claims, [], range(len(claims)), "open")
    cut = [(claim, weight) for claim, weight in zip(claims, weights, strict=True) if claim > weight]
    if not cut:
        return
    most = max(weights)
    assert all(weight == most for _, weight in cut)
    # One more sample for those at the bound would break it.
    more = [min(claim, most + 1) for claim in claims]
    assert 4 * (most + 1) > sum(more)


def test_one_fast_member_of_few_keeps_twice_the_median() -> None:
    """A third of the others is asked only from five contributors on."""
    assert weights_in([20, 10, 10], [], [0, 1, 2], "open") == (20, 10, 10)
    assert weights_in([20, 10, 10, 10, 10], [], range(5), "open")[0] == 13


def test_many_newcomers_weigh_a_quarter_of_one_member() -> None:
    weights = weights_in([100] * 11, range(1, 11), range(11), "registered")
    assert weights == (100, *[2] * 10)


def test_a_founder_among_strangers_keeps_its_weight_for_ever() -> None:
    """A third of what bounded newcomers weigh once bounded the founder: 2,000 became 313."""
    own: list[list[tuple[int, float]]] = [[] for _ in range(5)]
    strangers = range(1, 5)
    for _ in range(60):
        claims = [claimed_weight(2000, 2000, usual_weight(each, 5.0), "open") for each in own]
        weights = weights_in(claims, strangers, range(5), "open")
        assert weights == (2000, 125, 125, 125, 125)
        for each, weight in zip(own, weights, strict=True):
            each.append((weight, 5.0))
