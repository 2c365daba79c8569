"""`pause` and `resume`: frees the device for other programs, and trains again."""

from __future__ import annotations

import click

from daemon.cli.invocation import global_options, invocation_of
from daemon.control.client import call

# The current step and a checkpoint of a large model, as for `stop`.
HOLD_TIMEOUT_S = 30.0


@click.command()
@global_options(hidden=True)
@click.pass_context
def pause(context: click.Context) -> None:
    """Pause training; the node stays in its run.

    The trainer ends its step, and what it learned is written to disk and offered in the next round.
    The node goes on summing, voting and serving its state to others. A start trains again.
    """
    invocation = invocation_of(context)
    call(invocation.home, "pause", timeout_s=HOLD_TIMEOUT_S)
    invocation.result(
        '{"paused":true}' if invocation.as_json else "Paused. To train again: hypergpud resume"
    )


@click.command()
@global_options(hidden=True)
@click.pass_context
def resume(context: click.Context) -> None:
    """Train again after a pause."""
    invocation = invocation_of(context)
    call(invocation.home, "resume", timeout_s=HOLD_TIMEOUT_S)
    invocation.result('{"paused":false}' if invocation.as_json else "Training goes on.")
