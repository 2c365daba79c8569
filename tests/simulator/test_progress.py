"""The progress check fails a world that stands still, and says when nothing is promised."""

from __future__ import annotations

import re

from msgspec.structs import replace

from simulator.fakes.clock import run_virtual
from simulator.faults import fault as f
from simulator.playback.player import StoryPlayer, play
from simulator.playback.report import StoryReport
from simulator.scenarios.story import Story


def small(**changes: object) -> Story:
    return replace(Story(name="small", nodes=3, seed=5, seconds=60.0), **changes)


def deaf(story: Story) -> StoryReport:
    """The report of a story in which no node hears another from the start.

    This is no fault of the schedule.
    """
    played = StoryPlayer(story)
    played.world.swarm.paths.is_cut = lambda here, there: True  # type: ignore[method-assign]
    run_virtual(played.run, seed=story.seed)
    assert played.report is not None
    return played.report


def test_progress_check_fails_a_start_without_a_certificate() -> None:
    report = deaf(small(settle_timeout_s=20.0))
    assert not report.ok
    assert not report.invariants["progress"]
    assert "30 s of the start, before any fault" in report.reason
    assert report.rounds_certified == 0


def test_progress_check_fails_a_quiet_end_without_a_certificate() -> None:
    report = deaf(
        small(seconds=10.0, settle_timeout_s=20.0, schedule=(f.CrashTrainer(node=0, at_s=1.0),))
    )
    assert not report.invariants["progress"]
    assert re.search(
        r"20 s after the last fault node 0 \((train|offer)\) is still at certificate 0",
        report.reason,
    )


def test_progress_check_promises_nothing_where_too_few_live() -> None:
    report = play(
        small(seconds=20.0, schedule=(f.Kill(node=0, at_s=1.0), f.Kill(node=1, at_s=1.0)))
    ).report
    assert report is not None
    assert report.invariants["progress"]
    assert report.rounds_certified == 0
    assert (
        report.excuse
        == "nothing is promised: 1 honest nodes live after the last fault; a certificate needs 2"
    )


def test_progress_check_waits_again_after_a_late_fault() -> None:
    """The fault is placed at a step of a round after the story's seconds.

    The swarm is partitioned for longer than the story's `settle_timeout_s`.
    """
    when = f.FaultTrigger(enters="scatter", role="leader", number=2)
    apart = f.Partition(groups=((0,), (1,), (2,)), for_s=25.0, when=when)
    report = play(small(seconds=9.0, settle_timeout_s=30.0, schedule=(apart,))).report
    assert report is not None
    assert report.faults == 1
    assert report.ok, report.reason
    assert report.rounds_certified >= 2
