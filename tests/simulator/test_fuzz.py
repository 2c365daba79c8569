"""Random schedules of all faults, and every seed that once broke something."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.many import jobs_here, play_fuzz, play_one
from simulator.story import read_story

SCHEDULES = 300
WITHIN_S = 75.0  # of real time: on a busy machine fewer are played
LEAST = 16

STORIES = sorted((Path(__file__).parent / "stories").glob("*.json"))
"""Schedules that once broke something, as `hypergpud simulate --save` wrote them; each is named after what it broke."""


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_what_once_broke_something_as_it_was(path: Path) -> None:
    story, report = play_one(read_story(path))
    assert all(report.invariants.values()), f"{report.reason}\n{story.text()}"


@pytest.mark.timeout(300)
def test_random_schedules() -> None:
    played = 0
    for story, report in play_fuzz(1000, SCHEDULES, None, min(2, jobs_here()), within_s=WITHIN_S):
        played += 1
        assert report.ok, f"{report.reason}\n{story.text()}"
    assert played >= LEAST
