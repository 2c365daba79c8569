"""A node uses almost no processor time while its worker trains."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.swarm import UP_S, Swarm

WATCHED_S = 20.0
# Time for connections, members and the first beacons.
SETTLED_S = 5.0
# A share of one core.
SHARE = 0.02

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_node_between_rounds_uses_less_than_two_percent_of_a_core(tmp_path: Path) -> None:
    with Swarm(tmp_path, round_s=600.0) as swarm:
        first = swarm.begin()
        nodes = [first, swarm.join("second", first), swarm.join("third", first)]
        swarm.until(
            lambda: all(
                (status := node.status()) is not None and status.you.phase == "train"
                for node in nodes
            ),
            "all of them train",
            UP_S,
        )
        swarm.until(
            lambda: all(node.now().network.connections >= 2 for node in nodes),
            "all of them are connected",
        )
        time.sleep(SETTLED_S)
        processes = [node.process() for node in nodes]
        before = [one.cpu_s for one in processes]
        # The test asks for no status meanwhile, since a status costs time.
        time.sleep(WATCHED_S)
        shares = [
            (one.cpu_s - used) / WATCHED_S for one, used in zip(processes, before, strict=True)
        ]
        print("processor of each node: " + ", ".join(f"{100 * share:.2f}%" for share in shares))
        assert all(node.now().you.samples_per_second > 0 for node in nodes), (
            "their workers are busy meanwhile"
        )
        swarm.stop(*nodes)
        assert sum(shares) / len(shares) < SHARE
