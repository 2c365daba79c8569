"""`doctor`: measures what keeps this node from working with others, and says what to do."""

from __future__ import annotations

import sys

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.control.client import call
from protocol.errors import UserError

# The measurement takes 12 s at most (`daemon.network.diagnosis`).
ANSWER_S = 15.0


@click.command()
@click.option("--network", "of_network", is_flag=True, help="How others reach this node.")
@global_options(hidden=True)
@click.pass_context
def doctor(context: click.Context, of_network: bool) -> None:
    """Measure how others reach this node, and say what to do.

    Members call this node back, each on a new connection. That takes at most 15 s.
    """
    invocation = invocation_of(context)
    if not of_network:
        raise UserError(
            "DOCTOR",
            "Nothing to measure was named.",
            fix="hypergpud doctor --network",
            exit_code=2,
        )
    answer = call(invocation.home, "network", timeout_s=ANSWER_S)
    if invocation.as_json:
        invocation.result(answer.decode())
        return
    # The records take a while to import, which a daemon that does not run does not pay.
    from daemon.cli.terminal.network_text import network_text  # noqa: PLC0415
    from protocol.network.network_report import NetworkReport  # noqa: PLC0415
    from protocol.status import Status  # noqa: PLC0415

    report = msgspec.json.decode(answer, type=NetworkReport)
    status = msgspec.json.decode(call(invocation.home, "status"), type=Status)
    names = {peer.peer: peer.name for peer in status.peers}
    invocation.result(network_text(report, names, invocation.color(sys.stdout)))
