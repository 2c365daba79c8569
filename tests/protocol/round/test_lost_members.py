"""Members that hang, die or restart in the middle of a view."""

from __future__ import annotations

from protocol.certificates.leader_order import vote_collectors
from protocol.messages.round import Vote
from protocol.round.phase import Phase
from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import (
    content_type,
    flow_withholding,
    heal,
    make_offers,
)
from tests.protocol.round.exchange import Result, Slice
from tests.protocol.round.node import TestNode


def test_member_that_hangs_costs_its_contribution_but_not_the_view() -> None:
    """A leader that lacks a slice does not count itself as silent.

    Before the fix, the leader lacked the same slice as all others and left itself out of the round.
    """
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    leader = cluster.named(cluster.nodes[0].state.leader)
    hung = next(node for node in cluster.nodes if node is not leader)
    flow_withholding(
        cluster, lambda packet: packet.sender == hung.me and isinstance(packet.content, Slice)
    )
    # The connections stay; the member only stops sending.
    hung.alive = False
    for _ in range(6):
        cluster.pass_next_deadline()
        cluster.flow()
    others = [node for node in cluster.nodes if node is not hung]
    assert {node.state.tip.number for node in others} == {2}
    assert {view for _, view in cluster.certificates} == {0}
    assert hung.me not in leader.state.tip.last_seq or leader.state.tip.last_seq[hung.me] == 1


def test_restarted_nodes_do_not_vote_again_in_the_same_view() -> None:
    """Before the fix, all nodes voted, restarted, planned the same view again and voted again."""
    cluster = TestCluster(3, settled=3)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Vote)
    assert {(node.state.phase, node.state.view) for node in cluster.nodes} == {(Phase.VOTE, 0)}
    cluster.withheld.clear()
    cluster.wire.clear()
    for node in cluster.nodes:
        cluster.restart(node)
    assert {node.state.view for node in cluster.nodes} == {1}
    heal(cluster, rounds=1, ticks=20)
    assert {view for _, view in cluster.certificates} == {1}


def test_view_records_of_a_merge_survive_a_restart() -> None:
    """A merge has no scatter, so the vote follows the plan."""
    cluster = TestCluster(4, settled=4)
    sides = cluster.nodes[:2], cluster.nodes[2:]
    cluster.set_partition(frozenset(node.me for node in sides[0]))
    for _ in range(8):
        cluster.pass_next_deadline()
        cluster.flow()
    assert len({node.state.tip.hash for node in cluster.nodes}) == 2
    cluster.set_partition(frozenset())
    for node in cluster.nodes:
        for other in cluster.nodes:
            for certificate in other.lineage.path(node.lineage.root, other.state.tip):
                node.learn(certificate.raw)
        node.update_live()
        node.run()
    last_votes: list[TestNode] = []
    # A deadline may pass before a living member leads.
    for _ in range(8):
        flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Vote)
        if last_votes := [
            node for node in cluster.nodes if node.state.phase is Phase.VOTE and node.state.merge
        ]:
            break
        cluster.pass_next_deadline()
    assert last_votes
    parent, view = last_votes[0].state.parent, last_votes[0].state.view
    cluster.withheld.clear()
    for node in last_votes:
        cluster.restart(node)
        assert node.state.view_records[parent] == view + 1
    heal(cluster, rounds=1, ticks=60)


def test_node_that_cannot_persist_its_view_watches() -> None:
    """The node neither scatters nor votes nor leads. The others go on, and it follows."""
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    leader = cluster.named(cluster.nodes[0].state.leader)
    follower = next(node for node in cluster.nodes if node is not leader)
    follower.disk_full = True
    cluster.flow()
    assert cluster.withheld == []
    assert follower.view_records == {}
    heal(cluster, rounds=1, ticks=20)
    leader = cluster.named(cluster.nodes[0].state.leader)
    leader.disk_full, follower.disk_full = True, False
    before = dict(leader.view_records)
    heal(cluster, rounds=2, ticks=60)
    assert leader.view_records == before


def test_reducer_that_dies_when_all_but_one_have_its_result_costs_nothing() -> None:
    """The leader has all results and votes, so no inclusion names a substitute.

    Before the fix, one member lacked the dead reducer's slice, and all waited for the end of the
    view: 10 s with the default deadlines, in one of 12 to 15 kills.
    """
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    leader = cluster.named(cluster.nodes[0].state.leader)
    collectors = vote_collectors(leader.state.leader_order, 0)
    dead = next(node for node in cluster.nodes if node.me not in collectors)
    lacking = cluster.named(collectors[1])
    flow_withholding(
        cluster,
        lambda packet: (
            packet.sender == dead.me
            and (
                content_type(cluster, packet) is Vote
                or (isinstance(packet.content, Result) and packet.to == lacking.me)
            )
        ),
    )
    assert (leader.state.phase, lacking.state.phase) == (Phase.VOTE, Phase.REDUCE)
    cluster.withheld.clear()
    dead.alive = False
    before = cluster.now
    for node in cluster.alive():
        node.lose(dead.me)
        node.run()
    cluster.flow()
    assert {node.state.tip.number for node in cluster.alive()} == {2}
    assert {view for _, view in cluster.certificates} == {0}
    assert cluster.now == before, "no node waits for a deadline"
