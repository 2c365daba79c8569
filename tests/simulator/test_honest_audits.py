"""Story 39: audits of honest members, in every codec, through restarts and missed rounds."""

from __future__ import annotations

import pytest
import trio

from protocol.codec import entries
from protocol.journal import WorkAudited
from protocol.run.manifest import Group, Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

NODES = 5
AUDITED = tuple(entry.name for entry in entries() if entry.is_dense)
# A story has 200 audits or more, and all codecs together 10,000.
SEEDS = range(10)
LEAST_AUDITS = 10_000 // len(AUDITED)
# At most 10 of 10,000 audits leave a verdict against an honest member.
MOST_AGAINST = 10 // len(AUDITED)


def play(codec: str, seed: int, played_s: float) -> list[WorkAudited]:
    """Play a run of honest members of different speeds, and return the audits of all voters."""
    manifest = Manifest(
        name="honest",
        task="simulated",
        rules=4,
        codec=codec,
        group=Group(min_peers=2, max_group=8),
        round=RoundRules(seconds=2.0, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
    )
    played = World(
        seed=seed,
        nodes=NODES,
        manifest=manifest,
        parameters=256,
        samples_per_second=lambda index: 100.0 + 50.0 * index,
    )
    for node in played.nodes:
        # The budget then allows an audit in nearly every round.
        node.evaluation_speed = 60.0

    async def story() -> None:
        async with played.running():
            played.start(*range(NODES))
            await trio.sleep(played_s * 0.2)
            played.kill(1)
            await trio.sleep(3.0)
            played.start(1)
            await trio.sleep(played_s * 0.2)
            # A node that misses rounds carries its work into the next one.
            played.partition((0, 1, 2, 4), (3,))
            await trio.sleep(5.0)
            played.heal()
            await trio.sleep(played_s * 0.2)
            # A worker dies, and its node goes on.
            trainer = played.nodes[2].trainer
            assert trainer is not None
            trainer.inner.crash()
            await trio.sleep(played_s * 0.2)
            played.kill(0)
            played.kill(4)
            await trio.sleep(1.0)
            played.start(0, 4)
            await trio.sleep(played_s * 0.2)

    run_virtual(story, seed=seed)
    assert not played.invariants.broken, played.invariants.broken
    return [event for event in played.events(WorkAudited) if isinstance(event, WorkAudited)]


def wrong(audits: list[WorkAudited]) -> list[WorkAudited]:
    return [audit for audit in audits if audit.favours is False]


def test_no_audit_speaks_against_honest_members_that_restart_and_miss_rounds() -> None:
    audits = play("int4", 3, 60.0)
    assert len(audits) >= 60
    assert not wrong(audits)


@pytest.mark.slow
@pytest.mark.parametrize("codec", AUDITED)
def test_at_most_one_audit_of_a_thousand_speaks_against_an_honest_member(codec: str) -> None:
    audits = [audit for seed in SEEDS for audit in play(codec, seed, 200.0)]
    assert len(audits) >= LEAST_AUDITS
    assert len(wrong(audits)) <= MOST_AGAINST, wrong(audits)
