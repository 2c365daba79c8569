"""Twelve daemons on shaped links in three clusters far apart: several rows, one kill -9 in the
middle of a round, the same bytes on every node.
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
# 80 ms there and back; newcomers get the anchor over it in less than a round.
FAR = ClusterLink(delay_s=0.04, rate_bps=8e6)
UP_BITS, DOWN_BITS = 10e6, 40e6  # a home's link
# Certificates before the kill, and after it.
FOLLOWED = 3
CAUGHT_S = 240.0  # some rounds in which to see one exchange
# Twelve workers need a minute to import torch on two idle cores, and have not always idle ones.
PATIENCE_S = 420.0
BETWEEN_ROWS = "reduce"

PATIENT = (
    RUN.replace("width = 4", "width = 40")
    .replace("_s = 6.0", "_s = 40.0")
    .replace("ready_s = 1.5", "ready_s = 10.0")
    .replace("vote_s = 3.0", "vote_s = 20.0")
    + f"[group]\nmin_group = {SIZE}\nmax_group = {SIZE}\n"
)
"""A vector of half a megabyte, enough for links to be seen at work, in rows of four, with the deadlines of a run whose members share one machine."""

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


def caught_between_rows(nodes: list[Daemon]) -> tuple[Daemon, int]:
    """One that was just seen while owners of slices give each other their rows' sums, and the
    number of the round.
    """
    deadline = time.monotonic() + CAUGHT_S
    # Without a pause: what is waited for is over in a second.
    while time.monotonic() < deadline:
        for node in nodes:
            status = node.status()
            if status is not None and status.you.phase == BETWEEN_ROWS:
                return node, status.run.number + 1
    raise AssertionError("nobody was seen between the rows")


def rounds_of(nodes: list[Daemon], first: int, last: int) -> list[RoundSummary]:
    """These rounds, after it was checked that every node has the same certificate and state for
    each.
    """
    known = [certified(node.now()) for node in nodes]
    for number in range(first, last + 1):
        assert len({each[number].certificate for each in known}) == 1, number
        # Of one that caught up only the last is its own to compute.
        digests = {each[number].state_digest for each in known} - {""}
        assert len(digests) == 1, (number, digests)
    return [known[0][number] for number in range(first, last + 1)]


def told(rounds: list[RoundSummary]) -> None:
    for one in rounds:
        predicted = "nothing" if one.predicted_s is None else f"{one.predicted_s:.2f} s"
        print(
            f"round {one.number}: {len(one.contributors)} counted, exchange {one.exchange_s:.2f} s, predicted {predicted}: {one.plan}"
        )


def links(nodes: list[Daemon]) -> None:
    """What the first node measured of its cluster and of the others."""
    status = nodes[0].now()
    names = {node.name: i // SIZE for i, node in enumerate(nodes)}
    for cluster in range(CLUSTERS):
        seen = [
            peer
            for peer in status.peers
            if peer.rtt_s is not None and names.get(peer.name) == cluster
        ]
        round_trips = ", ".join(
            f"{1e3 * (peer.rtt_s or 0):.0f} ms {peer.bits_per_second / 1e6:.1f} Mbit/s {peer.quality}"
            for peer in seen
        )
        print(f"node-1 of cluster {cluster + 1}: {round_trips}")


def test_twelve_daemons_in_three_clusters_end_with_the_same_bytes(tmp_path: Path) -> None:
    began = time.monotonic()
    with clusters(CLUSTERS, SIZE, FAR, uplink_bps=UP_BITS, downlink_bps=DOWN_BITS) as network:
        machines = [Machine(network.host(i), network.prefix(i)) for i in range(NODES)]
        with Swarm(tmp_path, round_s=20.0, run=PATIENT, nice=10, machines=machines) as swarm:
            nodes = [swarm.begin("node-1")]
            for number in range(2, NODES + 1):
                nodes.append(swarm.join(f"node-{number}", nodes[(number - 2) // 2]))
            swarm.until(
                lambda: all(is_up(node) for node in nodes), "all workers are up", PATIENCE_S
            )
            memory = sum(one.memory_bytes for node in nodes for one in node.family()) / NODES
            print(
                f"all {NODES} up after {time.monotonic() - began:.0f} s, {memory / 1e6:.0f} MB each"
            )
            joined = max(node.now().run.number for node in nodes) + 1
            swarm.until_round(joined + FOLLOWED - 1, *nodes, limit_s=PATIENCE_S)
            before = rounds_of(nodes, joined, joined + FOLLOWED - 1)
            told(before)
            links(nodes)
            assert any(one.group_sizes == (SIZE,) * CLUSTERS for one in before), (
                "every member owns a slice of its row"
            )

            killed, number = caught_between_rows(nodes[1:])
            family = killed.family()
            killed.kill_alone()
            print(
                f"{killed.name} killed in round {number}, {time.monotonic() - began:.0f} s after the beginning"
            )
            until(
                lambda: not still_running(family), "the killed daemon's worker ended with it", 10.0
            )
            survivors = [node for node in nodes if node is not killed]
            last = max(node.now().run.number for node in survivors) + FOLLOWED
            swarm.until_round(last, *survivors, limit_s=PATIENCE_S)
            told(rounds_of(survivors, number, last))

            swarm.again(killed, survivors[0])
            again = swarm_counts(swarm, killed)
            last = max(node.now().run.number for node in survivors) + 1
            swarm.until_round(last, *nodes, limit_s=PATIENCE_S)
            print(
                f"{killed.name} is back and counted in round {again}; round {last} everywhere after {time.monotonic() - began:.0f} s"
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
    """Wait until a certificate counts its work; returns its tip then."""

    def counts() -> bool:
        status = node.status()
        return status is not None and status.you.rounds_counted > 0

    swarm.until(counts, f"the work of {node.name} counts again", PATIENCE_S)
    return node.now().run.number
