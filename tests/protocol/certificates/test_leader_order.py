"""The leader order: every candidate leads in turn, in an order that no node chooses."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocol.certificates.leader_order import leader_of, leader_order, vote_collectors
from tests.protocol.rounds import named, people

PEERS = st.lists(st.sampled_from([person.peer for person in people(40)]), min_size=1, max_size=40)


@given(PEERS, st.binary(min_size=32, max_size=32), st.integers(0, 1 << 40))
def test_all_nodes_compute_one_order(peers: list[str], parent: bytes, view: int) -> None:
    order = leader_order(parent, peers)
    assert set(order) == set(peers)
    assert len(order) == len(set(order))
    assert leader_order(parent, reversed(peers)) == order
    assert leader_of(order, view) == leader_of(order, view + len(order))


@given(PEERS, st.binary(min_size=32, max_size=32))
def test_every_candidate_leads_before_any_leads_twice(peers: list[str], parent: bytes) -> None:
    order = leader_order(parent, peers)
    assert {leader_of(order, view) for view in range(len(order))} == set(order)


@given(PEERS, st.integers(0, 1000))
def test_votes_go_to_the_leader_and_the_next_two(peers: list[str], view: int) -> None:
    order = leader_order(named("parent"), peers)
    collectors = vote_collectors(order, view)
    assert collectors[0] == leader_of(order, view)
    assert len(collectors) == len(set(collectors)) == min(3, len(order))
    assert collectors == tuple(leader_of(order, view + i) for i in range(len(collectors)))


def test_leading_is_spread_evenly() -> None:
    """Over 2,000 parents, each of eight candidates leads view 0 about 250 times.

    The bounds are five standard deviations, which are 74.
    """
    peers = [person.peer for person in people(8)]
    first = Counter(leader_of(leader_order(i.to_bytes(32, "big"), peers), 0) for i in range(2000))
    assert set(first) == set(peers)
    assert all(176 < count < 324 for count in first.values())
