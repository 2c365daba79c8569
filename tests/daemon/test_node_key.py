"""Tests of the node key and the lock of a home, with real processes where two compete."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.disk.new_file import write_new
from daemon.home.layout import ensure_home, home_directory
from daemon.home.lock import home_lock, lock_holder
from daemon.home.node_key import load_or_make_key
from protocol.errors import UserError
from protocol.identity import verify


def test_a_key_is_created_once_and_then_read(tmp_path: Path) -> None:
    signer, seed = load_or_make_key(tmp_path)
    again, same = load_or_make_key(tmp_path)
    assert (again.peer, same) == (signer.peer, seed)
    assert len(seed) == 32
    assert verify(signer.peer, again.sign(b"x"), b"x")
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["node.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_the_error_for_a_key_that_others_can_read_has_a_working_fix(
    tmp_path: Path, mode: int
) -> None:
    load_or_make_key(tmp_path)
    key = tmp_path / "node.key"
    key.chmod(mode)
    with pytest.raises(UserError) as caught:
        load_or_make_key(tmp_path)
    assert caught.value.code == "KEY_PERMISSIONS"
    assert caught.value.exit_code == 5
    assert caught.value.fix == f"chmod 600 {key}"
    subprocess.run(caught.value.fix.split(), check=True)
    load_or_make_key(tmp_path)


def test_no_key_is_created_where_others_could_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On FAT, the mount sets the permissions, and chmod changes nothing."""
    whole = os.open

    def open_(path: object, flags: int, mode: int = 0o777, **more: object) -> int:
        return whole(path, flags, 0o755 if flags & os.O_CREAT else mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_)
    before = os.umask(0o022)
    try:
        with pytest.raises(UserError, match="umask=077") as caught:
            load_or_make_key(tmp_path)
    finally:
        os.umask(before)
    assert caught.value.code == "KEY_PERMISSIONS"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_refused_and_never_overwritten(tmp_path: Path, data: bytes) -> None:
    key = tmp_path / "node.key"
    assert write_new(key, data)
    with pytest.raises(UserError, match="KEY_DAMAGED"):
        load_or_make_key(tmp_path)
    assert key.read_bytes() == data


def test_write_new_never_replaces(tmp_path: Path) -> None:
    assert write_new(tmp_path / "a", b"first")
    assert not write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.real
def test_starts_at_the_same_time_share_one_key(tmp_path: Path) -> None:
    """Each process waits for the same pipe to close, then creates a key."""
    code = (
        "import os, sys, pathlib; from daemon.home.node_key import load_or_make_key; os.read(0, 1);"
        " print(load_or_make_key(pathlib.Path(sys.argv[1]))[0].peer)"
    )
    gate, opener = os.pipe()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=gate,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    os.close(gate)
    os.close(opener)
    peers = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 6
    assert peers == {load_or_make_key(tmp_path)[0].peer}
    assert os.listdir(tmp_path) == ["node.key"]


def test_a_second_daemon_on_a_home_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    with home_lock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()
        with pytest.raises(UserError) as caught, home_lock(tmp_path):
            raise AssertionError("two processes hold one home")
        assert str(os.getpid()) in caught.value.what
        assert f"hypergpud stop --home {tmp_path}" in caught.value.fix
    assert lock_holder(tmp_path) is None
    with home_lock(tmp_path):
        pass


@pytest.mark.real
def test_a_killed_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from daemon.home.lock import home_lock\n"
        "with home_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert lock_holder(tmp_path) == holder.pid
    holder.kill()
    holder.communicate(timeout=10)
    assert lock_holder(tmp_path) is None


def test_home_directory_prefers_flag_then_variable_then_platform(tmp_path: Path) -> None:
    assert home_directory(str(tmp_path), {"HYPERGPU_HOME": "/x"}) == tmp_path
    assert home_directory(None, {"HYPERGPU_HOME": "/x"}) == Path("/x")
    assert (
        home_directory(None, {"XDG_DATA_HOME": str(tmp_path), "HOME": "/h"})
        == tmp_path / "hypergpu"
    )
    assert home_directory(None, {"XDG_DATA_HOME": "relative", "HOME": "/h"}) == Path(
        "/h/.local/share/hypergpu"
    )


def test_ensure_home_creates_a_private_home_and_keeps_an_existing_one(tmp_path: Path) -> None:
    ensure_home(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o755)
    ensure_home(tmp_path / "mine")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="HOME"):
        ensure_home(tmp_path / "file")


def test_a_new_key_does_not_use_the_files_of_the_old_key(tmp_path: Path) -> None:
    """Two nodes must not offer the same work, or show the same TLS certificate."""
    first, _ = load_or_make_key(tmp_path)
    run = tmp_path / "runs" / ("ab" * 32)
    run.mkdir(parents=True)
    for file in (tmp_path / "bulk.pem", run / "ledger.safetensors", run / "certificates"):
        file.write_text("of the first key", encoding="ascii")
    load_or_make_key(tmp_path)
    assert (tmp_path / "bulk.pem").exists()
    (tmp_path / "node.key").unlink()
    second, _ = load_or_make_key(tmp_path)
    assert second.peer != first.peer
    assert sorted(os.listdir(run)) == ["certificates", "ledger.safetensors.of-another-key"]
    assert not (tmp_path / "bulk.pem").exists()


def test_the_work_of_a_second_old_key_is_kept_beside_the_first(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "aa"
    run.mkdir(parents=True)
    for work in (b"of the first key", b"of the second key"):
        (run / "ledger.safetensors").write_bytes(work)
        load_or_make_key(tmp_path)
        (tmp_path / "node.key").unlink()
    assert {path.read_bytes() for path in run.iterdir()} == {
        b"of the first key",
        b"of the second key",
    }
