"""The wallet's files in a home: `wallet.json` (a keystore v3) and `payout` (the address to pay).

`wallet.json` is never overwritten. The payout address may be any account, such as a cold wallet. A
file is written atomically with permissions 0600.
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from daemon.disk.atomic import write_atomically
from daemon.disk.new_file import write_new
from daemon.home.layout import WALLET_FILE, ensure_home
from daemon.wallet.document import MAX_KEYSTORE_BYTES, BadKeystore
from daemon.wallet.keystore import (
    SCRYPT_N,
    UnlockedWallet,
    WrongPassword,
    address_in,
    seal,
    unseal,
    wallet_of,
)
from daemon.wallet.password import KEY_EXIT_CODE, Password, locked
from protocol.chain.keccak import ZERO_ADDRESS, checked_address
from protocol.errors import UserError
from protocol.ports.disk import DiskFull

PAYOUT_FILE = "payout"


class WalletInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The public facts of a home's wallet, as `wallet show --json` prints them."""

    address: str
    payout: str
    payout_is_wallet: bool
    keystore: str


def has_wallet(home: Path) -> bool:
    return (home / WALLET_FILE).exists()


def wallet_info(home: Path) -> WalletInfo:
    """Return the wallet's public facts.

    Raises `UserError("NO_WALLET" | "WALLET_NOT_OURS" | "WALLET_UNREADABLE" | "PAYOUT")`.
    """
    address = address_in_home(home)
    payout = payout_of(home) or address
    return WalletInfo(
        address=address,
        payout=payout,
        payout_is_wallet=payout == address,
        keystore=str(home / WALLET_FILE),
    )


def address_in_home(home: Path) -> str:
    """Return the wallet's EIP-55 address, without a password."""
    try:
        return address_in(_document(home))
    except BadKeystore as error:
        raise _unreadable(home, str(error)) from None


def unlock(home: Path, password: Password) -> UnlockedWallet:
    """Unlock the wallet, which takes about a second by design. Raises `UserError` (exit code 5)."""
    try:
        return unseal(_document(home), password.text)
    except WrongPassword:
        raise locked(
            f"the password from {password.source} does not open {home / WALLET_FILE}"
        ) from None
    except BadKeystore as error:
        raise _unreadable(home, str(error)) from None


