"""The invariants of a world can fail: each detects the harm that it is for."""

from __future__ import annotations

from typing import Any

import trio
from msgspec.structs import replace

from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.ancestry import LineageEntry
from protocol.certificates.tip import Tip
from protocol.ports.disk_records import ViewRecord
from protocol.rules.versions import RULES_4
from simulator.fakes.clock import run_virtual
from simulator.faults import fault as f
from simulator.playback.player import StoryPlayer
from simulator.scenarios.catalog import scenario
from simulator.scenarios.story import Story, Wanted
from simulator.world.world import World


def small(**changes: object) -> Story:
    return replace(Story(name="small", nodes=3, seed=5, seconds=20.0), **changes)


async def broken_by(world: World, harm: object) -> set[str]:
    """The invariants that break when `harm(world)` runs in the middle of a run."""
    async with world.running():
        world.start()
        await trio.sleep(8.0)
        assert not world.invariants.broken
        harm(world)  # type: ignore[operator]
        await trio.sleep(20.0)
    return {violation.invariant for violation in world.invariants.broken}


def harmed(harm: object, **changes: object) -> set[str]:
    story = small(**changes)
    world = World(
        seed=1, nodes=3, manifest=story.manifest(), parameters=story.parameters, marked=True
    )
    return run_virtual(broken_by, world, harm, seed=1)


def _store(world: World, index: int) -> StateStore:
    engine = world.nodes[index].engine
    assert engine is not None
    assert engine.state_store is not None
    return engine.state_store


def test_invariants_detect_a_different_anchor() -> None:
    def harm(world: World) -> None:
        store = _store(world, 1)
        store.anchor.adopt = lambda tip, adopt=store.anchor.adopt: (
            adopt(tip),
            store.anchor.value.__setitem__(0, 7.0),
        )[0]  # type: ignore[method-assign]

    assert "agreement" in harmed(harm)


def test_invariants_detect_vanished_work() -> None:
    def harm(world: World) -> None:
        ledger = _store(world, 1).ledger
        ledger.add = lambda delta, samples, **rest: None  # type: ignore[method-assign]

    assert "nothing lost" in harmed(harm)


def test_invariants_detect_work_that_counts_twice() -> None:
    def harm(world: World) -> None:
        ledger = _store(world, 1).ledger
        # The ledger forgets that its work was certified.
        ledger.settle = lambda listed, **rest: 0  # type: ignore[method-assign]

    assert "nothing lost" in harmed(harm), "more is accounted for than was handed over"


def test_invariants_detect_a_mean_of_other_offers() -> None:
    """A world that does not know of the lie finds it in the content."""

    def harm(world: World) -> None:
        world.lie(1, "wrong_sum")
        world.invariants.liars.clear()

    story = small(parameters=8 * 4096)
    world = World(
        seed=1, nodes=3, manifest=story.manifest(), parameters=story.parameters, marked=True
    )
    assert "content" in run_virtual(broken_by, world, harm, seed=1)


def test_invariants_detect_a_vote_that_a_restart_forgot() -> None:
    """After a power cut, disks that forgot their view records make every node vote twice."""
    played = StoryPlayer(scenario("power-cut-in-vote", None, 1))
    for lived in played.world.nodes:
        lived.medium.view_records = Forgetful()
    run_virtual(played.run, seed=played.story.seed)
    assert {broken.invariant for broken in played.world.invariants.broken} == {"one voice"}


class Forgetful(dict[bytes, list[ViewRecord]]):
    """A dictionary that keeps nothing."""

    def __setitem__(self, run: bytes, stands: list[ViewRecord]) -> None:
        pass


def test_invariants_detect_another_membership_record() -> None:
    def harm(world: World) -> None:
        store = _store(world, 1)
        move_to = store.move_to

        async def move_elsewhere(tip: Tip, *rest: Any) -> None:
            assert tip.record is not None
            await move_to(replace(tip, record=replace(tip.record, left=tip.record.voters)), *rest)

        store.move_to = move_elsewhere  # type: ignore[method-assign]

    assert "one record" in harmed(harm, rules=RULES_4)


def test_invariants_detect_a_certificate_that_no_voter_signed() -> None:
    def harm(world: World) -> None:
        lineage = _store(world, 1).lineage
        entry = lineage.entry

        def without_votes(name: bytes) -> LineageEntry | None:
            made = entry(name)
            if made is None:
                return None
            return replace(made, certificate=replace(made.certificate, votes=()))

        lineage.entry = without_votes  # type: ignore[method-assign]

    assert "no vote, no certificate" in harmed(harm, rules=RULES_4)


def test_invariants_detect_a_crash() -> None:
    def harm(world: World) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("harm")

        _store(world, 1).ledger_store.settle = fail  # type: ignore[method-assign]

    assert "no crash" in harmed(harm)


def test_invariants_detect_a_swarm_without_progress() -> None:
    """All nodes are cut off for good: two honest nodes live and can certify nothing."""
    story = small(
        nodes=2,
        seconds=5.0,
        settle_timeout_s=30.0,
        schedule=(
            f.Lose(node=0, share=1.0, at_s=0.0, for_s=0.0),
            f.Sever(node=0, other=1, at_s=1.0, for_s=1.0),
        ),
        wanted=Wanted(rounds=0),
    )
    played = StoryPlayer(story)
    played.world.swarm.mend = lambda first, second: None  # type: ignore[method-assign]
    run_virtual(played.run, seed=story.seed)
    assert played.report is not None
    assert played.report.invariants["progress"] is False
