"""`session show|create|activate|complete|cancel`: a run on the chain, for its owner; `show` for
everybody.
"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import CommandGroup
from daemon.cli.commands.wallet import password_file
from daemon.cli.invocation import global_options, invocation

run_argument = click.argument("run_id", metavar="[RUN]", required=False)

# What the commands do is imported when one of them runs: --help looks at all of them, and web3
# alone takes a second.


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def session() -> None:
    """A run's session on the chain: created with its manifest's hash, active, then completed with
    its final certificate or cancelled.

    RUN is the beginning of the id of one of this home's runs. Default: the run that the home was in
    last.
    """


@session.command()
@run_argument
@click.option(
    "--owner",
    metavar="ADDRESS",
    help="The account that created the session. Default: this home's wallet.",
)
@global_options(hidden=True)
@click.pass_context
def show(context: click.Context, run_id: str | None, owner: str | None) -> None:
    """Its state, owner, manifest and final certificate, beside what this home holds.

    Needs no wallet.
    """
    from daemon.cli.commands.session_answers import show as answer  # noqa: PLC0415

    answer(invocation(context), run_id, owner)


@session.command()
@run_argument
@password_file
@global_options(hidden=True)
@click.pass_context
def create(context: click.Context, run_id: str | None, password_file: Path | None) -> None:
    """Put the run on the chain, with its manifest's hash.

    This home's wallet owns this session from then on.
    """
    from daemon.cli.commands.session_answers import create as answer  # noqa: PLC0415

    answer(invocation(context), run_id, password_file)


@session.command()
@run_argument
@password_file
@global_options(hidden=True)
@click.pass_context
def activate(context: click.Context, run_id: str | None, password_file: Path | None) -> None:
    """Say that the run trains."""
    from daemon.cli.commands.session_answers import activate as answer  # noqa: PLC0415

    answer(invocation(context), run_id, password_file)


@session.command()
@run_argument
@click.option(
    "--certificate",
    metavar="HASH",
    help="Another certificate of this home than the last, by the beginning of its hash.",
)
@password_file
@global_options(hidden=True)
@click.pass_context
def complete(
    context: click.Context, run_id: str | None, certificate: str | None, password_file: Path | None
) -> None:
    """End the run with its final certificate: the last one of this home. For good."""
    from daemon.cli.commands.session_answers import complete as answer  # noqa: PLC0415

    answer(invocation(context), run_id, password_file, certificate)


@session.command()
@run_argument
@click.option(
    "--reason",
    metavar="TEXT",
    required=True,
    help="One sentence of up to 96 bytes that everybody can read.",
)
@password_file
@global_options(hidden=True)
@click.pass_context
def cancel(
    context: click.Context, run_id: str | None, reason: str, password_file: Path | None
) -> None:
    """End the run without a final certificate. For good."""
    from daemon.cli.commands.session_answers import cancel as answer  # noqa: PLC0415

    answer(invocation(context), run_id, password_file, reason)
