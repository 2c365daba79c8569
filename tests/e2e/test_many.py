"""Many daemons on one machine form one swarm, and every certificate reaches every node."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e.swarm import RUN, Daemon, Swarm, certified
from tests.e2e.test_demo import demo

NODES = 16
CONNECTIONS = 8
# All nodes must have the same certificate of each of these rounds.
FOLLOWED = 4
# Sixteen workers on two cores take a minute to import torch.
TIMEOUT_S = 300.0

SLOW_RUN = (
    RUN.replace("_s = 6.0", "_s = 20.0")
    .replace("ready_s = 1.5", "ready_s = 10.0")
    .replace("vote_s = 3.0", "vote_s = 10.0")
)
"""Deadlines for sixteen members on two cores."""

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]


def is_up(daemon: Daemon) -> bool:
    status = daemon.status()
    return status is not None and bool(status.you.device)


def test_sixteen_daemons_form_one_swarm(tmp_path: Path) -> None:
    began = time.monotonic()
    with Swarm(tmp_path, round_s=10.0, run=SLOW_RUN, nice=5) as swarm:
        first = swarm.begin("node-1")
        nodes = [first]
        # Each node joins through another one, so that no node is a centre.
        for number in range(2, NODES + 1):
            nodes.append(swarm.join(f"node-{number}", nodes[(number - 2) // 2]))
        swarm.until(lambda: all(is_up(node) for node in nodes), "all workers are up", TIMEOUT_S)
        print(f"all {NODES} up after {time.monotonic() - began:.0f} s")
        swarm.until(
            lambda: all(node.now().network.connections >= CONNECTIONS for node in nodes),
            f"all hold {CONNECTIONS} connections",
            TIMEOUT_S,
        )
        joined = max(node.now().run.number for node in nodes) + 1
        swarm.until_round(joined + FOLLOWED - 1, *nodes, limit_s=TIMEOUT_S)
        statuses = [node.now() for node in nodes]
        print(f"round {joined + FOLLOWED - 1} everywhere after {time.monotonic() - began:.0f} s")
        print("connections: " + ", ".join(str(status.network.connections) for status in statuses))
        for number in range(joined, joined + FOLLOWED):
            known = {certified(status)[number].certificate for status in statuses}
            members = certified(statuses[0])[number].members
            print(
                f"round {number}: {len(members)} members, certificate"
                f" {', '.join(name[:8] for name in known)}"
            )
            assert len(known) == 1
        swarm.until(
            lambda: all(node.now().you.rounds_counted > 0 for node in nodes),
            "the work of all counts",
            TIMEOUT_S,
        )
        swarm.stop(*nodes)
        agreement = swarm.agreement(*nodes)
        assert agreement.agreed, agreement.reason
        for node in nodes:
            assert "Traceback" not in node.log()


def test_demo_with_eight_daemons(tmp_path: Path) -> None:
    with demo(tmp_path, "--peers", "8", "--rounds", "5", "--json", bundled=True) as running:
        result = running.end()
        assert running.process.returncode == 0, running.said
        verdict = json.loads(result)
        print(verdict)
        assert verdict["agreement"] is True
        assert verdict["loss_last"] < verdict["loss_first"]
