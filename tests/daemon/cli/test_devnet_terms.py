"""`devnet`: its output can be pasted into a run's file and a home's config."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from contracts.artifacts import PLACES
from contracts.devnet.genesis import foreign_contracts
from daemon.chain.client_setup import check_profile
from daemon.cli.main import run
from daemon.config.settings import ChainConfig
from daemon.services.training.engine import check_engine
from protocol.errors import UserError
from protocol.run.manifest import Manifest
from protocol.run.manifest_file import parse_manifest

REPOSITORY = Path(__file__).parents[3]


@contextmanager
def devnet(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "daemon.cli.main",
            "--home",
            home,
            *words,
            "devnet",
            "--port",
            "0",
            "--in-memory",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.real
def test_devnet_prints_a_valid_settlement_for_a_run(tmp_path: Path) -> None:
    with devnet(tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        while not (line := process.stdout.readline()).startswith("# Settlers"):
            assert line, process.stderr.read()
            lines.append(line)
        keys = [process.stdout.readline() for _ in range(3)]
        said = process.stderr.readline()
    text = "".join(lines[1:])
    run_file, _, home = text.partition("# In config.toml")
    manifest = parse_manifest('name = "mine"\ntask = "none"\n' + run_file, "run.toml")
    check_profile(manifest)
    assert not isinstance(manifest.settlement, msgspec.UnsetType)
    assert manifest.settlement.contract == "0x0000000000000000000000000000000000001000"
    settings = ChainConfig(
        **{
            k: tuple(v) if isinstance(v, list) else v
            for k, v in tomllib.loads("#" + home)["chain"].items()
        }
    )
    assert settings.rpc[0].startswith("http://127.0.0.1:")
    assert all("key 0x" in one for one in keys)
    assert "is lost" in said
    assert "kept" not in said


@pytest.mark.real
def test_devnet_as_json_has_pool_and_settlers(tmp_path: Path) -> None:
    with devnet(tmp_path, "--json") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
    assert (len(said["settlers"]), said["needed"], said["contract"][-4:]) == (3, 2, "1000")


def test_devnet_refuses_to_continue_a_chain_with_other_contracts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["devnet", "--genesis-only"]) == 0
    genesis = json.loads(capfd.readouterr().out)
    assert foreign_contracts(genesis) == ()
    place = PLACES["sessions"]
    genesis["alloc"][place]["code"] = genesis["alloc"][place]["code"][:-4] + "0000"
    kept = tmp_path / "devnet" / "genesis.json"
    kept.parent.mkdir()
    for text, said in (
        (json.dumps(genesis), "different: sessions;"),
        ("{", "Cannot read"),
        ("[]", "Cannot read"),
    ):
        kept.write_text(text)
        assert run(["--home", str(tmp_path), "devnet", "--port", "0"]) == 1
        err = capfd.readouterr().err
        assert said in err
        assert f"remove {kept.parent}" in err


def test_devnet_that_cannot_listen_says_what_to_type(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, said in (
            (("--port", port), "hypergpud devnet --port 0"),
            (("--port", "0", "--host", "::1"), "hypergpud devnet --host 127.0.0.1"),
            (("--port", "0", "--host", "a..b"), "hypergpud devnet --host 127.0.0.1"),
            (("--port", "0", "--host", "203.0.113.1"), "hypergpud devnet --host 127.0.0.1"),
        ):
            assert run(["--home", str(tmp_path), "devnet", "--in-memory", *words]) == 1
            assert said in capfd.readouterr().err


@pytest.mark.parametrize("name", ["devnet", "anvil", "ethereum"])
def test_check_profile_of_an_unknown_chain_names_a_valid_one(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_profile(Manifest(name="mine", task="none", chain=name))
    assert 'chain = "hypergpu"' in caught.value.fix
    assert "upgrade" not in str(caught.value)


def test_check_engine_of_a_mistyped_engine_names_the_right_one() -> None:
    with pytest.raises(UserError, match="engine") as caught:
        check_engine("nativ")
    assert 'engine = "native"' in caught.value.fix
