"""Rounds under random faults: the invariants hold, and a certificate follows once faults end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import apply_fault, heal

SIZES = st.integers(3, 7)
# Three fifths of the clusters have several groups.
GROUP_SIZES = st.sampled_from((32, 32, 4, 3, 2))
OPS = (
    ("rest",)
    + ("carry",) * 6
    + ("flow",) * 4
    + ("hold",) * 3
    + ("stuff",) * 2
    + ("finish",) * 3
    + ("tick",) * 4
)
OPS += ("split", "mend", "release", "lose", "double", "part", "beacon", "fail", "kill", "restart")
# A history has 100 operations on average.
HISTORIES = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 40)), min_size=50, max_size=200)


@given(SIZES, GROUP_SIZES, st.booleans())
def test_without_faults_every_round_is_certified_in_its_first_view(
    size: int, group_size: int, settled: bool
) -> None:
    cluster = TestCluster(size, settled=size if settled else 0, max_group=group_size)
    start = cluster.nodes[0].state.tip.number
    for number in range(start + 1, start + 4):
        # The only deadlines that pass are those that end the training of a node.
        cluster.pass_next_deadline()
        for _ in range(size):
            cluster.flow()
            if any(node.state.tip.number < number for node in cluster.nodes):
                cluster.pass_next_deadline()
            cluster.catch_up()
        assert {node.state.tip.number for node in cluster.nodes} == {number}
        assert {node.state.view for node in cluster.nodes} == {0}
    assert not cluster.refused
    assert len({node.state.tip.hash for node in cluster.nodes}) == 1


@given(SIZES, GROUP_SIZES, st.integers(0, 7), HISTORIES)
def test_invariants_hold_under_faults_and_a_certificate_follows(
    size: int, group_size: int, settled: int, history: list[tuple[str, int]]
) -> None:
    """Some nodes are newcomers, some die, and packets suffer any fault.

    Afterwards, all living nodes reach one tip and certify further rounds.
    """
    cluster = TestCluster(
        size, settled=min(settled, size) if settled > 1 else 0, max_group=group_size
    )
    for op, k in history:
        apply_fault(cluster, op, k)
    heal(cluster, rounds=2, ticks=60 * size)


@given(SIZES, GROUP_SIZES, HISTORIES)
def test_settled_members_never_certify_a_view_twice(
    size: int, group_size: int, history: list[tuple[str, int]]
) -> None:
    cluster = TestCluster(size, settled=size, max_group=group_size)
    for op, k in history:
        apply_fault(cluster, op, k)
    heal(cluster, rounds=1, ticks=60 * size)