def create(home: Path, key: bytes, password: str, *, scrypt_n: int = SCRYPT_N) -> str:
    """Put a key into the home, encrypted. Returns its address.

    Raises `UserError` with "WALLET_EXISTS" (a wallet is never overwritten), "WALLET_PERMISSIONS"
    (the file system cannot keep it private) or "WALLET_WRITE".
    """
    ensure_home(home)
    refuse_second(home)
    wallet, path = wallet_of(key), home / WALLET_FILE
    try:
        if not write_new(path, seal(key, password, scrypt_n=scrypt_n)):
            # Another command was faster.
            raise _exists(home)
    except OSError as error:
        raise UserError(
            "WALLET_WRITE",
            f"Cannot write the wallet {path}.",
            why=error.strerror or str(error),
            fix="free some space there, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        ) from None
    mode = stat.S_IMODE(path.stat().st_mode)
    # On FAT and similar file systems, the mount sets the permissions, and no command would open
    # this wallet.
    if mode & 0o077:
        path.unlink()
        raise UserError(
            "WALLET_PERMISSIONS",
            f"No wallet was made: other users could read a wallet in {home}.",
            why=f"this file system gives every file the permissions {mode:04o}",
            fix="mount it with umask=077, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        )
    return wallet.address


def refuse_second(home: Path) -> None:
    """Raise `UserError("WALLET_EXISTS")` for a home with a wallet, before any password is asked."""
    if has_wallet(home):
        raise _exists(home)


def back_up(home: Path, target: Path) -> Path:
    """Copy the encrypted keystore to a file or into a directory. Returns the copy's path.

    A backup never overwrites a file.
    """
    document = _document(home)
    path = target / f"hypergpu-wallet-{address_in_home(home)}.json" if target.is_dir() else target
    try:
        made = write_new(path, document)
    except OSError as error:
        raise UserError(
            "BACKUP", f"Cannot write the backup {path}.", why=error.strerror or str(error)
        ) from None
    if not made:
        raise UserError(
            "BACKUP",
            f"The file {path} exists already.",
            why="a backup never overwrites",
            fix="name another file",
        )
    return path


def set_payout(home: Path, text: str) -> str:
    """Set the address that is paid from now on.

    Returns the address as EIP-55 text. Raises `UserError("ADDRESS")` (exit code 2).
    """
    try:
        address = checked_address(text)
    except ValueError as error:
        raise UserError(
            "ADDRESS", f"{text!r} is not an address that can be paid.", why=str(error), exit_code=2
        ) from None
    if address == ZERO_ADDRESS:
        raise UserError(
            "ADDRESS",
            "Payments to the zero address are lost: nobody has its key.",
            exit_code=2,
        )
    ensure_home(home)
    try:
        write_atomically(home / PAYOUT_FILE, [memoryview(address.encode() + b"\n")])
    except DiskFull as error:
        raise UserError(
            "DISK", "The payout address could not be written.", why=str(error)
        ) from None
    return address


def payout_of(home: Path) -> str | None:
    """Return the payout address that was set, or None.

    Raises `UserError("PAYOUT")` for a damaged file, so that no payment goes astray silently.
    """
    path = home / PAYOUT_FILE
    try:
        text = path.read_text(encoding="ascii").strip()
        return checked_address(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            "PAYOUT",
            f"{path} contains no address.",
            why=str(error),
            fix="hypergpud wallet set-payout ADDRESS",
            exit_code=2,
        ) from None


def _document(home: Path) -> bytes:
    path = home / WALLET_FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(
            "NO_WALLET",
            f"There is no wallet in {home}.",
            fix="hypergpud wallet new, or hypergpud wallet import FILE",
            exit_code=KEY_EXIT_CODE,
        ) from None
    except PermissionError as error:
        raise _not_ours(path, error.strerror or str(error)) from None
    except OSError as error:
        raise _unreadable(home, error.strerror or str(error)) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _unreadable(home, "it is not a file")
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & 0o077:
            raise UserError(
                "WALLET_PERMISSIONS",
                f"Other users can read the wallet {path}.",
                why=f"its permissions are {mode:04o}, and anyone with the file can try passwords",
                fix=f"chmod 600 {path}",
                exit_code=KEY_EXIT_CODE,
            )
        return os.read(handle, MAX_KEYSTORE_BYTES + 1)
    finally:
        os.close(handle)


def _not_ours(path: Path, why: str) -> UserError:
    """Make the error for a wallet of another user. The wallet is intact, so no backup is needed."""
    owner, fix = (
        "",
        "run hypergpud as the user who owns the wallet, or name another home with --home PATH",
    )
    # The directory may be unreadable, too.
    with suppress(OSError):
        uid = path.stat().st_uid
        if uid == os.geteuid():
            fix = f"chmod 600 {path}"
        else:
            owner = f"; the user {_user(uid)} owns it, and you are {_user(os.geteuid())}"
    return UserError(
        "WALLET_NOT_OURS",
        f"You may not read the wallet {path}.",
        why=why + owner,
        fix=fix,
        exit_code=KEY_EXIT_CODE,
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _unreadable(home: Path, why: str) -> UserError:
    return UserError(
        "WALLET_UNREADABLE",
        f"{home / WALLET_FILE} cannot be used.",
        why=why,
        fix="put your backup in its place",
        exit_code=KEY_EXIT_CODE,
    )


def _exists(home: Path) -> UserError:
    return UserError(
        "WALLET_EXISTS",
        f"{home} has a wallet already: {address_in_home(home)}.",
        why="a wallet is never overwritten",
        fix=f"hypergpud wallet backup FILE, then move {home / WALLET_FILE} away",
        exit_code=KEY_EXIT_CODE,
    )
