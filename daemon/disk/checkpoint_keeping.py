"""Which checkpoints a disk may remove: a pure choice by age and size.

A node keeps checkpoints of every branch that it certified. A wrong branch, a bad learning rate or a
takeover is often noticed hours later, and whoever noticed it needs a state from before. So a disk
keeps the last few checkpoints of each branch, one per hour for a day and one per day for a week.

The last few of the branch that the node is on always stay. The others take at most `limit_bytes`,
and at most half of the space that is free without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
WEEK_NS = 7 * DAY_NS
# The newest may be found damaged, and a joining node may still read the one before.
KEPT = 3
# Ten checkpoints of a model of 124 million parameters with its inner optimizer.
LIMIT_BYTES = 20_000_000_000


class KeptCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint on disk."""

    # The branch that it is on; empty for the branch that the node is on.
    branch: str
    number: int
    # Wall-clock time since 1970.
    written_ns: int
    size_bytes: int


class KeepRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many checkpoints stay."""

    # Of each branch.
    last: Annotated[int, Meta(ge=1)] = KEPT
    # For all but the last few of the current branch.
    limit_bytes: int = LIMIT_BYTES


def removable(
    kept: Sequence[KeptCheckpoint], now_ns: int, rules: KeepRules, free_bytes: int
) -> list[KeptCheckpoint]:
    """Return the checkpoints to remove, the least needed first.

    Args:
        kept: every checkpoint of a run that may be removed.
        now_ns: wall-clock time since 1970. A checkpoint from the future counts as new.
        rules: how many stay.
        free_bytes: the free space of the file system.
    """
    by_age = sorted(kept, key=lambda one: (one.number, one.written_ns), reverse=True)
    seen: dict[str, int] = {}
    wanted: dict[tuple[str, str, int], KeptCheckpoint] = {}
    removed: list[KeptCheckpoint] = []
    # Candidates for the limit, by (what it costs to lose them, the time of writing).
    bounded: list[tuple[int, int, KeptCheckpoint]] = []
    for one in by_age:
        place = seen.get(one.branch, 0)
        seen[one.branch] = place + 1
        age_ns = now_ns - one.written_ns
        hour = (one.branch, "hour", one.written_ns // HOUR_NS)
        day = (one.branch, "day", one.written_ns // DAY_NS)
        of_hour = age_ns < DAY_NS and wanted.setdefault(hour, one) is one
        of_day = age_ns < WEEK_NS and wanted.setdefault(day, one) is one
        if place < rules.last and not one.branch:
            continue
        if place < rules.last or of_hour or of_day:
            newest_of_branch = place == 0
            bounded.append((3 if newest_of_branch else 2 if of_day else 1, one.written_ns, one))
        else:
            removed.append(one)
    bounded.sort(key=lambda entry: entry[:2])
    used = sum(entry[2].size_bytes for entry in bounded)
    limit = min(rules.limit_bytes, (free_bytes + used) // 2)
    for _, _, one in bounded:
        if used <= limit:
            break
        removed.append(one)
        used -= one.size_bytes
    return removed
