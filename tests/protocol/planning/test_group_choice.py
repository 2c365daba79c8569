"""Groups follow the network, do not flap, keep their bounds, and give a reason."""

from __future__ import annotations

import time
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.network.coordinate import Coordinate
from protocol.network.flows import Flows
from protocol.network.network_snapshot import MemberLink, NetworkSnapshot
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_choice import PAIR_RISK, choose, choose_2, fixed, group_size
from protocol.planning.group_proposals import GroupBounds, GroupProposer
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.time_model import TimeModel
from protocol.planning.vector_sizes import VectorSizes

SIZES = VectorSizes(offer=40_000_000, partial=40_000_000, result=40_000_000)
CORNERS = ((0, 0, 0), (150_000, 0, 0), (0, 160_000, 0), (80_000, 70_000, 120_000))
FAR_FLOWS = Flows(octaves=((14, 95_000_000 * 15_000), (18, 1_180_000 * 170_000)))


def regions(
    count: int, seed: int = 1, uplink_bps: int = 20_000_000, flows: Flows = FAR_FLOWS
) -> NetworkSnapshot:
    """Return four regions, with the members in turn and coordinates as good as measured ones."""
    rng = Random(seed)
    members = tuple(
        MemberLink(
            uplink_bps=int(uplink_bps * rng.uniform(0.95, 1)),
            downlink_bps=int(5 * uplink_bps * rng.uniform(0.95, 1)),
            at=Coordinate(
                **{
                    axis: at + rng.randint(-2000, 2000)
                    for axis, at in zip(("x_us", "y_us", "z_us"), CORNERS[i % 4], strict=True)
                },
                height_us=6_000,
            ),
        )
        for i in range(count)
    )
    return NetworkSnapshot(members=members, flows=flows, failure_rate=0.0, measured=True)


def choice(
    view: NetworkSnapshot,
    before: GroupSizeHistory | None = None,
    least: int = 2,
    most: int | None = None,
) -> GroupChoice:
    return choose(view, GroupBounds(least=least, most=most or len(view.members)), SIZES, before)


