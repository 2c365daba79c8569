"""How many messages, one after the other, lead from the end of training to the next anchor."""

from __future__ import annotations

import pytest
import trio

from protocol.journal import PhaseEntered, RoundCertified
from protocol.run.manifest import Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.world.world import World

NODES = 4
ONE_WAY_S = 0.015
# Offer, plan, parts with the hold reports behind them, inclusion, votes. Proofs travel beside the
# hold reports, and every member makes the certificate from the votes.
DELAYS = 6
PLAYED_S = 30.0


def test_certified_round_of_four_takes_six_one_way_delays() -> None:
    """In virtual time, where nothing but the links takes time.

    It once took nine: proofs left after the inclusion, one member waited for its certificate, and
    the others waited for the offer of that member.
    """
    world = World(
        seed=4,
        nodes=NODES,
        manifest=Manifest(
            name="delays",
            task="quadratic",
            seed=4,
            codec="int4",
            round=RoundRules(seconds=5.0, min_seconds=2.0),
        ),
        link=lambda one, other: LinkModel(latency_s=ONE_WAY_S),
        parameters=100_000,
        samples_per_second=lambda index: 40.0,
        marked=True,
    )

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(PLAYED_S)

    run_virtual(story, seed=4)
    assert not world.invariants.broken, world.invariants.broken
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for at, _, event in world.history:
        if isinstance(event, PhaseEntered) and event.phase == "offer":
            began.setdefault(event.number, at)
        elif isinstance(event, RoundCertified) and event.state_digest:
            ended[event.number] = at
    # The first rounds open streams.
    took = [ended[number] - began[number] for number in sorted(ended)[3:]]
    assert len(took) >= 5
    assert took == pytest.approx([DELAYS * ONE_WAY_S] * len(took), rel=0.03)
