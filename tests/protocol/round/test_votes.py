"""Votes: majorities, late votes, and the members that collect them."""

from __future__ import annotations

from protocol.certificates.leader_order import leader_of, vote_collectors
from protocol.messages.round import Vote
from protocol.round import events as e
from protocol.round.phase import Phase
from protocol.round.vote_phase import VOTES_TO_ALL
from tests.protocol.round.cluster import Packet, TestCluster
from tests.protocol.round.cluster_control import (
    content_type,
    flow_withholding,
    heal,
    make_offers,
)
from tests.protocol.round.exchange import Result
from tests.protocol.round.node import CHUNKS, TestNode


def test_late_votes_make_no_certificate_whose_state_is_overwritten() -> None:
    """Before the fix, a late vote certified a state that every node had overwritten.

    The vote belongs to an earlier view and arrives while all members sum the next one.
    """
    cluster = TestCluster(3, settled=3)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Vote)
    assert {node.state.phase for node in cluster.nodes} == {Phase.VOTE}
    votes, cluster.withheld = cluster.withheld, []
    # The leader of the next view enters it last, so it has all offers before it plans.
    following = leader_of(cluster.nodes[0].state.leader_order, 1)
    for node in sorted(cluster.nodes, key=lambda node: node.me == following):
        # A node may be in the next view already, if a leader before it took it along.
        while node.state.phase is Phase.VOTE:
            node.see(e.DeadlinePassed())
            node.run()
        flow_withholding(cluster, lambda packet: content_type(cluster, packet) in {Vote, Result})
    assert {(node.state.phase, node.state.view) for node in cluster.nodes} == {(Phase.REDUCE, 1)}
    for packet in votes:
        cluster.deliver(packet)
    heal(cluster, rounds=1, ticks=30)


def test_votes_are_kept_after_many_failed_views() -> None:
    """Before the fix, a node kept votes for eight outcomes of a round and refused later votes."""
    cluster = TestCluster(2, settled=2)
    make_offers(cluster)
    for view in range(12):
        flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Vote)
        assert {(node.state.phase, node.state.view) for node in cluster.nodes} == {
            (Phase.VOTE, view)
        }
        cluster.withheld.clear()
        for _ in range(2):
            for node in cluster.nodes:
                node.see(e.DeadlinePassed())
                node.run()
    cluster.flow()
    assert {node.state.tip.number for node in cluster.nodes} == {2}


def _collectors(cluster: TestCluster) -> list[TestNode]:
    """Return the nodes that collect the votes of the current view."""
    state = cluster.nodes[0].state
    return [
        cluster.named(peer)
        for peer in vote_collectors(state.leader_order, state.leader_order.index(state.leader))
    ]


def _third_collector_sums(cluster: TestCluster) -> bool:
    """Whether one of the five slices belongs to the third vote collector.

    Among seven members, two have no slice.
    """
    return cluster.nodes.index(_collectors(cluster)[2]) < CHUNKS


def test_majority_without_the_vote_collectors_does_not_wait_for_the_deadline() -> None:
    """A reducer dies when all but two members have its result.

    Four of seven members vote under the first inclusion. The two living vote collectors compute
    another state: they cannot certify the first outcome, and theirs has no majority.
    """
    cluster = next(
        cluster
        for seed in range(32)
        if _third_collector_sums(cluster := TestCluster(7, settled=7, seed=seed))
    )
    make_offers(cluster)
    leader, second, third = _collectors(cluster)

    def kept_back(packet: Packet) -> bool:
        if packet.sender == third.me and isinstance(packet.content, Result):
            return packet.to in (leader.me, second.me)
        return third.me in (packet.sender, packet.to) and content_type(cluster, packet) is Vote

    flow_withholding(cluster, kept_back)
    assert [node.state.phase for node in (leader, second)] == [Phase.REDUCE, Phase.REDUCE]
    assert sum(node.state.phase is Phase.VOTE for node in cluster.nodes) == 5
    cluster.withheld.clear()
    before = cluster.now
    third.alive = False
    for node in cluster.alive():
        node.lose(third.me)
        node.run()
    cluster.flow()
    assert cluster.now == before
    assert {node.state.tip.number for node in cluster.alive()} == {2}


def test_first_present_vote_collector_gossips_the_certificate() -> None:
    cluster = TestCluster(5, settled=5)
    make_offers(cluster)
    first = cluster.nodes[0].state.leader
    cluster.flow()
    assert cluster.gossiped == [first]

    cluster = TestCluster(5, settled=5)
    make_offers(cluster)
    state = cluster.nodes[0].state
    leader, second, _ = vote_collectors(state.leader_order, state.leader_order.index(state.leader))
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Vote)
    cluster.named(leader).alive = False
    for node in cluster.alive():
        node.lose(leader)
        node.run()
    cluster.wire, cluster.withheld = cluster.withheld, []
    cluster.flow()
    assert cluster.gossiped == [second]
    assert {node.state.tip.number for node in cluster.alive()} == {2}


def test_votes_reach_all_members_of_a_small_plan() -> None:
    """A member that collects no votes once adopted one message later than the others."""
    cluster = TestCluster(VOTES_TO_ALL, settled=VOTES_TO_ALL)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is bytes)
    assert {node.state.tip.number for node in cluster.nodes} == {2}
    senders = {packet.sender for packet in cluster.withheld}
    assert len(senders) == 3, "the vote collectors alone send the certificate"
