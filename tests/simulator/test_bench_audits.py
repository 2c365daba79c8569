"""`hypergpud bench audits`, on a case of seconds."""

from __future__ import annotations

from protocol.run.manifest import Inner
from simulator.bench.audits.benchmark import measure, table
from simulator.bench.audits.cases import AuditCase


def test_bench_audits_tells_honest_work_from_zeros_and_negated_work() -> None:
    case = AuditCase(
        name="byte_gpt int4",
        task="byte_gpt",
        options={"layers": 1, "heads": 1, "width": 16, "context": 16, "corpus_bytes": 300_000},
        inner=Inner(batch_size=8, learning_rate=5e-3),
        codec="int4",
        steps=32,
        rounds=2,
    )
    said: list[str] = []
    rows = {row.kind: row for row in measure([case], ["honest", "zeros", "negated"], said.append)}
    assert [row.audits for row in rows.values()] == [8, 4, 4]
    assert rows["honest"].mean > 0.7
    assert rows["zeros"].mean == 0.0
    assert rows["negated"].mean < 0.4
    assert "negated" in table(list(rows.values()))
