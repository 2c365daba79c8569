"""Where the peers of a benchmark listen: on loopback, or each in a namespace with a shaped link."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from protocol.errors import UserError
from simulator.harness.clusters import ClusterLink, Clusters, clusters
from simulator.harness.netns import COMMAND_S, Namespaces, missing_for_netem, namespaces

LOOPBACK = "127.0.0.1"


class PeerHosts(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of the peers, and the commands that start processes there."""

    hosts: tuple[str, ...]
    device: str
    prefixes: tuple[tuple[str, ...], ...]

    def sent_bytes(self) -> tuple[int, ...]:
        """What each peer's network device has sent, by the kernel's count; () on loopback."""
        return tuple(self._sent(prefix) for prefix in self.prefixes if prefix)

    def _sent(self, prefix: tuple[str, ...]) -> int:
        read = [*prefix, "cat", "/proc/net/dev"]
        done = subprocess.run(read, capture_output=True, text=True, timeout=COMMAND_S, check=True)
        for line in done.stdout.splitlines():
            name, colon, counts = line.partition(":")
            if colon and name.strip() == self.device:
                # proc(5): eight counts of what came, then the bytes that were sent.
                return int(counts.split()[8])
        raise UserError("NETNS", f"A peer's namespace has no device {self.device}.")


UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def parse_rate(text: str) -> float | None:
    """Parse a rate in bits per second; None for "none".

    Raises:
        UserError: With code RATE.
    """
    if text == "none":
        return None
    number, unit = text[:-4], text[-4:].lower()
    try:
        bits = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        bits = 0.0
    if not 0 < bits < 1e12:
        raise UserError(
            "RATE",
            f"{text!r} is not a rate.",
            why="a rate is a number with kbit, mbit or gbit, or none",
            exit_code=2,
        )
    return bits


def parse_link_rate(text: str) -> tuple[float | None, float | None]:
    """Parse "DOWN/UP", or one rate for both ways. Returns (downlink, uplink), bits per second.

    Raises:
        UserError: With code RATE.
    """
    down, slash, up = text.partition("/")
    downlink_bps = parse_rate(down)
    return downlink_bps, parse_rate(up) if slash else downlink_bps


@contextmanager
def peer_hosts(
    peers: int,
    uplink_bps: float | None,
    rtt_s: float,
    say: Callable[[str], None],
    *,
    downlink_bps: float | None = None,
    isolated: bool = False,
) -> Iterator[PeerHosts]:
    """Hosts on loopback, or with a rate or a round trip in a namespace for each peer.

    Args:
        peers: How many.
        uplink_bps: What each peer's link sends, bits per second; None is unlimited.
        rtt_s: The round trip between any two peers.
        say: Shows a person what the links cost.
        downlink_bps: What each link receives; None: as much as it sends.
        isolated: Whether each peer gets a namespace even where nothing is shaped.

    Raises:
        UserError: With code NETNS.
    """
    downlink_bps = uplink_bps if downlink_bps is None else downlink_bps
    if uplink_bps is None and downlink_bps is None and not rtt_s and not isolated:
        yield PeerHosts(hosts=(LOOPBACK,) * peers, device="lo", prefixes=((),) * peers)
        return
    with ExitStack() as stack:
        made: Namespaces | Clusters
        if rtt_s and (why := missing_for_netem()):
            say(f"{why}: a process beside the peers holds every packet, which costs CPU of theirs")
            made = stack.enter_context(
                clusters(
                    peers,
                    1,
                    ClusterLink(delay_s=rtt_s / 2),
                    uplink_bps=uplink_bps,
                    downlink_bps=downlink_bps,
                )
            )
        else:
            made = stack.enter_context(namespaces(peers))
            for peer in range(peers):
                made.shape(peer, uplink_bps=uplink_bps, downlink_bps=downlink_bps)
                if rtt_s:
                    made.delay(peer, rtt_s / 4)  # both ways at both ends
        yield PeerHosts(
            hosts=tuple(made.host(peer) for peer in range(peers)),
            device="eth0",
            prefixes=tuple(made.prefix(peer) for peer in range(peers)),
        )
