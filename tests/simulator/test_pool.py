"""Worlds of many: a full round with every node in it, and what ten thousand members make of each
other.
"""

from __future__ import annotations

import pytest

from daemon.services.training.native.state.state_store import StateStore
from simulator.playback.membership import NODES, play_membership
from simulator.playback.player import StoryPlayer, play
from simulator.scenarios.catalog import scenario

# For a thousand nodes on one core, in processor time: what a busy machine adds is not the
# simulator's.
ROUND_CPU_S = 60.0
MEMBERSHIP_CPU_S = 120.0


def _keepers(played: StoryPlayer) -> list[StateStore]:
    return [
        node.engine.state_store
        for node in played.world.nodes
        if node.engine is not None and node.engine.state_store is not None
    ]


def _full_round(nodes: int) -> StoryPlayer:
    """Every node trained, and stands on one certificate with the state that it names."""
    played = play(scenario("many", nodes, 1))
    assert played.report is not None
    assert played.report.ok, played.report.reason
    stores = _keepers(played)
    assert len(stores) == nodes
    assert {store.tip.number for store in stores} == {1}
    assert len({store.tip.hash for store in stores}) == 1
    assert len({store.anchor.value.tobytes() for store in stores}) == 1
    assert len(stores[0].tip.members) == 64, "as many as one row may have"
    assert all(node.trainer is not None and node.trainer.collected for node in played.world.nodes)
    return played


@pytest.mark.timeout(600)
def test_a_full_round_of_150_nodes() -> None:
    _full_round(150)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_full_round_of_a_thousand_nodes_within_a_minute() -> None:
    report = _full_round(1000).report
    assert report is not None
    print(f"{report.cpu_seconds:.0f} s of processor time, {report.peak_memory_bytes >> 20} MB")
    assert report.cpu_seconds < ROUND_CPU_S


def test_five_hundred_members_know_each_other_and_plan() -> None:
    _, report = play_membership(500, 1)
    assert report.ok, report.reason
    assert report.invariants == {"membership": True, "same leaders": True, "plan": True}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_members_know_each_other_and_plan() -> None:
    _, report = play_membership(NODES, 1)
    print(f"{report.cpu_seconds:.0f} s of processor time, {report.peak_memory_bytes >> 20} MB")
    assert report.ok, report.reason
    assert report.cpu_seconds < MEMBERSHIP_CPU_S
