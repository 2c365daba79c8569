"""The node's settings: a tree of small frozen records.

`daemon/config/loader.py` reads them from flags, environment and TOML.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

PREFIX = "HYPERGPU_"
PATHS = frozenset({"worker.data_folders"})  # settings that are lists of paths
# Settings that may hold a secret: no error repeats their value.
SECRETS = frozenset({"chain.rpc"})

Port = Annotated[int, Meta(ge=0, le=65535)]
ShortText = Annotated[str, Meta(max_length=64)]


Check = Callable[[Any], None]
"""Raises `ValueError` for a value that its type allows and its meaning does not."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections: defaults live here and nowhere else.

    `checks` has the rules of single settings, which hold on construction.
    """

    checks: ClassVar[Mapping[str, Check]] = {}

    def __post_init__(self) -> None:
        for key, check in self.checks.items():
            check(getattr(self, key))


def _name(name: str) -> None:
    if not name.isprintable():
        raise ValueError(
            "a name is printable text: no control characters and no marks that turn the writing direction"
        )


class NodeConfig(Section, frozen=True, kw_only=True):
    name: ShortText = ""  # empty: made from the peer id

    checks: ClassVar[Mapping[str, Check]] = {"name": _name}


def _listen_host(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is not an IP address; 0.0.0.0 listens on every one of this machine"
        ) from None
    if address.version != 4:
        raise ValueError(
            f"{host!r} is an IPv6 address, which nodes do not speak yet; 0.0.0.0 listens on every IPv4 address"
        )


WHOLE_ADDRESS = "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW..."


def _join(addresses: tuple[str, ...]) -> None:
    for address in addresses:
        if named := re.fullmatch(r"([\w.-]+):(\d+)", address):
            host, port = named.groups()
            whole = f"/{_kind(host)}/{host}/tcp/{port}/p2p/12D3KooW..."
            raise ValueError(
                f"{address!r} is not a multiaddr, and names no peer key: copy the whole address of the node, which is like {whole}"
            )
        if not address.startswith("/"):
            raise ValueError(
                f"{address!r} is not a multiaddr: copy the whole address that the node prints when it is ready, like {WHOLE_ADDRESS}"
            )
        if address.startswith("/ip6/"):
            raise ValueError(f"{address!r} is an IPv6 address, which nodes do not speak yet")
        if "/p2p/" not in address:
            raise ValueError(
                f"{address!r} names no peer key, so that anybody could answer there: copy the whole address, with its /p2p/12D3KooW... at the end"
            )
        if not _JOINED.fullmatch(address):
            raise ValueError(f"{address!r} is no address of a node, which is like {WHOLE_ADDRESS}")


_JOINED = re.compile(r"/(ip4|dns4)/[^/\s]+/tcp/[0-9]{1,5}/p2p/[0-9A-Za-z]+")


def _kind(host: str) -> str:
    return "ip4" if host.replace(".", "").isdigit() else "dns4"


def _advertise(addresses: tuple[str, ...]) -> None:
    for address in addresses:
        kind, host = (*address.split("/"), "", "")[1:3]
        if not address.startswith("/") or kind not in ("ip4", "dns4") or not host:
            raise ValueError(f"{address!r} names no host: it is like /ip4/203.0.113.7/tcp/4001")


class NetworkConfig(Section, frozen=True, kw_only=True):
    listen_host: str = "0.0.0.0"
    # 0: that of the last start, else the system picks one.
    listen_port: Port = 0
    bulk_port: Port = 0
    hivemind_port: Port = 0
    join: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    # Below 8 gossip loses messages (measured with 16 and 24 nodes).
    min_connections: Annotated[int, Meta(ge=1, le=256)] = 8

    checks: ClassVar[Mapping[str, Check]] = {
        "listen_host": _listen_host,
        "join": _join,
        "advertise": _advertise,
    }


def _device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise ValueError(f"{device!r} is none of auto, cpu, cuda, cuda:0, cuda:1, ...")


class WorkerConfig(Section, frozen=True, kw_only=True):
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0  # 0: as many as make sense here
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    allow_custom_task: bool = False
    data_folders: tuple[str, ...] = ()
    # For torch from a cold disk and the task's own data: an index over a large data set takes
    # minutes.
    load_timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 600.0

    checks: ClassVar[Mapping[str, Check]] = {"device": _device}


def _observer_host(host: str) -> None:
    if not host or any(letter.isspace() or letter == "/" for letter in host):
        raise ValueError(
            f"{host!r} is no address: 127.0.0.1 is this machine alone, 0.0.0.0 every address of this machine"
        )


class ObserverConfig(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Port = 8765
    hosts: tuple[str, ...] = ()
    reports: bool = False

    checks: ClassVar[Mapping[str, Check]] = {"host": _observer_host}


def _url(url: str) -> None:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("url begins with http:// or https://")


class OracleConfig(Section, frozen=True, kw_only=True):
    """Where certified work is reported besides the chain, if anywhere."""

    url: str = ""
    legacy: bool = False

    checks: ClassVar[Mapping[str, Check]] = {"url": _url}


def _rpc(endpoints: tuple[str, ...]) -> None:
    for endpoint in endpoints:
        # An endpoint is not repeated: it may hold a secret.
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError("each endpoint of rpc begins with http:// or https://")
        if not _has_host_and_port(endpoint):
            raise ValueError("an endpoint of rpc has no host, or a port that is none")


class ChainConfig(Section, frozen=True, kw_only=True):
    """How this node reaches the chain that a run names.

    Without endpoints it trains unpaid, and says so.
    """

    rpc: tuple[str, ...] = ()
    # Deep enough on a chain of one proposer; more where blocks are reorganized.
    confirmations: Annotated[int, Meta(ge=1, le=64)] = 2
    # A third of the 300 s after which a chain takes a node for dead.
    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] = 100.0

    checks: ClassVar[Mapping[str, Check]] = {"rpc": _rpc}


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0  # reading it raises where it is none
    except ValueError:
        return False


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node may decide for itself; what the members of a run agree on is in the
    manifest.
    """

    home: Path
    node: NodeConfig = NodeConfig()
    network: NetworkConfig = NetworkConfig()
    worker: WorkerConfig = WorkerConfig()
    observer: ObserverConfig = ObserverConfig()
    chain: ChainConfig = ChainConfig()
    oracle: OracleConfig = OracleConfig()


