"""Faults are data: they can be written, read, placed, and shrunk to those that matter."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import UserError
from protocol.round.phase import Phase
from simulator.faults import fault as f
from simulator.playback.player import play
from simulator.scenarios.fuzz import random_story, shrink
from simulator.scenarios.story import Story, read_story, write_story


def test_a_story_survives_being_written(tmp_path: Path) -> None:
    for seed in range(40):
        story = random_story(seed)
        write_story(story, tmp_path / "story.json")
        assert read_story(tmp_path / "story.json") == story


def test_every_fault_can_be_placed_at_a_time_or_at_a_step() -> None:
    drawn = {type(fault) for seed in range(300) for fault in random_story(seed).schedule}
    assert drawn == set(f.AnyFault.__args__), "and random stories draw them all"
    with pytest.raises(ValueError, match="either at_s or when"):
        f.Kill(node=1)
    with pytest.raises(ValueError, match="either at_s or when"):
        f.Kill(node=1, at_s=1.0, when=f.FaultTrigger(enters="vote"))
    with pytest.raises(ValueError, match="no such step"):
        f.FaultTrigger(enters="lunch")
    assert set(f.STEPS) == {phase.value for phase in Phase}


def test_a_file_that_is_no_story_says_so(tmp_path: Path) -> None:
    for text in (
        "",
        "{}",
        '{"name": "x", "nodes": 3, "seed": 1, "seconds": 1, "link": "string"}',
        '{"unknown": 1}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="is not a story"):
            read_story(tmp_path / "bad.json")


def test_a_fault_happens_when_its_step_comes() -> None:
    when = f.FaultTrigger(enters="reduce", role="leader", number=2)
    played = play(
        Story(
            name="one", nodes=4, seed=3, seconds=20.0, schedule=(f.Kill(node=f.WHOEVER, when=when),)
        )
    )
    (struck,) = played.scheduler.struck
    assert not played.world.nodes[struck.node].alive
    entered = [
        (at, event.phase)
        for at, node, event in played.world.history
        if node == struck.node and type(event).__name__ == "PhaseEntered" and at <= struck.at_s
    ]
    assert entered[-1] == (struck.at_s, "reduce")


def test_what_never_comes_is_told() -> None:
    story = Story(
        name="x",
        nodes=3,
        seed=3,
        seconds=8.0,
        schedule=(f.Kill(node=f.WHOEVER, when=f.FaultTrigger(enters="merge", number=900)),),
    )
    report = play(story).report
    assert report is not None
    assert "never came" in report.reason


def test_shrinking_leaves_the_faults_that_it_takes() -> None:
    story = random_story(4)
    many = tuple(f.CrashTrainer(node=i % 3, at_s=float(i)) for i in range(9))
    needed = (f.Kill(node=1, at_s=3.5), f.Pause(node=2, at_s=9.0, for_s=1.0))
    story = replace(story, schedule=(*many[:4], needed[0], *many[4:], needed[1]))
    assert shrink(story, lambda smaller: set(needed) <= set(smaller.schedule)).schedule == needed


def test_reports_are_what_the_command_promises() -> None:
    report = play(random_story(3)).report
    keys = set(msgspec.to_builtins(report))
    assert {
        "scenario",
        "seed",
        "nodes",
        "rounds_certified",
        "goodput",
        "detection_seconds",
        "recovery_seconds",
        "invariants",
        "ok",
    } <= keys
