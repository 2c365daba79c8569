"""`wallet new|import|show|backup|set-payout`: the account that signs, and the paid address."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import PATH
from daemon.cli.chain.options import password_file
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.home.layout import user_path
from daemon.wallet import files
from daemon.wallet.document import MAX_KEYSTORE_BYTES, BadKeystore, read_keystore
from daemon.wallet.keystore import WrongPassword, new_key, unseal, wallet_of
from daemon.wallet.password import KEY_EXIT_CODE, find_password
from daemon.wallet.text import text_of
from protocol.errors import UserError

# Files of a wallet are readable by their owner only.
PRIVATE = 0o077


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def wallet() -> None:
    """Manage the account that signs for this node, and its payout."""
    os.umask(PRIVATE)


@wallet.command()
@password_file
@global_options(hidden=True)
@click.pass_context
def new(context: click.Context, password_file: Path | None) -> None:
    """Create an account and store it, encrypted, in this home."""

    invocation = invocation_of(context)
    files.refuse_second(invocation.home)
    password = find_password(password_file, os.environ, "", twice=True)
    _say_made(invocation, files.create(invocation.home, new_key(), password.text))


@wallet.command(name="import")
@click.argument("source", metavar="FILE")
@password_file
@global_options(hidden=True)
@click.pass_context
def import_(context: click.Context, source: str, password_file: Path | None) -> None:
    """Import a keystore v3 or a hexadecimal private key from FILE (-: standard input)."""

    invocation = invocation_of(context)
    files.refuse_second(invocation.home)
    raw = _read_source(source)
    key = _key_of_keystore(raw, password_file) if _is_document(raw) else _key_of_hex(raw)
    password = find_password(password_file, os.environ, "", twice=True)
    _say_made(invocation, files.create(invocation.home, key, password.text))


@wallet.command()
@global_options(hidden=True)
@click.pass_context
def show(context: click.Context) -> None:
    """Print the account's address and the payout address. Asks for no password."""

    invocation = invocation_of(context)
    info = files.wallet_info(invocation.home)
    payout = (
        f"{info.payout}  (the wallet itself)"
        if info.payout_is_wallet
        else f"{info.payout}  (its key is not in this home)"
    )
    text = f"wallet    {info.address}\npayout    {payout}\nkeystore  {info.keystore}"
    invocation.result(msgspec.json.encode(info).decode() if invocation.as_json else text)


@wallet.command()
@click.argument("target", type=PATH, metavar="PATH")
@global_options(hidden=True)
@click.pass_context
def backup(context: click.Context, target: Path) -> None:
    """Copy the keystore, still encrypted, to PATH (a file or a directory)."""

    invocation = invocation_of(context)
    path = files.back_up(invocation.home, target)
    invocation.say("The backup opens with the same password. Keep the two in different places.")
    invocation.result(
        msgspec.json.encode({"backup": str(path)}).decode() if invocation.as_json else str(path)
    )


@wallet.command(name="set-payout")
@click.argument("address")
@global_options(hidden=True)
@click.pass_context
def set_payout(context: click.Context, address: str) -> None:
    """Pay rewards to ADDRESS, which may be a cold wallet.

    This takes effect at the next start of the node.
    """

    invocation = invocation_of(context)
    payout = files.set_payout(invocation.home, address)
    invocation.result(
        msgspec.json.encode({"payout": payout}).decode()
        if invocation.as_json
        else f"Rewards go to {payout} from the next start of the node."
    )


def _say_made(invocation: Invocation, address: str) -> None:
    invocation.say(
        "Back it up: hypergpud wallet backup PATH."
        " Without the keystore and its password the account is lost."
    )
    invocation.result(
        msgspec.json.encode({"address": address}).decode() if invocation.as_json else address
    )


def _read_source(source: str) -> bytes:

    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_KEYSTORE_BYTES + 1)
        else:
            with user_path(source, "FILE").open("rb") as file:
                raw = file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        # The message does not repeat the argument: a user may have typed the key itself.
        raise UserError(
            "IMPORT", "Cannot read the file to import.", why=error.strerror or "", exit_code=2
        ) from None
    if len(raw) > MAX_KEYSTORE_BYTES:
        raise UserError(
            "IMPORT",
            "The file to import is not a wallet.",
            why=f"it has more than {MAX_KEYSTORE_BYTES} bytes",
            exit_code=2,
        )
    return raw


def _is_document(raw: bytes) -> bool:
    """Return whether the file is a keystore: a hexadecimal key contains no brace."""
    return b"{" in raw


def _key_of_keystore(raw: bytes, password_file: Path | None) -> bytes:

    try:
        password = find_password(password_file, os.environ, read_keystore(raw).address or "")
        return unseal(raw, password.text).private_key()
    except WrongPassword:
        raise UserError(
            "WALLET_LOCKED",
            "The password does not open the keystore to import.",
            exit_code=KEY_EXIT_CODE,
        ) from None
    except BadKeystore as error:
        raise UserError(
            "IMPORT", "The file to import is not a keystore v3.", why=str(error), exit_code=2
        ) from None


def _key_of_hex(raw: bytes) -> bytes:

    try:
        key = bytes.fromhex(text_of(raw).strip().lower().removeprefix("0x"))
        if len(key) != 32:
            raise ValueError
        wallet_of(key)
    except (ValueError, BadKeystore):
        raise UserError(
            "IMPORT",
            "The file to import contains no private key.",
            why="a key is 64 hexadecimal digits",
            exit_code=2,
        ) from None
    return key
