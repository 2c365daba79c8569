"""The node's settings: a tree of small frozen records.

`daemon/config/loader.py` reads them from flags, environment and TOML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from daemon.config.checks import (
    check_advertise,
    check_device,
    check_join,
    check_layers,
    check_listen_host,
    check_name,
    check_observer_host,
    check_origins,
    check_rpc,
    check_url,
)

PREFIX = "HYPERGPU_"
# Settings that are lists of paths.
PATHS = frozenset({"worker.data_folders"})
# Settings that may hold a secret. No error repeats their value.
SECRETS = frozenset({"chain.rpc"})

Port = Annotated[int, Meta(ge=0, le=65535)]
ShortText = Annotated[str, Meta(max_length=64)]


# Raises `ValueError` for a value of the right type that makes no sense.
Check = Callable[[Any], None]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections. The fields' defaults are the only defaults of the settings.

    `checks` maps the name of a setting to its check, which runs on construction.
    """

    checks: ClassVar[Mapping[str, Check]] = {}

    def __post_init__(self) -> None:
        for key, check in self.checks.items():
            check(getattr(self, key))


class NodeConfig(Section, frozen=True, kw_only=True):
    """How this node presents itself."""

    # Empty means a name made from the peer id.
    name: ShortText = ""

    checks: ClassVar[Mapping[str, Check]] = {"name": check_name}


class NetworkConfig(Section, frozen=True, kw_only=True):
    """Where this node listens, and which nodes it joins."""

    listen_host: str = "::"
    # 0 means the port of the last start; at the first start, the system chooses one.
    listen_port: Port = 0
    bulk_port: Port = 0
    one_port: bool = False
    upnp: bool = True
    mdns: bool = True
    hivemind_port: Port = 0
    join: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    # With fewer than 8, gossip loses messages (measured with 16 and 24 nodes).
    min_connections: Annotated[int, Meta(ge=1, le=256)] = 8
    # Whether this node relays for members that cannot call each other. 0 Mbit/s means no cap.
    relay: bool = True
    relay_mbps: Annotated[float, Meta(ge=0)] = 0.0

    checks: ClassVar[Mapping[str, Check]] = {
        "listen_host": check_listen_host,
        "join": check_join,
        "advertise": check_advertise,
    }


class WorkerConfig(Section, frozen=True, kw_only=True):
    """How the worker uses this machine, and what a run may do here."""

    # "auto", "cpu", "cuda", or for example "cuda:1".
    device: str = "auto"
    # 0 means one less than the processors that this process may use.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    # "float16" needs CUDA.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    # The most samples that the device computes at once. 0 means: as many as its memory allows.
    batch_part: Annotated[int, Meta(ge=0, le=65536)] = 0
    # Compile the model with torch.compile, which needs a C++ compiler and minutes at the start.
    compile: bool = False
    allow_custom_task: bool = False
    data_folders: tuple[str, ...] = ()
    # For the import of torch from a cold disk, and for the task's data: an index over a large data
    # set takes minutes.
    load_timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    # The same as protocol.evaluation.budget.EVALUATION_SHARE.
    evaluation_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.02

    checks: ClassVar[Mapping[str, Check]] = {"device": check_device}


class DiskConfig(Section, frozen=True, kw_only=True):
    """How much this node writes to its disk."""

    # A restart replays the rounds since the last full state, a few seconds of work.
    full_state_s: Annotated[float, Meta(ge=1, le=3600)] = 300.0
    # A solid-state disk of 1 TB is rated for about 600 TB: 20 GB an hour are three years of it.
    gb_per_hour: Annotated[float, Meta(ge=0)] = 20.0
    # The same as daemon.disk.checkpoint_keeping.LIMIT_BYTES.
    keep_gb: Annotated[float, Meta(ge=0)] = 20.0


class ObserverConfig(Section, frozen=True, kw_only=True):
    """Where an observer serves its page."""

    host: str = "127.0.0.1"
    port: Port = 8765
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    # A round of four members has 1 KB, so this is a month of rounds of 10 s. 0 keeps no history.
    history_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 256
    reports: bool = False
    reference: str = ""

    checks: ClassVar[Mapping[str, Check]] = {
        "host": check_observer_host,
        "origins": check_origins,
    }


class OracleConfig(Section, frozen=True, kw_only=True):
    """The oracle that gets reports of certified work, besides the chain."""

    url: str = ""
    legacy: bool = False

    checks: ClassVar[Mapping[str, Check]] = {"url": check_url}


class InferenceConfig(Section, frozen=True, kw_only=True):
    """What this node serves of a model, beside its training."""

    # As MODEL of `hypergpud serve`. Empty: nothing.
    model: Annotated[str, Meta(max_length=4096)] = ""
    # As `hypergpud serve --layers`. Empty: all layers.
    layers: ShortText = ""
    # 0 means four times the model's context.
    cache_tokens: Annotated[int, Meta(ge=0, le=1 << 30)] = 0

    checks: ClassVar[Mapping[str, Check]] = {"layers": check_layers}


