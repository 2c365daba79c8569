"""Options that the commands about money share."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import PATH
from daemon.wallet import files
from protocol.chain.keccak import Address, checked_address
from protocol.errors import UserError

run_option = click.option(
    "--run",
    "run_id",
    metavar="ID",
    help="The run, by the beginning of its id. Default: the last one.",
)
account_option = click.option(
    "--account", metavar="ADDRESS", help="Another account than this home's wallet."
)
password_file = click.option(
    "--password-file",
    type=PATH,
    metavar="PATH",
    help="File with the wallet's password on its first line (also: HYPERGPU_PASSWORD_FILE).",
)


def checked_account(text: str) -> Address:
    """Return the address in `text`. Raises `UserError("ADDRESS")`."""
    try:
        return checked_address(text)
    except ValueError as error:
        raise UserError(
            "ADDRESS", f"{text!r} is not an address.", why=str(error), exit_code=2
        ) from None


def account_or_own(home: Path, named: str | None) -> Address:
    """Return the account that the user named, or that of the home's wallet. Raises `UserError`."""
    return files.address_in_home(home) if named is None else checked_account(named)
