"""`run pause`, `run resume` and `run stop`: the owner's orders to every node of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from daemon.cli.commands.run_choices import PRIVATE, disk_full, run_option
from daemon.cli.invocation import global_options, invocation_of

if TYPE_CHECKING:
    from protocol.messages.membership import OrderAction


class OrderResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `run pause`, `run resume` and `run stop` print with `--json`."""

    run: str
    action: str
    serial: int
    changed: bool


@click.command()
@run_option
@global_options(hidden=True)
@click.pass_context
def pause(context: click.Context, run_id: Path | None) -> None:
    """Pause training on every node of your run.

    Each node writes down what it learned, and frees its device within seconds of hearing the order.
    Nodes that start later wait, too.
    """
    _order(context, run_id, "pause", "Every node pauses within seconds of hearing it")


@click.command()
@run_option
@global_options(hidden=True)
@click.pass_context
def resume(context: click.Context, run_id: Path | None) -> None:
    """Let every node of your run train again."""
    _order(context, run_id, "start", "Every node trains again within seconds of hearing it")


@click.command()
@run_option
@global_options(hidden=True)
@click.pass_context
def stop(context: click.Context, run_id: Path | None) -> None:
    """Stop the nodes of your run, each after a checkpoint.

    The processes end. A node that is started again waits until you resume the run.
    """
    _order(context, run_id, "stop", "Every node writes a checkpoint and leaves")


def _order(context: click.Context, run_id: Path | None, action: OrderAction, effect: str) -> None:
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    from daemon.home.owned_run import owned_run  # noqa: PLC0415
    from daemon.home.owner_order import sign_order  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    owned = owned_run(invocation.home, run_id, "starts and stops it")
    try:
        made = sign_order(invocation.home, owned, action)
    except DiskFull as full:
        raise disk_full(full) from None
    changed = made.signed is not None
    if invocation.as_json:
        result = OrderResult(
            run=owned.signed.run.hex(), action=action, serial=made.serial, changed=changed
        )
        invocation.result(msgspec.json.encode(result).decode())
    elif changed:
        invocation.result(
            f"Signed order {made.serial}. {effect}. Keep this node or an observer on this home"
            " running, so that others hear it."
        )
    else:
        invocation.result("Nothing to do: that is what the run does already.")
