"""Worlds of rules 4: whole nodes bound weights, clip poison and keep nothing of a capped offer."""

from __future__ import annotations

import numpy as np
import trio

from protocol.journal import Contributor, RoundCertified
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest
from simulator.fakes.clock import run_virtual
from simulator.scenarios.story import QUICK
from simulator.world.world import World

ROUND_S = QUICK.seconds + 1.0


def _world(
    nodes: int, samples_per_second: dict[int, float], parameters: int, *, marked: bool
) -> World:
    return World(
        seed=4,
        nodes=nodes,
        manifest=Manifest(name="bounded", task="quadratic", rules=RULES_4, seed=1, round=QUICK),
        parameters=parameters,
        samples_per_second=lambda index: samples_per_second.get(index, 20.0),
        marked=marked,
    )


def _shares(world: World, index: int) -> list[Contributor]:
    """What a node contributed to each certificate, as it recorded it itself."""
    peer = world.nodes[index].peer
    return [
        share
        for _, node, event in world.history
        if node == index and isinstance(event, RoundCertified)
        for share in event.shares
        if share.peer == peer
    ]


def test_a_fast_card_counts_twice_and_none_of_its_work_gets_old() -> None:
    """Story trust-fast-card-ledger: a node 50 times as fast beside seven others, open run."""
    world = _world(8, {0: 1000.0}, 9_000, marked=True)
    carried: list[int] = []

    async def story() -> None:
        async with world.running():
            world.start()
            for _ in range(14):
                await trio.sleep(ROUND_S)
                engine = world.nodes[0].engine
                assert engine is not None
                carried.append(engine.state_store.ledger.carried)

    run_virtual(story, seed=4)
    assert not world.invariants.broken
    counted = _shares(world, 0)
    assert len(counted) > 9
    for share in counted[1:]:
        assert share.weight is not None
        assert share.weight < share.samples / 10
        # Twice the median of the voters is at most a third of the seven others.
        assert share.weight <= 2.2 * 20.0 * QUICK.seconds
    assert max(carried) == 0, "no work waits for a second round"


def test_a_poisoner_is_clipped_and_everybody_names_the_same_bytes() -> None:
    """Whole nodes sum, audit, vote and replay with the clip; the world checks each state."""
    world = _world(6, {}, 30_000, marked=False)

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(12 * ROUND_S)
            trainer = world.nodes[2].trainer
            assert trainer is not None
            trainer.poison = -1e6
            await trio.sleep(12 * ROUND_S)

    run_virtual(story, seed=4)
    assert not world.invariants.broken
    clipped = [share.kept for share in _shares(world, 2)[14:] if share.kept is not None]
    assert clipped
    assert max(clipped) < 1e-3
    honest = [share.kept for share in _shares(world, 1) if share.kept is not None]
    assert np.median(honest) > 0.9
    anchors = [
        node.engine.state_store.anchor.value for node in world.nodes if node.engine is not None
    ]
    assert all(np.abs(anchor).max() < 100.0 for anchor in anchors)
