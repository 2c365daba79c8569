"""`hypergpud demo --chain` on py-evm and on anvil: the claims are exactly the pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.config.settings import PREFIX
from tests.contracts.testnets import ANVIL, NO_ANVIL
from tests.e2e.swarm import RUN

POOL = 1_000 * 10**18

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.mark.parametrize(
    "chain",
    ["evm", pytest.param("anvil", marks=pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL))],
)
def test_claims_of_four_volunteers_are_exactly_the_pool(tmp_path: Path, chain: str) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(RUN.format(seconds=2.0), encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | {
        "TMPDIR": str(tmp_path)
    }
    environ["PATH"] = f"{ANVIL.parent}{os.pathsep}{environ['PATH']}"
    command = [
        sys.executable,
        "-m",
        "daemon.cli.main",
        "demo",
        "--chain",
        "--rounds",
        "3",
        "--run",
        str(run_file),
        "--json",
    ]
    command += ["--anvil"] if chain == "anvil" else []
    done = subprocess.run(
        command, capture_output=True, text=True, env=environ, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    payout = verdict["payout"]
    assert payout["pool"] == str(POOL)
    assert sum(int(one["amount"]) for one in payout["paid"]) == POOL
    assert (
        len({one["payout"] for one in payout["paid"]} | {one["account"] for one in payout["paid"]})
        == 2 * verdict["peers"]
    )
    assert all(
        one["verified"] and int(one["amount"]) > 0 and one["samples"] > 0 for one in payout["paid"]
    )


def test_demo_with_chain_refuses_a_run_with_its_own_chain(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text('chain = "plumise"\n' + RUN.format(seconds=2.0), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "daemon.cli.main",
        "demo",
        "--chain",
        "--rounds",
        "1",
        "--run",
        str(run_file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "leave out --chain" in done.stderr) == (2, True)
