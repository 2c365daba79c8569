"""Audits of real weights: no honest span is accused, and every cheat is named soon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulator.bench.inference.stage_audits import AuditedStage
from tests.daemon.device.stages.run_models import write_byte_gpt

BENCH_S = 600


def audited(model: Path, spans: int) -> dict[str, AuditedStage]:
    """The result of the command, in a process of its own: torch's settings are the process's."""
    command = [sys.executable, "-m", "daemon.cli.main", "bench", "stage-audits", "--json"]
    done = subprocess.run(
        [*command, "--model", str(model), "--spans", str(spans)],
        capture_output=True,
        timeout=BENCH_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {one.stage: one for one in msgspec.json.decode(done.stdout, type=list[AuditedStage])}


@pytest.mark.real
def test_each_cheat_is_named_within_twenty_spans_and_no_honest_stage_is(tmp_path: Path) -> None:
    file = tmp_path / "gpt.safetensors"
    write_byte_gpt(file)
    found = audited(file, 60)
    assert set(found) == {"honest", "bfloat16", "int8", "int4", "skipped-layer", "stale"}
    assert (found["honest"].spans, found["honest"].named) == (60, 0)
    for name in set(found) - {"honest"}:
        assert 1 <= found[name].first_named <= 20, name


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(BENCH_S)
def test_ten_thousand_honest_spans_have_no_false_verdict(tmp_path: Path) -> None:
    file = tmp_path / "gpt.safetensors"
    write_byte_gpt(file)
    found = audited(file, 10_000)
    assert (found["honest"].spans, found["honest"].named) == (10_000, 0)
