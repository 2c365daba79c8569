"""Tests that one daemon runs per home, also where the kernel's locks do not work."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from daemon.home import lock as lock_module
from daemon.home.layout import LOCK_FILE
from daemon.home.lock import LockHolder, boot_id, find_holder, home_lock, lock_holder
from protocol.errors import UserError

ELSEWHERE = "77\nelsewhere\nanother boot\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "LISTEN_S", 0.4)
    monkeypatch.setattr(lock_module, "POLL_S", 0.02)


def test_the_lock_file_names_the_holder_while_the_home_is_locked(tmp_path: Path) -> None:
    with home_lock(tmp_path):
        held = find_holder(tmp_path)
        assert held is not None
        assert (held.pid, held.boot, held.here) == (os.getpid(), boot_id(), True)
    assert (tmp_path / LOCK_FILE).read_bytes() == b""
    assert find_holder(tmp_path) is None


def test_a_lock_that_another_machine_touches_is_respected(tmp_path: Path) -> None:
    """On some shared file systems, locks do not reach the other machine."""
    file = tmp_path / LOCK_FILE
    file.write_text(ELSEWHERE, encoding="ascii")
    over = threading.Event()

    def touch() -> None:
        while not over.wait(0.05):
            os.utime(file)

    toucher = threading.Thread(target=touch)
    toucher.start()
    said: list[str] = []
    try:
        with pytest.raises(UserError) as caught, home_lock(tmp_path, said.append):
            raise AssertionError("two machines hold one home")
    finally:
        over.set()
        toucher.join()
    assert (caught.value.code, "process 77 on the machine elsewhere" in caught.value.what) == (
        "ALREADY_RUNNING",
        True,
    )
    assert "on elsewhere" in caught.value.fix
    assert "elsewhere" in said[0]
    assert file.read_text(encoding="ascii") == ELSEWHERE


@pytest.mark.parametrize("age_s", [0.0, 100 * 24 * 3600.0])
def test_a_lock_that_another_machine_left_behind_is_replaced(tmp_path: Path, age_s: float) -> None:
    """This happens after a crash, and in the copy of a home."""
    (tmp_path / LOCK_FILE).write_text(ELSEWHERE, encoding="ascii")
    then = time.time() - age_s
    os.utime(tmp_path / LOCK_FILE, (then, then))
    with home_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()


def test_only_a_living_process_holds_a_home_on_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / LOCK_FILE).write_text(f"{os.getppid()}\nhere\n{boot_id()}\n", encoding="ascii")
    assert lock_holder(tmp_path) == os.getppid()
    with pytest.raises(UserError, match="ALREADY_RUNNING"), home_lock(tmp_path):
        raise AssertionError("two processes hold one home")
    (tmp_path / LOCK_FILE).write_text(f"{2**22 + 1}\nhere\n{boot_id()}\n", encoding="ascii")
    assert lock_holder(tmp_path) is None
    with home_lock(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"12\n", b"\xff\xfe\n", b"x\ny\nz", b"\n\n\n\n"])
def test_a_lock_file_with_any_content_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    with home_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()


def test_a_holder_of_an_older_version_counts_as_local() -> None:
    assert LockHolder(pid=3).here
    assert str(LockHolder(pid=0)) == "process unknown"
