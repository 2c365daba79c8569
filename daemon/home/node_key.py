"""The node key: a 32-byte Ed25519 seed in the home, made on first use and never overwritten.

A lost key is a lost identity.
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
LEDGERS = "runs/*/ledger.safetensors"  # see daemon/disk/file_disk.py
OF_OTHER_KEY = ".of-another-key"


def load_or_make_key(home: Path) -> tuple[Signer, bytes]:
    """The node's signer and the seed behind it.

    Guarantees: the file is whole or absent whatever happens, readable by its owner alone, and the
    same for two callers at once. Raises `UserError` (exit code 5) for a key that others could read,
    that is damaged, or that cannot be read or written.
    """
    path = home / KEY_FILE
    try:
        if not path.exists():
            _leave_old_identity(home)
            # The call that loses the race reads the winner's key.
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
    """Remove the key that was just made, where its file system lets others read it.

    FAT and its kind have the permissions of the mount, and chmod changes nothing there. Raises
    `UserError("KEY_PERMISSIONS")`.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.unlink()
        raise UserError(
            "KEY_PERMISSIONS",
            f"A node key in {path.parent} could be read by others, so none was made.",
            why=f"this file system makes files with permissions {mode:04o}, whatever is asked for",
            fix="mount it with umask=077, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        )


def _leave_old_identity(home: Path) -> None:
    """Set aside what belongs to the key that was here before: its certificate, and the work that it
    alone may offer.
    """
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
        # Of the open file: what is checked is what is read.
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise _damaged(path, "it is no file")
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            raise UserError(
                "KEY_PERMISSIONS",
                f"The node key {path} can be read by others.",
                why=f"its permissions are {mode:04o}; whoever reads it can be this node",
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
        fix=f"put your backup in its place, or move it away to get a new identity: mv {path} {path}.damaged",
        exit_code=KEY_EXIT_CODE,
    )
