"""How a hivemind peer is reached and what it averages.

Imports no hivemind: the node and the command line read these too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

COMPRESSIONS = ("none", "float16", "scaled_float16", "uniform8", "quantile8", "blockwise8")
"""hivemind's codecs. "blockwise8" needs bitsandbytes, which is not installed with HyperGPU; "uniform8" lost most of its parts under load."""


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer is reached.

    The defaults are for one machine; `hivemind.p2p.P2P.create` says what the rest does.
    """

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    initial_peers: tuple[str, ...] = ()
    # Port mapping, AutoNAT, relays found and used by hivemind's daemon.
    through_nat: bool = False
    client_mode: bool = False  # accept no connections; only join others
    # A folder of ours for the daemon's Unix sockets, which outlive a SIGKILL; empty: hivemind's
    # choice, /tmp.
    sockets: str = ""


def peer_settings(listen_host: str, port: int, advertise: Sequence[str]) -> PeerSettings:
    """A node's hivemind peer from its own network settings.

    Behind NAT hivemind maps a port, or finds a relay, by itself; a port that is forwarded by hand
    is announced at the hosts of `advertise`.
    """
    address = ipaddress.ip_address(listen_host)
    kind = "ip6" if address.version == 6 else "ip4"
    hosts = ["/".join(maddr.split("/")[:3]) for maddr in advertise] if port else []
    return PeerSettings(
        listen=(f"/{kind}/{listen_host}/tcp/{port}",),
        announce=tuple(f"{host}/tcp/{port}" for host in dict.fromkeys(hosts)),
        through_nat=not address.is_loopback,
    )


class AveragerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is averaged, with whom, and how long anything may take."""

    # Averagers with one prefix find each other; no dot in it.
    prefix: str
    compression: str = "none"  # one of COMPRESSIONS
    # A group of so many is full and begins at once.
    group_size: int = 2
    min_group_size: int = 2
    # Wait for so long for more members, if the group is not full.
    matchmaking_s: float = 5.0
    # For an answer of a leader; shorter than matchmaking_s.
    request_s: float = 3.0
    # A sender silent for so long is left out of the sum, a reducer after twice that.
    chunk_s: float | None = None
    all_reduce_s: float | None = None  # then the round is given up
