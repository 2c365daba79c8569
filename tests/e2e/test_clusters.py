"""Twelve daemons on shaped links in three distant clusters, with one kill -9 during a round.

The plan has several groups, and every node ends with the same bytes.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from protocol.status import RoundSummary
from simulator.harness.clusters import ClusterLink, clusters, missing_for_clusters
from tests.e2e.processes import still_running, until
from tests.e2e.swarm import RUN, Daemon, Machine, Swarm, certified

CLUSTERS, SIZE = 3, 4
NODES = CLUSTERS * SIZE
# A round trip of 80 ms; newcomers fetch the anchor over this link in less than a round.
FAR = ClusterLink(delay_s=0.04, rate_bps=8e6)
# The link of a home.
UPLINK_BPS, DOWNLINK_BPS = 10e6, 40e6
# Certificates before the kill, and after it.
FOLLOWED = 3
# Some rounds, in one of which an exchange is seen.
CAUGHT_S = 240.0
# Twelve workers take a minute to import torch on two idle cores, and longer on busy ones.
TIMEOUT_S = 420.0
INTER_GROUP_PHASE = "reduce"

SLOW_RUN = (
    RUN.replace("width = 4", "width = 40")
    .replace("_s = 6.0", "_s = 40.0")
    .replace("ready_s = 1.5", "ready_s = 10.0")
    .replace("vote_s = 3.0", "vote_s = 20.0")
    + f"[group]\nmin_group = {SIZE}\nmax_group = {SIZE}\n"
)
"""Half a megabyte of parameters, groups of four, and deadlines for members on one machine."""

pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_for_clusters()), reason=missing_for_clusters() or "-"),
]


def is_up(daemon: Daemon) -> bool:
    status = daemon.status()
    return status is not None and bool(status.you.device)


def seen_between_groups(nodes: list[Daemon]) -> tuple[Daemon, int]:
    """Return a node that is in the inter-group reduce now, and the number of its round."""
    deadline = time.monotonic() + CAUGHT_S
    # No pause: the phase is over within a second.
    while time.monotonic() < deadline:
        for node in nodes:
            status = node.status()
            if status is not None and status.you.phase == INTER_GROUP_PHASE:
                return node, status.run.number + 1
    raise AssertionError("no node was seen in the inter-group reduce")


def rounds_of(nodes: list[Daemon], first: int, last: int) -> list[RoundSummary]:
    """The rounds `first` to `last`; asserts that all nodes agree on certificates and states."""
    known = [certified(node.now()) for node in nodes]
    for number in range(first, last + 1):
        assert len({each[number].certificate for each in known}) == 1, number
        # A node that caught up has computed only the last state.
        digests = {each[number].state_digest for each in known} - {""}
        assert len(digests) == 1, (number, digests)
    return [known[0][number] for number in range(first, last + 1)]


def told(rounds: list[RoundSummary]) -> None:
    for one in rounds:
        predicted = "nothing" if one.predicted_s is None else f"{one.predicted_s:.2f} s"
        print(
            f"round {one.number}: {len(one.contributors)} counted, exchange"
            f" {one.exchange_s:.2f} s, predicted {predicted}: {one.plan}"
        )


def links(nodes: list[Daemon]) -> None:
    """Print what the first node measured of its own cluster and of the others."""
    status = nodes[0].now()
    names = {node.name: i // SIZE for i, node in enumerate(nodes)}
    for cluster in range(CLUSTERS):
        seen = [
            peer
            for peer in status.peers
            if peer.rtt_s is not None and names.get(peer.name) == cluster
        ]
        round_trips = ", ".join(
            f"{1e3 * (peer.rtt_s or 0):.0f} ms {peer.bits_per_second / 1e6:.1f} Mbit/s"
            f" {peer.quality}"
            for peer in seen
        )
        print(f"node-1 of cluster {cluster + 1}: {round_trips}")


def test_twelve_daemons_in_three_clusters_end_with_the_same_bytes(tmp_path: Path) -> None:
    began = time.monotonic()
    with clusters(CLUSTERS, SIZE, FAR, uplink_bps=UPLINK_BPS, downlink_bps=DOWNLINK_BPS) as network:
        machines = [Machine(network.host(i), network.prefix(i)) for i in range(NODES)]
        with Swarm(tmp_path, round_s=20.0, run=SLOW_RUN, nice=10, machines=machines) as swarm:
            nodes = [swarm.begin("node-1")]
            for number in range(2, NODES + 1):
                nodes.append(swarm.join(f"node-{number}", nodes[(number - 2) // 2]))
            swarm.until(lambda: all(is_up(node) for node in nodes), "all workers are up", TIMEOUT_S)
            memory = sum(one.memory_bytes for node in nodes for one in node.family()) / NODES
            print(
                f"all {NODES} up after {time.monotonic() - began:.0f} s, {memory / 1e6:.0f} MB each"
            )
            joined = max(node.now().run.number for node in nodes) + 1
            swarm.until_round(joined + FOLLOWED - 1, *nodes, limit_s=TIMEOUT_S)
            before = rounds_of(nodes, joined, joined + FOLLOWED - 1)
            told(before)
            links(nodes)
            assert any(one.group_sizes == (SIZE,) * CLUSTERS for one in before), (
                "every member owns a slice of its group"
            )

            killed, number = seen_between_groups(nodes[1:])
            family = killed.family()
            killed.kill_alone()
            print(
                f"{killed.name} killed in round {number}, {time.monotonic() - began:.0f} s"
                f" after the beginning"
            )
            until(
                lambda: not still_running(family), "the killed daemon's worker ended with it", 10.0
            )
            survivors = [node for node in nodes if node is not killed]
            last = max(node.now().run.number for node in survivors) + FOLLOWED
            swarm.until_round(last, *survivors, limit_s=TIMEOUT_S)
            told(rounds_of(survivors, number, last))

            swarm.restart(killed, survivors[0])
            again = swarm_counts(swarm, killed)
            last = max(node.now().run.number for node in survivors) + 1
            swarm.until_round(last, *nodes, limit_s=TIMEOUT_S)
            print(
                f"{killed.name} is back and counted in round {again}; round {last} everywhere"
                f" after {time.monotonic() - began:.0f} s"
            )
            told(rounds_of(survivors, last, last))
            swarm.stop(*nodes)
            agreement = swarm.agreement(*nodes)
            print(agreement.reason)
            assert agreement.agreed, agreement.reason
            assert agreement.number is not None
            assert agreement.number >= last
            for node in nodes:
                assert "Traceback" not in node.log()


def swarm_counts(swarm: Swarm, node: Daemon) -> int:
    """Wait until a certificate counts the node's work. Returns its tip."""

    def counts() -> bool:
        status = node.status()
        return status is not None and status.you.rounds_counted > 0

    swarm.until(counts, f"the work of {node.name} counts again", TIMEOUT_S)
    return node.now().run.number
