"""`hypergpud simulate --inference`: every story passes, and a world that breaks is told."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from simulator.cli import simulate
from simulator.fakes.clock import run_virtual
from simulator.inference.stories import STORIES, random_faults
from simulator.inference.story import Play, play_story


@pytest.mark.parametrize("name", STORIES)
def test_story_of_serving_passes(name: str) -> None:
    report = run_virtual(play_story, name, 1, STORIES[name], seed=1)
    assert report.ok, report.failure


def test_random_faults_change_no_token_and_repeat_for_a_seed() -> None:
    first, again = (run_virtual(play_story, "random", 4, random_faults, seed=4) for _ in range(2))
    assert first.ok, first.failure
    assert first == again
    assert first.replays > 0


def test_story_that_fails_says_why() -> None:
    async def wrong(play: Play) -> None:
        play.check(False, "nothing was served")

    assert run_virtual(play_story, "wrong", 1, wrong).failure == "nothing was served"


def test_command_lists_plays_and_refuses() -> None:
    runner = CliRunner()
    listed = runner.invoke(simulate, ["--inference", "--list"])
    assert listed.output.split() == list(STORIES)
    played = runner.invoke(simulate, ["--inference", "positions-skipped", "--seed", "3"])
    assert played.exit_code == 0
    assert "1 of 1 passed" in played.output
    refused = runner.invoke(simulate, ["--inference", "calm", "--save", "story.json"])
    assert refused.exit_code == 2
    assert "--save does not go with --inference" in refused.output
