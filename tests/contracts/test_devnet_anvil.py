"""`hypergpud devnet --anvil`: anvil serves the same chain, and always ends with the devnet."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.client import HttpTransport
from protocol.chain.errors import ChainUnreachable
from tests.contracts.testnets import ANVIL, NO_ANVIL

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "daemon.cli.main", "--json", "devnet", "--anvil"]
# A signal ends anvil, which takes a while on a busy machine.
GONE_S = 10.0

pytestmark = pytest.mark.real
needs_anvil = pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL)


def environ(path: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path}


def answers(ask: HttpTransport) -> bool:
    try:
        return bool(ask("eth_chainId", ()))
    except ChainUnreachable:
        return False


@needs_anvil
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_anvil_serves_the_same_chain_and_ends_with_the_devnet(
    tmp_path: Path, ending: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--home", str(tmp_path), "--port", "0", "--block-time", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environ(f"{ANVIL.parent}{os.pathsep}{os.environ['PATH']}"),
    )
    try:
        assert process.stdout is not None
        ask = HttpTransport(json.loads(process.stdout.readline())["url"])
        assert "anvil" in ask("web3_clientVersion", ())
        assert int(ask("eth_chainId", ()), 16) == 4195600
        for place in (0x21, 0x22, 0x23, 0x1000, 0x1001):
            assert len(ask("eth_getCode", (f"0x{place:040x}", "latest"))) > 2
    finally:
        process.send_signal(ending)
    assert process.wait(20) == (0 if ending == signal.SIGTERM else -ending)
    deadline = time.monotonic() + GONE_S
    while answers(ask):
        assert time.monotonic() < deadline, "anvil goes on without the devnet"


def test_without_anvil_the_message_says_how_to_install_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--home", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environ(str(tmp_path)),
        timeout=60,
        check=False,
    )
    assert (done.returncode, "ANVIL_MISSING" in done.stderr, "getfoundry.sh" in done.stderr) == (
        1,
        True,
        True,
    )


@needs_anvil
def test_another_program_on_the_port_is_not_mistaken_for_anvil(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [*COMMAND, "--home", str(tmp_path), "--port", str(taken.getsockname()[1])],
            capture_output=True,
            text=True,
            env=environ(f"{ANVIL.parent}{os.pathsep}{os.environ['PATH']}"),
            timeout=60,
            check=False,
        )
    assert (done.returncode, "DEVNET_PORT" in done.stderr, "already in use" in done.stderr) == (
        1,
        True,
        True,
    )
