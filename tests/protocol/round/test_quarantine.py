"""A leader plans without the peers in its quarantine while enough others are ready."""

from __future__ import annotations

import pytest

from protocol.certificates.leader_order import leader_of
from protocol.round import events as e
from protocol.round.phase import Phase
from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import flow_withholding, heal, make_offers


@pytest.mark.parametrize(("size", "left_out"), [(5, True), (2, False)])
def test_a_peer_in_quarantine_waits_and_knows_that_the_round_goes_on(
    size: int, left_out: bool
) -> None:
    cluster = TestCluster(size, settled=size)
    leader = leader_of(cluster.nodes[0].state.leader_order, 0)
    leading = cluster.named(leader)
    other = next(node for node in cluster.nodes if node is not leading)
    before = leading.state.tip
    leading.see(e.LivePeersChanged(live=leading.state.live, avoided=frozenset({other.me})))
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: False)
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
            "the peer knows that the round goes on without it"
        )
    heal(cluster, rounds=1, ticks=20)
