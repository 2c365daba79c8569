"""What happens to a home and to a clock under real nodes that train together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from daemon.home.layout import SOCKET_FILE
from tests.e2e.swarm import Daemon, Machine, Swarm

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(240)]

SHIM = Path(__file__).with_name("shifted_clock")
HOUR_S = 3600
# A look at the home each second, and the end of a worker on a busy machine.
ENDS_S = 20.0


def furthest(*daemons: Daemon) -> int:
    return max(daemon.now().run.number for daemon in daemons)


def shifted(by_s: int) -> Machine:
    """This machine with another wall clock."""
    return Machine(prefix=("env", f"PYTHONPATH={SHIM}", f"CLOCK_SHIFT_S={by_s}"))


def test_a_node_is_heard_whatever_its_clock_said_before_and_whatever_happens_to_its_socket(
    tmp_path: Path,
) -> None:
    """The second node's first life is an hour ahead of its second."""
    with Swarm(tmp_path, machines=[Machine(), shifted(HOUR_S)]) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(1, first, second)
        (second.home / SOCKET_FILE).unlink()
        swarm.until_round(furthest(first, second) + 1, first, second)
        swarm.stop(second)

        second.runs_on(Machine())
        swarm.alone_again(second)
        before = furthest(first, second)
        swarm.until_round(before + 2, first, second)
        swarm.until(lambda: first.now().you.rounds_counted >= 2, "their rounds count")

        shutil.rmtree(second.home)
        assert second.wait(ENDS_S)
        assert second.ending == "ended with exit code 1"
        assert not second.home.exists()
        swarm.stop(first)
