"""Merging branches: the state, its bound, and the voters after it, by the formulas of the rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.membership.branch_merge import (
    MergeShare,
    distance,
    exhausted_voters,
    merge_into,
    merge_share,
    merged_voters,
)
from protocol.membership.standing import Branch, BranchStep
from protocol.run.manifest_parts import Outer

OUTER = Outer(learning_rate=0.7, momentum=0.9)
TEN = frozenset(f"v{i:02}" for i in range(10))


def branch(tip: int, voters: int, count: int, weight: int, travel: float = 1.0) -> Branch:
    """A branch of `count` certificates, each signed by `voters` voters."""
    votes = frozenset(sorted(TEN)[:voters] if tip == 1 else sorted(TEN)[10 - voters :])
    step = BranchStep(weight=weight, votes=votes, travel=travel)
    return Branch(tip=bytes([tip]) * 32, steps=(step,) * count)


def test_merge_share_of_a_split_of_four_and_two_is_a_third_at_most() -> None:
    four, two = branch(1, 4, 180, 400), branch(2, 2, 170, 200)
    share = merge_share(four, two, TEN, OUTER)
    assert share.compared == 170
    assert share.sigma == pytest.approx(1 / 3)
    # 2 x 0.7 / (1 - 0.9) x the way of all 180 certificates of P.
    assert share.limit == pytest.approx(14.0 * 180.0)


def test_merge_share_of_a_private_branch_is_bounded_by_its_voters() -> None:
    honest = branch(1, 8, 1, 800)
    private = branch(2, 2, 1000, 1_000_000)
    assert merge_share(honest, private, TEN, OUTER).sigma == pytest.approx(2 / 10)


def test_merge_share_of_equals_without_weight_is_a_half() -> None:
    assert merge_share(branch(1, 3, 1, 0), branch(2, 3, 1, 0), TEN, OUTER).sigma == 0.5


def test_merge_share_is_nothing_where_no_voter_stands() -> None:
    assert merge_share(branch(1, 3, 1, 10), branch(2, 0, 9, 10), TEN, OUTER).sigma == 0.0


VECTORS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(VECTORS, VECTORS, st.floats(0, 0.5), st.floats(0, 1e7))
def test_merge_into_moves_by_sigma_of_the_limit_at_most(
    ours: list[float], theirs: list[float], sigma: float, limit: float
) -> None:
    size = min(len(ours), len(theirs))
    p, q = (np.array(values[:size], np.float32) for values in (ours, theirs))
    out = np.empty_like(p)
    merge_into(p, q, MergeShare(sigma=sigma, limit=limit, compared=1), out)
    exact_p, exact_q = p.astype(np.float64), q.astype(np.float64)
    apart = float(np.linalg.norm(exact_q - exact_p))
    c = min(1.0, limit / apart) if apart else 1.0
    rounding = 1e-6 * (np.linalg.norm(exact_p) + np.linalg.norm(exact_q)) + 1e-30
    assert np.linalg.norm(out - (exact_p + sigma * c * (exact_q - exact_p))) <= rounding
    assert np.linalg.norm(out - exact_p) <= sigma * limit + rounding


@pytest.mark.parametrize("poison", [np.nan, np.inf, 3e38])
def test_merge_into_ignores_a_state_that_is_not_finite_or_too_far(poison: float) -> None:
    p = np.full(5, -3e38 if poison == 3e38 else 1.0, np.float32)
    q = np.full(5, poison, np.float32)
    out = np.empty_like(p)
    merge_into(p, q, MergeShare(sigma=0.5, limit=10.0, compared=1), out)
    assert np.array_equal(out, p)


def test_merge_into_may_write_over_either_vector() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    p, q = random.normal(size=(2, 70_001)).astype(np.float32)
    share, out = MergeShare(sigma=0.25, limit=50.0, compared=1), np.empty_like(p)
    merge_into(p, q, share, out)
    over_p, over_q = p.copy(), q.copy()
    merge_into(over_p, q, share, over_p)
    merge_into(p, over_q, share, over_q)
    assert out.tobytes() == over_p.tobytes() == over_q.tobytes()


def test_distance_adds_squares_in_order() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    p, q = random.normal(size=(2, 1000)).astype(np.float32)
    total = 0.0
    for one, two in zip(p, q, strict=True):
        total += float(np.float64(np.float32(two - one)) ** 2)
    assert distance(p, q) == float(np.sqrt(total))


def test_merged_voters_are_those_of_p_and_the_ancestors_that_still_vote_in_q() -> None:
    after = merged_voters(("a", "b", "new"), ("a", "c", "d"), ("c", "mint1", "mint2"))
    assert after == ("a", "b", "new", "c")


def test_exhausted_voters_stood_on_a_branch_that_was_merged_lately() -> None:
    q = branch(2, 2, 3, 10)
    assert exhausted_voters(q, TEN, []) == frozenset()
    assert exhausted_voters(q, TEN, [frozenset({"v00"})]) == frozenset()
    assert exhausted_voters(q, TEN, [frozenset({"v09", "v00"})]) == {"v09"}