@given(
    count=st.integers(2, 40),
    least=st.integers(2, 6),
    most=st.integers(6, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_every_member_is_in_one_group_and_groups_keep_their_bounds(
    count: int, least: int, most: int, seed: int
) -> None:
    layout = choice(regions(count, seed), least=min(least, count), most=most)
    assert sorted(i for group in layout.groups for i in group) == list(range(count))
    assert max(len(group) for group in layout.groups) <= most
    fewest = -(-count // most)
    assert min(len(group) for group in layout.groups) >= min(least, count // fewest), (
        "a group is smaller only where groups of `most` leave too few members"
    )
    assert len(layout.shares) == min(len(group) for group in layout.groups)
    assert sum(layout.shares) == pytest.approx(1)
    assert layout.predicted_s is not None
    assert layout.predicted_s > 0
    assert layout.reason


def test_groups_consist_of_near_members() -> None:
    layout = fixed(regions(64), 16, GroupBounds(least=2, most=64), SIZES)
    assert [{i % 4 for i in group} for group in layout.groups] == [
        {group[0] % 4} for group in layout.groups
    ]
    assert {group[0] % 4 for group in layout.groups} == {0, 1, 2, 3}


def test_strong_members_have_low_positions_in_every_group() -> None:
    layout = fixed(regions(64), 16, GroupBounds(least=2, most=64), SIZES)
    view = regions(64)
    for group in layout.groups:
        ups = [min(view.members[i].uplink_bps, view.members[i].downlink_bps) for i in group]
        assert ups == sorted(ups, reverse=True)


def test_the_reason_compares_and_the_prediction_comes_from_the_model() -> None:
    view = regions(512)
    layout = choice(view)
    assert len(layout.groups) > 1
    assert "would take" in layout.reason
    assert f"{layout.predicted_s:.3g} s" in layout.reason
    assert (
        layout.predicted_s == TimeModel(view, SIZES).estimate(layout.groups, layout.shares).seconds
    )
    assert layout.predicted_s < fixed(view, 512, GroupBounds(least=2, most=512), SIZES).predicted_s


def test_one_group_is_best_if_paths_carry_little() -> None:
    """Every layout moves 1/n of the vector between each pair of members.

    Only a single group moves it beside everything else.
    """
    assert len(choice(regions(8)).groups) == 1
    assert len(choice(regions(32)).groups) == 1


def test_a_large_gain_changes_the_size_after_two_rounds_but_not_after_one() -> None:
    view = regions(512)
    bounds = GroupBounds(least=2, most=512)
    after = fixed(view, 16, bounds, SIZES).after
    assert after is not None
    # The paths carry a thirtieth, so much larger groups are better.
    slow = replace(view, flows=Flows(octaves=((18, 40_000 * 170_000),)))
    first = choice(slow, after)
    assert group_size(first.groups) == 16
    assert "found in 1 of 2 rounds" in first.reason
    assert group_size(choice(view, first.after).groups) in (16, group_size(choice(view).groups)), (
        "it was one bad round"
    )
    second = choice(slow, first.after)
    assert group_size(second.groups) > 16
    assert second.predicted_s < first.predicted_s


def test_noise_does_not_make_sizes_flap() -> None:
    sizes, before = [], None
    for seed in range(12):
        layout = choice(regions(128, seed), before)
        before = layout.after
        sizes.append(group_size(layout.groups))
    assert sum(a != b for a, b in pairwise(sizes)) <= 1


def test_unmeasured_members_form_one_group_if_allowed() -> None:
    blind = replace(regions(12), measured=False)
    layout = choice(blind)
    assert layout.groups == (tuple(range(12)),)
    assert layout.predicted_s is None
    assert layout.after is None
    assert layout.reason == "all 12 ready nodes average in one group"
    assert [len(group) for group in choice(blind, most=5).groups] == [4, 4, 4]


def test_contradictory_measurements_keep_the_size() -> None:
    blind = replace(regions(64), measured=False)
    layout = choice(blind, GroupSizeHistory(size=16))
    assert group_size(layout.groups) == 16
    assert layout.after == GroupSizeHistory(size=16)


def test_expected_losses_add_their_cost() -> None:
    view = regions(64)
    groups = GroupProposer(view).propose(4, GroupBounds(least=2, most=64))[0]
    never, often = (
        TimeModel(replace(view, failure_rate=p), SIZES).estimate(groups, (1 / 16,) * 16).seconds
        for p in (0.0, 0.01)
    )
    # The probability is 1 - 0.99 ^ 64 = 0.474. The cost is 4 s until the loss is noticed, and 15 of
    # 16 slices again over 100 Mbit/s.
    assert often - never == pytest.approx(0.474 * (4 + 15 / 16 * 320e6 / 97.5e6), rel=0.05)


def test_the_model_agrees_with_arithmetic_for_one_group() -> None:
    """Ten members at one place have 10 Mbit/s in both directions.

    They send 9 of 10 parts of 40 MB twice, at 5 ms a message, over paths of 1 ms.
    """
    member = MemberLink(
        uplink_bps=10_000_000, downlink_bps=10_000_000, at=Coordinate(height_us=500)
    )
    view = NetworkSnapshot(
        members=(member,) * 10, flows=Flows(octaves=()), failure_rate=0.0, measured=True
    )
    predicted_s = choice(view, least=10).predicted_s
    assert predicted_s == pytest.approx(2 * 0.9 * 320e6 / 10e6 + 2 * 9 * 0.005 + 0.002, rel=1e-3)


def test_a_thousand_members_are_planned_within_a_second() -> None:
    view = regions(1000)
    began = time.process_time()
    choice(view)
    assert time.process_time() - began < 1.0


def test_groups_of_two_must_save_more_than_the_models_error() -> None:
    """The leader of a pair cannot tell which of the two was slow. Rules 2 know no such risk."""
    # Without coordinates no distance counts.
    link = MemberLink(uplink_bps=20_000_000, downlink_bps=20_000_000, at=None)
    view = NetworkSnapshot(
        members=(link,) * 4, flows=Flows(octaves=()), failure_rate=0.0, measured=True
    )
    bounds, seen = GroupBounds(least=2, most=4), set()
    for offer in range(1_000, 40_000, 500):
        sizes = VectorSizes(offer=offer, partial=4 * offer, result=offer)
        single = fixed(view, 4, bounds, sizes).predicted_s
        pairs = fixed(view, 2, bounds, sizes).predicted_s
        assert single is not None
        assert pairs is not None
        free, careful = choose_2(view, bounds, sizes, None), choose(view, bounds, sizes, None)
        assert (len(free.groups) == 2) == (pairs < single)
        assert (len(careful.groups) == 2) == (pairs * (1 + PAIR_RISK) < single)
        seen.add((len(free.groups), len(careful.groups)))
    assert seen == {(2, 2), (2, 1), (1, 1)}
