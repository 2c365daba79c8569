"""Tests `hypergpud bench inference` with a small model of our own, near and far."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulator.bench.inference.far_stages import FarTokenTimes
from simulator.bench.inference.token_times import TokenTimes
from simulator.harness.clusters import missing_for_clusters
from tests.daemon.device.stages.run_models import write_byte_gpt

BENCH_S = 300


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(BENCH_S)
def test_bench_inference_measures_one_stage_and_several(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    command = [sys.executable, "-m", "daemon.cli.main", "bench", "inference", "--json"]
    done = subprocess.run(
        [*command, "--model", str(file), "--stages", "2", "--tokens", "20", "--answers", "1"],
        capture_output=True,
        timeout=BENCH_S,
        check=False,
    )
    found = msgspec.json.decode(done.stdout, type=TokenTimes)
    # Layers this small cost less than their way: the time is not within the limit.
    assert done.returncode == (0 if found.good else 1)
    assert found.same_text
    assert found.stages_ms > 0
    assert found.one_stage_ms > 0


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(BENCH_S)
@pytest.mark.skipif(bool(missing_for_clusters()), reason=missing_for_clusters())
def test_far_stages_make_the_same_tokens_a_round_trip_later(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    command = [sys.executable, "-m", "daemon.cli.main", "bench", "inference", "--json"]
    far = ["--rtt", "20", "--stages", "2", "--tokens", "12", "--answers", "1"]
    done = subprocess.run(
        [*command, "--model", str(file), *far], capture_output=True, timeout=BENCH_S, check=False
    )
    found = msgspec.json.decode(done.stdout, type=FarTokenTimes)
    assert done.returncode == (0 if found.good else 1)
    assert found.same_tokens
    assert found.stages == 2
    # Two hops, each at least its round trip.
    assert found.far_ms - found.near_ms > 0.9 * 2 * 20
