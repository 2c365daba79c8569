"""Whoever starts a node again types `hypergpud start` and nothing else, and it goes on where it
was.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.swarm import UP_S, Daemon, Swarm

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]


def furthest(*daemons: Daemon) -> int:
    return max(daemon.now().run.number for daemon in daemons)


def test_two_nodes_meet_again_without_being_told_where(tmp_path: Path) -> None:
    """First the one that everybody joined by, then both: neither is told the run nor an address."""
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
            "they note where",
        )

        first.kill_alone()
        swarm.alone_again(first)
        swarm.until(first.status, "it is back", UP_S)
        assert first.now().you.addresses[0] == address
        swarm.until_round(furthest(first, second) + 2, first, second)

        swarm.stop(first, second)
        swarm.alone_again(first)
        swarm.alone_again(second)
        swarm.until_round(furthest(first, second) + 2, first, second)
        assert "that this home was in last" in second.log()
        swarm.stop(first, second)
        assert swarm.agreement(first, second).agreed


def test_who_joins_by_an_address_where_nobody_answers_goes_on_where_it_was_with_them(
    tmp_path: Path,
) -> None:
    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(1, first, second)
        swarm.until(
            lambda: (second.home / "remembered.json").read_text().count("/p2p/"), "it notes where"
        )
        address = first.now().you.addresses[0]
        swarm.stop(first, second)
        swarm.again_at(second, address)
        swarm.until(
            lambda: "Going on with the run that this home was in with them" in second.log(),
            "nobody answers",
            UP_S,
        )
        swarm.until(second.status, "it goes on", UP_S)
        reached = second.now().run.number
        swarm.alone_again(first)
        swarm.until_round(reached + 1, first, second)
