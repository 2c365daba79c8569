"""`hypergpud bench codecs`: every codec in every implementation, with the ratios that are known."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from protocol.codec import REFERENCES, implementation
from simulator.bench.codecs import CodecRecord, bench_codecs, table


def test_every_codec_is_measured_in_every_implementation() -> None:
    records = bench_codecs(5000, 1)
    kinds = ["compiled", "numpy"] if implementation() == "compiled" else ["numpy"]
    assert [(r.codec, r.implementation) for r in records] == [
        (name, kind) for name in REFERENCES for kind in (["numpy"] if name == "topk" else kinds)
    ]
    for record in records:
        assert record.size_ratio == REFERENCES[record.codec].size(5000) / 20_000
        assert (
            0.0
            <= record.max_error
            < {
                "float32": 1e-30,
                "bfloat16": 1 / 256,
                "float16": 1 / 2048,
                "int8": 1 / 250,
                "int4": 0.14,
            }.get(record.codec, 1)
        )
        assert (
            min(
                record.encode_gb_s,
                record.check_gb_s or 0,
                record.decode_gb_s or 0,
                record.reduce_gb_s or 0,
            )
            > 0
        )
    lines = table(records).splitlines()
    assert len(lines) == 1 + len(records)
    assert lines[0].split()[:2] == ["codec", "by"]


@pytest.mark.real
@pytest.mark.alone
def test_the_command_measures_a_device_too() -> None:
    command = [
        sys.executable,
        "-m",
        "daemon.cli.main",
        "bench",
        "codecs",
        "--elements",
        "5000",
        "--repeat",
        "1",
        "--json",
    ]
    said = subprocess.run([*command, "--device", "cpu"], capture_output=True, check=True)
    records = msgspec.json.decode(said.stdout, type=list[CodecRecord])
    on_device = [record for record in records if record.implementation.startswith("torch, cpu")]
    assert [record.codec for record in on_device] == list(REFERENCES)
    assert all(record.encode_gb_s > 0 and record.decode_gb_s is None for record in on_device)
    refused = subprocess.run(
        [*command, "--device", "cuda:77"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "cuda:77" in refused.stderr
