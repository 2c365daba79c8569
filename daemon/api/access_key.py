"""Keeps the key that clients of the API send: `<home>/api.key`, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from protocol.errors import UserError

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
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with file.open("rb") as stream:
                key = stream.read(MAX_KEY_BYTES).decode("ascii", "backslashreplace").strip()
        else:
            key = _PREFIX + secrets.token_hex(_RANDOM_BYTES)
            with os.fdopen(fd, "w", encoding="ascii") as written:
                written.write(f"{key}\n")
    except OSError as error:
        raise UserError(
            "API_KEY", f"Cannot use the key file {file}.", why=error.strerror or str(error)
        ) from None
    if not key.replace("-", "").isalnum():
        raise UserError(
            "API_KEY",
            f"The file {file} holds no key.",
            why="a key has letters, digits and hyphens",
            fix="remove the file; the next start writes a new key",
        )
    return key
