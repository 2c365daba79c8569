"""`invite`: prints the line with which a friend joins the run of this home's owner."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon.cli.arguments import RUN
from daemon.cli.commands.run_choices import disk_full
from daemon.cli.invocation import Invocation, global_options, invocation_of
from protocol.errors import UserError

# Only the user of the home reads its files.
PRIVATE = 0o077
MOST_DAYS = 3650
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


class DurationArgument(click.ParamType[float]):
    """A time such as 90m, 12h or 7d, in seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,6})([mhd])", str(value).strip().lower())
        seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0.0
        if not 0.0 < seconds <= MOST_DAYS * _UNITS_S["d"]:
            self.fail(
                f"{value!r} is not a time between 1m and {MOST_DAYS}d, such as 90m, 12h or 7d.",
                param,
                ctx,
            )
        return seconds


class InviteResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `invite --json` prints."""

    token: str
    command: str
    run: str
    serial: int
    uses: int
    used: int
    voters: int
    expires: float


@click.command()
@click.option("--uses", type=click.IntRange(1, 1024), metavar="N", help="Peers that it admits. [1]")
@click.option(
    "--voters",
    type=click.IntRange(1, 32),
    metavar="N",
    help="Votes that its peers hold together. [1]",
)
@click.option(
    "--expires", type=DurationArgument(), metavar="TIME", help="How long it holds, as 12h. [7d]"
)
@click.option("--run", "run", type=RUN, metavar="ID", help="A run of this home. [the last one]")
@global_options(hidden=True)
@click.pass_context
def invite(
    context: click.Context,
    uses: int | None,
    voters: int | None,
    expires: float | None,
    run: Path | None,
) -> None:
    """Print the line with which a friend joins your run.

    Without options, it repeats the line that is still free. The peers of one invitation hold one
    vote together, unless it was made with --voters.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    # The protocol's modules take a while; a mistake in the options does not wait for them.
    from daemon.home import invitations  # noqa: PLC0415
    from daemon.home.owned_run import owned_run  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    owned = owned_run(invocation.home, run, "invites others")
    entry = _entry(invocation, owned.signed.run)
    now_s = time.time()
    try:
        if uses is voters is expires is None:
            made = invitations.usual_invitation(
                invocation.home, owned.signed, owned.signer, entry, now_s
            )
        else:
            terms = invitations.Terms(
                uses=uses or 1, voters=voters or 1, lasts_s=expires or invitations.LASTS_S
            )
            made = invitations.make_invitation(
                invocation.home, owned.signed, owned.signer, entry, terms, now_s
            )
    except DiskFull as full:
        raise disk_full(full) from None
    command = invitations.join_command(made.token)
    if invocation.as_json:
        result = InviteResult(
            token=made.token,
            command=command,
            run=owned.signed.run.hex(),
            serial=made.serial,
            uses=made.uses,
            used=made.used,
            voters=made.voters,
            expires=made.expires_s,
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.say(invitations.terms_of(made))
    invocation.result(command)


def _entry(invocation: Invocation, run: bytes) -> Any:
    """Return where a friend finds the run: from the daemon, or from the last invitation."""
    from daemon.control.client import call  # noqa: PLC0415
    from daemon.home.invitations import Entry, certificate_of, last_addresses  # noqa: PLC0415
    from daemon.home.owned_run import last_certificate  # noqa: PLC0415
    from daemon.home.recent_state import members_of  # noqa: PLC0415
    from protocol.status import Status  # noqa: PLC0415

    members = members_of(invocation.home, run)
    try:
        status = msgspec.json.decode(call(invocation.home, "status"), type=Status)
    except UserError as error:
        if error.code != "NOT_RUNNING":
            raise
        status = None
    if status is not None and status.run.run == run.hex() and status.you.addresses:
        return Entry(
            addresses=(*status.you.addresses, *members),
            certificate=certificate_of(status.run.tip, run),
        )
    addresses = (*last_addresses(invocation.home, run), *members)
    if not addresses:
        raise UserError(
            "NO_ADDRESS",
            "No address is known at which a friend could join.",
            why="the node has not run since the run began",
            fix="hypergpud start   (it prints an invitation)",
        )
    invocation.say("The node does not run: the invitation has the addresses of its last start.")
    return Entry(addresses=addresses, certificate=last_certificate(invocation.home, run))
