"""A reducer dies when all but one member have its result: real engines in virtual time."""

from __future__ import annotations

from protocol.journal import JournalEvent, PhaseEntered, RoundCertified, ViewPassed
from protocol.run.manifest import Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World

# After the leader's plan: its parts have arrived, and the results of the members are on their way.
# On paths of 20 ms, the plan takes 20 ms, the parts 20 ms more.
SEVERED_AFTER_S = 0.045
# After the first vote, and before any vote has arrived, on paths of 20 ms.
DIES_AFTER_S = 0.01


def test_survivors_of_a_reducer_certify_in_the_same_view() -> None:
    world = World(
        seed=1,
        nodes=4,
        manifest=Manifest(
            name="handed on", task="quadratic", seed=1, round=RoundRules(seconds=5.0)
        ),
        parameters=4 * 4096 * 8,
        link=lambda one, other: LinkModel(latency_s=0.02),
    )
    cast: dict[str, SimulatedNode] = {}
    died_at: list[float] = []

    def watch(now: float, node: SimulatedNode, event: JournalEvent) -> None:
        if not isinstance(event, PhaseEntered) or event.number != 3:
            return
        if event.phase == "scatter" and not cast and node.state is not None and node.state.leads:
            dead, lacking = [other for other in world.nodes if other is not node][:2]
            cast.update(dead=dead, lacking=lacking)
            # The result of the dead reducer does not arrive at one member.
            world.swarm.schedule.at(
                now + SEVERED_AFTER_S, lambda _: world.swarm.sever(dead.peer, lacking.peer), None
            )
        if event.phase == "vote" and cast and not died_at and node is not cast["dead"]:
            died_at.append(now + DIES_AFTER_S)
            world.swarm.schedule.at(
                now + DIES_AFTER_S, lambda _: world.kill(cast["dead"].index), None
            )

    async def story() -> None:
        async with world.running():
            world.watchers.append(watch)
            world.start()
            await world.until(
                lambda: (
                    all(world.number(s.index) >= 3 for s in world.nodes if s.alive)
                    and bool(died_at)
                ),
                40.0,
                "round 3",
            )

    run_virtual(story, seed=1)
    voted = [
        at
        for at, index, event in world.history
        if index == cast["lacking"].index
        and isinstance(event, PhaseEntered)
        and (event.number, event.phase) == (3, "vote")
    ]
    assert voted[0] > died_at[0], "it lacked the result until the others forwarded it"
    third = [
        at
        for at, _, event in world.history
        if isinstance(event, RoundCertified) and event.number == 3
    ]
    assert max(third) - died_at[0] < 1.0
    assert not world.events(ViewPassed)
    assert not world.invariants.broken
