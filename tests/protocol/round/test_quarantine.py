"""A leader plans without whom it has in quarantine, where enough others are ready."""

from __future__ import annotations

import pytest

from protocol.certificates.leader_order import leader_of
from protocol.round import events as e
from protocol.round.phase import Phase
from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import flow_holding, heal, make_offers


@pytest.mark.parametrize(("size", "left_out"), [(5, True), (2, False)])
def test_who_is_in_quarantine_waits_and_is_told_so(size: int, left_out: bool) -> None:
    cluster = TestCluster(size, settled=size)
    leader = leader_of(cluster.nodes[0].state.leader_order, 0)
    leading = cluster.named(leader)
    other = next(node for node in cluster.nodes if node is not leading)
    before = leading.state.tip
    leading.see(e.LivePeersChanged(live=leading.state.live, avoided=frozenset({other.me})))
    make_offers(cluster)
    flow_holding(cluster, lambda packet: False)
    for _ in range(10):
        if leading.state.tip != before:
            break
        cluster.pass_next_deadline()
        cluster.flow()
    assert leading.state.tip.number == before.number + 1
    assert (other.me not in leading.state.tip.members) == left_out
    if left_out:
        assert leading.state.tip.last_seq.get(other.me) == before.last_seq.get(other.me)
        assert other.state.phase in {Phase.WATCH, Phase.FETCH, Phase.TRAIN}, (
            "it was told that the round goes on without it"
        )
    heal(cluster, rounds=1, ticks=20)
