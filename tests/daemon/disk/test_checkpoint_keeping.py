"""Which checkpoints a disk keeps, by age, branch and size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.disk.checkpoint_keeping import (
    DAY_NS,
    HOUR_NS,
    WEEK_NS,
    KeepRules,
    KeptCheckpoint,
    removable,
)

NOW = 20_000 * DAY_NS + 12 * HOUR_NS
PLENTY = 1 << 50
MINUTE_NS = HOUR_NS // 60


def written(number: int, age_ns: int, branch: str = "", size_bytes: int = 10) -> KeptCheckpoint:
    return KeptCheckpoint(
        branch=branch, number=number, written_ns=NOW - age_ns, size_bytes=size_bytes
    )


def kept_of(
    files: list[KeptCheckpoint], limit: int = PLENTY, free: int = PLENTY
) -> list[KeptCheckpoint]:
    gone = removable(files, NOW, KeepRules(limit_bytes=limit), free)
    return [one for one in files if one not in gone]


def history(days: float, branch: str = "") -> list[KeptCheckpoint]:
    """A checkpoint every five minutes, the oldest first."""
    count = int(days * DAY_NS / (5 * MINUTE_NS))
    return [written(i + 1, (count - i) * 5 * MINUTE_NS, branch) for i in range(count)]


def test_removable_leaves_three_one_an_hour_and_one_a_day() -> None:
    kept = kept_of(history(20))
    ages = [(NOW - one.written_ns) // MINUTE_NS for one in kept]
    assert ages[-3:] == [15, 10, 5]
    within_a_day = [one for one in kept if NOW - one.written_ns < DAY_NS]
    assert len({one.written_ns // HOUR_NS for one in within_a_day}) >= 24
    assert len(within_a_day) <= 24 + 3
    assert len({one.written_ns // DAY_NS for one in kept}) == 8
    assert max(NOW - one.written_ns for one in kept) < WEEK_NS
    assert len(kept) <= 24 + 3 + 8


def test_removable_leaves_the_last_three_of_every_branch_whatever_their_age() -> None:
    old = [written(n, 30 * DAY_NS + n, "left") for n in range(1, 6)]
    assert [one.number for one in kept_of([*old, *history(0.01)]) if one.branch] == [3, 4, 5]


def test_removable_keeps_the_last_three_of_the_current_branch_beyond_every_limit() -> None:
    files = history(1)
    assert kept_of(files, limit=0) == files[-3:]
    assert kept_of(files, free=0, limit=25) == kept_of(files, limit=25)


def test_removable_takes_half_of_the_free_space_at_most() -> None:
    files = history(1)
    older = kept_of(files)[:-3]
    used = sum(one.size_bytes for one in older)
    assert sum(one.size_bytes for one in kept_of(files, free=0)[:-3]) <= used / 2


def test_removable_gives_up_the_newest_of_a_left_branch_last() -> None:
    left = [written(n, HOUR_NS, "left") for n in (1, 2, 3)]
    assert kept_of([*left, *history(1)], limit=10)[0] == left[-1]


FILES = st.lists(
    st.builds(
        written,
        number=st.integers(0, 50),
        age_ns=st.integers(-DAY_NS, 10 * DAY_NS),
        branch=st.sampled_from(["", "a", "b"]),
        size_bytes=st.integers(1, 100),
    ),
    max_size=30,
    unique=True,
)


@given(FILES, st.integers(0, 500), st.integers(0, 1000))
def test_removable_never_takes_the_newest_of_the_current_branch_and_settles(
    files: list[KeptCheckpoint], limit: int, free: int
) -> None:
    kept = kept_of(files, limit, free)
    current = sorted((one for one in files if not one.branch), key=lambda one: one.number)
    numbers = {one.number for one in current}
    assert len(numbers) > len(current) - 1 or current
    newest = sorted(current, key=lambda one: (one.number, one.written_ns))[-3:]
    assert set(newest) <= set(kept)
    gone_bytes = sum(one.size_bytes for one in files) - sum(one.size_bytes for one in kept)
    assert set(kept_of(kept, limit, free + gone_bytes)) <= set(kept)
