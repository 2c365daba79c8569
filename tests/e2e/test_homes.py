"""A home that is removed, and a clock that jumps, under real nodes that train together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from daemon.home.layout import SOCKET_FILE
from tests.e2e.swarm import Daemon, Machine, Swarm

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(240)]

SHIM = Path(__file__).with_name("shifted_clock")
HOUR_S = 3600
# The node checks its home each second, and a worker on a busy machine takes a while to end.
ENDS_S = 20.0


def furthest(*daemons: Daemon) -> int:
    return max(daemon.now().run.number for daemon in daemons)


def shifted(by_s: int) -> Machine:
    """This machine with a shifted wall clock."""
    return Machine(prefix=("env", f"PYTHONPATH={SHIM}", f"CLOCK_SHIFT_S={by_s}"))


def remove(home: Path) -> None:
    """Remove the home of a running node, which makes its control socket again meanwhile."""
    for _ in range(100):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return


def test_node_survives_a_clock_jump_and_a_removed_socket_but_not_a_removed_home(
    tmp_path: Path,
) -> None:
    """The clock of the second node is an hour ahead before its restart."""
    with Swarm(tmp_path, machines=[Machine(), shifted(HOUR_S)]) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(1, first, second)
        (second.home / SOCKET_FILE).unlink()
        swarm.until_round(furthest(first, second) + 1, first, second)
        swarm.stop(second)

        second.runs_on(Machine())
        swarm.restart_without_arguments(second)
        before = furthest(first, second)
        swarm.until_round(before + 2, first, second)
        swarm.until(lambda: first.now().you.rounds_counted >= 2, "their rounds count")

        remove(second.home)
        assert second.wait(ENDS_S)
        assert second.ending == "ended with exit code 1"
        assert not second.home.exists()
        swarm.stop(first)
