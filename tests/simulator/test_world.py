"""The world is the node's own code, does the same thing for the same seed, and its invariants can
fail.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from msgspec.structs import astuple, replace

from daemon import swarm
from daemon.services.training import service
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.exchange import all_reduce
from daemon.services.training.native.rounds import message_translator, round_loop
from daemon.services.training.native.state import anchor
from daemon.services.training.native.state.state_store import StateStore
from protocol.averaging import outer_step, reduction
from protocol.certificates import certificate
from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.errors import PeerFault
from protocol.identity import Signer, verify
from protocol.journal import RoundCertified
from protocol.messages import envelope
from protocol.messages.base import Signed
from protocol.messages.envelope import _DOMAIN, decode_signed, encode_signed, open_signed, sign
from protocol.messages.round import HoldReport
from protocol.ports.disk_records import ViewRecord
from protocol.round.machine import step
from protocol.rules.registry import rules_of
from simulator.fakes.clock import run_virtual
from simulator.faults import fault as f
from simulator.playback.player import StoryPlayer, play
from simulator.playback.pool import play_one
from simulator.scenarios.catalog import scenario
from simulator.scenarios.fuzz import random_story
from simulator.scenarios.story import Story, Wanted
from simulator.world.signature_cache import checked_once
from simulator.world.world import World

REPOSITORY = Path(__file__).parents[2]


def small(**changes: object) -> Story:
    return replace(Story(name="small", nodes=3, seed=5, seconds=20.0), **changes)


def test_the_world_runs_the_modules_of_the_real_node() -> None:
    played = StoryPlayer(small())
    seen: list[NativeEngine] = []

    async def run() -> None:
        await played.run()
        seen.extend(lived.engine for lived in played.world.nodes if lived.engine is not None)

    run_virtual(run, seed=5)
    assert len(seen) == 3
    for engine in seen:
        assert type(engine) is NativeEngine is service.NativeEngine, (
            "the class that `hypergpud start` runs"
        )
        assert type(engine.state_store) is StateStore
        assert type(engine.state_store.ledger) is Ledger
        assert engine.state_store.ledger.codec is codec_named("float32")
        parts = [
            type(part)
            for part in (*vars(engine).values(), *astuple(engine.peers), *astuple(engine._ports))
        ]
        own = [kind for kind in parts if kind.__module__.startswith(("daemon.", "simulator."))]
        assert {kind.__module__.split(".")[0] for kind in own} <= {"daemon", "simulator"}
        ports = {kind.__name__ for kind in own if kind.__module__.startswith("simulator.")}
        assert ports <= {"FaultyNetwork", "CountingTrainer", "RecordingDisk"}, (
            "only the outermost is made up"
        )
    # Nobody has put anything in the place of a rule or a step of the engine.
    for module, name in (
        (all_reduce, "rule_set"),
        (anchor, "rules_of"),
        (round_loop, "step"),
        (swarm.lineage, "extend"),
    ):
        assert getattr(module, name).__module__.startswith("protocol.")
    rules = rules_of(played.story.manifest())
    assert rules.weighted_mean is reduction.weighted_mean
    assert rules.outer_step is outer_step.outer_step
    assert round_loop.step is step


def test_a_signature_is_checked_once_and_a_forged_one_never_passes() -> None:
    signer, other, run = Signer(b"a" * 32), Signer(b"b" * 32), b"r" * 32
    before = sign(signer, run, HoldReport(plan=b"p" * 32, contributors=(1,)))
    opened = open_signed
    with checked_once():
        seen = sign(signer, run, HoldReport(plan=b"q" * 32, contributors=(1,)))
        assert verify(seen.peer, seen.signature, _DOMAIN + run + seen.payload), (
            "what a world signs is signed"
        )
        for signed in (before, seen):
            assert open_signed(signed, run) == opened(decode_signed(encode_signed(signed)), run)
            turned = bytes([signed.payload[0] ^ 1]) + signed.payload[1:]
            for forged in (
                Signed(signed.payload, other.peer, signed.signature),
                Signed(turned, signed.peer, signed.signature),
                Signed(
                    signed.payload,
                    signed.peer,
                    bytes([signed.signature[0] ^ 1]) + signed.signature[1:],
                ),
            ):
                for _ in range(2):
                    with pytest.raises(PeerFault, match="does not fit"):
                        open_signed(forged, run)
            with pytest.raises(PeerFault, match="does not fit"):
                open_signed(signed, b"s" * 32)
    assert seen == sign(signer, run, HoldReport(plan=b"q" * 32, contributors=(1,))), (
        "with the bytes that a node's own signer makes"
    )
    assert envelope.verify is verify, "and outside a world nothing is remembered"
    assert open_signed is opened


def test_outside_a_world_every_function_of_the_protocol_is_its_own() -> None:
    play(small(seconds=8.0))
    assert Signer.sign.__module__ == "protocol.identity"
    for module in (envelope, swarm.messenger, swarm.lineage, message_translator, certificate):
        for name in ("verify", "open_signed", "open_plan", "open_certificate"):
            assert getattr(module, name, verify).__module__.startswith("protocol."), (
                f"{module.__name__}.{name}"
            )


def test_the_same_story_gives_the_same_history() -> None:
    """Byte for byte, also in another process whose strings hash differently."""
    code = (
        "import hashlib, sys; from simulator.scenarios.fuzz import random_story; from simulator.playback.player import play\n"
        "print(hashlib.sha256(b''.join(play(random_story(int(s))).world.log() for s in sys.argv[1:])).hexdigest())"
    )
    seeds = ("6", "30")
    logs = {
        subprocess.run(
            [sys.executable, "-c", code, *seeds],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    here = hashlib.sha256(
        b"".join(play(random_story(int(seed))).world.log() for seed in seeds)
    ).hexdigest()
    assert logs == {here}


def test_another_seed_gives_another_history() -> None:
    assert play(small()).world.log() != play(small(seed=6)).world.log()


def test_without_faults_everybody_is_counted_in_every_round() -> None:
    played = play(small(nodes=5, seconds=40.0))
    assert played.report is not None
    assert played.report.ok, played.report.reason
    assert played.report.goodput == 1.0
    for event in played.world.of(RoundCertified):
        assert isinstance(event, RoundCertified)
        assert event.outcome == "counted"
        assert len(event.shares) == 5


# ------------------------------------------------------------------------------------------ the invariants can fail


async def broken_by(world: World, harm: object) -> set[str]:
    """Which invariants say that something is wrong when `harm(world)` is done in the middle of a
    run.
    """
    async with world.running():
        world.start()
        await trio.sleep(8.0)
        assert not world.invariants.broken
        harm(world)  # type: ignore[operator]
        await trio.sleep(20.0)
    return {violation.invariant for violation in world.invariants.broken}


def harmed(harm: object) -> set[str]:
    story = small()
    world = World(
        seed=1, nodes=3, manifest=story.manifest(), parameters=story.parameters, marked=True
    )
    return run_virtual(broken_by, world, harm, seed=1)


def _keeper(world: World, index: int) -> StateStore:
    engine = world.nodes[index].engine
    assert engine is not None
    assert engine.state_store is not None
    return engine.state_store


def test_an_anchor_that_differs_is_seen() -> None:
    def harm(world: World) -> None:
        keeper = _keeper(world, 1)
        keeper.anchor.adopt = lambda tip, adopt=keeper.anchor.adopt: (
            adopt(tip),
            keeper.anchor.value.__setitem__(0, 7.0),
        )[0]  # type: ignore[method-assign]

    assert "agreement" in harmed(harm)


def test_work_that_vanishes_is_seen() -> None:
    def harm(world: World) -> None:
        _keeper(world, 1).ledger.add = lambda delta, samples: None  # type: ignore[method-assign]

    assert "nothing lost" in harmed(harm)


def test_work_that_is_counted_twice_is_seen() -> None:
    def harm(world: World) -> None:
        ledger = _keeper(world, 1).ledger
        ledger.settle = lambda listed, **rest: 0  # type: ignore[method-assign]  # the ledger forgets that its work was certified

    assert "nothing lost" in harmed(harm), "more is accounted for than was handed over"


def test_a_mean_of_others_than_those_listed_is_seen() -> None:
    """A world that did not know of the lie would see its content."""

    def harm(world: World) -> None:
        world.lie(1, "wrong_sum")
        world.invariants.liars.clear()

    story = small(parameters=8 * 4096)
    world = World(
        seed=1, nodes=3, manifest=story.manifest(), parameters=story.parameters, marked=True
    )
    assert "content" in run_virtual(broken_by, world, harm, seed=1)


def test_a_vote_that_a_restart_forgets_is_seen() -> None:
    """On disks that forget where their node stood, a power cut between vote and certificate makes
    everybody say everything twice.
    """
    played = StoryPlayer(scenario("power-cut-in-vote", None, 1))
    for lived in played.world.nodes:
        lived.medium.view_records = Forgetful()
    run_virtual(played.run, seed=played.story.seed)
    assert {broken.invariant for broken in played.world.invariants.broken} == {"one voice"}


class Forgetful(dict[bytes, list[ViewRecord]]):
    """Takes everything and keeps nothing."""

    def __setitem__(self, run: bytes, stands: list[ViewRecord]) -> None:
        pass


def test_a_crash_is_seen() -> None:
    def harm(world: World) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("harm")

        _keeper(world, 1).ledger_store.settle = fail  # type: ignore[method-assign]

    assert "no crash" in harmed(harm)


def test_a_swarm_that_stands_still_is_seen() -> None:
    """Everybody is cut off from everybody for good: no round can be certified, and two honest nodes
    live.
    """
    story = small(
        nodes=2,
        seconds=5.0,
        patience_s=30.0,
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


def test_a_recovery_that_takes_longer_than_the_exchanges_allowed_is_not_ok() -> None:
    crash = scenario("crash-leader-ready", None, 1)
    _, report = play_one(replace(crash, wanted=replace(crash.wanted, recovery_exchanges=0.1)))
    assert report.exchange_seconds is not None
    assert 0.3 < report.exchange_seconds < 1.0, (
        "half a second for the training step under way, and some trips of 20 ms"
    )
    assert not report.ok
    assert "0.1 exchanges" in report.reason


def test_a_story_that_wants_too_much_is_not_ok() -> None:
    _, report = play_one(small(wanted=Wanted(rounds=1000)))
    assert not report.ok
    assert "1000 are wanted" in report.reason
