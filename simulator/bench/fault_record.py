"""The records of `hypergpud bench faults`, and their table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from simulator.harness.steps import Kind, Step

# At default settings, for any fault: a silent member costs a round no more than this.
NOTICED_WITHIN_S = 5.0


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of engine, fault and step.

    Seconds are medians over its trials, of the slowest survivor, without training.
    `seconds_after_fault_median` runs from the signal to the next certificate, and
    `following_seconds_median` from there to the one after it. `within_bound` counts the trials in
    which the first certificate came within twice the fault-free exchange and the detection.

    For an engine without certificates `seconds_after_fault_median` runs to the last survivor's
    answer, also a failure. What that engine does not have is None or 0.
    """

    engine: str
    kind: Kind
    step: Step
    runs: int
    runs_survivors_agree: int
    runs_exact: int
    false_successes: int
    seconds_after_fault_median: float | None
    following_seconds_median: float | None
    detection_seconds_median: float | None
    detection_seconds_max: float | None
    fault_free_seconds_median: float | None
    back_seconds_median: float | None
    within_bound: int
    leaders_struck: int
    notes: tuple[str, ...] = ()

    @property
    def perfect(self) -> bool:
        """Whether nothing was wrong."""
        return (
            self.runs_survivors_agree == self.runs
            and self.runs_exact == self.runs
            and self.false_successes == 0
        )

    @property
    def in_time(self) -> bool:
        """Whether every trial was noticed and over in time.

        Other load on the machine counts here.
        """
        return (
            self.within_bound == self.runs
            and (self.detection_seconds_max or 0.0) <= NOTICED_WITHIN_S
        )


def table(records: Sequence[FaultRecord]) -> str:
    """The records as a table for a terminal."""
    head = (
        "engine",
        "kind",
        "step",
        "agree",
        "exact",
        "false",
        "after s",
        "following s",
        "noticed s",
        "latest s",
        "fault-free s",
        "back s",
        "in bound",
    )
    rows: list[tuple[str, ...]] = [head]
    for record in records:
        seconds = (
            record.seconds_after_fault_median,
            record.following_seconds_median,
            record.detection_seconds_median,
            record.detection_seconds_max,
            record.fault_free_seconds_median,
            record.back_seconds_median,
        )
        rows.append(
            (
                record.engine,
                record.kind,
                record.step,
                f"{record.runs_survivors_agree}/{record.runs}",
                f"{record.runs_exact}/{record.runs}",
                str(record.false_successes),
                *("-" if value is None else f"{value:.2f}" for value in seconds),
                f"{record.within_bound}/{record.runs}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            *(
                f"{record.engine}, {record.kind} in {record.step}: {note}"
                for record in records
                for note in record.notes
            ),
        ]
    )
