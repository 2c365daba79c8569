"""Views: who leads, who is passed over, and where nodes meet."""

from __future__ import annotations

from protocol.certificates.leader_order import leader_of
from protocol.round import events as e
from protocol.round.phase import Phase
from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import (
    heal,
    make_offers,
)
from tests.protocol.round.node import TestNode


def test_two_nodes_that_lost_each_other_meet_again() -> None:
    """Before the fix, each node kept the other as lost after their connection returned."""
    cluster = TestCluster(2, settled=2)
    for node, other in zip(cluster.nodes, reversed(cluster.nodes), strict=True):
        node.lose(other.me)
        node.run()
    assert heal(cluster, rounds=1, ticks=12) <= 12


def test_nodes_train_on_when_none_has_anything_to_offer() -> None:
    """Before the fix, leaders planned the same empty offers endlessly, and no node trained."""
    cluster = TestCluster(3, settled=3)
    for node in cluster.nodes:
        node.samples = 0
    make_offers(cluster)
    cluster.flow(2000)
    assert not cluster.wire
    assert all(node.state.phase is Phase.TRAIN for node in cluster.nodes)
    for node in cluster.nodes:
        node.samples = 10
    heal(cluster, rounds=2, ticks=20)


def test_more_members_than_a_group_holds_make_several_groups() -> None:
    cluster = TestCluster(7, settled=7, max_group=3)
    for _ in range(5):
        number = cluster.nodes[0].state.number
        heal(cluster, rounds=1, ticks=40)
        assert cluster.nodes[0].state.tip.number == number
        assert len(cluster.nodes[0].state.tip.members) == 7
    assert {view for _, view in cluster.certificates} == {0}


def test_certificate_of_this_nodes_tip_is_ignored() -> None:
    """Before the fix, the node downloaded it again and lost the training since."""
    cluster = TestCluster(3, settled=3)
    heal(cluster, rounds=1, ticks=8)
    node: TestNode = cluster.nodes[0]
    made = node.lineage.entry(node.state.tip.hash)
    assert made is not None
    node.see(e.CertificateReceived(certificate=made.certificate))
    assert node.state.phase is Phase.TRAIN
    assert not node.work


def test_plan_does_not_wait_for_a_leader_that_was_passed_over() -> None:
    """Before the fix, the next leader waited until the view's end for the offer of a dead leader.

    The others had passed over the dead leader before the next leader noticed its death.
    """
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    dead = cluster.named(cluster.nodes[0].state.leader)
    following = cluster.named(leader_of(dead.state.leader_order, 1))
    dead.alive = False
    for node in cluster.nodes:
        if node not in (dead, following):
            node.lose(dead.me)
            node.run()
    # No deadline passes here.
    cluster.flow()
    assert dead.me not in following.state.lost
    assert {node.state.tip.number for node in cluster.alive()} == {2}
    assert {view for _, view in cluster.certificates} == {1}


def test_leader_that_was_passed_over_and_lives_is_in_the_plan() -> None:
    """No plan waits for a leader that was passed over; nothing else changes for the leader."""
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    passed = cluster.named(cluster.nodes[0].state.leader)
    # No offer reaches the leader, and it gives its view up as the others do.
    cluster.wire.clear()
    for node in [passed, *(other for other in cluster.nodes if other is not passed)]:
        cluster.pass_deadline(node)
    cluster.flow()
    assert {node.state.tip.number for node in cluster.alive()} == {2}
    assert all(passed.me in node.state.tip.members for node in cluster.alive())
