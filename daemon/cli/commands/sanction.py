"""`sanction`, for a settler: files an offence, withdraws one, or lists what is filed."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from daemon.chain.home_runs import certificates_of, run_folder
from daemon.chain.offences import FiledOffence, account_of, file_offence, filed_offences
from daemon.chain.offences import withdraw as withdraw_offence
from daemon.cli.arguments import PATH
from daemon.cli.chain.access import run_access
from daemon.cli.chain.options import run_option
from daemon.cli.invocation import Invocation, global_options, invocation_of
from protocol.errors import UserError
from protocol.status.figures import count


@click.command()
@click.argument("who", required=False)
@click.option(
    "--reason", metavar="TEXT", help="One public sentence of up to 256 characters: what WHO did."
)
@click.option(
    "--evidence",
    type=PATH,
    metavar="FILE",
    help="File that shows the offence. Its digest is published, a copy is kept.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Samples of the offence: they are subtracted from what WHO earns next.",
)
@click.option(
    "--withdraw", metavar="EVIDENCE", help="Withdraw the offence whose digest begins with EVIDENCE."
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
    """File an offence for the next settlement (for settlers).

    WHO is an account (0x...) or the beginning of a peer id. Without WHO: list what is filed.

    The next hypergpud settle carries the offence; other settlers see it before they agree. The
    steps are subtract, quarantine, forfeit, ban.
    """
    invocation = invocation_of(context)
    run = run_access(invocation, run_id).run
    folder = run_folder(invocation.home, run.run)
    if withdraw is not None:
        _show(invocation, withdraw_offence(folder, withdraw), "withdrawn")
        return
    if who is None:
        _show(invocation, filed_offences(folder), "filed")
        return
    if not reason or evidence is None:
        raise UserError(
            "SANCTION",
            "An offence needs a reason and evidence.",
            why="the account that loses money must be able to see why",
            fix="hypergpud sanction WHO --reason TEXT --evidence FILE [--samples N]",
            exit_code=2,
        )
    known = [] if who.startswith("0x") else certificates_of(invocation.home, run, invocation.say)
    account = account_of(who, run.manifest, known)
    offence = file_offence(invocation.home, folder, account, reason, evidence, samples)
    _show(invocation, [offence], "filed")
    invocation.say("The next hypergpud settle carries it.")


def _show(invocation: Invocation, offences: list[FiledOffence], state: str) -> None:
    if invocation.as_json:
        invocation.result(msgspec.json.encode(offences).decode())
        return
    lines = [
        f"{one.account}  {count(one.samples)} samples  {one.reason}"
        f"  (evidence {one.evidence[:12]}, {state})"
        for one in offences
    ]
    invocation.result("\n".join(lines) or "Nothing is filed.")
