"""The node's settings: a tree of small frozen records, read from flags, environment and TOML in that order of strength.

A value's origin is kept, so that `config show --origin` can say why it is what it is. Unknown keys are errors that name the
nearest known one: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from daemon.disk.new_file import write_new
from daemon.home import CONFIG_FILE, unusable
from protocol.errors import UserError

MAX_CONFIG_BYTES = 1 << 20  # a page of settings; a file above this is not one
PREFIX = "HYPERGPU_"

Port = Annotated[int, Meta(ge=0, le=65535)]
ShortText = Annotated[str, Meta(max_length=64)]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections: defaults live here and nowhere else."""


class NodeConfig(Section, frozen=True, kw_only=True):
    name: ShortText = ""  # empty: made from the peer id


class NetworkConfig(Section, frozen=True, kw_only=True):
    listen_host: str = "0.0.0.0"
    listen_port: Port = 0  # 0: that of the last start, else the system picks one
    bulk_port: Port = 0
    hivemind_port: Port = 0
    join: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    min_connections: Annotated[int, Meta(ge=1, le=256)] = 8  # below 8 gossip loses messages (measured with 16 and 24 nodes)

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.listen_host)
        except ValueError:
            raise ValueError(f"listen_host {self.listen_host!r} is not an IP address") from None
        for address in (*self.join, *self.advertise):
            if not address.startswith("/"):
                raise ValueError(f"{address!r} is not a multiaddr: it begins with a slash, as in /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...")
        for address in self.advertise:
            kind, host = (*address.split("/"), "", "")[1:3]
            if kind not in ("ip4", "dns4") or not host:
                raise ValueError(f"{address!r} names no host: it is like /ip4/203.0.113.7/tcp/4001")
        for address in self.join:
            if "/p2p/" not in address:
                raise ValueError(f"{address!r} does not say whom to expect: copy the whole address, with its /p2p/12D3KooW... at the end")


class WorkerConfig(Section, frozen=True, kw_only=True):
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0  # 0: as many as make sense here
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    allow_custom_task: bool = False
    data_folders: tuple[str, ...] = ()
    # For torch from a cold disk and the task's own data: an index over a large data set takes minutes.
    load_timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 600.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device):
            raise ValueError(f"device {self.device!r} is none of auto, cpu, cuda, cuda:0, cuda:1, ...")


class ObserverConfig(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Port = 8765
    hosts: tuple[str, ...] = ()
    reports: bool = False


class OracleConfig(Section, frozen=True, kw_only=True):
    """Where certified work is reported besides the chain, if anywhere."""

    url: str = ""
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url begins with http:// or https://")


class ChainConfig(Section, frozen=True, kw_only=True):
    """How this node reaches the chain that a run names. Without endpoints it trains unpaid, and says so."""

    rpc: tuple[str, ...] = ()
    confirmations: Annotated[int, Meta(ge=1, le=64)] = 2  # deep enough on a chain of one proposer; more where blocks are reorganized
    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] = 100.0  # a third of the 300 s after which a chain takes a node for dead

    def __post_init__(self) -> None:
        for endpoint in self.rpc:
            if not endpoint.startswith(("http://", "https://")):
                raise ValueError("each endpoint of rpc begins with http:// or https://")  # not repeated: it may hold a secret
            if not _has_host_and_port(endpoint):
                raise ValueError("an endpoint of rpc has no host, or a port that is none")


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0  # reading it raises where it is none
    except ValueError:
        return False


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node may decide for itself; what the members of a run agree on is in the manifest."""

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


def load_config(
    home: Path, path: Path | None, flags: Mapping[str, str | tuple[str, ...]], environ: Mapping[str, str]
) -> tuple[Config, dict[str, str]]:
    """The settings in force and, for each dotted key, where its value came from.

    `flags` maps dotted keys ("network.listen_port") to text, or for lists to texts. `path` None means the home's own file, which may be
    missing. Raises `UserError("CONFIG")` (exit code 2) that names the key, its origin and, for an unknown key, the nearest known.
    """
    file = path or home / CONFIG_FILE
    from_file = _read(file, required=path is not None)
    _refuse_unknown(from_file, file, environ)
    origins: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for section, key, field in keys():
        dotted, name = f"{section}.{key}", variable(section, key)
        if dotted in flags:
            raw, origin, strict = flags[dotted], "flag", False
        elif name in environ:
            raw, origin, strict = environ[name], f"environment {name}", False
        elif key in from_file.get(section, {}):
            raw, origin, strict = from_file[section][key], f"file {file}", True
        else:
            origins[dotted] = "default"
            continue
        if field.type == tuple[str, ...] and isinstance(raw, str) and not strict:
            raw = tuple(part.strip() for part in raw.split(",") if part.strip())
        try:
            values[section][key] = msgspec.convert(raw, field.type, strict=strict)
        except msgspec.ValidationError as error:
            raise _wrong(dotted, origin, str(error)) from None
        origins[dotted] = origin
    built: dict[str, Section] = {}
    for section, record in SECTIONS.items():
        try:
            built[section] = record(**values[section])
        except ValueError as error:
            named = [origins[f"{section}.{key}"] for key in values[section]]
            raise _wrong(f"[{section}]", " and ".join(dict.fromkeys(named)), str(error)) from None
    return Config(home=home, **built), origins  # type: ignore[arg-type]  # SECTIONS pairs each name with its own record


def write_default_config(home: Path) -> bool:
    """Write the home's config file with every setting explained and left at its default. False when there is one already.

    Raises `UserError("HOME")` where it cannot be written.
    """
    path = home / CONFIG_FILE
    try:
        return not path.exists() and write_new(path, default_toml().encode())
    except OSError as error:
        raise unusable(home, error) from None


def default_toml() -> str:
    """The file that a first start writes. Its settings are comments, so that a better default of a later version takes effect."""
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
    """A setting's value as TOML writes it. TOML's basic strings and arrays of them are written like JSON's."""
    return msgspec.json.encode(value).decode()


