"""The steps of a run: when each began and ended, and whether it was late.

A step that computes longer than its pace is late. A run with too many late steps measured the
machine's load, not the arm, and is void.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

LATE_LIMIT = 0.02
"""The largest share of late steps in a run that counts.

Late steps of one peer also delay the others in the arms that wait for each other.
"""

PREFIX = "steps-"


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One step of one peer. Times are of the monotonic clock, in seconds."""

    began_s: float
    ended_s: float
    late: bool


class StepLog:
    """Writes the steps of this process to a file of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(
            folder / f"{PREFIX}{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    def add(self, step: StepRecord) -> None:
        """Write one step. A killed process loses none that it has added."""
        os.write(self._file, msgspec.json.encode(step) + b"\n")


def read_steps(folder: Path) -> list[tuple[StepRecord, ...]]:
    """Return the steps of each process that wrote into the folder, in order of time."""
    decoder = msgspec.json.Decoder(StepRecord)
    logs = []
    for file in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        lines = file.read_bytes().split(b"\n")
        # What follows the last line feed is empty, or half of a line.
        logs.append(tuple(decoder.decode(line) for line in lines[:-1]))
    return logs


def within(
    logs: Sequence[Sequence[StepRecord]], began_s: float, until_s: float
) -> list[StepRecord]:
    """Return the steps of all processes that lie in the measured time."""
    return [
        step for log in logs for step in log if step.began_s >= began_s and step.ended_s <= until_s
    ]


def late_share(steps: Sequence[StepRecord]) -> float:
    """Return the share of late steps; 0 for a run without a step."""
    return sum(step.late for step in steps) / len(steps) if steps else 0.0


def compute_share(steps: Sequence[StepRecord], peers: int, seconds: float) -> float:
    """Return the share of the peers' time that they spent in steps."""
    return sum(step.ended_s - step.began_s for step in steps) / (peers * seconds)


def void_reason(steps: Sequence[StepRecord]) -> str:
    """Return why a run with these steps does not count; empty if it counts."""
    if not steps:
        return "no peer finished a step"
    share = late_share(steps)
    if share > LATE_LIMIT:
        return (
            f"{share:.1%} of the steps were late; {LATE_LIMIT:.0%} are allowed:"
            " choose a slower pace with --step-s, or an idle machine"
        )
    return ""
