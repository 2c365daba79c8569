"""Stories of votes: voters die, leave and return, and branches meet again (rules 4)."""

from __future__ import annotations

import pytest

from simulator.playback.player import play
from simulator.scenarios.branches import BRANCHES

# Each of them takes more than five seconds.
LONG = ("trust-ten-seven-die", "trust-seven-return", "trust-even-split-6")


@pytest.mark.parametrize("name", [name for name in BRANCHES if name not in LONG])
def test_branches_story(name: str) -> None:
    _reaches_what_it_must(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_branches_story(name: str) -> None:
    _reaches_what_it_must(name)


def _reaches_what_it_must(name: str) -> None:
    played = play(BRANCHES[name](None, 1))
    assert played.report is not None
    assert played.report.ok, f"{played.report.reason}\n{played.story.text()}"
