"""`run rollback|recover|fork|follow`: what owners decide when votes or branches do not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import RUN
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.control.client import call
from protocol.digest import SHOWN_DIGITS
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of, short

# Only the user of the home reads its files.
PRIVATE = 0o077
# The digits of a certificate's hash that name it.
LEAST_DIGITS = 6
# Numbers that an error lists.
SHOWN_NUMBERS = 12

run_option = click.option(
    "--run", "run_id", type=RUN, metavar="ID", help="A run of this home. [the last one]"
)
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


class ForkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run fork` prints with `--json`."""

    run: str
    name: str
    number: int


class FollowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run follow` prints with `--json`."""

    run: str
    certificate: str


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def run() -> None:
    """Take a run back, go on without its voters, or choose a branch.

    `rollback` and `recover` are for the run's owner: every member follows them. `fork` and
    `follow` are for the owner of any node.
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


@run.command()
@click.argument("name", metavar="NAME")
@click.option("--at", "certificate", metavar="N", help="A certificate's number or hash. [newest]")
@run_option
@global_options(hidden=True)
@click.pass_context
def fork(context: click.Context, name: str, certificate: str | None, run_id: Path | None) -> None:
    """Begin a new run called NAME from a model of a run in this home.

    This node is its founder and owner. The old run goes on without it. The new run has the task and
    the settings of the old one, and pays nothing.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    from msgspec import UNSET  # noqa: PLC0415
    from msgspec.structs import replace  # noqa: PLC0415

    from daemon.chain.home_runs import keep_manifest  # noqa: PLC0415
    from daemon.disk.initial_file import InitialFile  # noqa: PLC0415
    from daemon.home.node_key import load_or_make_key  # noqa: PLC0415
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from daemon.results.run_model import model_of_home  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415
    from protocol.rules.versions import RULES_4  # noqa: PLC0415
    from protocol.run.initial_state import begin_from  # noqa: PLC0415
    from protocol.run.manifest import seal  # noqa: PLC0415

    old = chosen_run(invocation.home, str(run_id) if run_id is not None else None)
    signer, _ = load_or_make_key(invocation.home)
    model = model_of_home(invocation.home, old, certificate, invocation.say)
    try:
        manifest = replace(
            old.open(),
            name=name,
            rules=RULES_4,
            owner=signer.peer,
            founders=(signer.peer,),
            admission=UNSET,
            settlement=UNSET,
            chain="none",
            initial="",
        )
    except ValueError as error:
        raise UserError("MANIFEST", f"No run can be called {name!r}.", why=str(error)) from None
    signed = seal(begin_from(manifest, model.parameters), signer)
    try:
        InitialFile(invocation.home, signed.run).save(model.parameters)
        keep_manifest(invocation.home, signed)
    except DiskFull as full:
        raise _disk_full(full) from None
    shown = signed.run.hex()[:SHOWN_DIGITS]
    if invocation.as_json:
        result = ForkResult(run=signed.run.hex(), name=name, number=model.number)
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.result(
        f"The run {name} ({shown}) begins with the model of certificate {model.number} of"
        f" {old.open().name}. Start it with:  hypergpud start --run {shown}"
    )


@run.command()
@click.argument("certificate", metavar="[CERT]", required=False)
@click.option("--none", "none", is_flag=True, help="Let the rules decide again.")
@run_option
@global_options(hidden=True)
@click.pass_context
def follow(
    context: click.Context, certificate: str | None, none: bool, run_id: Path | None
) -> None:
    """Let this node follow the branch with certificate CERT.

    CERT is the beginning of the certificate's hash. A node never leaves by itself a branch that it
    has held for a day. A running node moves within a round of hearing of CERT; its work since the
    branches parted is dropped.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    if none == (certificate is not None):
        raise UserError(
            "USAGE",
            "run follow takes a certificate, or --none.",
            fix="hypergpud run follow CERT   (status and round show hashes)",
            exit_code=2,
        )
    wanted = (certificate or "").lower()
    if not none and not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", wanted):
        raise UserError(
            "CERTIFICATE",
            f"{certificate!r} is not the beginning of a certificate's hash.",
            why=f"it needs {LEAST_DIGITS} to 64 hexadecimal digits",
            fix="hypergpud round --json   (shows whole hashes)",
            exit_code=2,
        )
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from daemon.home.run_branches import write_followed  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    signed = chosen_run(invocation.home, str(run_id) if run_id is not None else None)
    try:
        write_followed(invocation.home, signed.run, wanted)
    except DiskFull as full:
        raise _disk_full(full) from None
    if invocation.as_json:
        result = FollowResult(run=signed.run.hex(), certificate=wanted)
        invocation.result(msgspec.json.encode(result).decode())
    elif none:
        invocation.result("This node goes by the rules on branches again.")
    else:
        invocation.result(
            f"This node follows the branch with certificate {wanted[:12]}, once it hears of it."
        )


def _recover(
    invocation: Invocation, owned: object, tip: bytes, number: int, voters: list[PeerId]
) -> None:
    """Sign a recovery, and keep it in the home. A running node passes it on within a second."""
    from daemon.home.owned_run import OwnedRun  # noqa: PLC0415
    from daemon.home.run_membership import add_owner_record, load_owner_records  # noqa: PLC0415
    from protocol.messages.envelope import sign  # noqa: PLC0415
    from protocol.messages.membership import MAX_VOTERS, Recovery  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    assert isinstance(owned, OwnedRun)
    records = load_owner_records(invocation.home, owned.signed)
    named = [peer for peer in dict.fromkeys(voters) if peer not in records.revoked][:MAX_VOTERS]
    if not named:
        raise UserError(
            "VOTERS",
            "Nobody would vote in this run.",
            why="the owner revoked every peer that was named",
            fix="hypergpud run recover --voter PEER",
            exit_code=2,
        )
    serial = records.next_serial
    message = Recovery(serial=serial, tip=tip, number=number, voters=tuple(sorted(named)))
    try:
        signed = sign(owned.signer, owned.signed.run, message)
        add_owner_record(invocation.home, owned.signed, signed)
    except DiskFull as full:
        raise _disk_full(full) from None
    if invocation.as_json:
        result = RecoveryResult(
            run=owned.signed.run.hex(),
            serial=serial,
            number=number,
            certificate=tip.hex(),
            voters=sorted(named),
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    shown = ", ".join(short(peer) for peer in sorted(named))
    invocation.result(
        f"Signed recovery {serial}: the run goes on from certificate {number}, and {shown} vote."
        " Members follow within a round of hearing it. Keep this node running:"
        "  hypergpud start"
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


def _disk_full(full: Exception) -> UserError:
    return UserError(
        "DISK_FULL",
        "The home cannot be written.",
        why=str(full),
        fix="free some disk space, then try again",
    )
