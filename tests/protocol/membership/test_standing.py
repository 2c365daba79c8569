"""Standing: the branch that a node follows, by votes of those who voted where branches part."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from protocol.membership.standing import (
    Branch,
    BranchStep,
    preferred,
    rank,
    standing,
)

VOTERS = frozenset(f"v{i:02}" for i in range(12))


def branch(tip: int, *steps: tuple[int, str]) -> Branch:
    """A branch whose steps have (weight, space-separated numbers of voters)."""
    return Branch(
        tip=bytes([tip]) * 32,
        steps=tuple(
            BranchStep(
                weight=weight, votes=frozenset(f"v{int(n):02}" for n in voters.split()), travel=1.0
            )
            for weight, voters in steps
        ),
    )


def test_standing_counts_each_voter_of_the_ancestor_once() -> None:
    here = branch(1, (5, "0 1"), (5, "1 2"), (5, "40"))
    assert standing(here, VOTERS) == {"v00", "v01", "v02"}


def test_preferred_is_the_branch_with_more_standing_whatever_its_weight() -> None:
    many = branch(9, (10, "0 1 2 3 4 5 6"))
    # Two keys sign nine certificates with huge claims, and appoint voters of their own.
    private = branch(
        1, *[(1_000_000, "10 11")], *[(1_000_000, "10 11 50 51 52 53 54 55 56 57")] * 8
    )
    assert preferred([many, private], VOTERS) is many
    assert preferred([private, many], VOTERS) is many


def test_preferred_goes_by_weight_and_then_by_hash_between_equals() -> None:
    light, heavy = branch(1, (10, "0 1")), branch(2, (11, "2 3"))
    assert preferred([light, heavy], VOTERS) is heavy
    same = branch(3, (10, "4 5"))
    assert preferred([same, light], VOTERS) is light


def test_preferred_is_none_where_no_voter_stands() -> None:
    assert preferred([branch(1, (10, "40 41")), branch(2)], VOTERS) is None


STEPS = st.lists(
    st.builds(
        BranchStep,
        weight=st.integers(0, 1 << 40),
        votes=st.frozensets(st.sampled_from([*sorted(VOTERS), "x1", "x2"])),
        travel=st.just(1.0),
    ),
    max_size=4,
)
BRANCHES = st.lists(
    st.builds(Branch, tip=st.binary(min_size=32, max_size=32), steps=STEPS.map(tuple)),
    min_size=1,
    max_size=4,
    unique_by=lambda one: one.tip,
)


@given(BRANCHES)
def test_preferred_is_the_same_in_every_order(branches: list[Branch]) -> None:
    names = {
        chosen.tip if (chosen := preferred(order, VOTERS)) is not None else None
        for order in permutations(branches)
    }
    assert len(names) == 1


@given(
    BRANCHES,
    st.lists(
        st.builds(
            BranchStep,
            weight=st.integers(0, 1 << 40),
            votes=st.frozensets(st.sampled_from(["x1", "x2", "x3"])),
        )
    ),
)
def test_rank_grows_by_strangers_votes_never_in_standing(
    branches: list[Branch], more: list[BranchStep]
) -> None:
    for one in branches:
        longer = Branch(tip=one.tip, steps=(*one.steps, *more))
        assert rank(longer, VOTERS)[0] == rank(one, VOTERS)[0]
