"""Stories of rules 4 that a schedule of faults cannot tell: an eclipsed joiner, a damaged disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from msgspec.structs import replace

from protocol.journal import Trouble
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest, RoundRules
from protocol.run.manifest_parts import Trust
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

HONEST, EVIL, JOINER = range(4), range(4, 6), 6
GRACE_S = 10.0


def world_of(nodes: int, founders: int) -> World:
    manifest = Manifest(
        name="trust",
        task="quadratic",
        rules=RULES_4,
        round=RoundRules(seconds=5.0, ready_s=1.0),
        trust=Trust(quorum_grace_s=GRACE_S),
    )
    return World(seed=7, nodes=nodes, manifest=manifest, founders=founders)


def played(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world.running():
            await story()

    run_virtual(main, seed=7)


def test_joiner_with_an_invitation_takes_no_state_from_neighbours_on_another_branch() -> None:
    """Story trust-joiner-eclipsed: all that the joiner hears are two of six voters."""
    world = world_of(7, 6)
    joiner = world.nodes[JOINER]

    async def story() -> None:
        world.start(*HONEST, *EVIL)
        await world.until(lambda: world.number(0) >= 3, 60.0, "round 3")
        world.partition(HONEST, [*EVIL, JOINER])
        split = world.number(0)
        await world.until(lambda: world.number(EVIL[0]) >= split + 3, 120.0, "the evil branch")
        state = world.nodes[0].state
        assert state is not None
        joiner.invitation = replace(joiner.invitation, required=state.tip.hash)
        world.start(JOINER)
        await trio.sleep(9 * GRACE_S)
        assert world.number(JOINER) == 0
        told = [event for event in world.events(Trouble, node=JOINER) if isinstance(event, Trouble)]
        assert [event.code for event in told] == ["OTHER_HISTORY"]
        world.heal()
        await world.until(lambda: world.number(JOINER) > split, 30.0, "the joiner follows")
        await world.until(lambda: len(world.tips()) == 1, 60.0, "one branch")

    played(world, story)
    assert world.invariants.broken == []


def test_node_with_a_damaged_certificate_stops_and_changes_nothing_until_it_is_set_aside() -> None:
    """Story trust-unreadable-disk. What `repair` sets aside, the members send again."""
    world = world_of(4, 4)
    broken, run = world.nodes[3], world.manifest.run

    async def story() -> None:
        world.start()
        await world.until(lambda: world.number(3) >= 5, 60.0, "round 5")
        world.kill(3)
        await trio.sleep(1.0)
        chain = broken.medium.chains[run]
        number, record = chain[2]
        chain[2] = (number, record[: len(record) // 2])
        before = (list(chain), list(broken.medium.checkpoints[run]))
        world.start(3)
        await world.until(lambda: not broken.alive, 10.0, "the node stops")
        (crash,) = world.invariants.broken
        assert "UserError" in crash.what
        assert "Certificate 3 on disk cannot be read" in crash.what
        world.invariants.broken.clear()
        assert (broken.medium.chains[run], broken.medium.checkpoints[run]) == before
        here = world.number(0)
        await world.until(lambda: world.number(0) >= here + 2, 60.0, "the others go on")
        # The certificates before the damaged one fit together, and no checkpoint belongs to them.
        del broken.medium.chains[run][2:]
        broken.medium.checkpoints[run] = []
        world.start(3)
        await world.until(lambda: world.number(3) >= here + 2, 60.0, "the node is back")

    played(world, story)
    assert world.invariants.broken == []
