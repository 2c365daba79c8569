"""Clusters of namespaces: far members are as far, and the path as narrow, as requested."""

from __future__ import annotations

import subprocess
import sys

import pytest

from simulator.bench.allreduce.peer_hosts import peer_hosts
from simulator.harness.clusters import ClusterLink, clusters, missing_for_clusters
from tests.simulator.far_links import RECEIVE, SEND

FAR = ClusterLink(delay_s=0.04, rate_bps=4e6)
ROUND_TRIP = """
import socket, sys, time
took = []
for _ in range(5):
    began = time.monotonic()
    try:
        socket.create_connection((sys.argv[1], 9), 5)
    except ConnectionRefusedError:
        took.append(time.monotonic() - began)
print(min(took))
"""

pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.skipif(bool(missing_for_clusters()), reason=missing_for_clusters() or "-"),
]


def test_clusters_are_as_far_apart_and_as_narrowly_joined_as_was_asked() -> None:
    with clusters(3, 2, FAR, uplink_bps=50e6, downlink_bps=50e6) as made:
        assert float(made.run(0, sys.executable, "-c", ROUND_TRIP, made.host(1))) < 0.02
        for other in (2, 5):
            trip = float(made.run(0, sys.executable, "-c", ROUND_TRIP, made.host(other)))
            assert 2 * FAR.delay_s <= trip < 2 * FAR.delay_s + 0.05
        taker = subprocess.Popen(
            [*made.prefix(4), sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE
        )
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"up\n"
        seconds = float(made.run(0, sys.executable, "-c", SEND, made.host(4), "1000000"))
        assert taker.wait(10) == 0
        taker.stdout.close()
    assert 1.8 <= seconds < 6.0, "a megabyte at 4 Mbit/s takes two seconds"


def test_the_benchmarks_peers_are_a_round_trip_apart() -> None:
    with peer_hosts(3, 100e6, 0.06, print) as where:
        command = [*where.prefixes[0], sys.executable, "-c", ROUND_TRIP, where.hosts[2]]
        trip = float(
            subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        )
    assert 0.06 <= trip < 0.11
