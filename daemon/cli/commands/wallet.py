"""`wallet new|import|show|backup|set-payout`: the account that signs for this node, and the address
that is paid.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import PATH, CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation
from daemon.home.layout import user_path
from protocol.errors import UserError

PRIVATE = 0o077

# The keystore is imported when a command runs: --help looks at all commands, and eth-account takes
# half a second.

password_file = click.option(
    "--password-file",
    type=PATH,
    metavar="PATH",
    help="File with the wallet's password on its first line (also: HYPERGPU_PASSWORD_FILE).",
)


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def wallet() -> None:
    """The account that signs for this node, and the address that is paid."""
    os.umask(PRIVATE)


@wallet.command()
@password_file
@global_options(hidden=True)
@click.pass_context
def new(context: click.Context, password_file: Path | None) -> None:
    """Make an account and keep it, encrypted, in this home."""
    from daemon.wallet import files  # noqa: PLC0415
    from daemon.wallet.keystore import new_key  # noqa: PLC0415
    from daemon.wallet.password import find_password  # noqa: PLC0415

    talk = invocation(context)
    files.refuse_second(talk.home)
    password = find_password(password_file, os.environ, "", twice=True)
    _say_made(talk, files.create(talk.home, new_key(), password.text))


@wallet.command(name="import")
@click.argument("source", metavar="FILE")
@password_file
@global_options(hidden=True)
@click.pass_context
def import_(context: click.Context, source: str, password_file: Path | None) -> None:
    """Take over a keystore v3, or a private key in hexadecimal, from FILE (- is the standard
    input).
    """
    from daemon.wallet import files  # noqa: PLC0415
    from daemon.wallet.password import find_password  # noqa: PLC0415

    talk = invocation(context)
    files.refuse_second(talk.home)
    raw = _read_source(source)
    key = _key_of_keystore(raw, password_file) if _is_document(raw) else _key_of_hex(raw)
    password = find_password(password_file, os.environ, "", twice=True)
    _say_made(talk, files.create(talk.home, key, password.text))


@wallet.command()
@global_options(hidden=True)
@click.pass_context
def show(context: click.Context) -> None:
    """Print the account's address and the one that is paid. Asks for no password."""
    from daemon.wallet import files  # noqa: PLC0415

    talk = invocation(context)
    info = files.wallet_info(talk.home)
    payout = (
        f"{info.payout}  (the wallet itself)"
        if info.payout_is_wallet
        else f"{info.payout}  (only watched: its key is not here)"
    )
    text = f"wallet    {info.address}\npayout    {payout}\nkeystore  {info.keystore}"
    talk.result(msgspec.json.encode(info).decode() if talk.as_json else text)


@wallet.command()
@click.argument("target", type=PATH, metavar="PATH")
@global_options(hidden=True)
@click.pass_context
def backup(context: click.Context, target: Path) -> None:
    """Copy the keystore, still encrypted, to PATH (a file or a directory)."""
    from daemon.wallet import files  # noqa: PLC0415

    talk = invocation(context)
    path = files.back_up(talk.home, target)
    talk.say("It opens with the same password: keep both, in two places.")
    talk.result(msgspec.json.encode({"backup": str(path)}).decode() if talk.as_json else str(path))


@wallet.command(name="set-payout")
@click.argument("address")
@global_options(hidden=True)
@click.pass_context
def set_payout(context: click.Context, address: str) -> None:
    """Have rewards paid to ADDRESS, which may be a cold wallet.

    In force from the next start of the node.
    """
    from daemon.wallet import files  # noqa: PLC0415

    talk = invocation(context)
    payout = files.set_payout(talk.home, address)
    talk.result(
        msgspec.json.encode({"payout": payout}).decode()
        if talk.as_json
        else f"Rewards go to {payout} from the next start on."
    )


def _say_made(talk: Invocation, address: str) -> None:
    talk.say(
        "Back it up: hypergpud wallet backup PATH. Whoever loses keystore or password loses the account."
    )
    talk.result(msgspec.json.encode({"address": address}).decode() if talk.as_json else address)


def _read_source(source: str) -> bytes:
    from daemon.wallet.document import MAX_KEYSTORE_BYTES  # noqa: PLC0415

    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_KEYSTORE_BYTES + 1)
        else:
            with user_path(source, "FILE").open("rb") as file:
                raw = file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        # The argument is not repeated: somebody may have put the key itself there.
        raise UserError(
            "IMPORT", "The file to import cannot be read.", why=error.strerror or "", exit_code=2
        ) from None
    if len(raw) > MAX_KEYSTORE_BYTES:
        raise UserError(
            "IMPORT",
            "The file to import is no wallet.",
            why=f"it has more than {MAX_KEYSTORE_BYTES} bytes",
            exit_code=2,
        )
    return raw


def _is_document(raw: bytes) -> bool:
    """Whether it is meant as a keystore: whatever else it is, a key in hexadecimal has no brace."""
    return b"{" in raw


def _key_of_keystore(raw: bytes, password_file: Path | None) -> bytes:
    from daemon.wallet.document import BadKeystore, read_keystore  # noqa: PLC0415
    from daemon.wallet.keystore import WrongPassword, unseal  # noqa: PLC0415
    from daemon.wallet.password import KEY_EXIT_CODE, find_password  # noqa: PLC0415

    try:
        password = find_password(password_file, os.environ, read_keystore(raw).address or "")
        return unseal(raw, password.text).private_key()
    except WrongPassword:
        raise UserError(
            "WALLET_LOCKED",
            "That password does not open the keystore to import.",
            exit_code=KEY_EXIT_CODE,
        ) from None
    except BadKeystore as error:
        raise UserError(
            "IMPORT", "The file to import is no keystore v3.", why=str(error), exit_code=2
        ) from None


def _key_of_hex(raw: bytes) -> bytes:
    from daemon.wallet.document import BadKeystore  # noqa: PLC0415
    from daemon.wallet.keystore import wallet_of  # noqa: PLC0415
    from daemon.wallet.text import text_of  # noqa: PLC0415

    try:
        key = bytes.fromhex(text_of(raw).strip().lower().removeprefix("0x"))
        if len(key) != 32:
            raise ValueError
        wallet_of(key)
    except (ValueError, BadKeystore):
        raise UserError(
            "IMPORT",
            "The file to import holds no private key.",
            why="a key is 64 hexadecimal digits",
            exit_code=2,
        ) from None
    return key
