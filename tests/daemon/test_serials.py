"""Tests that the serials of a home grow, whatever its clock does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.home.serials import AHEAD_NS, LATEST_NS, MARGIN_NS, SPREAD_NS, Serials

HOUR_NS = 3600 * 10**9
NOW_NS = 1_800_000_000 * 10**9


class Clock:
    """A wall clock that a test sets."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize("shift_ns", [-HOUR_NS, 0, HOUR_NS, 365 * 24 * HOUR_NS, -NOW_NS])
def test_the_serials_of_the_next_start_are_higher_whatever_the_clock_says(
    tmp_path: Path, shift_ns: int
) -> None:
    clock = Clock(NOW_NS)
    used = [Serials(tmp_path / "serials", clock).next() for _ in range(3)]
    clock.now_ns += shift_ns
    later = Serials(tmp_path / "serials", clock)
    assert later.first > max(used)
    assert later.next() >= later.first


def test_the_serials_of_a_home_with_many_restarts_stay_near_the_clock(tmp_path: Path) -> None:
    """If each restart moved them far ahead, an original would look newer than its copy."""
    clock = Clock(NOW_NS)
    used = 0
    for _ in range(50):
        clock.now_ns += 2 * 10**9
        life = Serials(tmp_path / "serials", clock)
        assert life.first > used
        assert life.first < clock.now_ns + SPREAD_NS
        used = life.next()
        life.close()
    assert int((tmp_path / "serials").read_text()) == used + MARGIN_NS


def test_serials_after_a_kill_are_minutes_ahead_at_most(tmp_path: Path) -> None:
    clock = Clock(NOW_NS)
    Serials(tmp_path / "serials", clock).next()
    assert Serials(tmp_path / "serials", clock).first - NOW_NS < 5 * 60 * 10**9


def test_serials_grow_after_a_start_in_the_far_future(tmp_path: Path) -> None:
    clock = Clock(NOW_NS + 365 * 24 * HOUR_NS)
    ahead = Serials(tmp_path / "serials", clock).next()
    clock.now_ns = NOW_NS
    right = Serials(tmp_path / "serials", clock)
    assert ahead < right.next() < right.next() < ahead + 2 * AHEAD_NS


def test_serials_fit_64_bits_with_a_broken_clock(tmp_path: Path) -> None:
    assert Serials(tmp_path / "serials", Clock(2**80)).next() < 2**63
    assert LATEST_NS + 2 * AHEAD_NS < 2**63


@given(st.lists(st.integers(-(10**20), 10**20), min_size=1, max_size=20))
def test_serials_grow_and_stay_below_the_number_on_disk(steps_ns: list[int]) -> None:
    clock = Clock(NOW_NS)
    serials = Serials(None, clock)
    bound = clock.now_ns + SPREAD_NS + AHEAD_NS
    last = 0
    for step_ns in steps_ns:
        clock.now_ns = NOW_NS + step_ns
        number = serials.next()
        assert last < number < bound
        last = number


@pytest.mark.parametrize("content", [b"", b"x", b"-5", b"9" * 40, b"\xff\xfe"])
def test_serials_with_a_damaged_file_begin_at_the_clock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "serials").write_bytes(content)
    first = Serials(tmp_path / "serials", Clock(NOW_NS)).first
    assert NOW_NS <= first < NOW_NS + SPREAD_NS
    assert int((tmp_path / "serials").read_text()) == first + AHEAD_NS


def test_a_restored_home_uses_other_serials_than_after_its_backup(
    tmp_path: Path,
) -> None:
    """With equal serials, the node would take its own old record for an older node."""
    file = tmp_path / "serials"
    Serials(file, Clock(NOW_NS))
    backup = file.read_bytes()
    life = Serials(file, Clock(NOW_NS))
    used = {life.next() for _ in range(100)}
    file.write_bytes(backup)
    restored = Serials(file, Clock(NOW_NS))
    mine = {restored.next() for _ in range(100)}
    assert not mine & used
    assert not {number + 1 for number in mine} & used


def test_serials_continue_above_an_observed_serial(tmp_path: Path) -> None:
    serials = Serials(tmp_path / "serials", Clock(NOW_NS))
    serials.passed(NOW_NS + HOUR_NS * 5)
    assert serials.next() > NOW_NS + HOUR_NS * 5
    serials.passed(2**70)
    assert serials.next() < 2**63
