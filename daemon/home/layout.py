"""Finds a node's home, and names the files in it.

The home is one directory, private to its user. A flag, the environment or the platform's convention
names it.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import UserError

# The errors of a full file system and of a used-up quota.
FULL = (errno.ENOSPC, errno.EDQUOT)
_FIRST = {
    **dict.fromkeys(FULL, "free some space there"),
    errno.EACCES: "run this as the user who owns it",
    errno.EISDIR: "move away what is in its place",
}
# The name of the home in the user's directory for data.
DIRECTORY = "hypergpu"
KEY_FILE = "node.key"
BULK_CERTIFICATE_FILE = "bulk.pem"
WALLET_FILE = "wallet.json"
LOCK_FILE = "lock"
CONFIG_FILE = "config.toml"
SOCKET_FILE = "control.sock"
JOURNAL_FILE = "journal.jsonl"
LOG_FILE = "hypergpud.log"


def home_directory(flag: str | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of the home. Creates nothing.

    The flag comes first, then `HYPERGPU_HOME`, then the user's directory for data
    (https://specifications.freedesktop.org/basedir-spec).

    Raises:
        UserError: "PATH" for an unusable path, "HOME" where the user has no directory for data.
    """
    if flag is not None:
        return user_path(flag, "--home", environ)
    if named := environ.get("HYPERGPU_HOME"):
        return user_path(named, "HYPERGPU_HOME", environ)
    data = environ.get("XDG_DATA_HOME", "")
    # The specification says to ignore a relative path.
    if data.startswith("/"):
        return user_path(data, "XDG_DATA_HOME", environ) / DIRECTORY
    own = _home_of_user("", environ)
    if own is None:
        raise UserError(
            "HOME",
            "Cannot find this user's directory for data.",
            why=f"HOME is not set, and the user {os.getuid()} has no home directory in the"
            " password database",
            fix="name a directory with --home PATH or HYPERGPU_HOME",
            exit_code=2,
        )
    return user_path(own, "HOME", environ) / ".local" / "share" / DIRECTORY


def user_path(text: str, origin: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path for a path that a person typed.

    A leading `~` is expanded, because a shell keeps it in `'~/x'` and in `--home=~/x`. The result
    is not empty, is UTF-8, has no NUL character, and has no name that is too long for the file
    system. `origin` names the place where the path was typed, for the error.

    Raises `UserError("PATH")` with exit code 2.
    """
    if not text:
        raise _no_path(origin, "it is empty", "give a path, or leave it out")
    if "\0" in text:
        raise _no_path(
            origin, "it contains a NUL character", "give the path of a file or directory"
        )
    if not is_unicode(text):
        raise _no_path(
            origin, "it is not UTF-8 text", "rename the file or directory, or name another one"
        )
    path = Path(text)
    if text.startswith("~"):
        user, _, rest = text[1:].partition("/")
        own = _home_of_user(user, environ)
        if own is None:
            whose = f"the user {user!r}" if user else "this user"
            raise _no_path(
                origin,
                f"it begins with ~{user}, and {whose} has no home directory",
                "write the path in full, from / on",
            )
        path = Path(own, rest)
    try:
        path = path.absolute()
        path.lstat()
    except OSError as error:
        if not path.is_absolute():
            raise _no_path(
                origin,
                "it is relative, and the current directory no longer exists",
                "cd to a directory that exists",
            ) from None
        if error.errno == errno.ENAMETOOLONG:
            raise _no_path(
                origin, "it is longer than the file system allows", "name a shorter path"
            ) from None
    return path


def _home_of_user(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the user's home directory, or None.

    An empty name means the user of this process, for whom HOME counts first.
    """
    own = environ.get("HOME", "")
    if not name and own.startswith("/"):
        return own
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return entry.pw_dir if entry.pw_dir.startswith("/") else None


def is_unicode(text: str) -> bool:
    """Return whether the text can be encoded in UTF-8.

    Python turns an argument's other bytes into lone surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_path(origin: str, why: str, fix: str) -> UserError:
    return UserError(
        "PATH", f"The path given by {origin} cannot be used.", why=why, fix=fix, exit_code=2
    )


def ensure_home(home: Path) -> None:
    """Make the home with mode 0700 if it does not exist. An existing one is not changed.

    Raises `UserError("HOME")`.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable_home(home, error) from None


def unusable_home(home: Path, error: OSError) -> UserError:
    """Return `UserError("HOME")` for a home in which a file cannot be read or written."""

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
