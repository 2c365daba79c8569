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
    check_hours,
    check_join,
    check_layers,
    check_listen_host,
    check_name,
    check_observer_host,
    check_origins,
    check_rate,
    check_rpc,
    check_temperature,
    check_url,
)
from daemon.config.explanations import EXPLAINED

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


class LimitsConfig(Section, frozen=True, kw_only=True):
    """When this machine trains, and what training may cost it. 0 means no limit."""

    # Empty: at any hour.
    hours: Annotated[str, Meta(max_length=512)] = ""
    idle_minutes: Annotated[float, Meta(ge=0, le=1440)] = 0.0
    on_battery: bool = False
    temperature_c: Annotated[float, Meta(ge=0, le=120)] = 0.0
    power_w: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    upload_mbps: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    download_mbps: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    disk_gb: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    memory_gb: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0

    checks: ClassVar[Mapping[str, Check]] = {
        "hours": check_hours,
        "upload_mbps": check_rate,
        "download_mbps": check_rate,
        "temperature_c": check_temperature,
    }


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


class PageConfig(Section, frozen=True, kw_only=True):
    """The page that a node serves of itself, for this machine only."""

    enabled: bool = True
    # Beside the observer's, so that both run on one machine.
    port: Port = 8766


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
    limits: LimitsConfig = LimitsConfig()
    disk: DiskConfig = DiskConfig()
    observer: ObserverConfig = ObserverConfig()
    page: PageConfig = PageConfig()
    chain: ChainConfig = ChainConfig()
    oracle: OracleConfig = OracleConfig()
    inference: InferenceConfig = InferenceConfig()


SECTIONS: Mapping[str, type[Section]] = {
    "node": NodeConfig,
    "network": NetworkConfig,
    "worker": WorkerConfig,
    "limits": LimitsConfig,
    "disk": DiskConfig,
    "observer": ObserverConfig,
    "page": PageConfig,
    "chain": ChainConfig,
    "oracle": OracleConfig,
    "inference": InferenceConfig,
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
