"""`run fork` and `run follow`: what the owner of any node decides about runs and branches."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import RUN
from daemon.cli.invocation import global_options, invocation_of
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError

# Only the user of the home reads its files.
PRIVATE = 0o077
# The digits of a certificate's hash that name it.
LEAST_DIGITS = 6

run_option = click.option(
    "--run", "run_id", type=RUN, metavar="ID", help="A run of this home. [the last one]"
)


class ForkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run fork` prints with `--json`."""

    run: str
    name: str
    number: int


class FollowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run follow` prints with `--json`."""

    run: str
    certificate: str


@click.command()
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
    from daemon.home.node_key import load_or_make_key  # noqa: PLC0415
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from daemon.results.run_fork import fork_run  # noqa: PLC0415
    from daemon.results.run_model import model_of_home  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    old = chosen_run(invocation.home, str(run_id) if run_id is not None else None)
    signer, _ = load_or_make_key(invocation.home)
    model = model_of_home(invocation.home, old, certificate, invocation.say)
    try:
        signed = fork_run(invocation.home, model, name, signer)
    except DiskFull as full:
        raise disk_full(full) from None
    shown = signed.run.hex()[:SHOWN_DIGITS]
    if invocation.as_json:
        result = ForkResult(run=signed.run.hex(), name=name, number=model.number)
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.result(
        f"The run {name} ({shown}) begins with the model of certificate {model.number} of"
        f" {old.open().name}. Start it with:  hypergpud start --run {shown}"
    )


@click.command()
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
        raise disk_full(full) from None
    if invocation.as_json:
        result = FollowResult(run=signed.run.hex(), certificate=wanted)
        invocation.result(msgspec.json.encode(result).decode())
    elif none:
        invocation.result("The rules on branches decide again for this node.")
    else:
        invocation.result(
            f"This node follows the branch with certificate {wanted[:12]}, once it hears of it."
        )


def disk_full(full: Exception) -> UserError:
    """Return the error for a home that cannot be written."""
    return UserError(
        "DISK_FULL",
        "The home cannot be written.",
        why=str(full),
        fix="free some disk space, then try again",
    )
