"""Settings: precedence, origins, and errors that say what to type."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from daemon.config.loader import load_config, write_default_config
from daemon.config.settings import EXPLAINED, Config, NetworkConfig, default_toml, keys, variable
from protocol.errors import UserError


def write(home: Path, text: str) -> Path:
    file = home / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
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


def test_lists_and_booleans_from_text(tmp_path: Path) -> None:
    environ = {
        "HYPERGPU_NETWORK_JOIN": "/ip4/1.2.3.4/tcp/1/p2p/A, /ip4/1.2.3.4/tcp/2/p2p/B",
        "HYPERGPU_WORKER_ALLOW_CUSTOM_TASK": "true",
    }
    config, _ = load_config(tmp_path, None, {"observer.hosts": ("a", "b")}, environ)
    assert config.network.join == ("/ip4/1.2.3.4/tcp/1/p2p/A", "/ip4/1.2.3.4/tcp/2/p2p/B")
    assert config.worker.allow_custom_task
    assert config.observer.hosts == ("a", "b")


@pytest.mark.parametrize(
    ("text", "named", "fix"),
    [
        ("[network]\nlisten_prot = 1\n", "listen_prot", "did you mean network.listen_port?"),
        ("[netwrok]\nlisten_port = 1\n", "netwrok", "did you mean network?"),
        ("listen_port = 1\n", "listen_port", "did you mean network.listen_port?"),
        ("[worker]\nlisten_port = 1\n", "listen_port", "did you mean network.listen_port?"),
        ("network = 1\n", "network", "write it as [network]"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(
    tmp_path: Path, text: str, named: str, fix: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path, None, {}, {})
    assert named in caught.value.what
    assert caught.value.fix == fix
    assert caught.value.exit_code == 2


def test_an_unknown_variable_of_a_known_section_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HYPERGPU_NETWORK_LISTENPORT") as caught:
        load_config(
            tmp_path,
            None,
            {},
            {"HYPERGPU_NETWORK_LISTENPORT": "1", "HYPERGPU_HOME": "/x", "HYPERGPU_OTHER": "1"},
        )
    assert caught.value.fix == "did you mean HYPERGPU_NETWORK_LISTEN_PORT?"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[network]\nlisten_port = 70000\n", "65535"),
        ('[network]\nlisten_port = "1"\n', "int"),
        ('[network]\nlisten_host = "localhost"\n', "not an IP address"),
        ('[network]\njoin = ["host:1"]\n', "not a multiaddr"),
        ('[network]\njoin = ["/ip4/1.2.3.4/tcp/1"]\n', "/p2p/"),
        ('[worker]\ndevice = "gpu"\n', "cuda"),
        ("[worker]\nnice = 20\n", "19"),
        ("[worker\n", "line 1"),
    ],
)
def test_a_value_that_cannot_be_used_says_why(tmp_path: Path, text: str, why: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path, None, {}, {})
    assert why in caught.value.why
    assert str(file) in caught.value.what
    assert caught.value.exit_code == 2


def test_the_origin_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"network\.listen_port \(environment HYPERGPU_NETWORK_LISTEN_PORT\)"
    ):
        load_config(tmp_path, None, {}, {"HYPERGPU_NETWORK_LISTEN_PORT": "many"})
    with pytest.raises(UserError, match=r"worker\.device \(flag\)"):
        load_config(tmp_path, None, {"worker.device": "toaster"}, {})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config file"):
        load_config(tmp_path, tmp_path / "other.toml", {}, {})


def test_the_written_file_changes_nothing_and_works_uncommented(tmp_path: Path) -> None:
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


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path, '[node]\nname = "mine"\n')
    assert not write_default_config(tmp_path)
    assert file.read_text(encoding="utf-8") == '[node]\nname = "mine"\n'


def test_variables_are_named_after_section_and_key() -> None:
    assert variable("network", "listen_port") == "HYPERGPU_NETWORK_LISTEN_PORT"


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:8545",
        "ftp://host",
        "http://",
        "http://host:99999/",
        "http://[::1/key",
        "http://host:0",
    ],
)
def test_an_endpoint_that_is_none_is_refused_without_being_repeated(
    tmp_path: Path, endpoint: str
) -> None:
    """It may hold a key."""
    write(tmp_path, f'[chain]\nrpc = ["{endpoint}"]\n')
    with pytest.raises(UserError, match="cannot be used") as told:
        load_config(tmp_path, None, {}, {})
    assert endpoint not in str(told.value)


def told(
    home: Path,
    *,
    flags: dict[str, str | tuple[str, ...]] | None = None,
    environ: dict[str, str] | None = None,
) -> UserError:
    with pytest.raises(UserError) as caught:
        load_config(home, None, flags or {}, environ or {})
    assert (caught.value.code, caught.value.exit_code) == ("CONFIG", 2)
    return caught.value


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[network]\nlisten_prot = 1\nbulk_port = 70000\n\n[wrker]\nnice = 1\n\n[worker]\nnice = "5"\n',
    )
    error = told(
        tmp_path,
        flags={"worker.device": "toaster"},
        environ={"HYPERGPU_NODE_NMAE": "x", "HYPERGPU_WORKER_THREADS": "many"},
    )
    assert error.what == "7 settings cannot be used."
    for words in (
        f"{file}:2: there is no setting 'listen_prot' in [network]. did you mean network.listen_port?",
        f"network.bulk_port (file {file}:3)",
        f"{file}:5: there is no section or setting 'wrker'. did you mean worker?",
        f"worker.nice (file {file}:9)",
        "worker.device (flag)",
        "HYPERGPU_NODE_NMAE. did you mean HYPERGPU_NODE_NAME?",
        "worker.threads (environment HYPERGPU_WORKER_THREADS)",
    ):
        assert words in error.why, error.why
    assert error.fix == "correct each, then: hypergpud config check"


def test_very_many_mistakes_have_an_end(tmp_path: Path) -> None:
    write(tmp_path, "[worker]\n" + "".join(f"key_{i} = 1\n" for i in range(1000)))
    assert told(tmp_path).why.endswith("and 980 more")


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf[worker]\nnice = 5\n",
        b"[worker]\r\nnice = 5\r\n",
        b"\xef\xbb\xbf[worker]\r\nnice = 5",
    ],
)
def test_what_editors_add_is_read(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(raw)
    assert load_config(tmp_path, None, {}, {})[0].worker.nice == 5


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("[worker]\nnice = 5\n".encode("utf-16"), "UTF-16"),
        ("[worker]\nnice = 5\n".encode("utf-16-le"), "UTF-16"),
        ("[node]\nname = 'ü'\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"[worker]\nnice = 5\nnice = 6\n", "line 3"),
        (b"[worker]\nnice = 5\n[worker]\n", "twice"),
        (b"[node]\nname = '\x00'\n", "line 2"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (1 << 21), "more than"),
    ],
)
def test_a_file_that_is_no_toml_says_what_to_do(raw: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(raw)
    error = told(tmp_path)
    assert why in error.why
    assert str(tmp_path / "config.toml") in error.what


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("network.join", ("1.2.3.4:46273",), "names no peer key"),
        ("network.join", ("1.2.3.4:46273",), "/ip4/1.2.3.4/tcp/46273/p2p/"),
        ("network.join", ("host.example:46273",), "/dns4/host.example/tcp/46273/p2p/"),
        ("network.join", ("/ip4/1.2.3.4/tcp/1",), "names no peer key"),
        ("network.join", ("/ip6/::1/tcp/1/p2p/12D3KooWA",), "IPv6"),
        ("network.join", ("/ip4/1.2.3.4/udp/1/p2p/12D3KooWA",), "is no address of a node"),
        ("network.join", ("12D3KooWA",), "is not a multiaddr"),
        ("network.listen_host", "::", "IPv6"),
        ("network.listen_host", "::1", "IPv6"),
        ("network.listen_host", "", "is not an IP address"),
        ("network.listen_host", "256.1.1.1", "is not an IP address"),
        ("network.advertise", ("/ip6/::1/tcp/1",), "names no host"),
        ("node.name", "\u202eevil", "printable"),
        ("node.name", "a\nb", "printable"),
        ("node.name", "\x1b[31m", "printable"),
        ("node.name", "x" * 65, "length <= 64"),
        ("node.name", "\udcff", "not UTF-8"),
        ("observer.host", "a b", "no address"),
        ("worker.threads", "9" * 5000, "range"),
        ("chain.heartbeat_s", "nan", ">= 1"),
        ("worker.data_folders", ("~nosuchuser/x",), "no home directory"),
    ],
)
def test_a_value_that_its_type_allows_and_its_meaning_does_not(
    setting: str, value: str | tuple[str, ...], words: str, tmp_path: Path
) -> None:
    error = told(tmp_path, flags={setting: value})
    assert setting in error.what
    assert words in error.why


def test_a_word_where_a_list_belongs(tmp_path: Path) -> None:
    write(tmp_path, '[network]\njoin = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA"\n')
    assert 'write ["/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA"]' in told(tmp_path).why


def test_an_endpoint_where_a_list_belongs_is_not_repeated(tmp_path: Path) -> None:
    write(tmp_path, '[chain]\nrpc = "https://rpc.example/v3/SECRET"\n')
    error = told(tmp_path)
    assert 'write ["..."]' in error.why
    assert "SECRET" not in str(error)


def test_a_section_is_right_on_construction() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        NetworkConfig(listen_host="::")


def test_a_name_that_is_not_near_has_no_suggestion(tmp_path: Path) -> None:
    write(tmp_path, "[worker]\nblue = 1\n")
    assert told(tmp_path).fix == "hypergpud config show lists them all"
