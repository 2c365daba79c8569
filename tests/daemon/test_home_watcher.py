"""Tests of a running node whose home is removed, moved or changed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.home.home_watcher import MAX_FAILURES, HomeWatcher
from daemon.home.layout import KEY_FILE, LOCK_FILE
from daemon.home.lock import TOUCH_S, home_lock, lock_holder
from daemon.home.node_key import load_or_make_key

WatchedHome = tuple[Path, HomeWatcher, bytes]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedHome]:
    """Yield a locked home, its watcher and its key."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with home_lock(home):
        _, seed = load_or_make_key(home)
        watch = HomeWatcher(home, seed)
        yield home, watch, seed
        watch.close()


def test_look_touches_the_lock_of_a_whole_home(watched: WatchedHome) -> None:
    home, watch, _ = watched
    os.utime(home / LOCK_FILE, (0, 0))
    assert watch.look(TOUCH_S + 1) is None
    touched = (home / LOCK_FILE).stat().st_mtime
    assert touched > 0
    os.utime(home / LOCK_FILE, (0, 0))
    assert watch.look(TOUCH_S + 2) is None
    assert (home / LOCK_FILE).stat().st_mtime == 0


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "emptied and replaced"])
def test_look_reports_what_happened_to_a_lost_home(watched: WatchedHome, how: str) -> None:
    home, watch, _ = watched
    other = home.with_name("other")
    home.rename(other)
    said = f"was moved to {other}"
    if how == "removed":
        for file in other.iterdir():
            file.unlink()
        other.rmdir()
        said = "was removed"
    if "replaced" in how:
        home.mkdir()
        said = "is now another directory"
    lost = watch.look(0.0)
    assert lost is not None
    assert lost.code == "HOME_LOST"
    assert said in lost.what
    if "replaced" in how:
        assert not list(home.iterdir())


def test_look_restores_a_removed_lock_and_key(watched: WatchedHome) -> None:
    home, watch, seed = watched
    (home / LOCK_FILE).unlink()
    (home / KEY_FILE).unlink()
    assert watch.look(0.0) is None
    assert lock_holder(home) == os.getpid()
    assert (home / KEY_FILE).read_bytes() == seed
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert watch.look(0.0) is None


def test_look_marks_the_lock_after_a_full_disk_has_room(
    watched: WatchedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The looks in between must not leak descriptors, or take the unmarked lock for another's."""
    home, watch, _ = watched
    (home / LOCK_FILE).unlink()
    before = len(os.listdir("/proc/self/fd"))

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", refuse)
        assert [watch.look(float(second)) for second in range(5)] == [None] * 5
        assert len(os.listdir("/proc/self/fd")) == before
    assert watch.look(9.0) is None
    assert lock_holder(home) == os.getpid()


def test_look_ignores_a_new_name_of_the_machine(
    watched: WatchedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, watch, _ = watched
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    assert watch.look(0.0) is None


def test_look_reports_a_lock_that_another_process_took(watched: WatchedHome) -> None:
    home, watch, _ = watched
    (home / LOCK_FILE).unlink()
    # The same process, but another open file: the kernel distinguishes them.
    with home_lock(home):
        lost = watch.look(0.0)
    assert lost is not None
    assert "was taken by another process" in lost.what


def test_look_reports_a_lock_that_another_machine_wrote(watched: WatchedHome) -> None:
    """On some shared file systems, locks do not reach other machines."""
    home, watch, _ = watched
    (home / LOCK_FILE).write_text("77\nelsewhere\nanother boot\n", encoding="ascii")
    lost = watch.look(0.0)
    assert lost is not None
    assert "was taken by another process" in lost.what


def test_look_tolerates_a_few_failures_of_the_file_system(
    watched: WatchedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, watch, _ = watched

    def fail(*_: object, **__: object) -> os.stat_result:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", fail)
        assert [watch.look(0.0) for _ in range(MAX_FAILURES - 1)] == [None] * (MAX_FAILURES - 1)
    assert watch.look(0.0) is None
    monkeypatch.setattr(os, "stat", fail)
    lost = [watch.look(0.0) for _ in range(MAX_FAILURES)][-1]
    assert lost is not None
    assert "can no longer be read: Input/output error" in lost.what
