"""Faults are data: they can be written, read, placed, and shrunk to those that matter."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import UserError
from protocol.journal import RoundCertified
from protocol.round.phase import Phase
from simulator.faults import fault as f
from simulator.playback.player import StoryPlayer, play
from simulator.scenarios.fuzz import random_story, shrink
from simulator.scenarios.story import Story, read_story, write_story


def test_story_survives_writing_and_reading(tmp_path: Path) -> None:
    for seed in range(40):
        story = random_story(seed)
        write_story(story, tmp_path / "story.json")
        assert read_story(tmp_path / "story.json") == story


def test_fault_is_placed_at_a_time_or_at_a_step() -> None:
    drawn = {type(fault) for seed in range(300) for fault in random_story(seed).schedule}
    assert drawn == set(f.AnyFault.__args__), "random stories draw every kind of fault"
    with pytest.raises(ValueError, match="either at_s or when"):
        f.Kill(node=1)
    with pytest.raises(ValueError, match="either at_s or when"):
        f.Kill(node=1, at_s=1.0, when=f.FaultTrigger(enters="vote"))
    with pytest.raises(ValueError, match="no such step"):
        f.FaultTrigger(enters="lunch")
    assert set(f.STEPS) == {phase.value for phase in Phase}


def test_read_story_refuses_other_files(tmp_path: Path) -> None:
    for text in (
        "",
        "{}",
        '{"name": "x", "nodes": 3, "seed": 1, "seconds": 1, "link": "string"}',
        '{"unknown": 1}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="is not a story"):
            read_story(tmp_path / "bad.json")


def test_fault_strikes_at_its_step() -> None:
    when = f.FaultTrigger(enters="reduce", role="leader", number=2)
    played = play(
        Story(
            name="one",
            nodes=4,
            seed=3,
            seconds=20.0,
            schedule=(f.Kill(node=f.NODE_AT_STEP, when=when),),
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


def test_report_names_steps_that_never_came() -> None:
    story = Story(
        name="x",
        nodes=3,
        seed=3,
        seconds=8.0,
        schedule=(f.Kill(node=f.NODE_AT_STEP, when=f.FaultTrigger(enters="merge", number=900)),),
    )
    report = play(story).report
    assert report is not None
    assert "never came" in report.reason


def test_shrink_leaves_the_needed_faults() -> None:
    story = random_story(4)
    many = tuple(f.CrashTrainer(node=i % 3, at_s=float(i)) for i in range(9))
    needed = (f.Kill(node=1, at_s=3.5), f.Pause(node=2, at_s=9.0, for_s=1.0))
    story = replace(story, schedule=(*many[:4], needed[0], *many[4:], needed[1]))
    assert shrink(story, lambda smaller: set(needed) <= set(smaller.schedule)).schedule == needed


def test_report_has_the_promised_fields() -> None:
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


def test_power_cut_ends_every_node_at_once_and_all_come_back() -> None:
    story = Story(
        name="power cut",
        nodes=4,
        seed=3,
        seconds=40.0,
        schedule=(f.PowerCut(at_s=12.5, back_s=2.0, spread_s=3.0),),
    )
    played = play(story)
    assert played.report is not None
    assert played.report.ok, played.report.reason
    assert [living for at, living in played.alive if 12.5 <= at < 14.4] == [0]
    assert played.alive[-1][1] == 4
    assert f.lasts_s(story.schedule[0]) == 5.0
    assert [node.life for node in played.world.nodes] == [2, 2, 2, 2]


def test_slow_downlink_delays_what_comes_to_one_node_and_ends() -> None:
    slow = f.SlowDownlink(node=1, rate_bps=3e5, at_s=6.0, for_s=20.0)
    story = Story(name="slow", nodes=4, seed=3, seconds=60.0, schedule=(slow,))
    with_fault, without = play(story), play(replace(story, schedule=()))
    for played in (with_fault, without):
        assert played.report is not None
        assert played.report.ok, played.report.reason

    def exchange_s(played: StoryPlayer, after_s: float, until_s: float) -> float:
        """The longest scatter and reduce of the node in that time."""
        return max(
            event.phase_seconds["scatter"] + event.phase_seconds["reduce"]
            for at, node, event in played.world.history
            if isinstance(event, RoundCertified)
            and node == 1
            and after_s < at < until_s
            and {"scatter", "reduce"} <= event.phase_seconds.keys()
        )

    # Three other members send it their parts of its slice, and the results of theirs.
    assert exchange_s(with_fault, 6.0, 26.0) > 2 * exchange_s(without, 6.0, 26.0)
    assert exchange_s(with_fault, 40.0, 60.0) < 2 * exchange_s(without, 40.0, 60.0)