class ChainConfig(Section, frozen=True, kw_only=True):
    """How this node reaches the chain that a run names.

    Without endpoints, the node trains unpaid and says so.
    """

    rpc: tuple[str, ...] = ()
    # Enough for a chain with one proposer. A chain that reorganizes blocks needs more.
    confirmations: Annotated[int, Meta(ge=1, le=64)] = 2
    # A third of the 300 s after which a chain considers a node dead.
    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] = 100.0

    checks: ClassVar[Mapping[str, Check]] = {"rpc": check_rpc}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a node decides for itself.

    The manifest has what the members of a run agree on.
    """

    home: Path
    node: NodeConfig = NodeConfig()
    network: NetworkConfig = NetworkConfig()
    worker: WorkerConfig = WorkerConfig()
    disk: DiskConfig = DiskConfig()
    observer: ObserverConfig = ObserverConfig()
    chain: ChainConfig = ChainConfig()
    oracle: OracleConfig = OracleConfig()
    inference: InferenceConfig = InferenceConfig()


SECTIONS: Mapping[str, type[Section]] = {
    "node": NodeConfig,
    "network": NetworkConfig,
    "worker": WorkerConfig,
    "disk": DiskConfig,
    "observer": ObserverConfig,
    "chain": ChainConfig,
    "oracle": OracleConfig,
    "inference": InferenceConfig,
}
# One line for each setting, shown in the config file and in the help.
EXPLAINED: Mapping[str, str] = {
    "node.name": "the name that others see; empty: made from the peer id",
    "network.listen_host": "the address to listen on; ::: all interfaces; 0.0.0.0: those of IPv4",
    "network.listen_port": "TCP port of control traffic; 0: the system chooses one, which later"
    " starts reuse where it is free",
    "network.bulk_port": "TCP port of gradients; 0: the system chooses one",
    "network.one_port": "take gradients at listen_port too, so that one open port is enough",
    "network.mdns": "find members of the run on the same LAN, and be found by them",
    "network.upnp": "ask the home router by UPnP or NAT-PMP to send both ports here",
    "network.hivemind_port": "TCP port of hivemind, in runs with that engine; 0: the system"
    " chooses one",
    "network.join": "multiaddrs of nodes already in the swarm, or /dnsaddr/NAME for those in DNS",
    "network.advertise": "multiaddrs at which others reach this node, where they differ from the"
    " listening address (NAT, port forwarding)",
    "network.min_connections": "connections to keep, where that many nodes exist",
    "network.relay": "whether this node passes bytes on between members that routers keep apart",
    "network.relay_mbps": "the most that this node relays, in Mbit/s; 0: no cap",
    "worker.device": "auto, cpu, cuda, one GPU: cuda:1, or several: cuda:0,cuda:1",
    "worker.threads": "CPU threads for training; 0: one less than the processors",
    "worker.compile": "compile the model with torch.compile: faster steps, minutes at the start",
    "worker.batch_part": "the most samples computed at once; 0 lets the node measure it",
    "worker.nice": "0 to 19; a higher value leaves more of the CPU to other programs",
    "worker.precision": "float32 or bfloat16, for the model's arithmetic; what nodes exchange does"
    " not depend on it",
    "worker.allow_custom_task": "run the local code that a run names as module:Class; set true only"
    " for runs you trust",
    "worker.data_folders": "folders that a run's task may read; empty: it reads no files of yours",
    "worker.load_timeout_s": "seconds a task may take to load; then its worker is restarted, a few"
    " times",
    "disk.full_state_s": "seconds between full states on disk; results of rounds bridge the time"
    " between them",
    "disk.gb_per_hour": "GB to write in an hour; above that, full states become rarer; 0: no limit",
    "disk.keep_gb": "GB for older checkpoints: one per hour for a day, one per day for a week, on"
    " every branch; the last 3 always stay",
    "worker.evaluation_share": "share of the time that scoring the model on held-out data may take;"
    " 0: none",
    "observer.host": "address of the page; any but loopback shows it to others",
    "observer.port": "port of the page; 0: the system chooses one",
    "observer.hosts": "more host names under which browsers may open the page",
    "observer.origins": "origins whose pages may read the API, such as https://example.org",
    "observer.history_mb": "MB for the history of rounds and events on disk; 0: none",
    "observer.reports": "accept usage reports as a Plumise-style oracle does (POST /api/v1/report"
    " and /api/v1/metrics/report)",
    "observer.reference": "a JSON file with a held-out loss over time to draw beside the swarm's;"
    " empty: none",
    "chain.rpc": "JSON-RPC endpoints of the run's chain, tried in order; empty: train unpaid",
    "chain.confirmations": "blocks on top of a transaction before it counts as settled",
    "chain.heartbeat_s": "seconds between heartbeats; a third of the chain's own timeout",
    "oracle.url": "an oracle that also gets reports of certified work; empty: none",
    "oracle.legacy": "use the oracle's older API, /api/v1/report",
    "inference.model": "a model to serve beside training: as MODEL of hypergpud serve; empty: none",
    "inference.layers": "its layers, A:B or a number of them; empty: all",
    "inference.cache_tokens": "tokens in the caches of all generations; 0: four times the model's"
    " context",
}


def keys() -> Iterator[tuple[str, str, msgspec.structs.FieldInfo]]:
    """Yield (section, key, field) of every setting, in the order of the config file."""
    for section, record in SECTIONS.items():
        for field in msgspec.structs.fields(record):
            yield section, field.name, field


def variable(section: str, key: str) -> str:
    """Return the environment variable of a setting.

    Example: HYPERGPU_NETWORK_LISTEN_PORT for network.listen_port.
    """
    return f"{PREFIX}{section}_{key}".upper()


def default_toml() -> str:
    """Return the config file that a first start writes.

    Its settings are comments, so that the better defaults of later versions take effect.
    """
    lines = [
        "# Settings of this node. Remove the '#' before a setting to change it."
        " `hypergpud config show --origin` shows the values in force."
    ]
    current = ""
    for section, key, field in keys():
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        lines.append(f"#{key} = {toml_value(field.default)}  # {EXPLAINED[f'{section}.{key}']}")
    return "\n".join(lines) + "\n"


def toml_value(value: object) -> str:
    """Return a setting's value in TOML, whose strings and arrays are written like JSON's."""
    return msgspec.json.encode(value).decode()
