"""`sanction`, for a settler: files an offence with its reason and evidence; the next settlement
carries it.
"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import PATH
from daemon.cli.commands.rewards import run_option
from daemon.cli.invocation import global_options, invocation


@click.command()
@click.argument("who", required=False)
@click.option(
    "--reason", metavar="TEXT", help="One sentence that everybody will read, up to 256 characters."
)
@click.option(
    "--evidence",
    type=PATH,
    metavar="FILE",
    help="What shows it. Its digest is published, a copy kept.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="What it concerned: taken off what it earns next.",
)
@click.option(
    "--withdraw", metavar="EVIDENCE", help="Forget what was filed under a digest that begins so."
)
@run_option
@global_options(hidden=True)
@click.pass_context
def sanction(
    context: click.Context,
    who: str | None,
    reason: str | None,
    evidence: Path | None,
    samples: int,
    withdraw: str | None,
    run_id: str | None,
) -> None:
    """For a settler: file an offence of WHO, an account (0x...) or the beginning of a peer id.

    Without WHO: list what is filed.

    The next hypergpud settle carries it; other settlers see it before they agree. Steps: subtract,
    quarantine, forfeit, ban.
    """
    from daemon.cli.commands import sanction_answers  # noqa: PLC0415  # --help looks at all commands

    wish = sanction_answers.SanctionOptions(
        who=who, reason=reason, evidence=evidence, samples=samples, withdraw=withdraw, run_id=run_id
    )
    sanction_answers.sanction(invocation(context), wish)
