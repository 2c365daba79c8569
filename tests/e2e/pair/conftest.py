"""One small swarm for all tests of this folder: two daemons and an observer.

It certifies a round every two seconds, by rules 3, whose messages strangers can make without a
membership record. It ends with the last test of this folder, since two training workers are a load
that no other test should have beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.swarm import RUN, UP_S, Daemon, Swarm


class Pair(Swarm):
    """`target` and `other` train, `observer` watches."""

    target: Daemon
    other: Daemon
    observer: Daemon

    @property
    def page(self) -> str:
        """The address of the observer's page."""
        (address,) = re.findall(r"Ready: the page is at (http\S+)", self.observer.log())
        return str(address)


@pytest.fixture(scope="package")
def running_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair"), run=f"rules = 3\n{RUN}") as swarm:
        swarm.target = swarm.begin("target")
        swarm.other = swarm.join("other", swarm.target)
        swarm.observer = swarm.observe("observer", swarm.other)
        swarm.until_round(1, swarm.target, swarm.other)
        swarm.until(
            lambda: "Ready: the page is at" in swarm.observer.log(),
            "the observer serves its page",
            UP_S,
        )
        yield swarm


@pytest.fixture
def pair(running_pair: Pair, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The swarm. After each test all processes run, rounds continue, and no log has a traceback."""
    yield running_pair
    for daemon in running_pair.daemons:
        assert daemon.alive, f"{daemon.name} {daemon.ending}:\n{daemon.tail()}"
        assert "Traceback" not in daemon.log(), daemon.log()
    nodes = (running_pair.target, running_pair.other)
    reached = max(node.now().run.number for node in nodes)
    running_pair.until_round(reached + 1, *nodes)
    statuses = [node.now() for node in nodes]
    assert [status.you.worker_restarts for status in statuses] == [0, 0]
