"""`settle`, for a settler: proposes the root that the certificates give, agrees to another
settler's, disputes one that they do not give.

And fills the pool, which the root is paid from.
"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import PATH
from daemon.cli.commands.rewards import run_option
from daemon.cli.commands.wallet import password_file
from daemon.cli.invocation import global_options, invocation


@click.command()
@click.option(
    "--epoch",
    type=click.IntRange(min=0),
    help="The epoch to settle. Default: the last one that is over.",
)
@click.option(
    "--pool",
    metavar="TOKENS",
    help="What the epoch hands out. Default: all that the pool holds and has promised to nobody.",
)
@click.option(
    "--like",
    type=PATH,
    metavar="FILE",
    help="Agree to the data set another settler published, if it is right.",
)
@click.option("--dispute", metavar="REASON", help="Drop the pending root; the active one stays.")
@click.option(
    "--root",
    metavar="HASH",
    help="With --dispute: the root that is meant, by its beginning. Another pending one is left alone.",
)
@click.option(
    "--fund",
    metavar="TOKENS",
    help="Put so much of this wallet into the pool. It never comes back but as rewards.",
)
@click.option("--dry-run", is_flag=True, help="Compute and show; send nothing.")
@run_option
@password_file
@global_options(hidden=True)
@click.pass_context
def settle(
    context: click.Context,
    epoch: int | None,
    pool: str | None,
    like: Path | None,
    dispute: str | None,
    root: str | None,
    fund: str | None,
    dry_run: bool,
    run_id: str | None,
    password_file: Path | None,
) -> None:
    """For a settler: propose the cumulative root of an epoch, and publish its data set under its
    hash.

    A pending root whose delay is over is activated first; that, anyone may do. So is --fund, which
    settles nothing.
    """
    from daemon.cli.commands import settle_answers  # noqa: PLC0415  # --help looks at all commands, and web3 alone takes a second

    wish = settle_answers.SettleOptions(
        epoch=epoch,
        pool=pool,
        like=like,
        dispute=dispute,
        root=root,
        fund=fund,
        dry_run=dry_run,
        run_id=run_id,
        password_file=password_file,
    )
    settle_answers.settle(invocation(context), wish)
