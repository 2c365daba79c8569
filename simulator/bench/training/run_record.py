"""The record of one arm with one seed, and what is computed from several of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

TARGET_TAIL = 0.1
"""The last share of a lone machine's time whose median loss is the target.

With a small batch and a constant rate, single scores differ by 1%.
"""


class LossPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out loss. `at_s` counts from the start, `samples` are all that were learned from."""

    at_s: float
    samples: int
    loss: float


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One arm with one seed.

    `settings` are what differs from the arm's usual settings. `seconds_to_target` is None where the
    target was not reached, or is unknown. `bytes_per_peer` is what a peer's network device sent, on
    average over the peers; None on loopback. `memory_bytes` is the peak of each kind of process.
    `void` says why the run does not count.
    """

    arm: str
    settings: dict[str, str]
    seed: int
    peers: int
    parameters: int
    rate: str
    rtt_ms: float
    seconds: float
    target: float | None
    seconds_to_target: float | None
    held_out_final: float
    samples: int
    bytes_per_peer: int | None
    compute_share: float
    steps: int
    late_steps: int
    memory_bytes: dict[str, int]
    void: str
    notes: tuple[str, ...]
    points: tuple[LossPoint, ...]


def target_of(points: Sequence[LossPoint], seconds: float) -> float | None:
    """Return what a lone machine reached at the end of its time; None without a late score."""
    tail = [point.loss for point in points if point.at_s >= (1 - TARGET_TAIL) * seconds]
    return median(tail) if tail else None


def time_to(points: Sequence[LossPoint], target: float) -> float | None:
    """Return when the loss first reached the target, on straight lines between the scores.

    None where it never did.
    """
    before: LossPoint | None = None
    for point in points:
        if point.loss <= target:
            if before is None or before.loss <= point.loss:
                return point.at_s
            share = (before.loss - target) / (before.loss - point.loss)
            return before.at_s + share * (point.at_s - before.at_s)
        before = point
    return None


def label(record: RunRecord) -> str:
    """Return the arm with the settings that differ from its usual ones."""
    return " ".join([record.arm, *(f"{key}={value}" for key, value in record.settings.items())])


def with_targets(records: Sequence[RunRecord], given: float | None = None) -> list[RunRecord]:
    """Set each record's target and the time to it.

    The target is `given`, or what the arm "alone" reached with the same seed. A void run is no
    target.
    """
    alone = {
        record.seed: target_of(record.points, record.seconds)
        for record in records
        if record.arm == "alone" and not record.void
    }
    done = []
    for record in records:
        target = alone.get(record.seed) if given is None else given
        reached = None if target is None else time_to(record.points, target)
        done.append(msgspec.structs.replace(record, target=target, seconds_to_target=reached))
    return done


def ratios(records: Sequence[RunRecord], reference: str) -> dict[str, tuple[float, bool]]:
    """Return how many times as long as `reference` each other arm takes to the target.

    Both are labels. The figure is the median over the seeds that both ran. An arm that did not
    reach the target counts with its whole time, and the second value is then False: the figure is a
    lower bound. Void runs and seeds that the reference did not finish are left out.
    """
    counted = [record for record in records if not record.void]
    base = {
        record.seed: record.seconds_to_target for record in counted if label(record) == reference
    }
    found: dict[str, tuple[float, bool]] = {}
    for name in dict.fromkeys(label(record) for record in counted):
        pairs = [
            ((record.seconds_to_target or record.seconds) / own, record.seconds_to_target)
            for record in counted
            if label(record) == name and (own := base.get(record.seed))
        ]
        if name != reference and pairs:
            whole = all(reached is not None for _, reached in pairs)
            found[name] = (median(ratio for ratio, _ in pairs), whole)
    return found
