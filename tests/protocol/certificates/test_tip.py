"""The lineage: which certificate follows a tip, who leads after it, and which samples are drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import NEWCOMER_LANES, Tip, genesis, prefer
from protocol.errors import PeerFault
from protocol.messages.offer import Trajectory
from protocol.planning.round_length import MOST_CHANGE, first_round_s
from protocol.rules.versions import RULES_2
from protocol.run.data_order import lane_positions
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, chain, named, people, signer

FIVE = people(5)
START = genesis(RUN)


def opened(raw: bytes) -> OpenCertificate:
    return open_certificate(raw, RUN, MANIFEST, CHUNKS)


def test_a_tip_extends_certificate_by_certificate() -> None:
    tips = chain(3)
    assert [tip.number for tip in tips] == [0, 1, 2, 3]
    assert [tip.samples for tip in tips] == [0, 40, 80, 120]
    assert tips[3].last_seq == {person.peer: 3 for person in people(4)}
    assert tips[3].members == tuple(person.peer for person in people(4))
    assert tips[3].state == named("state")


def test_only_present_members_lead_afterwards() -> None:
    tip = (
        Made(people(4))
        .with_inclusion(contributors=(0, 2), present=(0, 2, 3), owners=(0, 0, 2, 3))
        .next_tip()
    )
    assert tip.members == tuple(people(4)[i].peer for i in (0, 2, 3))
    assert set(tip.last_seq) == {people(4)[0].peer, people(4)[2].peer}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda tip: Made(people(4), tip, seq=1), "was certified before"),
        (lambda tip: Made(people(4), tip, seq=2), "was certified before"),
        (
            lambda tip: Made(people(4), replace(tip, hash=named("elsewhere")), seq=9),
            "does not follow",
        ),
        (lambda tip: Made(people(4), replace(tip, number=7), seq=9), "does not follow"),
        (
            lambda tip: Made(people(4), replace(tip, round_s=9.0), seq=9),
            "ends a round of 9 s where its parent left 4.86864 s",
        ),
        (
            lambda tip: Made(people(4), replace(tip, round_s=None), seq=9),
            "ends a round of the first length where its parent left 4.86864 s",
        ),
    ],
)
def test_a_certificate_that_does_not_follow_the_tip_is_refused(
    make: Callable[[Tip], Made], why: str
) -> None:
    tip = chain(2)[-1]
    with pytest.raises(PeerFault, match=why) as fault:
        extend(tip, opened(make(tip).raw()))
    assert fault.value.reason == "bad_certificate"


def test_a_tip_carries_the_length_that_its_plan_leaves() -> None:
    first = first_round_s(MANIFEST.round)
    lengths = [None, first / MOST_CHANGE, first / MOST_CHANGE / MOST_CHANGE]
    assert [tip.round_s for tip in chain(2)] == lengths
    tip = replace(chain(1)[-1], round_s=7.5)
    assert extend(tip, opened(Made(people(4), tip, seq=2).raw())).round_s == 7.5 / MOST_CHANGE
    two = replace(MANIFEST, rules=RULES_2)
    made = Made(people(4), manifest=two)
    assert extend(START, open_certificate(made.raw(), RUN, two, CHUNKS)).round_s is None


@given(view=st.integers(0, 9), i=st.integers(0, 3))
def test_candidates_lead_their_views_and_any_member_leads_later_ones(view: int, i: int) -> None:
    tip = chain(1)[-1]
    made = Made(people(4), tip, view=view, seq=2)
    right = made.leader
    made.leader = people(4)[i]
    made.plan_signed = made.signed(made.plan)
    made.with_inclusion(plan=made.plan_signed.digest)
    made.vote = replace(made.vote, plan=made.plan_signed.digest)
    certificate = opened(made.raw())
    if made.leader is right or view >= len(tip.members):
        assert extend(tip, certificate).number == 2
    else:
        with pytest.raises(PeerFault, match=f"does not lead view {view}"):
            extend(tip, certificate)


def _positions(tip: Tip, samples: int) -> list[set[int]]:
    """Return the positions that members and newcomers of one round draw, `samples` each."""
    newcomers = {tip.lane(signer(i).peer).index: tip.lane(signer(i).peer) for i in range(100, 130)}
    lanes = [tip.lane(peer) for peer in tip.members] + list(newcomers.values())
    return [set(lane_positions(lane, 0, samples).tolist()) for lane in lanes]


def test_lanes_share_nothing_within_a_round_and_between_rounds() -> None:
    drawn: list[set[int]] = []
    for tip in chain(4):
        # Each member has 10 certified samples in each round.
        drawn += _positions(tip, samples=10)
    assert sum(len(positions) for positions in drawn) == len(set().union(*drawn))


def test_lanes_move_by_the_most_samples_that_a_member_drew() -> None:
    """Samples count that an inclusion left out, and those above an offer's greatest weight."""
    made = Made(FIVE).with_inclusion(contributors=(0, 1))
    opened = open_certificate(made.raw(), RUN, MANIFEST, CHUNKS)
    busy = replace(opened.plan.offers[4], trajectory=Trajectory(drawn=77_000))
    offers = (*opened.plan.offers[:4], busy)
    after = extend(START, replace(opened, plan=replace(opened.plan, offers=offers)))
    lane = START.lane(FIVE[4].peer)
    last = lane_positions(lane, busy.trajectory.drawn - 1, 1)[0]
    assert all(lane_positions(after.lane(person.peer), 0, 1)[0] > last for person in FIVE)
    assert lane.after(1_000) == replace(lane, base=lane.base + 1_000 * lane.stride)


def test_newcomers_have_lanes_of_their_own() -> None:
    tip = chain(1)[-1]
    members, newcomer = [tip.lane(peer) for peer in tip.members], tip.lane(signer(77).peer)
    assert [lane.index for lane in members] == [0, 1, 2, 3]
    assert 4 <= newcomer.index < 4 + NEWCOMER_LANES
    assert {lane.stride for lane in (*members, newcomer)} == {4 + NEWCOMER_LANES}


def test_the_tip_with_more_samples_is_preferred_then_the_lower_hash() -> None:
    light, heavy = (
        replace(START, samples=1, hash=b"\0" * 32),
        replace(START, samples=2, hash=b"\xff" * 32),
    )
    assert prefer(light, heavy) is prefer(heavy, light) is heavy
    low, high = replace(START, hash=b"\1" * 32), replace(START, hash=b"\2" * 32)
    assert prefer(low, high) is prefer(high, low) is low
