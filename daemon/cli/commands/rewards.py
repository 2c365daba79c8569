"""`rewards`, `rewards verify`, `rewards claim`: what was earned, whether the chain says so, and
having it paid.
"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import CommandGroup
from daemon.cli.commands.wallet import password_file
from daemon.cli.invocation import global_options, invocation

run_option = click.option(
    "--run",
    "run_id",
    metavar="ID",
    help="The run, by the beginning of its id. Default: the last one.",
)
account_option = click.option(
    "--account", metavar="ADDRESS", help="Another account than this home's wallet."
)

# What the commands do is imported when one of them runs: --help looks at all of them, and web3
# alone takes a second.


@click.group(cls=CommandGroup, invoke_without_command=True)
@run_option
@account_option
@global_options(hidden=True)
@click.pass_context
def rewards(context: click.Context, run_id: str | None, account: str | None) -> None:
    """What is earned, claimable and claimed."""
    if context.invoked_subcommand is None:
        from daemon.cli.commands.rewards_answers import show  # noqa: PLC0415

        show(invocation(context), run_id, account)


@rewards.command()
@run_option
@global_options(hidden=True)
@click.pass_context
def verify(context: click.Context, run_id: str | None) -> int:
    """Add up the certificates on this disk and compare with the root on the chain; exit code 1
    where they differ.
    """
    from daemon.cli.commands.rewards_answers import verify as answer  # noqa: PLC0415

    return answer(invocation(context), run_id)


@rewards.command()
@click.option("--dry-run", is_flag=True, help="Say what would be paid; send nothing.")
@click.option(
    "--at-least",
    "threshold",
    metavar="TOKENS",
    default="0",
    help="Claim only from this amount on: a fee is paid for each claim.",
)
@run_option
@account_option
@password_file
@global_options(hidden=True)
@click.pass_context
def claim(
    context: click.Context,
    dry_run: bool,
    threshold: str,
    run_id: str | None,
    account: str | None,
    password_file: Path | None,
) -> None:
    """Have what is claimable paid, to the payout address.

    An account's own wallet sends it, or that of the sponsor it approved.
    """
    from daemon.cli.commands.rewards_answers import claim as answer  # noqa: PLC0415

    answer(
        invocation(context),
        run_id,
        account,
        dry_run=dry_run,
        threshold=threshold,
        password_file=password_file,
    )
