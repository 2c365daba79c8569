"""The length of rounds in the machine: deadlines follow it, and no leader invents it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.messages.base import Signed
from protocol.messages.envelope import open_as, sign
from protocol.messages.offer import Ready
from protocol.messages.round import PacedPlan, Plan
from protocol.planning.paced_plan import length_reason_in, paced
from protocol.planning.plan import open_plan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import step
from protocol.round.phase import Phase
from protocol.round.state import PendingMerge
from protocol.round.transitions import training_deadline
from tests.protocol.round.cluster import TestCluster
from tests.protocol.round.cluster_control import content_type, flow_withholding, make_offers
from tests.protocol.round.sample_events import training_node
from tests.protocol.rounds import MANIFEST


def test_training_takes_the_length_that_the_tip_carries() -> None:
    state = training_node()
    state = replace(state, tip=replace(state.tip, round_s=7.5))
    assert state.round_s == 7.5
    assert training_deadline(state, 100.0) == 107.5
    assert training_deadline(state, 100.0, 3.0) == 104.5


def test_a_merge_remembers_the_length_of_the_preferred_side() -> None:
    state = training_node()
    ours = replace(state.tip, round_s=7.5, samples=10)
    for samples, left in ((11, 3.0), (9, 7.5)):
        other = replace(ours, round_s=3.0, samples=samples)
        merge = PendingMerge(other=other, state=b"")
        assert replace(state, tip=ours, merge=merge).left_round_s == left


@pytest.mark.parametrize("claimed_s", [MANIFEST.round.seconds, 3.0, None])
def test_a_plan_that_lies_about_the_length_before_it_is_refused(claimed_s: float | None) -> None:
    """Its own numbers agree: only the parent's certificate shows that they are wrong."""
    cluster = TestCluster(4, settled=4)
    make_offers(cluster)
    flow_withholding(cluster, lambda packet: content_type(cluster, packet) is PacedPlan)
    signed = cluster.withheld[0].content
    assert isinstance(signed, Signed)
    member = cluster.named(cluster.withheld[0].to)
    leader = cluster.named(signed.peer)
    plan = open_as(PacedPlan, signed, cluster.run_id)
    assert length_reason_in(plan).startswith(f"rounds of {plan.round_s:.3g} s")
    assert plan.reason.endswith(f"; {length_reason_in(plan)}")
    assert plan.round_s_before == member.state.tip.round_s != claimed_s
    plain = Plan(**{name: getattr(plan, name) for name in Plan.__struct_fields__})
    assert not length_reason_in(plain)
    offers = [open_as(Ready, offer, cluster.run_id) for offer in plan.offers]
    lie = paced(plain, offers, member.state.context.manifest, claimed_s)
    forged = sign(leader.signer, cluster.run_id, lie)
    opened = open_plan(forged, cluster.run_id, member.state.context.manifest, None)
    state, actions = step(member.state, e.PlanReceived(signed=forged, plan=opened), cluster.now)
    assert (state.phase, state.plan) == (Phase.READY, None)
    (refusal,) = actions
    assert isinstance(refusal, a.Refuse)
    assert (refusal.peer, refusal.reason) == (leader.me, "bad_plan")
    assert "where its parent left" in refusal.detail
