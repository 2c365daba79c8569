"""A member too slow for a plan's deadline misses one round; its work waits for the next."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.certificates.leader_order import leader_of
from protocol.planning.plan import OpenPlan
from protocol.round import timeouts
from protocol.round.phase import Phase
from tests.protocol.round.cluster import Packet, TestCluster
from tests.protocol.round.cluster_control import flow_withholding, heal, make_offers
from tests.protocol.round.exchange import Slice
from tests.protocol.round.node import TestNode


def slowest(cluster: TestCluster) -> TestNode:
    """Return a node that does not lead."""
    leader = leader_of(cluster.nodes[0].state.leader_order, 0)
    return next(node for node in cluster.nodes if node.me != leader)


@pytest.mark.parametrize("down", [True, False])
def test_a_slow_link_excludes_only_its_owner_from_a_round(down: bool) -> None:
    """An inclusion has only what every owner holds, and the slow owner held only its own slice.

    Before the fix, one slow owner emptied the inclusion.
    """
    cluster = TestCluster(5, settled=5)
    slow = slowest(cluster)
    before = cluster.nodes[0].state.tip
    make_offers(cluster)

    def withheld(packet: Packet) -> bool:
        return isinstance(packet.content, Slice) and slow.me == (
            packet.to if down else packet.sender
        )

    flow_withholding(cluster, withheld)
    assert {node.state.phase for node in cluster.nodes} == {Phase.SCATTER}
    for _ in range(12):
        if any(node.state.tip != before for node in cluster.nodes):
            break
        cluster.pass_next_deadline()
        flow_withholding(cluster, withheld)
    others = [node for node in cluster.nodes if node is not slow]
    tips = {node.state.tip.hash: node.state.tip for node in others}
    assert len(tips) == 1
    (tip,) = tips.values()
    assert tip.number == before.number + 1
    assert set(tip.members) == {node.me for node in others}
    assert {node.state.view for node in others} == {0}, "no view failed"
    assert tip.last_seq.get(slow.me) == before.last_seq.get(slow.me), (
        "the slow member is not counted"
    )
    cluster.withheld = []
    heal(cluster, rounds=1, ticks=20)
    assert {
        node.state.tip.last_seq[slow.me] > before.last_seq[slow.me] for node in cluster.nodes
    } == {True}, "the slow member is counted a round later"


def planned(cluster: TestCluster, predicted_s: float | None, view: int = 0) -> OpenPlan:
    plan = cluster.nodes[0].state.plan
    assert plan is not None
    return replace(plan, plan=replace(plan.plan, predicted_s=predicted_s, view=view))


def test_timeouts_follow_the_plans_prediction_within_the_manifests_limits() -> None:
    cluster = TestCluster(3, settled=3)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: isinstance(packet.content, Slice))
    rules = replace(
        cluster.nodes[0].state.context.manifest.round,
        ready_s=3.0,
        scatter_s=20.0,
        gather_s=30.0,
    )
    assert timeouts.scatter_s(planned(cluster, None), rules) == 20.0
    assert timeouts.scatter_s(planned(cluster, 0.1), rules) == rules.ready_s
    assert timeouts.scatter_s(planned(cluster, 4.0), rules) == timeouts.PREDICTION_MARGIN * 4.0
    assert timeouts.gather_s(planned(cluster, 4.0), rules) == timeouts.PREDICTION_MARGIN * 4.0
    assert timeouts.scatter_s(planned(cluster, 60.0), rules) == 20.0
    assert timeouts.gather_s(planned(cluster, 60.0), rules) == 30.0


def test_timeouts_double_with_each_view_after_a_wrong_prediction() -> None:
    cluster = TestCluster(3, settled=3)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: isinstance(packet.content, Slice))
    rules = replace(cluster.nodes[0].state.context.manifest.round, ready_s=3.0, scatter_s=20.0)
    assert [timeouts.scatter_s(planned(cluster, 1.0, view), rules) for view in range(4)] == [
        3.0,
        6.0,
        12.0,
        20.0,
    ]
    assert timeouts.scatter_s(planned(cluster, 1.0, 10**6), rules) == 20.0
