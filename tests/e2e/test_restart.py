"""A restarted node needs only `hypergpud start`: it continues its last run with its last peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.swarm import UP_S, Daemon, Swarm

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(300)]


def furthest(*daemons: Daemon) -> int:
    return max(daemon.now().run.number for daemon in daemons)


def test_restarted_nodes_find_each_other_without_arguments(tmp_path: Path) -> None:
    """The node that the other joined restarts first, then both, without run and address."""
    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        address = first.now().you.addresses[0]
        swarm.until(
            lambda: all(
                (daemon.home / "remembered.json").read_text().count("/p2p/")
                for daemon in (first, second)
            ),
            "both remember addresses",
        )

        first.kill_alone()
        swarm.restart_without_arguments(first)
        swarm.until(first.status, "it is back", UP_S)
        assert first.now().you.addresses[0] == address
        swarm.until_round(furthest(first, second) + 2, first, second)

        swarm.stop(first, second)
        swarm.restart_without_arguments(first)
        swarm.restart_without_arguments(second)
        swarm.until_round(furthest(first, second) + 2, first, second)
        assert "the last run of this home" in second.log()
        swarm.stop(first, second)
        assert swarm.agreement(first, second).agreed


def test_restart_with_an_unreachable_join_address_continues_the_last_run(
    tmp_path: Path,
) -> None:
    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(1, first, second)
        swarm.until(
            lambda: (second.home / "remembered.json").read_text().count("/p2p/"),
            "it remembers addresses",
        )
        address = first.now().you.addresses[0]
        swarm.stop(first, second)
        swarm.restart_joining(second, address)
        swarm.until(
            lambda: "Continuing the last run that this home shared with them" in second.log(),
            "it gives up on the address",
            UP_S,
        )
        swarm.until(second.status, "it continues", UP_S)
        reached = second.now().run.number
        swarm.restart_without_arguments(first)
        swarm.until_round(reached + 1, first, second)
