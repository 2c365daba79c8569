"""Keeps the key that clients of the API send: `<home>/api.key`, readable by its owner alone."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from daemon.disk.atomic import write_atomically
from protocol.errors import UserError
from protocol.ports.disk import DiskFull

KEY_FILE = "api.key"
_PREFIX = "hgpu-"
# 32 random bytes cannot be guessed.
_RANDOM_BYTES = 32
MAX_KEY_BYTES = 1024


def load_or_make_key(home: Path) -> str:
    """Return the home's key, which the first call makes.

    Raises `UserError("API_KEY")` for a file that cannot be read or written, or holds no key.
    """
    file = home / KEY_FILE
    try:
        with file.open("rb") as stream:
            key = stream.read(MAX_KEY_BYTES).decode("ascii", "backslashreplace").strip()
    except FileNotFoundError:
        key = _make_key(file)
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from None
    if not key.replace("-", "").isalnum():
        raise UserError(
            "API_KEY",
            f"The file {file} holds no key.",
            why="a key has letters, digits and hyphens",
            fix="remove the file; the next start writes a new key",
        )
    return key


def _make_key(file: Path) -> str:
    """Write a new key, whole or not at all: a full disk leaves no file without a key."""
    key = _PREFIX + secrets.token_hex(_RANDOM_BYTES)
    if not file.parent.is_dir():
        raise _unusable(file, os.strerror(errno.ENOENT))
    try:
        write_atomically(file, [memoryview(f"{key}\n".encode("ascii"))])
    except DiskFull as full:
        raise _unusable(file, str(full)) from None
    return key


def _unusable(file: Path, why: str) -> UserError:
    return UserError("API_KEY", f"Cannot use the key file {file}.", why=why)
