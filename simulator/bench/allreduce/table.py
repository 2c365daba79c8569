"""The records as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.bench.allreduce.cell_record import CellRecord

HEAD = (
    "engine",
    "codec",
    "seconds",
    "min",
    "max",
    "MB/s/peer",
    "CPU s/GB",
    "of bound",
    "of TCP",
    "certified s",
    "ratio",
    "max error",
    "right",
    "agree",
)


def table(records: Sequence[CellRecord]) -> str:
    """One line for each engine and codec, then the speedups, then what went wrong."""
    rows = [HEAD, *(_row(record) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for record in records:
        if record.engine == "native" and record.speedup_over:
            others = ", ".join(
                f"{ratio:.2f} x {other}"
                for other, ratio in record.speedup_over.items()
                if not other.startswith("native")
            )
            lines += [f"native {record.codec} is as fast as: {others}"] if others else []
    return "\n".join(
        [
            *lines,
            *(
                f"{record.engine} {record.codec}: {note}"
                for record in records
                for note in record.notes
            ),
        ]
    )


def _row(record: CellRecord) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        record.engine,
        record.codec,
        number(record.seconds_median, ".3f"),
        number(record.seconds_min, ".3f"),
        number(record.seconds_max, ".3f"),
        number(record.mb_per_s_per_peer, ".0f"),
        number(record.cpu_seconds_per_gb, ".2f"),
        number(record.share_of_bound, ".0%"),
        number(record.share_of_tcp, ".0%"),
        number(record.certified_seconds_median, ".3f"),
        number(record.certified_ratio, ".2f"),
        number(record.max_error, ".1e"),
        f"{record.rounds - record.wrong}/{record.rounds}",
        "yes" if record.agree else "no",
    )
