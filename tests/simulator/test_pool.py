"""Worlds of many nodes: a full round with every node, and the membership of ten thousand."""

from __future__ import annotations

import pytest

from daemon.services.training.native.state.state_store import StateStore
from simulator.playback.membership import NODES, play_membership
from simulator.playback.player import StoryPlayer, play
from simulator.scenarios.catalog import scenario
from simulator.world.world import FLOODED_NODES

# Processor time for a thousand nodes on one core. The load of a busy machine does not count.
ROUND_CPU_S = 60.0
MEMBERSHIP_CPU_S = 120.0


def _stores(played: StoryPlayer) -> list[StateStore]:
    return [
        node.engine.state_store
        for node in played.world.nodes
        if node.engine is not None and node.engine.state_store is not None
    ]


def _full_round(nodes: int) -> StoryPlayer:
    """Play a round in which every node trained and holds one certificate with its state."""
    played = play(scenario("many", nodes, 1))
    assert played.report is not None
    assert played.report.ok, played.report.reason
    stores = _stores(played)
    assert len(stores) == nodes
    assert {store.tip.number for store in stores} == {1}
    assert len({store.tip.hash for store in stores}) == 1
    assert len({store.anchor.value.tobytes() for store in stores}) == 1
    assert len(stores[0].tip.members) == 64, "as many as one group may have"
    assert all(node.trainer is not None and node.trainer.collected for node in played.world.nodes)
    return played


@pytest.mark.timeout(600)
def test_a_full_round_of_more_nodes_than_are_flooded() -> None:
    # Above this number gossip reaches everybody at once, as with a thousand nodes.
    _full_round(FLOODED_NODES + 22)


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
