"""The world runs the node's own code and repeats its history for a seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import astuple, replace

from daemon import swarm
from daemon.services.training import service
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.exchange import all_reduce
from daemon.services.training.native.rounds import message_translator, round_loop
from daemon.services.training.native.state import anchor
from daemon.services.training.native.state.state_store import StateStore
from protocol.averaging import outer_step, plan_sum, reduction
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
from protocol.round.machine import step
from protocol.rules.registry import rules_of
from simulator.fakes.clock import run_virtual
from simulator.playback.player import StoryPlayer, play
from simulator.playback.pool import play_one
from simulator.scenarios.catalog import scenario
from simulator.scenarios.fuzz import random_story
from simulator.scenarios.story import Story, Wanted
from simulator.world.signature_cache import checked_once

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
        assert ports <= {"FaultyNetwork", "CountingTrainer", "MemoryDisk"}, (
            "only the outermost layer is fake"
        )
    # Nothing replaces a rule or a step of the engine.
    for module, name in (
        (all_reduce, "PlanSum"),
        (plan_sum, "rule_set"),
        (anchor, "rules_of"),
        (round_loop, "step"),
        (swarm.lineage, "extend"),
    ):
        assert getattr(module, name).__module__.startswith("protocol.")
    rules = rules_of(played.story.manifest())
    assert rules.weighted_mean is reduction.weighted_mean
    assert rules.outer_step is outer_step.outer_step
    assert round_loop.step is step


def test_signature_cache_checks_once_and_never_passes_a_forged_signature() -> None:
    signer, other, run = Signer(b"a" * 32), Signer(b"b" * 32), b"r" * 32
    before = sign(signer, run, HoldReport(plan=b"p" * 32, contributors=(1,)))
    opened = open_signed
    with checked_once():
        seen = sign(signer, run, HoldReport(plan=b"q" * 32, contributors=(1,)))
        assert verify(seen.peer, seen.signature, _DOMAIN + run + seen.payload), (
            "a world's signatures are real"
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
        "the bytes are those of a node's own signer"
    )
    assert envelope.verify is verify, "outside a world nothing is cached"
    assert open_signed is opened


def test_world_restores_every_function_of_the_protocol() -> None:
    play(small(seconds=8.0))
    assert Signer.sign.__module__ == "protocol.identity"
    for module in (envelope, swarm.messenger, swarm.lineage, message_translator, certificate):
        for name in ("verify", "open_signed", "open_plan", "open_certificate"):
            assert getattr(module, name, verify).__module__.startswith("protocol."), (
                f"{module.__name__}.{name}"
            )


def test_world_repeats_a_story_byte_for_byte() -> None:
    """The history is the same in another process, whose strings hash differently."""
    code = (
        "import hashlib, sys; from simulator.scenarios.fuzz import random_story; from "
        "simulator.playback.player import play\n"
        "print(hashlib.sha256(b''.join(play(random_story(int(s))).world.log() for s in "
        "sys.argv[1:])).hexdigest())"
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


def test_world_of_another_seed_has_another_history() -> None:
    assert play(small()).world.log() != play(small(seed=6)).world.log()


def test_world_without_faults_counts_every_node_in_every_round() -> None:
    played = play(small(nodes=5, seconds=40.0))
    assert played.report is not None
    assert played.report.ok, played.report.reason
    assert played.report.goodput == 1.0
    for event in played.world.events(RoundCertified):
        assert isinstance(event, RoundCertified)
        assert event.outcome == "counted"
        assert len(event.shares) == 5


def test_report_fails_a_recovery_that_takes_too_many_exchanges() -> None:
    crash = scenario("crash-leader-ready", None, 1)
    _, report = play_one(replace(crash, wanted=replace(crash.wanted, recovery_exchanges=0.1)))
    assert report.exchange_seconds is not None
    assert 0.1 < report.exchange_seconds < 0.5, (
        "some trips of 20 ms; nobody waits for the training step of half a second"
    )
    assert not report.ok
    assert "0.1 exchanges" in report.reason


def test_report_fails_a_story_that_wants_too_much() -> None:
    _, report = play_one(small(wanted=Wanted(rounds=1000)))
    assert not report.ok
    assert "1000 are wanted" in report.reason
