"""A member in another view or branch: leaders do not plan with it, and no node waits for it."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.certificates.leader_order import leader_of
from protocol.certificates.tip import genesis
from protocol.messages.base import Signed
from protocol.messages.envelope import open_as, sign
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion, PacedPlan, Withdrawal
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RunContext
from tests.protocol.round.cluster import Packet, TestCluster
from tests.protocol.round.cluster_control import content_type, flow_withholding, make_offers
from tests.protocol.round.node import TestNode
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people


def view_of(cluster: TestCluster, packet: Packet) -> int:
    """Return the view of an offer in transit."""
    assert isinstance(packet.content, Signed)
    return open_as(Ready, packet.content, cluster.run_id, trusted=True).view


def gone_ahead(cluster: TestCluster) -> tuple[TestNode, TestNode, list[TestNode]]:
    """Let one member wait in view 1 for a leader that still trains.

    Returns:
        The early member, the leader of view 0, and all members except the early one.
    """
    order = cluster.nodes[0].state.leader_order
    leader = cluster.named(leader_of(order, 0))
    early = next(v for v in cluster.nodes if v is not leader and v.me != leader_of(order, 1))
    early.see(e.TrainingFinished())
    early.finish()
    early.run()
    # No leader has planned yet.
    early.see(e.DeadlinePassed())
    assert (early.state.phase, early.state.view) == (Phase.READY, 1)
    return early, leader, [v for v in cluster.nodes if v is not early]


def test_a_leader_does_not_plan_with_the_offer_of_a_member_that_went_on() -> None:
    cluster = TestCluster(5, settled=5)
    early, leader, others = gone_ahead(cluster)
    # Its offers reach the leaders of both views.
    cluster.flow()
    for node in others:
        node.see(e.TrainingFinished())
    cluster.flow()
    assert {node.state.tip.number for node in others} == {2}, "no node waits for a deadline"
    made = leader.lineage.entry(leader.state.tip.hash)
    assert made is not None
    assert early.me not in made.certificate.plan.members
    assert made.certificate.outcome.view == 0


def test_a_member_withdraws_from_a_plan_for_a_view_that_it_left() -> None:
    """Before the fix, the leader planned with the old offer, and scatter waited for its timeout."""
    cluster = TestCluster(5, settled=5)
    early, leader, others = gone_ahead(cluster)
    # The early member's messages to the leader of the view that it left are lost.
    cluster.wire = [
        packet for packet in cluster.wire if packet.to != leader.me or view_of(cluster, packet) == 0
    ]
    cluster.flow()
    for node in others:
        node.see(e.TrainingFinished())
    cluster.flow()
    made = leader.lineage.entry(leader.state.tip.hash)
    assert made is not None
    assert early.me in made.certificate.plan.members
    assert early.me not in {
        made.certificate.plan.members[i] for i in made.certificate.inclusion.present
    }
    assert {node.state.tip.number for node in others} == {2}, "no node waits for a deadline"


def test_a_withdrawal_before_the_plan_counts_when_the_plan_comes() -> None:
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is PacedPlan)
    plans, cluster.withheld = cluster.withheld, []
    plan = plans[0].content
    assert isinstance(plan, Signed)
    member = cluster.named(plans[0].to)
    elsewhere = next(v for v in cluster.nodes if v is not member and v.me != member.state.leader)
    signed = sign(
        elsewhere.signer, cluster.run_id, Withdrawal(plan=plan.digest, reason="in a later view")
    )
    member.receive(signed)
    member.run()
    cluster.deliver(plans[0])
    assert member.state.phase is Phase.SCATTER
    assert elsewhere.me in member.state.absent


def test_a_withdrawal_from_another_plan_does_not_count_for_this_one() -> None:
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is Inclusion)
    member, other = cluster.nodes[:2]
    event = e.WithdrawalReceived(
        peer=other.me, withdrawal=Withdrawal(plan=b"x" * 32, reason="elsewhere")
    )
    assert other.me not in step(member.state, event, cluster.now)[0].absent


def test_a_member_that_is_early_waits_while_most_others_train() -> None:
    """Before the fix, a fast member left each view before the others planned in it.

    So it was in no round at all.
    """
    cluster = TestCluster(4, settled=4)
    order = cluster.nodes[0].state.leader_order
    early = next(v for v in cluster.nodes if v.me != leader_of(order, 0))
    early.see(e.TrainingFinished())
    early.finish()
    early.run()
    others = frozenset(v.me for v in cluster.nodes if v is not early)
    ready, now = early.state, early.state.deadline
    waiting, actions = step(ready, e.DeadlinePassed(training=others), now)
    assert (waiting.phase, waiting.view, actions) == (Phase.READY, 0, [])
    assert waiting.deadline > now
    few = frozenset(sorted(others)[:1])
    assert step(ready, e.DeadlinePassed(training=few), now)[0].view == 1, (
        "a member does not wait for a single one that trains"
    )
    over = ready.entered + ready.round_s
    assert (
        step(replace(ready, deadline=over), e.DeadlinePassed(training=others), over)[0].view == 1
    ), "a member waits for at most one round"


def test_state_of_another_branch_is_not_adopted_after_its_merge_was_given_up() -> None:
    """Adopting it would drop everything that this node's own branch certified."""
    members = people(3)
    certificate = open_certificate(Made(members).raw(), RUN, MANIFEST, CHUNKS)
    tip = genesis(RUN)
    state = begin(
        RunContext(run=RUN, me=members[0].peer, manifest=MANIFEST, chunks=CHUNKS), tip, 0.0
    )
    here = e.StateReceived(certificate=certificate, tip=tip.hash, ahead=False)
    assert step(state, here, 1.0) == (state, [])
    assert step(state, replace(here, ahead=True), 1.0)[0].phase is Phase.ADOPT
