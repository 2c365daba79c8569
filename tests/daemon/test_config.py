"""Tests of the settings: defaults, precedence, origins and the written file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from daemon.config.explanations import EXPLAINED
from daemon.config.loader import load_config, write_default_config
from daemon.config.settings import Config, default_toml, keys, variable
from protocol.errors import UserError


def write(home: Path, text: str) -> Path:
    file = home / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_settings_without_any_source_are_the_defaults(tmp_path: Path) -> None:
    config, origins = load_config(tmp_path, None, {}, {})
    assert config == Config(home=tmp_path)
    assert set(origins.values()) == {"default"}
    assert set(origins) == {f"{section}.{key}" for section, key, _ in keys()} == set(EXPLAINED)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[network]\nlisten_port = 1\nbulk_port = 2\nmin_connections = 3\n[node]\nname = "file"\n',
    )
    environ = {
        "HYPERGPU_NETWORK_LISTEN_PORT": "11",
        "HYPERGPU_NETWORK_BULK_PORT": "12",
        "HOME": "/elsewhere",
    }
    config, origins = load_config(tmp_path, None, {"network.listen_port": "21"}, environ)
    assert (
        config.network.listen_port,
        config.network.bulk_port,
        config.network.min_connections,
    ) == (21, 12, 3)
    assert origins["network.listen_port"] == "flag"
    assert origins["network.bulk_port"] == "environment HYPERGPU_NETWORK_BULK_PORT"
    assert origins["network.min_connections"] == origins["node.name"] == f"file {file}"
    assert origins["worker.nice"] == "default"


def test_lists_and_booleans_are_read_from_text(tmp_path: Path) -> None:
    environ = {
        "HYPERGPU_NETWORK_JOIN": "/ip4/1.2.3.4/tcp/1/p2p/A, /ip4/1.2.3.4/tcp/2/p2p/B",
        "HYPERGPU_WORKER_ALLOW_CUSTOM_TASK": "true",
    }
    config, _ = load_config(tmp_path, None, {"observer.hosts": ("a", "b")}, environ)
    assert config.network.join == ("/ip4/1.2.3.4/tcp/1/p2p/A", "/ip4/1.2.3.4/tcp/2/p2p/B")
    assert config.worker.allow_custom_task
    assert config.observer.hosts == ("a", "b")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config file"):
        load_config(tmp_path, tmp_path / "other.toml", {}, {})


def test_the_default_file_changes_nothing_and_is_valid_uncommented(tmp_path: Path) -> None:
    assert write_default_config(tmp_path)
    file = tmp_path / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_config(tmp_path, None, {}, {}) == (
        Config(home=tmp_path),
        {f"{section}.{key}": "default" for section, key, _ in keys()},
    )
    uncommented = "\n".join(
        line.removeprefix("#") if not line.startswith("# ") else line
        for line in default_toml().splitlines()
    )
    config, origins = load_config(tmp_path, write(tmp_path, uncommented), {}, {})
    assert config == Config(home=tmp_path)
    assert set(origins.values()) == {f"file {file}"}


def test_an_existing_config_file_is_not_overwritten(tmp_path: Path) -> None:
    file = write(tmp_path, '[node]\nname = "mine"\n')
    assert not write_default_config(tmp_path)
    assert file.read_text(encoding="utf-8") == '[node]\nname = "mine"\n'


def test_variables_are_named_after_section_and_key() -> None:
    assert variable("network", "listen_port") == "HYPERGPU_NETWORK_LISTEN_PORT"


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf[worker]\nnice = 5\n",
        b"[worker]\r\nnice = 5\r\n",
        b"\xef\xbb\xbf[worker]\r\nnice = 5",
    ],
)
def test_a_config_file_with_a_byte_order_mark_or_crlf_is_read(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(raw)
    assert load_config(tmp_path, None, {}, {})[0].worker.nice == 5