def _read(path: Path, *, required: bool) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        parsed = tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        if required:
            raise UserError("CONFIG", f"There is no config file {path}.", fix="check the path after --config", exit_code=2) from None
        return {}
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not TOML, too large
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        anew = f"mend it, or let hypergpud start write a new one: mv {path} {path}.old"
        fix = "check the path after --config" if required else anew
        if isinstance(error, PermissionError):
            fix = "run this as the user whom it belongs to"
        raise UserError("CONFIG", f"Cannot read the config file {path}.", why=why, fix=fix, exit_code=2) from None
    for section, table in parsed.items():
        if section in SECTIONS and not isinstance(table, dict):
            raise UserError("CONFIG", f"{path}: {section!r} is a section, not a setting.", fix=f"write it as [{section}]", exit_code=2)
    return parsed


def _refuse_unknown(from_file: Mapping[str, Any], file: Path, environ: Mapping[str, str]) -> None:
    dotted = [f"{section}.{key}" for section, key, _ in keys()]
    for section, table in from_file.items():
        if section not in SECTIONS:
            raise _unknown(f"{file}: there is no section or setting {section!r}.", section, [*SECTIONS, *dotted])
        for key in table:
            if f"{section}.{key}" not in dotted:
                raise _unknown(f"{file}: there is no setting {key!r} in [{section}].", f"{section}.{key}", dotted)
    variables = [variable(section, key) for section, key, _ in keys()]
    for name in environ:
        if name not in variables and name.startswith(tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)):
            raise _unknown(f"There is no setting behind the environment variable {name}.", name, variables)


def _unknown(what: str, name: str, known: list[str]) -> UserError:
    own = name.rpartition(".")[2]
    near = get_close_matches(name, known, n=1) or [full for full in known if full.rpartition(".")[2] == own]
    near = near or get_close_matches(own, [full.rpartition(".")[2] for full in known], n=1)
    return UserError("CONFIG", what, fix=f"did you mean {near[0]}?" if near else "", exit_code=2)


def _wrong(name: str, origin: str, why: str) -> UserError:
    fixes = {
        "flag": "correct it on the command line; --help says what it takes",
        "environment": f"correct it, or: unset {origin.removeprefix('environment ')}",
        "file": f"correct it in {origin.removeprefix('file ')}, then: hypergpud config check",
    }
    fix = fixes.get(origin.split(maxsplit=1)[0], "") if " and " not in origin else "hypergpud config show --origin"
    return UserError("CONFIG", f"The setting {name} ({origin}) cannot be used.", why=why, fix=fix, exit_code=2)
