"""The settings of a hivemind peer and of its averager.

The node and the command line read these too, so this module does not import hivemind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

COMPRESSIONS = ("none", "float16", "scaled_float16", "uniform8", "quantile8", "blockwise8")
"""hivemind's codecs.

"blockwise8" needs bitsandbytes, which HyperGPU does not install. "uniform8" lost most of its parts
under load.
"""


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How other peers reach this peer. `hivemind.p2p.P2P.create` documents the fields.

    The defaults are for peers on one machine.
    """

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    initial_peers: tuple[str, ...] = ()
    # Let hivemind's daemon map ports, detect NAT, and find relays.
    through_nat: bool = False
    # Accept no connections; only connect to others.
    client_mode: bool = False
    # The folder of the daemon's Unix sockets, which a SIGKILL leaves behind. "" means /tmp.
    sockets: str = ""


def peer_settings(listen_host: str, port: int, advertise: Sequence[str]) -> PeerSettings:
    """Derive the settings of a node's hivemind peer from the node's network settings.

    Behind NAT, hivemind maps a port or finds a relay by itself. A port that a person forwards is
    announced at the hosts of `advertise`.
    """
    # hivemind's daemon listens for one family at each address.
    hosts_here = ("0.0.0.0", "::") if listen_host == "::" else (listen_host,)
    hosts = ["/".join(maddr.split("/")[:3]) for maddr in advertise] if port else []
    return PeerSettings(
        listen=tuple(
            f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}" for host in hosts_here
        ),
        announce=tuple(f"{host}/tcp/{port}" for host in dict.fromkeys(hosts)),
        through_nat=not ipaddress.ip_address(listen_host).is_loopback,
    )


class AveragerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an averager: its codec, its group, and its timeouts."""

    # Averagers with the same prefix find each other. It must not contain a dot.
    prefix: str
    # One of COMPRESSIONS.
    compression: str = "none"
    # A group of this size starts at once.
    group_size: int = 2
    min_group_size: int = 2
    # How long a group that is not full waits for more members.
    matchmaking_s: float = 5.0
    # The timeout for a leader's answer. It must be shorter than matchmaking_s.
    request_s: float = 3.0
    # A sum leaves out a sender that is silent for this long, and a reducer after twice as long.
    chunk_s: float | None = None
    # The timeout of the whole round.
    all_reduce_s: float | None = None
