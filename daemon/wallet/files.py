"""The wallet in a home: `wallet.json` (a keystore v3, never overwritten) and `payout` (the address
that is paid, where it is another one).

The payout address may be anybody's: a cold wallet whose key is nowhere near this machine is only
named here. Files are 0600 and written whole.
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
    """What anybody may know of a home's wallet; what `wallet show --json` prints."""

    address: str
    payout: str
    payout_is_wallet: bool
    keystore: str


def has_wallet(home: Path) -> bool:
    return (home / WALLET_FILE).exists()


def wallet_info(home: Path) -> WalletInfo:
    """Raises `UserError("NO_WALLET" | "WALLET_NOT_OURS" | "WALLET_UNREADABLE" | "PAYOUT")`."""
    address = address_in_home(home)
    payout = payout_of(home) or address
    return WalletInfo(
        address=address,
        payout=payout,
        payout_is_wallet=payout == address,
        keystore=str(home / WALLET_FILE),
    )


def address_in_home(home: Path) -> str:
    """The wallet's EIP-55 address; no password is needed."""
    try:
        return address_in(_document(home))
    except BadKeystore as error:
        raise _unreadable(home, str(error)) from None


def unlock(home: Path, password: Password) -> UnlockedWallet:
    """Takes about a second, on purpose. Raises `UserError` (exit code 5)."""
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

    Raises `UserError`: "WALLET_EXISTS" (a wallet is never overwritten), "WALLET_PERMISSIONS" where
    it could not be kept private, "WALLET_WRITE".
    """
    ensure_home(home)
    refuse_second(home)
    wallet, path = wallet_of(key), home / WALLET_FILE
    try:
        if not write_new(path, seal(key, password, scrypt_n=scrypt_n)):
            raise _exists(home)  # another command was quicker
    except OSError as error:
        raise UserError(
            "WALLET_WRITE",
            f"Cannot write the wallet {path}.",
            why=error.strerror or str(error),
            fix="free some space there, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        ) from None
    mode = stat.S_IMODE(path.stat().st_mode)
    # FAT and its kind have the permissions of the mount, and no command would open this wallet.
    if mode & 0o077:
        path.unlink()
        raise UserError(
            "WALLET_PERMISSIONS",
            f"A wallet in {home} could be read by others, so none was made.",
            why=f"this file system makes files with permissions {mode:04o}, whatever is asked for",
            fix="mount it with umask=077, or name another home with --home PATH",
            exit_code=KEY_EXIT_CODE,
        )
    return wallet.address


def refuse_second(home: Path) -> None:
    """Before a password is asked for: raises `UserError("WALLET_EXISTS")` where there is a wallet."""
    if has_wallet(home):
        raise _exists(home)


def back_up(home: Path, target: Path) -> Path:
    """A copy of the keystore, still encrypted.

    `target` may be a directory. Never overwrites. Returns where it is.
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
            f"There is a file {path} already.",
            why="a backup never overwrites",
            fix="name another file",
        )
    return path


def set_payout(home: Path, text: str) -> str:
    """From now on this address is paid.

    Returns it as EIP-55 text. Raises `UserError("ADDRESS")` (exit code 2).
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
            "Nobody has the key of the zero address; what is paid there is lost.",
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
    """The payout address that was set, or None.

    Raises `UserError("PAYOUT")` for a damaged file: money must not go astray silently.
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
            f"{path} holds no address.",
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
            raise _unreadable(home, "it is no file")
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & 0o077:
            raise UserError(
                "WALLET_PERMISSIONS",
                f"The wallet {path} can be read by others.",
                why=f"its permissions are {mode:04o}; whoever has it can try passwords",
                fix=f"chmod 600 {path}",
                exit_code=KEY_EXIT_CODE,
            )
        return os.read(handle, MAX_KEYSTORE_BYTES + 1)
    finally:
        os.close(handle)


def _not_ours(path: Path, why: str) -> UserError:
    """A wallet that this user may not read: nothing is wrong with it, so a backup mends nothing."""
    owner, fix = (
        "",
        "run hypergpud as the user that the wallet belongs to, or name another home with --home PATH",
    )
    # What is in the directory may be hidden too.
    with suppress(OSError):
        uid = path.stat().st_uid
        if uid == os.geteuid():
            fix = f"chmod 600 {path}"
        else:
            owner = f"; it belongs to the user {_user(uid)}, and this is {_user(os.geteuid())}"
    return UserError(
        "WALLET_NOT_OURS",
        f"The wallet {path} may not be read.",
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
        f"There is a wallet in {home} already: {address_in_home(home)}.",
        why="a wallet is never overwritten",
        fix=f"hypergpud wallet backup FILE, then move {home / WALLET_FILE} away",
        exit_code=KEY_EXIT_CODE,
    )
