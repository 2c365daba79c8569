"""Tests `hypergpud bench worker` with a small task: both processes train, and are compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from daemon.device.settings import WorkerSettings
from protocol.errors import UserError
from protocol.run.manifest import Inner, Manifest
from simulator.bench.worker.benchmark import WorkerCost, measure

BENCH_S = 300
RUN = """
name = "tiny"
task = "simple_cnn"
[task_options]
width = 4
[inner]
accumulate = 2
batch_size = 4
"""


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(BENCH_S)
def test_bench_worker_compares_both_processes(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    command = [sys.executable, "-m", "daemon.cli.main", "bench", "worker", "--json"]
    done = subprocess.run(
        [*command, "--run", str(file), "--turns", "3", "--seconds", "0.5"],
        capture_output=True,
        timeout=BENCH_S,
        check=False,
    )
    found = msgspec.json.decode(done.stdout, type=WorkerCost)
    assert done.returncode == (0 if found.good else 1)
    assert len(found.shares) == 3
    # Steps this small cost less than their bookkeeping: the worker need not be fast enough.
    assert 0.1 < found.share < 2.0
    assert found.plain_bytes > 100_000_000
    assert found.worker_bytes > 100_000_000
    assert f"{found.share:.1%} of the speed" in found.sentence()


def test_bench_worker_refuses_an_optimizer_that_its_plain_loop_lacks() -> None:
    manifest = Manifest(name="m", task="byte_gpt", rules=4, inner=Inner(optimizer="sgd"))
    with pytest.raises(UserError, match="optimizer is 'sgd'"):
        measure(manifest, WorkerSettings(), turns=1, seconds=1.0, say=lambda line: None)