SECTIONS: Mapping[str, type[Section]] = {
    "node": NodeConfig,
    "network": NetworkConfig,
    "worker": WorkerConfig,
    "observer": ObserverConfig,
    "chain": ChainConfig,
    "oracle": OracleConfig,
}
EXPLAINED: Mapping[str, str] = {
    "node.name": "how others see this node; empty: made from its peer id",
    "network.listen_host": "address to listen on; 0.0.0.0 is every IPv4 interface",
    "network.listen_port": "TCP port of the swarm's control traffic; 0: the system picks one, and later starts take it again where it is free",
    "network.bulk_port": "TCP port of the bulk traffic (gradients); 0: the system picks one",
    "network.hivemind_port": "TCP port of hivemind's own traffic, in runs with that engine; 0: the system picks one",
    "network.join": "multiaddrs of nodes already in the swarm",
    "network.advertise": "multiaddrs others reach this node at, where the listening address does not say it (NAT, port forwarding)",
    "network.min_connections": "connections to hold when that many nodes exist",
    "worker.device": "auto, cpu, cuda, or one GPU: cuda:1",
    "worker.threads": "CPU threads for training; 0: as many as make sense here",
    "worker.nice": "0 to 19; higher leaves more of the CPU to others",
    "worker.precision": "float32 or bfloat16: of the model's arithmetic; what is exchanged does not depend on it",
    "worker.allow_custom_task": "run task code that a run's manifest names as module:Class; say true only for runs you trust",
    "worker.data_folders": "folders a run's task may read; without any it reads none of your files",
    "worker.load_timeout_s": "seconds a task may take to load; after that its worker is started again, a few times",
    "observer.host": "address of the page; anything but loopback shows it to others",
    "observer.port": "port of the page; 0: the system picks one",
    "observer.hosts": "further host names under which the page may be asked for",
    "observer.reports": "take usage reports as a Plumise-style oracle does (POST /api/v1/report and /api/v1/metrics/report)",
    "chain.rpc": "JSON-RPC endpoints of the run's chain, tried in order; without any this node trains unpaid",
    "chain.confirmations": "blocks on top of what was sent before it counts as settled",
    "chain.heartbeat_s": "seconds between heartbeats; a third of the chain's own timeout",
    "oracle.url": "report certified work to this oracle too; empty: to none",
    "oracle.legacy": "speak its older API, /api/v1/report",
}


def keys() -> Iterator[tuple[str, str, msgspec.structs.FieldInfo]]:
    """(section, key, field) of every setting, in the order of the file."""
    for section, record in SECTIONS.items():
        for field in msgspec.structs.fields(record):
            yield section, field.name, field


def variable(section: str, key: str) -> str:
    """The environment variable of a setting: network.listen_port is HYPERGPU_NETWORK_LISTEN_PORT."""
    return f"{PREFIX}{section}_{key}".upper()


def default_toml() -> str:
    """The file that a first start writes.

    Its settings are comments, so that a better default of a later version takes effect.
    """
    lines = [
        "# Settings of this node. Remove the '#' before a setting to change it; `hypergpud config show --origin` shows what is in force."
    ]
    current = ""
    for section, key, field in keys():
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        lines.append(f"#{key} = {toml_value(field.default)}  # {EXPLAINED[f'{section}.{key}']}")
    return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    """A setting's value as TOML writes it.

    TOML's basic strings and arrays of them are written like JSON's.
    """
    return msgspec.json.encode(value).decode()
