"""A volunteer's limits on a real node: hours pause it, and bandwidth slows its exchange."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daemon.system.machine_sensors import local_minute
from protocol.limits.hours import DAYS, minute_text
from tests.e2e.swarm import Swarm, hypergpud

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(240)]

HALF_A_WEEK = 7 * 24 * 60 // 2


def other_day() -> str:
    """Return the name of a day half a week away, so that no midnight spoils the test."""
    minute = (local_minute(time.time()) + HALF_A_WEEK) % (2 * HALF_A_WEEK)
    return DAYS[minute // (24 * 60)]


def test_node_outside_its_hours_trains_nothing_and_says_until_when(tmp_path: Path) -> None:
    day = other_day()
    until = minute_text(DAYS.index(day) * 24 * 60, local_minute(time.time()))
    with Swarm(tmp_path) as swarm:
        limits = {"hours": day, "upload_mbps": 1.0}
        resting = swarm.begin("first", limits=limits)
        working = swarm.join("second", resting)
        swarm.until_round(2, resting, working)
        status = resting.now()
        assert f'Training is paused until {until}: hours = "{day}"' in status.verdict
        assert status.you.samples_total == 0
        assert status.you.limits.caps == ("upload at most 1 Mbit/s",)
        assert working.now().you.rounds_counted >= 1, "the resting node votes and sums"
        shown = hypergpud("status", home=resting.home).stdout
        assert f"paused until {until}" in shown
        again = hypergpud("resume", home=resting.home)
        assert again.returncode == 1
        assert "[LIMITED]" in again.stderr
        swarm.stop(resting, working)
        assert "Traceback" not in resting.log()
