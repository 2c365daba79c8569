"""`finish`: asks the daemon to stop once its round is certified."""

from __future__ import annotations

import click

from daemon.cli.invocation import global_options, invocation_of
from daemon.control.client import call


@click.command()
@global_options(hidden=True)
@click.pass_context
def finish(context: click.Context) -> None:
    """Stop the node once its round is certified.

    The node then writes a checkpoint and leaves, as after stop. Where no round is certified,
    because the node is alone, it leaves after three rounds and a minute. This command does not
    wait.
    """
    invocation = invocation_of(context)
    call(invocation.home, "finish")
    invocation.result(
        '{"finishing":true}'
        if invocation.as_json
        else "The node stops after this round. hypergpud stop does not wait for it."
    )
