"""Where the peers of a benchmark listen: on loopback, or each in a namespace with a shaped link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from protocol.errors import UserError
from simulator.harness.clusters import ClusterLink, Clusters, clusters
from simulator.harness.netns import Namespaces, missing_for_netem, namespaces

LOOPBACK = "127.0.0.1"


class PeerHosts(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of the peers, and the commands that start processes there."""

    hosts: tuple[str, ...]
    device: str
    prefixes: tuple[tuple[str, ...], ...]


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


@contextmanager
def peer_hosts(
    peers: int, rate_bps: float | None, rtt_s: float, say: Callable[[str], None]
) -> Iterator[PeerHosts]:
    """Hosts on loopback, or with a rate or a round trip in a namespace for each peer.

    Raises:
        UserError: With code NETNS.
    """
    if rate_bps is None and not rtt_s:
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
                    uplink_bps=rate_bps,
                    downlink_bps=rate_bps,
                )
            )
        else:
            made = stack.enter_context(namespaces(peers))
            for peer in range(peers):
                made.shape(peer, uplink_bps=rate_bps, downlink_bps=rate_bps)
                if rtt_s:
                    made.delay(peer, rtt_s / 4)  # both ways at both ends
        yield PeerHosts(
            hosts=tuple(made.host(peer) for peer in range(peers)),
            device="eth0",
            prefixes=tuple(made.prefix(peer) for peer in range(peers)),
        )
