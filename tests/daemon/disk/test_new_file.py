"""Tests that `write_new` writes whole files and replaces none, also without hard links."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.cli.main import run
from daemon.disk import new_file
from daemon.disk.new_file import write_new
from daemon.home.node_key import load_or_make_key
from daemon.wallet import files, password
from protocol.errors import UserError
from tests.daemon.disk.plain_fuse import CREATE, mounted

QUICK = 1 << 8
# The errors of link(2) on FAT, exFAT, SMB and FUSE, and across mounts of one file system.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EACCES)

World = Callable[[pytest.MonkeyPatch], None]


def refuse_links(number: int = errno.EPERM) -> World:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return lambda patch: patch.setattr(os, "link", link)


def refuse_both(patch: pytest.MonkeyPatch) -> None:
    refuse_links(errno.ENOSYS)(patch)
    # Like FUSE without the flags of rename.
    patch.setattr(new_file, "_rename_unless_taken", lambda *_: False)


WORLDS = {"links": lambda _: None, "no links": refuse_links(), "neither": refuse_both}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    WORLDS[request.param](monkeypatch)
    return str(request.param)


def test_write_new_writes_a_private_whole_file_and_leaves_no_draft(
    tmp_path: Path, world: str
) -> None:
    assert write_new(tmp_path / "a", b"first" * 1000)
    assert not write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first" * 1000
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", NO_LINKS)
def test_write_new_works_for_each_refusal_of_links(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(number)(monkeypatch)
    assert write_new(tmp_path / "a", b"x")
    assert not write_new(tmp_path / "a", b"y")


def test_one_of_many_concurrent_calls_writes_the_file(tmp_path: Path, world: str) -> None:
    made: list[int] = []

    def make(number: int) -> None:
        if write_new(tmp_path / "a", bytes([number]) * 100):
            made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() == bytes(made) * 100
    assert len(made) == 1


def test_write_new_removes_a_partial_file(
    tmp_path: Path, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the sync of the draft, and of the file itself without a draft."""
    whole = os.fsync

    def fsync(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith("wallet.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if world == "neither":
        with pytest.raises(OSError, match="No space"):
            write_new(tmp_path / "wallet.json", b"x")
        assert os.listdir(tmp_path) == []
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
    )
    with pytest.raises(OSError, match="Input/output"):
        write_new(tmp_path / "other", b"x")
    assert "other" not in os.listdir(tmp_path)


def test_write_new_accepts_a_directory_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert write_new(tmp_path / "a", b"x")


def test_wallet_backup_and_key_are_written_without_links(
    tmp_path: Path, world: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    secret = tmp_path / "password"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    monkeypatch.setenv(password.VARIABLE, str(secret))
    home, stick = tmp_path / "home", tmp_path / "stick"
    stick.mkdir()
    assert run(["--home", str(home), "wallet", "new"]) == 0
    assert run(["--home", str(home), "wallet", "new"]) == 5
    assert run(["--home", str(home), "wallet", "backup", str(stick)]) == 0
    assert run(["--home", str(home), "wallet", "backup", str(stick)]) == 1
    [backup] = stick.iterdir()
    assert backup.read_bytes() == (home / "wallet.json").read_bytes()
    assert load_or_make_key(home)[1] == load_or_make_key(home)[1]
    capfd.readouterr()


def test_no_wallet_is_created_where_others_could_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On FAT, the mount sets the permissions."""
    whole = os.open

    def open_(path: object, flags: int, mode: int = 0o777, **more: object) -> int:
        return whole(path, flags, 0o755 if flags & os.O_CREAT else mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_)
    before = os.umask(0o022)
    try:
        with pytest.raises(UserError, match="umask=077") as caught:
            files.create(tmp_path / "home", bytes(31) + b"\x01", "x", scrypt_n=QUICK)
    finally:
        os.umask(before)
    assert caught.value.code == "WALLET_PERMISSIONS"
    assert os.listdir(tmp_path / "home") == []


@pytest.mark.real
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(),
    reason="only root mounts a file system, by /dev/fuse",
)
def test_wallet_backup_and_key_are_written_on_a_real_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    secret = tmp_path / "password"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    monkeypatch.setenv(password.VARIABLE, str(secret))
    stick = tmp_path / "stick"
    stick.mkdir()
    try:
        with mounted(stick) as served:
            (stick / "one").write_bytes(b"1")
            with pytest.raises(OSError, match=r"not permitted|not implemented"):
                os.link(stick / "one", stick / "two")
            home = stick / "home"
            assert run(["--home", str(home), "wallet", "new"]) == 0
            before = (home / "wallet.json").read_bytes()
            assert run(["--home", str(home), "wallet", "new"]) == 5
            assert run(["--home", str(home), "wallet", "backup", str(stick)]) == 0
            assert run(["--home", str(home), "wallet", "backup", str(stick)]) == 1
            seed = load_or_make_key(home)[1]
            assert load_or_make_key(home)[1] == seed
            assert (home / "wallet.json").read_bytes() == before
            assert sorted(os.listdir(home)) == ["node.key", "wallet.json"]
            [backup] = stick.glob("hypergpu-wallet-*.json")
            assert backup.read_bytes() == before
            # Wallet, backup and key need a draft and the file itself.
            assert served.asked[CREATE] >= 6
    except PermissionError as refused:
        pytest.skip(f"this machine does not allow mounts: {refused}")
    finally:
        capfd.readouterr()
