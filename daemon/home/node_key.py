"""Loads the node key: a 32-byte Ed25519 seed in the home.

The key is made on first use and never overwritten. A lost key is a lost identity.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path

from daemon.disk.new_file import write_new
from daemon.home.layout import BULK_CERTIFICATE_FILE, FULL, KEY_FILE
from protocol.errors import UserError
from protocol.identity import Signer

SEED_BYTES = 32
KEY_EXIT_CODE = 5
# See daemon/disk/run_folder.py.
LEDGERS = "runs/*/ledger.safetensors"
OF_OTHER_KEY = ".of-another-key"


def load_or_make_key(home: Path) -> tuple[Signer, bytes]:
    """Return the node's signer, and the seed behind it.

    The file is whole or absent at every instant, and only its owner can read it. Two concurrent
    calls return the same key.

    Raises `UserError` with exit code 5 for a key that others could read, that is damaged, or that
    cannot be read or written.
    """
    path = home / KEY_FILE
    try:
        if not path.exists():
            _leave_old_identity(home)
            # When two calls run at once, the second reads the key of the first.
            if write_new(path, os.urandom(SEED_BYTES)):
                _keep_private(path)
        seed = _read(path)
    except OSError as error:
        raise UserError(
            "KEY_UNREADABLE",
            f"Cannot read or make the node key {path}.",
            why=error.strerror or str(error),
            fix=f"free some space in {home}, or name another with --home PATH"
            if error.errno in FULL
            else f"make {home} a directory that you own, or name another with --home PATH",
            exit_code=KEY_EXIT_CODE,
        ) from None
    return Signer(seed), seed


def _keep_private(path: Path) -> None:
    """Remove the new key, and raise `UserError("KEY_PERMISSIONS")`, if others could read it.

    On FAT and similar file systems, all files have the permissions of the mount.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.unlink()
        raise UserError(
            "KEY_PERMISSIONS",
            f"Other users could read a node key in {path.parent}, so none was made.",
            why=f"this file system makes all files with permissions {mode:04o}",
            fix="mount it with umask=077, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        )


def _leave_old_identity(home: Path) -> None:
    """Set aside the files of an earlier key: its certificate, and its pending work."""
    for file in (home / BULK_CERTIFICATE_FILE, *home.glob(LEDGERS)):
        taken = {other.name for other in file.parent.glob(f"{file.name}{OF_OTHER_KEY}*")}
        names = (
            f"{file.name}{OF_OTHER_KEY}{f'-{number}' if number > 1 else ''}" for number in count(1)
        )
        with suppress(FileNotFoundError):
            file.rename(file.with_name(next(name for name in names if name not in taken)))


def _read(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Check the open file, so that the checked file is the one that is read.
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise _damaged(path, "it is not a regular file")
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            raise UserError(
                "KEY_PERMISSIONS",
                f"Other users can read the node key {path}.",
                why=f"its permissions are {mode:04o}; anyone who reads the key can impersonate this"
                " node",
                fix=f"chmod 600 {path}",
                exit_code=KEY_EXIT_CODE,
            )
        seed = os.read(handle, SEED_BYTES + 1)
    finally:
        os.close(handle)
    if len(seed) != SEED_BYTES:
        raise _damaged(path, f"a key has exactly {SEED_BYTES} bytes, this file has {about.st_size}")
    return seed


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        "KEY_DAMAGED",
        f"{path} is not a node key.",
        why=why,
        fix="put your backup in its place, or move it away to get a new identity:"
        f" mv {path} {path}.damaged",
        exit_code=KEY_EXIT_CODE,
    )
