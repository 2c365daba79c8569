"""`run`: what owners decide for every node, and when votes or branches do not decide."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from daemon.cli.command_group import CommandGroup
from daemon.cli.commands.run_choices import PRIVATE, disk_full, follow, fork, run_option
from daemon.cli.commands.run_orders import pause, resume, stop
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.control.client import call
from protocol.digest import Digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of, short

if TYPE_CHECKING:
    from daemon.home.owned_run import OwnedRun

# Numbers that an error lists.
SHOWN_NUMBERS = 12

voter_option = click.option(
    "--voter", "voters", multiple=True, metavar="PEER", help="A peer that votes then; repeatable."
)


class RecoveryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run rollback` and `run recover` print with `--json`."""

    run: str
    serial: int
    number: int
    certificate: str
    voters: list[str]


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def run() -> None:
    """Pause or stop a run, take it back, or choose a branch.

    `pause`, `resume`, `stop`, `rollback` and `recover` are for the run's owner: every member
    follows them. `fork` and `follow` are for the owner of any node.
    """


@run.command()
@click.option("--to", "number", type=click.IntRange(0), required=True, metavar="N", help="Number.")
@voter_option
@run_option
@global_options(hidden=True)
@click.pass_context
def rollback(
    context: click.Context, number: int, voters: tuple[str, ...], run_id: Path | None
) -> None:
    """Take the run back to certificate N, for all members.

    Later certificates count no more, and their work is dropped. Every member goes to the state of
    certificate N within a round. This home needs a checkpoint of it. The voters stay those of
    certificate N, unless --voter names others.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    from daemon.home.owned_run import owned_run  # noqa: PLC0415
    from daemon.home.run_branches import kept_tips  # noqa: PLC0415

    owned = owned_run(invocation.home, run_id, "takes it back")
    kept = kept_tips(invocation.home, owned.signed)
    found = [one.tip for one in kept if one.tip.number == number]
    if not found:
        numbers = sorted({one.tip.number for one in kept})
        near = sorted(numbers, key=lambda one: abs(one - number))[:SHOWN_NUMBERS]
        shown = ", ".join(map(str, sorted(near)))
        raise UserError(
            "CERTIFICATE",
            f"This home has no checkpoint of certificate {number}.",
            why=f"it has checkpoints of {shown}" if shown else "it has no checkpoint of this run",
            fix=f"hypergpud run rollback --to {near[0]}" if near else "hypergpud start",
            exit_code=2,
        )
    tip = found[-1]
    record = tip.record
    named = _peers(voters) or list(record.voters if record is not None else ())
    _recover(invocation, owned, tip.hash, tip.number, named)


@run.command()
@voter_option
@run_option
@global_options(hidden=True)
@click.pass_context
def recover(context: click.Context, voters: tuple[str, ...], run_id: Path | None) -> None:
    """Go on with other voters, when too few are left.

    The run goes on from the newest certificate of this home. Those peers vote that --voter names;
    without it, this node and the voters that it hears now.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    from daemon.home.owned_run import owned_run  # noqa: PLC0415
    from daemon.home.run_branches import newest_tip  # noqa: PLC0415

    owned = owned_run(invocation.home, run_id, "names its voters")
    tip = newest_tip(invocation.home, owned.signed)
    number = tip.number if tip is not None else 0
    name = tip.hash if tip is not None else owned.signed.run
    me = owned.signer.peer
    named = _peers(voters)
    if not named:
        before = tip.record.voters if tip is not None and tip.record is not None else ()
        named = [me, *(peer for peer in before if peer in _heard(invocation) and peer != me)]
    _recover(invocation, owned, name, number, named)


run.add_command(pause)
run.add_command(resume)
run.add_command(stop)
run.add_command(fork)
run.add_command(follow)


def _recover(
    invocation: Invocation, owned: OwnedRun, tip: Digest, number: int, voters: list[PeerId]
) -> None:
    """Sign a recovery and report it. A running node passes it on within a second."""
    from daemon.home.owner_recovery import sign_recovery  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    try:
        message = sign_recovery(invocation.home, owned, tip, number, voters)
    except DiskFull as full:
        raise disk_full(full) from None
    if invocation.as_json:
        result = RecoveryResult(
            run=owned.signed.run.hex(),
            serial=message.serial,
            number=number,
            certificate=tip.hex(),
            voters=list(message.voters),
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    shown = ", ".join(map(short, message.voters))
    invocation.result(
        f"Signed recovery {message.serial}: the run goes on from certificate {number}, and {shown}"
        f" vote{'s' if len(message.voters) == 1 else ''}. Members follow within a round of hearing"
        " it. Keep this node running:  hypergpud start"
    )


def _peers(named: tuple[str, ...]) -> list[PeerId]:
    for peer in named:
        try:
            public_key_of(peer)
        except PeerFault as fault:
            raise UserError(
                "PEER",
                f"{peer!r} is no peer id.",
                why=str(fault),
                fix="hypergpud peers --json   (shows whole peer ids)",
                exit_code=2,
            ) from None
    return list(named)


def _heard(invocation: Invocation) -> set[PeerId]:
    """The peers that the running node hears; none where it does not run."""
    from protocol.status import Status  # noqa: PLC0415

    try:
        status = msgspec.json.decode(call(invocation.home, "status"), type=Status)
    except UserError:
        return set()
    return {peer.peer for peer in status.peers}
