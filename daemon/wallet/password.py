"""Finds the wallet's password: in a file, a systemd credential, the OS keyring, or at a prompt.

The order is `--password-file`, `HYPERGPU_PASSWORD_FILE`, the credential, the keyring, the prompt.
The password itself is never an argument or an environment variable, since others can read both.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from daemon.home.layout import user_path
from daemon.wallet.text import text_of
from protocol.errors import UserError

VARIABLE = "HYPERGPU_PASSWORD_FILE"
# systemd: LoadCredential=hypergpu-wallet:/path.
CREDENTIAL = "hypergpu-wallet"
KEYRING_SERVICE = "hypergpu"
MAX_PASSWORD_BYTES = 4096
KEY_EXIT_CODE = 5

Prompt = Callable[[str], str]


class Password(msgspec.Struct, frozen=True, kw_only=True):
    """A password and its source. The `repr` does not show the password."""

    text: str
    source: str

    def __repr__(self) -> str:
        return f"Password(from {self.source})"


def locked(why: str) -> UserError:
    """Make the error of a command that needs the key and has no password."""
    return UserError(
        "WALLET_LOCKED",
        "The wallet is locked.",
        why=why,
        fix="name a file that only you can read: --password-file PATH, or "
        "HYPERGPU_PASSWORD_FILE=PATH",
        exit_code=KEY_EXIT_CODE,
    )


def find_password(
    flag: Path | None,
    environ: Mapping[str, str],
    account: str,
    *,
    prompt: Prompt | None = None,
    twice: bool = False,
    may_ask: bool = True,
) -> Password:
    """Return the password of the first source that has one.

    `account` names the wallet in the keyring. Without a `prompt` function, the user is asked at the
    terminal. Without `may_ask`, nobody is asked.

    Raises `UserError("WALLET_LOCKED" | "PASSWORD_FILE")`, exit code 5.
    """
    if flag is not None:
        return Password(text=read_password_file(flag, "--password-file"), source="--password-file")
    if named := environ.get(VARIABLE):
        return Password(
            text=read_password_file(user_path(named, VARIABLE, environ), VARIABLE), source=VARIABLE
        )
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / CREDENTIAL
        if credential.exists():
            return Password(
                text=read_password_file(credential, "systemd credential", private=False),
                source="systemd credential",
            )
    if (kept := _from_keyring(account)) is not None:
        return Password(text=kept, source="keyring")
    if not may_ask:
        raise locked("there is no password file, no credential and no keyring entry")
    return Password(text=_ask(prompt, twice=twice), source="prompt")


def read_password_file(path: Path, source: str, *, private: bool = True) -> str:
    """Read a file's first line, without a byte order mark and a line end of any system.

    Raises `UserError("PASSWORD_FILE")` if other users can read the file, or if the line is empty.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            raw = os.read(handle, MAX_PASSWORD_BYTES + 1)
        finally:
            os.close(handle)
        if private and mode & 0o077:
            raise _file_error(
                path,
                source,
                f"its permissions are {mode:04o}: others can read it",
                f"chmod 600 {path}",
            )
        if len(raw) > MAX_PASSWORD_BYTES:
            raise _file_error(
                path,
                source,
                f"it has more than {MAX_PASSWORD_BYTES} bytes",
                "put the password alone on its first line",
            )
        text = text_of(raw).split("\n", 1)[0].removesuffix("\r")
    except OSError as error:
        raise _file_error(path, source, error.strerror or str(error), "check the path") from None
    except UnicodeDecodeError:
        raise _file_error(
            path,
            source,
            "it is neither UTF-8 text nor UTF-16 text with a byte order mark",
            "put the password alone on its first line",
        ) from None
    if not text:
        raise _file_error(
            path, source, "its first line is empty", "put the password alone on its first line"
        )
    return text


def _file_error(path: Path, source: str, why: str, fix: str) -> UserError:
    return UserError(
        "PASSWORD_FILE",
        f"The password file {path} ({source}) cannot be used.",
        why=why,
        fix=fix,
        exit_code=KEY_EXIT_CODE,
    )


def _from_keyring(account: str) -> str | None:
    """Read the password from the keyring.

    Returns None without the extra `hypergpu[keyring]`, an unlocked keyring, or an entry.
    """
    try:
        # An extra, since most servers have no keyring.
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        found = keyring.get_password(KEYRING_SERVICE, account)
    except KeyringError:
        return None
    return found or None


def _ask(prompt: Prompt | None, *, twice: bool) -> str:
    if prompt is None:
        if not sys.stdin.isatty():
            raise locked(
                "there is no password file, no credential, no keyring entry, and no terminal"
            )
        prompt = getpass.getpass
    text = prompt("Password of the wallet: ")
    if not text:
        raise locked("the password is empty")
    if twice and prompt("Repeat the password: ") != text:
        raise locked("the two passwords differ")
    return text
