"""Rounds in which members train during the exchange: nobody is idle, and all keep one cadence."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from protocol.journal import PhaseEntered, RoundCertified, Trained
from protocol.run.manifest import Manifest
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.scenarios.story import QUICK
from simulator.world.world import World

NODES = 4
PLAYED_S = 90.0


def slow_exchange(*, overlap: bool) -> World:
    """Members of different pace, whose exchange takes two to three fifths of their training."""
    rounds = replace(QUICK, overlap=overlap, min_seconds=QUICK.seconds)
    return World(
        seed=4,
        nodes=NODES,
        manifest=Manifest(name="overlap", task="quadratic", seed=4, codec="float32", round=rounds),
        # 600 KB of parameters; each member sends one and a half times as much in a round.
        link=lambda one, other: LinkModel(latency_s=0.02, bandwidth_bps=2.5e6),
        parameters=150_000,
        samples_per_second=lambda index: 20.0 + 15.0 * index,
        marked=True,
    )


def played(*, overlap: bool) -> World:
    world = slow_exchange(overlap=overlap)

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(PLAYED_S)

    run_virtual(story, seed=4)
    assert not world.invariants.broken, world.invariants.broken
    return world


@pytest.mark.parametrize(("overlap", "least", "most"), [(True, 0.95, 1.0), (False, 0.5, 0.85)])
def test_share_of_time_that_members_train(overlap: bool, least: float, most: float) -> None:
    """Measured from the first certificate to the last: what was handed over between them."""
    world = played(overlap=overlap)
    for node in range(NODES):
        ends = [at for at, index, event in world.history if index == node and counts(event)]
        trained = sum(
            event.seconds
            for at, index, event in world.history
            if index == node and isinstance(event, Trained) and ends[0] < at <= ends[-1]
        )
        assert least <= trained / (ends[-1] - ends[0]) <= most + 0.03
        assert len(ends) >= 8


def counts(event: object) -> bool:
    return isinstance(event, RoundCertified) and event.outcome == "counted"


def test_members_that_overlap_offer_together_in_every_round() -> None:
    """The end of training counts from the certificate, and no member drifts away from the others.

    A member waits for no step's border, though steps take between 0.15 and 0.5 s.
    """
    world = played(overlap=True)
    offers: dict[int, list[float]] = {}
    for at, _, event in world.history:
        if isinstance(event, PhaseEntered) and event.phase == "offer":
            offers.setdefault(event.number, []).append(at)
    whole = {number: times for number, times in offers.items() if len(times) == NODES}
    assert len(whole) >= 8
    for times in whole.values():
        assert max(times) - min(times) < 0.1
    certified = list(world.events(RoundCertified, node=0))
    assert all(
        isinstance(event, RoundCertified) and len(event.shares) == NODES for event in certified
    )
