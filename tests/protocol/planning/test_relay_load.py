"""How long relays take for what the groups of a plan send through them."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec.structs import replace

from protocol.network.flows import Flows
from protocol.network.network_snapshot import MemberLink, NetworkSnapshot
from protocol.network.relayed_pairs import RelayedPair
from protocol.planning.group_choice import choose
from protocol.planning.group_proposals import GroupBounds
from protocol.planning.relay_load import relay_s, relay_text
from protocol.planning.vector_sizes import VectorSizes

BITS = VectorSizes(offer=80_000_000, partial=80_000_000, result=80_000_000)
RELAY, OTHER = b"relay", b"other"
LINK_BPS = 20_000_000


def pairs(members: range, capacity_bps: int = LINK_BPS) -> tuple[RelayedPair, ...]:
    """Every two of these members reach each other through one relay."""
    return tuple(
        RelayedPair(sender=one, to=other, relay=RELAY, capacity_bps=capacity_bps)
        for one, other in permutations(members, 2)
    )


def test_relay_s_of_a_group_is_what_all_its_unreachable_members_send_each_other() -> None:
    """2 N (N - 1) V / n with N = 7 of n = 8 and V = 10 MB: 105 MB, or 42 s at 20 Mbit/s."""
    seconds = relay_s(pairs(range(1, 8)), (tuple(range(8)),), [1 / 8] * 8, BITS, 1.0)
    assert seconds == pytest.approx(42.0)


def test_relay_s_is_that_of_the_busiest_relay() -> None:
    group, shares = (tuple(range(4)),), [1 / 4] * 4
    one, two, *_ = pairs(range(1, 3))
    assert relay_s((), group, shares, BITS, 1.0) == 0.0
    together = relay_s((one, two), group, shares, BITS, 1.0)
    apart = relay_s((one, replace(two, relay=OTHER)), group, shares, BITS, 1.0)
    assert together == pytest.approx(2 * apart)
    unknown = replace(one, capacity_bps=0)
    assert relay_s((unknown,), group, shares, BITS, LINK_BPS) == pytest.approx(apart)


def test_relay_s_of_pairs_in_different_groups_is_that_of_their_position() -> None:
    groups, shares = ((0, 1), (2, 3)), [0.5, 0.5]
    same_position, others = pairs(range(0, 3, 2)), pairs(range(0, 4, 3))
    # Each sends its part of a quarter of the vector, as a partial sum and as a result.
    assert relay_s(same_position, groups, shares, BITS, 1.0) == pytest.approx(
        2 * 0.25 * (BITS.partial + BITS.result) / LINK_BPS
    )
    assert relay_s(others, groups, shares, BITS, 1.0) == 0.0


def snapshot(relayed: tuple[RelayedPair, ...]) -> NetworkSnapshot:
    link = MemberLink(uplink_bps=LINK_BPS, downlink_bps=LINK_BPS, at=None)
    return NetworkSnapshot(
        members=(link,) * 8, flows=Flows(octaves=()), failure_rate=0.0, measured=True,
        relayed=relayed,
    )  # fmt: skip


def test_choose_counts_a_relayed_path_with_its_relays_capacity() -> None:
    sizes = VectorSizes(offer=10_000_000, partial=40_000_000, result=10_000_000)
    bounds = GroupBounds(least=8, most=8)
    direct = choose(snapshot(()), bounds, sizes, None).predicted_s
    relayed = choose(snapshot(pairs(range(1, 8))), bounds, sizes, None).predicted_s
    assert relayed - direct == pytest.approx(42.0)


def test_choose_splits_members_whose_relay_is_slow() -> None:
    sizes = VectorSizes(offer=10_000_000, partial=20_000_000, result=10_000_000)
    bounds = GroupBounds(least=2, most=8)
    slow = choose(snapshot(pairs(range(3, 5), LINK_BPS // 100)), bounds, sizes, None)
    assert len(choose(snapshot(()), bounds, sizes, None).groups) == 1
    assert len(slow.groups) > 1
    assert not any({3, 4} <= set(group) for group in slow.groups)


def test_relay_text_names_the_pairs_inside_of_groups() -> None:
    both = pairs(range(1, 3))
    assert relay_text(both, ((0, 1, 2),)) == "; 1 pair of a group sends through 1 relay"
    assert relay_text(both, ((0, 1), (2, 3))) == ""
    three = relay_text(pairs(range(3)), ((0, 1, 2),))
    assert three == "; 3 pairs of a group send through 1 relay"
