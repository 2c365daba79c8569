"""Clusters of network namespaces far apart: bridges with members, and long, narrow paths between.

    hub of cluster 0 (bridge) ── veth ── member 0, 1, ...      10.213.0.10, .11, ...
        └ far ──┐
                ├── packet_delay: a process that holds every packet
        ┌ far ──┘
    hub of cluster 1 (bridge) ── veth ── ...                    10.213.1.10, ...

Clusters need root. Nothing of them outlives the process that made them, as with one cluster
(`netns`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from protocol.errors import UserError
from simulator.harness import packet_delay
from simulator.harness.netns import (
    LATENCY,
    LEAST_BURST_BYTES,
    Namespaces,
    missing_for_namespaces,
    namespaces,
)

NETWORK = "10.213"
GATEWAY = 1
TUN = Path("/dev/net/tun")
END_S = 5.0


class ClusterLink(msgspec.Struct, frozen=True, kw_only=True):
    """The path from any cluster to any other.

    `delay_s` is one way. `rate_bps` is what a cluster sends to all others together, bits per
    second; None is unlimited.
    """

    delay_s: float
    rate_bps: float | None = None


def missing_for_clusters() -> str:
    """Why there can be no clusters on this machine; empty when there can."""
    return missing_for_namespaces() or ("" if TUN.exists() else f"no {TUN}")


class Clusters:
    """The members of all clusters, numbered through: first those of cluster 0, then of cluster 1.

    `clusters` makes it.
    """

    def __init__(self, parts: Sequence[Namespaces]) -> None:
        self._parts = parts
        self._size = len(parts[0])

    def host(self, member: int) -> str:
        """The member's address."""
        return self._parts[self.cluster(member)].host(member % self._size)

    def prefix(self, member: int) -> tuple[str, ...]:
        """The words that make a command run in the member's namespace."""
        return self._parts[self.cluster(member)].prefix(member % self._size)

    def run(self, member: int, *command: str) -> str:
        """Run a short command in the member's namespace. Raises `UserError("NETNS")`."""
        return self._parts[self.cluster(member)].run(member % self._size, *command)

    def cluster(self, member: int) -> int:
        return member // self._size


@contextmanager
def clusters(
    count: int, size: int, far: ClusterLink, *, uplink_bps: float | None, downlink_bps: float | None
) -> Iterator[Clusters]:
    """Make `count` clusters of `size` members.

    Raises:
        UserError: With code NETNS, where that is impossible.
    """
    if reason := missing_for_clusters():
        raise UserError(
            "NETNS",
            "Cannot make clusters of network namespaces.",
            why=reason,
            fix="run as root",
        )
    with ExitStack() as stack:
        parts = [
            stack.enter_context(namespaces(size, f"{NETWORK}.{number}")) for number in range(count)
        ]
        for part in parts:
            _lead_out(part, far)
            for member in range(size):
                part.shape(member, uplink_bps=uplink_bps, downlink_bps=downlink_bps)
                part.run(member, "ip", "route", "add", "default", "via", f"{part.subnet}.{GATEWAY}")
        stack.enter_context(_ways(parts, far))
        yield Clusters(parts)


def _lead_out(part: Namespaces, far: ClusterLink) -> None:
    """Route from the bridge to the device `far`, in the same namespace."""
    part.run_in_hub("ip", "address", "add", f"{part.subnet}.{GATEWAY}/24", "dev", "hub")
    part.run_in_hub("ip", "tuntap", "add", packet_delay.DEVICE, "mode", "tun")
    part.run_in_hub("ip", "link", "set", packet_delay.DEVICE, "up")
    part.run_in_hub("ip", "route", "add", f"{NETWORK}.0.0/16", "dev", packet_delay.DEVICE)
    if far.rate_bps is not None:
        rate = (
            "rate",
            f"{int(far.rate_bps)}bit",
            "burst",
            str(LEAST_BURST_BYTES),
            "latency",
            LATENCY,
        )
        part.run_in_hub("tc", "qdisc", "add", "dev", packet_delay.DEVICE, "root", "tbf", *rate)
    part.run_in_hub("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


@contextmanager
def _ways(parts: Sequence[Namespaces], far: ClusterLink) -> Iterator[None]:
    """Run the process between the clusters for as long as the block."""
    command = [
        sys.executable,
        "-m",
        packet_delay.__name__,
        "--delay-s",
        str(far.delay_s),
        *(f"{part.subnet}={part.hub}" for part in parts),
    ]
    between = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert between.stdin is not None
    assert between.stdout is not None
    try:
        if between.stdout.readline() != packet_delay.READY:
            raise UserError(
                "NETNS",
                "Cannot open the paths between clusters.",
                why="its output above has the reason",
            )
        yield
    finally:
        for pipe in (between.stdin, between.stdout):
            pipe.close()
        try:
            between.wait(END_S)
        except subprocess.TimeoutExpired:
            between.kill()
            between.wait()
