"""No two members draw the same position, before an offer or during an exchange.

A lane is drawn until the offer, the tip's reserve during the exchange.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import Tip, decode_tip, encode_tip, genesis
from protocol.contribution.lane_reserve import FIRST_RESERVE, next_reserve
from protocol.messages.offer import Trajectory
from protocol.run.data_order import lane_positions
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

MEMBERS = people(4)
# Of each member in each round: samples before its offer, samples during its exchange.
DRAWS = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=4, max_size=4),
    min_size=1,
    max_size=4,
)


def _after(tip: Tip, drawn: list[int], *, overlap: bool = True, rounds: int = 1) -> Tip:
    """The tip after a round in which the members drew so many samples before their offers."""
    raw = Made(MEMBERS, tip, seq=tip.number + 1, samples=1000).raw()
    opened = open_certificate(raw, RUN, MANIFEST, CHUNKS)
    offers = tuple(
        replace(offer, trajectory=Trajectory(drawn=samples, rounds=rounds))
        for offer, samples in zip(opened.plan.offers, drawn, strict=True)
    )
    plan = replace(opened.plan, offers=offers, overlap=overlap)
    return extend(tip, replace(opened, plan=plan))


@given(history=DRAWS)
def test_members_share_no_position_in_lanes_and_reserves(
    history: list[list[tuple[int, int]]],
) -> None:
    """An exchange that outlasts the reserve begins the member's own reserve again."""
    tip = _after(genesis(RUN), [5, 5, 5, 5])
    owner: dict[int, tuple[int, str, str]] = {}
    for members in history:
        for person, (before, during) in zip(MEMBERS, members, strict=True):
            for kind, lane, count in (
                ("lane", tip.lane(person.peer), before),
                ("reserve", tip.reserve_lane(person.peer), during),
            ):
                for position in lane_positions(lane, 0, count).tolist():
                    mine = (tip.number, person.peer, kind)
                    assert owner.setdefault(position, mine) == mine
        tip = _after(tip, [before for before, _ in members])


def test_reserve_has_as_many_samples_as_the_busiest_member_drew() -> None:
    start = genesis(RUN)
    assert start.reserve == FIRST_RESERVE
    first = _after(start, [10, 70, 20, 0])
    assert first.reserve == first.reserve_lane(MEMBERS[0].peer).limit == 70
    assert first.lane_base == (FIRST_RESERVE + 70) * 8
    assert _after(first, [0, 0, 0, 0]).reserve == 70, "nobody drew, so nothing was measured"
    assert _after(first, [0, 90, 0, 0], rounds=40).reserve == 3, (
        "the mean of a lone member's rounds"
    )
    assert next_reserve(5, []) == 5


def test_run_without_overlap_has_the_lanes_of_rules_2() -> None:
    start = genesis(RUN, overlap=False)
    tip = _after(start, [10, 70, 20, 0], overlap=False)
    assert (start.reserve, tip.reserve) == (0, 0)
    # The weight of an offer counts, too.
    assert tip.lane_base == 1000 * 8
    assert tip.lane(MEMBERS[2].peer).base == tip.lane_base


@pytest.mark.parametrize("overlap", [True, False])
def test_tip_keeps_its_reserve_on_disk(overlap: bool) -> None:
    tip = _after(genesis(RUN, overlap=overlap), [7, 8, 9, 10], overlap=overlap)
    assert decode_tip(encode_tip(tip)) == tip
