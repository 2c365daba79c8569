"""A process between clusters of namespaces that holds every packet for as long as the path takes.

netem is not in every kernel, but tun devices nearly are. In each cluster's hub such a device,
`far`, leads into this process. The bandwidth of a cluster towards the others is the matter of
`far`'s own queue (`tbf`, as on the members' cables). The members see a longer path and nothing
else: their own TCP fills it, waits for it and loses on it.

Usage, until its standard input closes:

    python -m simulator.harness.packet_delay --delay-s 0.04 10.213.0=PID 10.213.1=PID ...

PID is any process in the hub's namespace. The process prints `far` when the paths are open.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

DEVICE = "far"
READY = b"far\n"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000  # linux/sched.h
# The longest packet.
LONGEST_BYTES = 1 << 16
# Packets under way at most: 240 Mbit/s for a second. Further packets are dropped, as routers do.
HELD_PACKETS = 20_000
IPV4 = 4
# The first three parts of the destination address in an IPv4 header.
DESTINATION = slice(16, 19)


def main(arguments: list[str]) -> None:
    """Open the paths and carry packets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-s", type=float, required=True)
    parser.add_argument("clusters", nargs="+", metavar="SUBNET=PID")
    given = parser.parse_args(arguments)
    ways = {}
    for cluster in given.clusters:
        subnet, _, pid = cluster.partition("=")
        ways[bytes(int(part) for part in subnet.split("."))] = attach(int(pid))
    os.write(sys.stdout.fileno(), READY)
    carry(ways, given.delay_s)


def attach(pid: int) -> int:
    """Open `far` in the namespace of a process. Returns its descriptor.

    It leaves this process in that namespace. Raises `OSError`.
    """
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        # os.setns comes with Python 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to the network of {pid}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return device


def carry(ways: dict[bytes, int], delay_s: float) -> None:
    """Carry every packet to the path of its subnet, `delay_s` after it came, until stdin closes."""
    poller = select.poll()
    stop = sys.stdin.fileno()
    for descriptor in (stop, *ways.values()):
        poller.register(descriptor, select.POLLIN)
    held: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait_ms = max(0.0, 1e3 * (held[0][0] - time.monotonic())) if held else None
        ready = [descriptor for descriptor, _ in poller.poll(wait_ms)]
        if stop in ready:
            return
        now = time.monotonic()
        for descriptor in ready:
            packet = os.read(descriptor, LONGEST_BYTES)
            target = ways.get(packet[DESTINATION]) if packet[0] >> 4 == IPV4 else None
            if target is not None and len(held) < HELD_PACKETS:
                held.append((now + delay_s, target, packet))
        while held and held[0][0] <= now:
            _, target, packet = held.popleft()
            with suppress(BlockingIOError):  # The cluster's queue is full: drop.
                os.write(target, packet)


if __name__ == "__main__":
    main(sys.argv[1:])
