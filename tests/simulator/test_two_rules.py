"""Two releases in one world: one supports the known rules, the other also later ones.

The later rules divide slices in another way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.journal import InputRefused, RoundCertified
from protocol.messages.round import Plan
from protocol.rules.registry import rule_set
from protocol.rules.versions import CURRENT_RULES, KNOWN_RULES, RULES_2, in_words
from protocol.run.manifest import Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.world.later_rules import LATER_RULES, later_rules
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World

OLDER, NEWER = KNOWN_RULES, KNOWN_RULES | {LATER_RULES}
# Among three members: the tie rule assigns two of the chunks.
CHUNKS = 5


@pytest.fixture(autouse=True)
def later() -> Iterator[None]:
    with later_rules():
        yield


def world_of(rules: int, *knows: frozenset[int]) -> World:
    manifest = Manifest(
        name="two releases",
        task="quadratic",
        rules=rules,
        round=RoundRules(seconds=5.0, ready_s=1.0),
    )
    world = World(seed=3, nodes=len(knows), manifest=manifest, parameters=CHUNKS * CHUNK_ELEMENTS)
    for node, versions in zip(world.nodes, knows, strict=True):
        node.supported_rules = versions
    return world


def played(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world.running():
            await story()

    run_virtual(main, seed=3)
    assert world.invariants.broken == []


def plans(world: World, node: SimulatedNode) -> list[Plan]:
    """The plans of the rounds whose certificates a node has."""
    assert node.engine is not None
    steps = [
        node.engine.peers.lineage.entry(bytes.fromhex(event.certificate))
        for event in certified(world, node.index)
    ]
    return [step.certificate.plan.plan for step in steps if step is not None]


def certified(world: World, index: int) -> list[RoundCertified]:
    return [
        event
        for event in world.events(RoundCertified, node=index)
        if isinstance(event, RoundCertified)
    ]


@pytest.mark.parametrize("rules", [RULES_2, CURRENT_RULES, LATER_RULES])
def test_run_is_planned_by_its_own_rules(rules: int) -> None:
    """Both releases carry out each other's plans in a run of known rules.

    The later rules make other slices.
    """
    world = world_of(rules, NEWER, NEWER if rules == LATER_RULES else OLDER, NEWER)

    async def story() -> None:
        world.start()
        await world.until(lambda: all(world.number(i) >= 4 for i in range(3)), 60.0, "round 4")

    played(world, story)
    found = [plans(world, node) for node in world.nodes]
    together = [plan for plan in found[0] if len(plan.offers) == 3]
    assert len(together) >= 3
    assert {offer.peer for plan in together for offer in plan.offers} == {
        node.peer for node in world.nodes
    }
    equal = [1 / 3] * 3
    borders = rule_set(rules).share_out(CHUNKS, equal)
    assert {plan.borders for plan in together} == {borders}
    other = CURRENT_RULES if rules == LATER_RULES else LATER_RULES
    assert borders != rule_set(other).share_out(CHUNKS, equal), (
        "the other version makes another plan"
    )
    assert world.events(InputRefused) == []
    assert (
        len(
            {
                event.certificate
                for i in range(3)
                for event in certified(world, i)
                if event.number == 3
            }
        )
        == 1
    )


def test_older_release_refuses_a_run_of_later_rules() -> None:
    world = world_of(LATER_RULES, NEWER, NEWER, OLDER)

    async def story() -> None:
        world.start(0, 1)
        await world.until(lambda: world.number(0) >= 2, 60.0, "round 2")
        world.start(2)
        await world.until(lambda: not world.nodes[2].alive, 40.0, "the refusal")
        number = world.number(0)
        await world.until(lambda: world.number(0) >= number + 2, 60.0, "two more rounds")

    played(world, story)
    refused = world.nodes[2].refused
    assert refused is not None
    assert refused.what == (
        f"This run uses rules {LATER_RULES}; this program knows rules {in_words(OLDER)}. "
        "Upgrade hypergpu."
    )
    assert world.nodes[2].life == 0, "the older node never took part"
    (refusal,) = world.events(InputRefused)
    assert isinstance(refusal, InputRefused)
    assert (refusal.reason, refusal.peer) == ("rules", world.nodes[2].peer)
    assert refusal.detail == (
        f"it asked to join; it knows rules {in_words(OLDER)}, and this run uses rules {LATER_RULES}"
    )


def test_node_that_upgrades_in_mid_run_keeps_the_runs_rules() -> None:
    """The new release begins runs of later rules, but the run of rules 2 continues as it was."""
    world = world_of(RULES_2, OLDER, OLDER, OLDER)

    async def story() -> None:
        world.start()
        await world.until(lambda: all(world.number(i) >= 3 for i in range(3)), 60.0, "round 3")
        # People upgrade their nodes one after the other.
        for index in range(3):
            world.kill(index)
            before = world.number(index)
            node = world.nodes[index]
            await world.until(lambda node=node: not node.alive, 10.0, "its end")
            world.nodes[index].supported_rules = NEWER
            world.start(index)
            wanted = before + 2
            await world.until(
                lambda wanted=wanted: all(world.number(i) >= wanted for i in range(3)),
                90.0,
                "two more rounds of all",
            )  # type: ignore[misc]
            assert world.nodes[index].engine is not None

    played(world, story)
    assert (
        len(
            {
                event.certificate
                for i in range(3)
                for event in certified(world, i)
                if event.number == 3
            }
        )
        == 1
    )
    assert {
        plan.borders for node in world.nodes for plan in plans(world, node) if len(plan.offers) == 3
    } == {rule_set(RULES_2).share_out(CHUNKS, [1 / 3] * 3)}
    for index in range(3):
        numbers = [event.number for event in certified(world, index)]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) == len(numbers), "no round began twice"
