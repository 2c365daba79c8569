"""Tests when a node writes its full state."""

from __future__ import annotations

from daemon.services.training.native.engine_context import DiskRules
from daemon.services.training.native.state.full_states import MOST_CERTIFICATES, FullStates
from protocol.journal import JournalEvent, Warned

GB = 1_000_000_000


class Disk:
    """What a disk wrote so far."""

    written_bytes = 0


def _full_states(hourly_bytes: int = 0) -> tuple[FullStates, Disk, list[JournalEvent]]:
    disk, recorded = Disk(), list[JournalEvent]()
    rules = DiskRules(full_state_s=300.0, hourly_bytes=hourly_bytes)
    return FullStates(rules, lambda: disk.written_bytes, recorded.append), disk, recorded


def test_full_state_is_due_at_the_first_certificate_and_every_five_minutes() -> None:
    states, _, _ = _full_states()
    assert states.is_due(1, GB, 0.0)
    states.written(1, 0.0)
    assert not states.is_due(2, GB, 299.0)
    assert states.is_due(2, GB, 300.0)


def test_full_state_waits_while_the_limit_is_reached_and_says_so_once() -> None:
    states, disk, recorded = _full_states(hourly_bytes=3 * GB)
    states.is_due(1, GB, 0.0)
    disk.written_bytes = int(2.5 * GB)
    states.written(1, 0.0)
    assert not states.is_due(2, GB, 301.0)
    assert not states.is_due(3, GB, 400.0)
    (warning,) = recorded
    assert isinstance(warning, Warned)
    assert warning.code == "DISK_LIMIT"
    assert "2.5 GB in the last hour" in warning.message
    assert states.is_due(4, GB, 4000.0), "what was written an hour ago no longer counts"


def test_full_state_ignores_the_limit_where_a_restart_could_not_do_without_it() -> None:
    states, disk, _ = _full_states(hourly_bytes=1)
    states.is_due(1, GB, 0.0)
    disk.written_bytes = GB
    states.written(1, 0.0)
    assert states.is_due(1 + MOST_CERTIFICATES, GB, 1.0)
    states.needed = True
    assert states.is_due(2, GB, 1.0)


def test_full_state_is_due_once_all_who_keep_the_results_of_a_round_are_gone() -> None:
    states, disk, _ = _full_states(hourly_bytes=1)
    alive = {"a", "b", "c", "d"}
    states.lives = alive.__contains__
    states.is_due(1, GB, 0.0)
    disk.written_bytes = GB
    states.written(1, 0.0)
    states.kept_elsewhere(2, frozenset("abc"))
    states.kept_elsewhere(3, frozenset("bcd"))
    alive -= {"b", "c"}
    assert not states.is_due(3, GB, 1.0)
    alive -= {"a"}
    assert states.is_due(3, GB, 1.0)
    states.written(2, 2.0)
    assert not states.is_due(3, GB, 3.0), "the full state has what certificate 2 led to"
