"""Tests of the messages about wrong settings: each says what is wrong, where, and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.loader import load_config
from daemon.config.settings import NetworkConfig
from protocol.errors import UserError


def write(home: Path, text: str) -> Path:
    file = home / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def config_error(
    home: Path,
    *,
    flags: dict[str, str | tuple[str, ...]] | None = None,
    environ: dict[str, str] | None = None,
) -> UserError:
    with pytest.raises(UserError) as caught:
        load_config(home, None, flags or {}, environ or {})
    assert (caught.value.code, caught.value.exit_code) == ("CONFIG", 2)
    return caught.value


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
        ("[network]\nlisten_port = 70000\n", "must be a whole number from 0 to 65535; got 70000"),
        ('[network]\nlisten_port = "1"\n', "a whole number from 0 to 65535; got '1'"),
        ('[network]\nlisten_host = "localhost"\n', "not an IP address"),
        ('[network]\njoin = ["host:1"]\n', "not a multiaddr"),
        ('[network]\njoin = ["/ip4/1.2.3.4/tcp/1"]\n', "/p2p/"),
        ('[worker]\ndevice = "gpu"\n', "cuda"),
        ("[worker]\nnice = 20\n", "must be a whole number from 0 to 19; got 20"),
        ("[worker\n", "line 1"),
    ],
)
def test_the_error_for_a_wrong_value_in_a_file_says_why(
    tmp_path: Path, text: str, why: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path, None, {}, {})
    assert why in caught.value.why
    assert str(file) in caught.value.what
    assert caught.value.exit_code == 2


def test_the_error_for_a_wrong_value_names_its_origin(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"network\.listen_port \(environment HYPERGPU_NETWORK_LISTEN_PORT\)"
    ):
        load_config(tmp_path, None, {}, {"HYPERGPU_NETWORK_LISTEN_PORT": "many"})
    with pytest.raises(UserError, match=r"worker\.device \(--device\)"):
        load_config(tmp_path, None, {"worker.device": "toaster"}, {})


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
def test_the_error_for_a_wrong_endpoint_does_not_repeat_it(tmp_path: Path, endpoint: str) -> None:
    """An endpoint may hold a key."""
    write(tmp_path, f'[chain]\nrpc = ["{endpoint}"]\n')
    with pytest.raises(UserError, match="cannot be used") as caught:
        load_config(tmp_path, None, {}, {})
    assert endpoint not in str(caught.value)


def test_one_error_names_every_mistake_and_its_line(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "[network]\nlisten_prot = 1\nbulk_port = 70000\n\n"
        '[wrker]\nnice = 1\n\n[worker]\nnice = "5"\n',
    )
    error = config_error(
        tmp_path,
        flags={"worker.device": "toaster"},
        environ={"HYPERGPU_NODE_NMAE": "x", "HYPERGPU_WORKER_THREADS": "many"},
    )
    assert error.what == "7 settings cannot be used."
    for words in (
        f"{file}:2: unknown setting 'listen_prot' in [network]; did you mean network.listen_port?",
        f"network.bulk_port (file {file}:3)",
        f"{file}:5: unknown section or setting 'wrker'; did you mean worker?",
        f"worker.nice (file {file}:9)",
        "worker.device (--device)",
        "HYPERGPU_NODE_NMAE; did you mean HYPERGPU_NODE_NAME?",
        "worker.threads (environment HYPERGPU_WORKER_THREADS)",
    ):
        assert words in error.why, error.why
    assert error.fix == "correct each, then: hypergpud config check"


def test_a_list_of_very_many_mistakes_is_cut(tmp_path: Path) -> None:
    write(tmp_path, "[worker]\n" + "".join(f"key_{i} = 1\n" for i in range(1000)))
    assert config_error(tmp_path).why.endswith("and 980 more")


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
def test_the_error_for_a_file_that_is_not_toml_says_why(
    raw: bytes, why: str, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_bytes(raw)
    error = config_error(tmp_path)
    assert why in error.why
    assert str(tmp_path / "config.toml") in error.what


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("network.join", ("1.2.3.4:46273",), "names no peer key"),
        ("network.join", ("1.2.3.4:46273",), "/ip4/1.2.3.4/tcp/46273/p2p/"),
        ("network.join", ("host.example:46273",), "/dns4/host.example/tcp/46273/p2p/"),
        ("network.join", ("/ip4/1.2.3.4/tcp/1",), "names no peer key"),
        ("network.join", ("/ip6/::1/tcp/1",), "names no peer key"),
        ("network.join", ("/dnsaddr/",), "names no peer key"),
        ("network.join", ("/ip4/1.2.3.4/udp/1/p2p/12D3KooWA",), "is not a node's address"),
        ("network.join", ("12D3KooWA",), "is not a multiaddr"),
        ("network.listen_host", ":::", "is not an IP address"),
        ("network.listen_host", "", "is not an IP address"),
        ("network.listen_host", "256.1.1.1", "is not an IP address"),
        ("network.advertise", ("/ip6/1.2.3.4/tcp/1",), "names no host"),
        ("node.name", "\u202eevil", "printable"),
        ("node.name", "a\nb", "printable"),
        ("node.name", "\x1b[31m", "printable"),
        ("node.name", "x" * 65, "at most 64 characters"),
        ("node.name", "\udcff", "not UTF-8"),
        ("observer.host", "a b", "not an address"),
        ("worker.threads", "9" * 5000, "from 0 to 1024; got '999"),
        ("chain.heartbeat_s", "nan", "a number from 1 to 3600"),
        ("worker.data_folders", ("~nosuchuser/x",), "no home directory"),
    ],
)
def test_the_error_for_an_impossible_value_says_why(
    setting: str, value: str | tuple[str, ...], words: str, tmp_path: Path
) -> None:
    error = config_error(tmp_path, flags={setting: value})
    assert setting in error.what
    assert words in error.why


def test_the_error_for_a_text_in_place_of_a_list_shows_the_list(tmp_path: Path) -> None:
    write(tmp_path, '[network]\njoin = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA"\n')
    assert 'write ["/ip4/1.2.3.4/tcp/1/p2p/12D3KooWA"]' in config_error(tmp_path).why


def test_the_error_for_an_endpoint_in_place_of_a_list_does_not_repeat_it(tmp_path: Path) -> None:
    write(tmp_path, '[chain]\nrpc = "https://rpc.example/v3/SECRET"\n')
    error = config_error(tmp_path)
    assert 'write ["..."]' in error.why
    assert "SECRET" not in str(error)


def test_a_section_checks_its_settings_on_construction() -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        NetworkConfig(listen_host="home")


def test_an_unknown_key_far_from_all_names_gets_no_suggestion(tmp_path: Path) -> None:
    write(tmp_path, "[worker]\nblue = 1\n")
    assert config_error(tmp_path).fix == "hypergpud config show lists them all"
