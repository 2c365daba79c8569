"""The records as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from simulator.bench.training.run_record import RunRecord, label, ratios

HEAD = (
    "arm",
    "seed",
    "to target s",
    "target",
    "held-out",
    "samples",
    "MB/peer",
    "computing",
    "late",
    "bytes/parameter",
)


def table(records: Sequence[RunRecord]) -> str:
    """One line for each run, then the ratios to the native engine, then why runs are void."""
    rows = [HEAD, *(_row(record) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    natives = dict.fromkeys(label(one) for one in records if one.arm == "native")
    for reference in natives:
        lines += [
            f"{reference} reaches the target {'' if whole else 'at least '}{ratio:.2f} times as"
            f" fast as {name}{_bytes_ratio(records, name, reference)}"
            for name, (ratio, whole) in ratios(records, reference).items()
        ]
    lines += [
        f"{label(one)}, seed {one.seed}, does not count: {one.void}" for one in records if one.void
    ]
    return "\n".join(lines)


def _bytes_ratio(records: Sequence[RunRecord], name: str, reference: str) -> str:
    """How many bytes an arm sends for each byte of the reference, as the end of a sentence."""

    def sent(wanted: str) -> float | None:
        counts = [
            one.bytes_per_peer for one in records if label(one) == wanted and one.bytes_per_peer
        ]
        return median(counts) if counts else None

    there, here = sent(name), sent(reference)
    return f", which sends {there / here:.1f} times the bytes" if there and here else ""


def _row(record: RunRecord) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    megabytes = None if record.bytes_per_peer is None else record.bytes_per_peer / 1e6
    return (
        label(record),
        str(record.seed),
        number(record.seconds_to_target, ".1f"),
        number(record.target, ".3f"),
        number(record.held_out_final, ".3f"),
        str(record.samples),
        number(megabytes, ".1f"),
        number(record.compute_share, ".0%"),
        f"{record.late_steps}/{record.steps}",
        ", ".join(
            f"{name} {size / record.parameters:.0f}" for name, size in record.memory_bytes.items()
        ),
    )
