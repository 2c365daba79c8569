"""What happens to a home under a running node, one look at a time."""

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

HomeAndWatch = tuple[Path, HomeWatcher, bytes]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[HomeAndWatch]:
    """A home that is held, and its watch."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with home_lock(home):
        _, seed = load_or_make_key(home)
        watch = HomeWatcher(home, seed)
        yield home, watch, seed
        watch.close()


def test_a_home_that_is_whole_goes_on_and_its_lock_is_touched(watched: HomeAndWatch) -> None:
    home, watch, _ = watched
    os.utime(home / LOCK_FILE, (0, 0))
    assert watch.look(TOUCH_S + 1) is None
    touched = (home / LOCK_FILE).stat().st_mtime
    assert touched > 0
    os.utime(home / LOCK_FILE, (0, 0))
    assert watch.look(TOUCH_S + 2) is None
    assert (home / LOCK_FILE).stat().st_mtime == 0


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "emptied and replaced"])
def test_a_home_that_is_gone_ends_the_node_with_what_happened(
    watched: HomeAndWatch, how: str
) -> None:
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


def test_a_lock_and_a_key_that_a_cleaner_removed_are_made_again(watched: HomeAndWatch) -> None:
    home, watch, seed = watched
    (home / LOCK_FILE).unlink()
    (home / KEY_FILE).unlink()
    assert watch.look(0.0) is None
    assert lock_holder(home) == os.getpid()
    assert (home / KEY_FILE).read_bytes() == seed
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert watch.look(0.0) is None


def test_a_lock_that_a_full_disk_does_not_take_is_marked_later(
    watched: HomeAndWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look left an open file behind, and the one after it took the unmarked lock for another
    process's.
    """
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


def test_look_goes_on_when_the_machine_gets_another_name(
    watched: HomeAndWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, watch, _ = watched
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    assert watch.look(0.0) is None


def test_a_lock_that_another_process_took_meanwhile_ends_the_node(watched: HomeAndWatch) -> None:
    home, watch, _ = watched
    (home / LOCK_FILE).unlink()
    # Of this process too, through another open file: the kernel tells them apart.
    with home_lock(home):
        lost = watch.look(0.0)
    assert lost is not None
    assert "was taken by another process" in lost.what


def test_a_lock_that_another_machine_wrote_into_ends_the_node(watched: HomeAndWatch) -> None:
    """As where the file system's locks do not reach the other machine."""
    home, watch, _ = watched
    (home / LOCK_FILE).write_text("77\nelsewhere\nanother boot\n", encoding="ascii")
    lost = watch.look(0.0)
    assert lost is not None
    assert "was taken by another process" in lost.what


def test_a_file_system_that_fails_for_a_moment_is_waited_for(
    watched: HomeAndWatch, monkeypatch: pytest.MonkeyPatch
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
