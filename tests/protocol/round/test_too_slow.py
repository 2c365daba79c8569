"""Who is too slow for a plan's deadline is left out of its row and not of the run: what it did
waits for the next round.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.certificates.leader_order import leader_of
from protocol.planning.plan import OpenPlan
from protocol.round import timeouts
from protocol.round.phase import Phase
from tests.protocol.round.cargo import Slice
from tests.protocol.round.test_stories import flow_without, offers_made
from tests.protocol.round.test_village import heal
from tests.protocol.round.village import Letter, Village
from tests.protocol.round.villager import Villager


def slowest(village: Village) -> Villager:
    """One that does not lead."""
    leader = leader_of(village.villagers[0].state.leader_order, 0)
    return next(villager for villager in village.villagers if villager.me != leader)


@pytest.mark.parametrize("down", [True, False])
def test_a_slow_link_costs_a_round_its_owner_alone(down: bool) -> None:
    """What it should have received emptied the cut: only what every owner holds can be in it, and
    it held its own alone.
    """
    village = Village(5, settled=5)
    slow = slowest(village)
    before = village.villagers[0].state.tip
    offers_made(village)

    def withheld(letter: Letter) -> bool:
        return isinstance(letter.content, Slice) and slow.me == (
            letter.to if down else letter.sender
        )

    flow_without(village, withheld)
    assert {villager.state.phase for villager in village.villagers} == {Phase.SCATTER}
    for _ in range(12):
        if any(villager.state.tip != before for villager in village.villagers):
            break
        village.tick_next()
        flow_without(village, withheld)
    others = [villager for villager in village.villagers if villager is not slow]
    tips = {villager.state.tip.hash: villager.state.tip for villager in others}
    assert len(tips) == 1
    (tip,) = tips.values()
    assert tip.number == before.number + 1
    assert set(tip.members) == {villager.me for villager in others}
    assert {villager.state.view for villager in others} == {0}, "no view came to nothing"
    assert tip.last_seq.get(slow.me) == before.last_seq.get(slow.me), "it is not counted"
    village.held = []
    heal(village, rounds=1, ticks=20)
    assert {
        villager.state.tip.last_seq[slow.me] > before.last_seq[slow.me]
        for villager in village.villagers
    } == {True}, "but a round later"


def planned(village: Village, predicted_s: float | None, view: int = 0) -> OpenPlan:
    plan = village.villagers[0].state.plan
    assert plan is not None
    return replace(plan, plan=replace(plan.plan, predicted_s=predicted_s, view=view))


def test_a_plan_is_waited_for_as_long_as_it_predicts_within_the_manifests_limits() -> None:
    village = Village(3, settled=3)
    offers_made(village)
    flow_without(village, lambda letter: isinstance(letter.content, Slice))
    rules = replace(
        village.villagers[0].state.context.manifest.round,
        ready_s=3.0,
        scatter_s=20.0,
        gather_s=30.0,
    )
    assert timeouts.scatter_s(planned(village, None), rules) == 20.0
    assert timeouts.scatter_s(planned(village, 0.1), rules) == rules.ready_s
    assert timeouts.scatter_s(planned(village, 4.0), rules) == timeouts.PREDICTION_MARGIN * 4.0
    assert timeouts.gather_s(planned(village, 4.0), rules) == timeouts.PREDICTION_MARGIN * 4.0
    assert timeouts.scatter_s(planned(village, 60.0), rules) == 20.0
    assert timeouts.gather_s(planned(village, 60.0), rules) == 30.0


def test_a_prediction_that_is_wrong_costs_few_views() -> None:
    village = Village(3, settled=3)
    offers_made(village)
    flow_without(village, lambda letter: isinstance(letter.content, Slice))
    rules = replace(village.villagers[0].state.context.manifest.round, ready_s=3.0, scatter_s=20.0)
    assert [timeouts.scatter_s(planned(village, 1.0, view), rules) for view in range(4)] == [
        3.0,
        6.0,
        12.0,
        20.0,
    ]
    assert timeouts.scatter_s(planned(village, 1.0, 10**6), rules) == 20.0
