"""`session show|create|activate|complete|cancel`: a run's session on the chain.

Anyone can show a session. The other commands are for the run's owner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from daemon.chain.home_runs import certificates_on_disk
from daemon.chain.sessions import RunSession, checked_reason, final_certificate, send_step
from daemon.cli.chain.access import open_for_reading, open_for_signing, unlock_wallet
from daemon.cli.chain.options import password_file
from daemon.cli.chain.session_run import (
    SessionRun,
    compare_session,
    own_account,
    session_owner,
    session_run,
)
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from protocol.chain.keccak import Address
from protocol.chain.port import NO_HASH, Chain, Hash, SentTransaction
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.status.figures import count, tokens

run_argument = click.argument("run_id", metavar="[RUN]", required=False)


class SessionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a step prints with `--json`: the session after it, and the transaction."""

    session: RunSession
    transaction: str
    fee: str  # base units


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def session() -> None:
    """Create, activate, complete or cancel a run on the chain.

    A session is created with the hash of the run's manifest, then active, then completed with the
    run's final certificate or cancelled. RUN is the beginning of the id of one of this home's runs.
    Default: the run that the home was in last.
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
    """Show a session beside what this home holds. Needs no wallet."""
    invocation = invocation_of(context)
    which = session_run(invocation, run_id)
    own = own_account(invocation)
    whose = session_owner(owner, own)
    with open_for_reading(invocation, which.access) as chain:
        status = chain.run(which.signed.run, whose)
    found = compare_session(invocation, which, status, own)
    invocation.result(
        msgspec.json.encode(found).decode() if invocation.as_json else _text(found, whose)
    )


@session.command()
@run_argument
@password_file
@global_options(hidden=True)
@click.pass_context
def create(context: click.Context, run_id: str | None, password_file: Path | None) -> None:
    """Put the run on the chain, with its manifest's hash.

    From then on this home's wallet owns the session.
    """
    invocation = invocation_of(context)
    which = session_run(invocation, run_id)
    signed = which.signed
    _send(
        invocation,
        which,
        password_file,
        lambda chain: chain.create_run(signed.run, signed.published),
    )


@session.command()
@run_argument
@password_file
@global_options(hidden=True)
@click.pass_context
def activate(context: click.Context, run_id: str | None, password_file: Path | None) -> None:
    """Declare on the chain that the run trains."""
    invocation = invocation_of(context)
    which = session_run(invocation, run_id)
    _send(invocation, which, password_file, lambda chain: chain.activate_run(which.signed.run))


@session.command()
@run_argument
@click.option(
    "--certificate",
    metavar="HASH",
    help="Another certificate of this home, by the beginning of its hash. Default: the last one.",
)
@password_file
@global_options(hidden=True)
@click.pass_context
def complete(
    context: click.Context, run_id: str | None, certificate: str | None, password_file: Path | None
) -> None:
    """End the run with its final certificate. This cannot be undone."""
    invocation = invocation_of(context)
    which = session_run(invocation, run_id)
    damage: list[str] = []
    held = certificates_on_disk(invocation.home, which.access.run, damage.append)
    final = final_certificate(held, certificate, damage)
    _send(
        invocation,
        which,
        password_file,
        lambda chain: chain.complete_run(which.signed.run, final.hash),
        final.hash,
    )


@session.command()
@run_argument
@click.option(
    "--reason",
    metavar="TEXT",
    required=True,
    help="One public sentence of up to 96 bytes.",
)
@password_file
@global_options(hidden=True)
@click.pass_context
def cancel(
    context: click.Context, run_id: str | None, reason: str, password_file: Path | None
) -> None:
    """End the run without a final certificate. This cannot be undone."""
    invocation = invocation_of(context)
    words = checked_reason(reason)
    which = session_run(invocation, run_id)
    _send(invocation, which, password_file, lambda chain: chain.cancel_run(which.signed.run, words))


def _send(
    invocation: Invocation,
    which: SessionRun,
    password_file: Path | None,
    send: Callable[[Chain], SentTransaction],
    certificate: Hash = NO_HASH,
) -> None:
    """Send a transaction, wait for it, and print the session as the chain then shows it.

    Raises `UserError("CERTIFICATE")` where that session has another certificate than
    `certificate`.
    """
    wallet = unlock_wallet(invocation, password_file)
    with open_for_signing(invocation, which.access, wallet) as chain:
        settled = send_step(chain, which.signed.run, lambda: send(chain))
        status = chain.run(which.signed.run, chain.account)
    # An earlier call was still in flight: `send_step` waited for that one and sent nothing.
    if status.certificate != certificate:
        raise UserError(
            "CERTIFICATE",
            f"The run is completed with {status.certificate.hex()[:SHOWN_DIGITS]},"
            f" not with {certificate.hex()[:SHOWN_DIGITS]}.",
            why="this wallet had already sent another complete, and a run is completed once",
        )
    found = compare_session(invocation, which, status, status.owner)
    if invocation.as_json:
        result = SessionResult(session=found, transaction=settled.hash, fee=str(settled.fee))
        invocation.result(msgspec.json.encode(result).decode())
    else:
        transaction = f"transaction  {settled.hash}, fee {tokens(settled.fee)}"
        invocation.result(f"{_text(found, status.owner)}\n{transaction}")


def _text(found: RunSession, whose: Address) -> str:
    run = f"run          {found.name} ({found.run[:SHOWN_DIGITS]})"
    if found.state == "none":
        state = (
            f"state        none: {whose} has no session for this run;"
            " type hypergpud session create, or show --owner ADDRESS"
        )
        return "\n".join([run, state, f"manifest     0x{found.own_manifest} in this home"])
    lines = [
        run,
        f"state        {found.state}",
        f"owner        {found.owner}" + ("  (this home's wallet)" if found.is_own else ""),
    ]
    if found.same_manifest:
        lines.append(f"manifest     0x{found.manifest}  ✓ this home's")
    else:
        lines += [
            f"manifest     0x{found.manifest}  ✕ NOT this home's",
            f"             0x{found.own_manifest} in this home",
        ]
    if found.certificate:
        lines.append(f"certificate  0x{found.certificate}  {_place(found)}")
    return "\n".join(lines)


def _place(found: RunSession) -> str:
    if found.certificate_round is None:
        return "✕ NOT among this home's certificates"
    last = found.last_round
    if found.certificate_round == last:
        return f"round {count(found.certificate_round)}, the last of this home"
    return f"round {count(found.certificate_round)}; this home's last is round {count(last or 0)}"
