"""Rounds that adapt to their exchange, in virtual time: shorter, longer, and back again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.journal import InputRefused
from protocol.messages.round import PacedPlan, Plan
from protocol.planning.round_length import (
    CONTROL_S,
    MOST_CHANGE,
    first_round_s,
    guessed_exchange_s,
)
from protocol.rules.versions import CURRENT_RULES, RULES_2
from protocol.run.manifest import Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.world.world import World

ROUNDS = RoundRules(seconds=30.0, min_seconds=0.5, ready_s=1.0, scatter_s=20.0, gather_s=20.0)
CHUNKS = 120
FAST, SLOW = 20e6, 2e6


class Network:
    """Links that are all alike, and change at once."""

    def __init__(self, bandwidth_bps: float) -> None:
        self.bandwidth_bps = bandwidth_bps

    def __call__(self, source: str, target: str) -> LinkModel:
        return LinkModel(latency_s=0.01, bandwidth_bps=self.bandwidth_bps)


def world_of(
    network: Network,
    rounds: RoundRules = ROUNDS,
    *,
    rules: int = CURRENT_RULES,
    chunks: int = CHUNKS,
) -> World:
    manifest = Manifest(
        name="lengths", task="quadratic", rules=rules, codec="float32", round=rounds
    )
    return World(
        seed=3,
        nodes=4,
        manifest=manifest,
        link=network,
        parameters=chunks * CHUNK_ELEMENTS,
    )


def played(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world.running():
            world.start()
            await story()

    run_virtual(main, seed=3)
    assert world.invariants.broken == []
    assert world.events(InputRefused) == []


def plans(world: World) -> list[Plan]:
    """The plans of a node's lineage, in their order."""
    engine = world.nodes[0].engine
    assert engine is not None
    assert engine.state is not None
    lineage, found = engine.peers.lineage, []
    entry = lineage.entry(engine.state.tip.hash)
    while entry is not None:
        found.append(entry.certificate.plan.plan)
        entry = lineage.entry(entry.certificate.outcome.parents[0])
    return found[::-1]


def lengths(world: World) -> list[float]:
    """The lengths that the certificates of a node's lineage carry, in their order."""
    return [plan.round_s for plan in plans(world) if isinstance(plan, PacedPlan)]


def round_s(world: World) -> float:
    state = world.nodes[0].state
    return first_round_s(ROUNDS) if state is None else state.round_s


def check_steps(found: list[float]) -> None:
    """No certificate changes the length by more than half."""
    for before, after in zip([first_round_s(ROUNDS), *found], found, strict=False):
        assert before / MOST_CHANGE * 0.999 <= after <= before * MOST_CHANGE * 1.001


def test_rounds_follow_fast_links_and_are_equal_for_every_member() -> None:
    world = world_of(Network(FAST))

    async def story() -> None:
        await world.until(lambda: all(world.number(i) >= 9 for i in range(4)), 120.0, "round 9")
        await world.until(lambda: len(world.tips()) == 1, 10.0, "one tip")
        states = [node.state for node in world.nodes]
        assert len({state.round_s for state in states if state is not None}) == 1

    played(world, story)
    found = lengths(world)
    check_steps(found)
    assert found[-1] == found[-2], "the length settles"
    (predicted_s,) = {plan.predicted_s for plan in plans(world)[-2:]}
    assert predicted_s is not None
    assert found[-1] == pytest.approx((predicted_s + CONTROL_S) / RoundRules().exchange_share)


def test_rounds_become_long_on_slow_links_and_recover_when_the_links_do() -> None:
    network = Network(SLOW)
    world = world_of(network)

    async def story() -> None:
        await world.until(lambda: round_s(world) == ROUNDS.seconds, 200.0, "the longest rounds")
        network.bandwidth_bps = FAST
        await world.until(lambda: round_s(world) < 7.0, 200.0, "short rounds")
        network.bandwidth_bps = SLOW
        await world.until(lambda: round_s(world) == ROUNDS.seconds, 400.0, "long rounds again")

    played(world, story)
    check_steps(lengths(world))


def test_rounds_are_shortest_where_the_exchange_is_too_quick_to_measure() -> None:
    world = world_of(Network(FAST), chunks=4)

    async def story() -> None:
        await world.until(lambda: world.number(0) >= 8, 60.0, "round 8")

    played(world, story)
    found = lengths(world)
    check_steps(found)
    assert {plan.predicted_s for plan in plans(world)} == {None}
    assert found[-1] == pytest.approx(
        (guessed_exchange_s(4 * 4 * CHUNK_ELEMENTS, 4) + CONTROL_S) / RoundRules().exchange_share
    )


def test_a_run_of_rules_2_keeps_its_length() -> None:
    rounds = replace(ROUNDS, seconds=4.0)
    world = world_of(Network(FAST), rounds, rules=RULES_2, chunks=4)

    async def story() -> None:
        await world.until(lambda: world.number(0) >= 3, 60.0, "round 3")
        assert round_s(world) == 4.0

    played(world, story)
    assert {type(plan) for plan in plans(world)} == {Plan}
