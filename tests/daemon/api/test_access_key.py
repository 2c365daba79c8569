"""Tests the key of a home's API."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from daemon.api.access_key import KEY_FILE, load_or_make_key
from protocol.errors import UserError


def test_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path)
    assert load_or_make_key(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert len(key) > 64


@pytest.mark.parametrize("content", [b"", b"two words\n", b"\xff\xfe\n", b"a\nb\n"])
def test_key_file_without_a_key_is_not_used(content: bytes, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(UserError, match="holds no key"):
        load_or_make_key(tmp_path)


def test_key_needs_a_home(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot use the key file"):
        load_or_make_key(tmp_path / "absent")


def test_key_file_without_a_key_is_not_left_by_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("os.write", refuse)
        with pytest.raises(UserError, match="Cannot use the key file"):
            load_or_make_key(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert load_or_make_key(tmp_path)
