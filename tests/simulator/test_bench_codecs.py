"""`hypergpud bench codecs` measures every codec in every implementation."""

from __future__ import annotations

from protocol.codec import entries, entry_named, implementation
from simulator.bench.codecs import bench_codecs, table


def test_every_codec_is_measured_in_every_implementation() -> None:
    records = bench_codecs(5000, 1)
    kinds = ["compiled", "numpy"] if implementation() == "compiled" else ["numpy"]
    assert [(r.codec, r.implementation) for r in records] == [
        (entry.name, kind)
        for entry in entries()
        for kind in (kinds if entry.has_loops else ["numpy"])
    ]
    for record in records:
        assert record.size_ratio == entry_named(record.codec).reference.size(5000) / 20_000
        assert 0.0 <= record.max_error <= entry_named(record.codec).max_error
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
