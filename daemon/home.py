"""Where a node keeps what is its own: one directory, private to its user, named by flag, environment or platform convention."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)  # what a medium that is full, or a quota that is used up, says
_FIRST = {
    **dict.fromkeys(FULL, "free some space there"),
    errno.EACCES: "run this as the user whom it belongs to",
    errno.EISDIR: "move away what is in its place",
}
KEY_FILE = "node.key"
WALLET_FILE = "wallet.json"
LOCK_FILE = "lock"
CONFIG_FILE = "config.toml"
SOCKET_FILE = "control.sock"
JOURNAL_FILE = "journal.jsonl"
LOG_FILE = "hypergpud.log"


def home_directory(flag: str | None, environ: Mapping[str, str]) -> Path:
    """The home in force, absolute: the flag, else `HYPERGPU_HOME`, else the platform's place for a user's data. Creates nothing."""
    named = flag or environ.get("HYPERGPU_HOME")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path  # noqa: PLC0415  # 8 ms that a command with a home of its own does not pay

    return Path(user_data_path("hypergpu"))


def ensure_home(home: Path) -> None:
    """Make the directory (0700) where it is missing. One that exists is left as its owner made it.

    Raises `UserError("HOME")` when that is impossible.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(home, error) from None


def unusable(home: Path, error: OSError) -> UserError:
    """`UserError("HOME")` for a home in which something cannot be read or written; `error` names the file where it knows it."""
    where = f"{error.filename}: " if error.filename and Path(error.filename) != home else ""
    other = "name another directory with --home PATH or HYPERGPU_HOME"
    first = _FIRST.get(error.errno or 0)
    return UserError(
        "HOME",
        f"Cannot use {home} as the home of a node.",
        why=where + (error.strerror or str(error)),
        fix=f"{first}, or {other}" if first else other,
        exit_code=2,
    )
