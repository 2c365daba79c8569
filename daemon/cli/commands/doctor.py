"""`doctor`: measures what keeps this node from working with others, and says what to do."""

from __future__ import annotations

import os
import shutil
import sys

import click
import msgspec

from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.control.client import call

# The measurement takes 12 s at most (`daemon.network.diagnosis`).
ANSWER_S = 15.0
BLOCKED_EXIT_CODE = 4


@click.command()
@click.option("--network", "of_network", is_flag=True, help="How others reach this node.")
@global_options(hidden=True)
@click.pass_context
def doctor(context: click.Context, of_network: bool) -> int:
    """Find what keeps this node from working, and say what to do.

    Without --network: settings, home, disk, memory, clock, device, key, run, ports, chain, and the
    node itself, which does not have to run. With it: members call this node back, each on a new
    connection, which takes at most 15 s. The exit code is 4 where something keeps the node from
    working.
    """
    invocation = invocation_of(context)
    if not of_network:
        return _of_machine(invocation)
    answer = call(invocation.home, "network", timeout_s=ANSWER_S)
    if invocation.as_json:
        invocation.result(answer.decode())
        return 0
    # The records take a while to import, which a daemon that does not run does not pay.
    from daemon.cli.terminal.network_text import network_text  # noqa: PLC0415
    from protocol.network.network_report import NetworkReport  # noqa: PLC0415
    from protocol.status import Status  # noqa: PLC0415

    report = msgspec.json.decode(answer, type=NetworkReport)
    status = msgspec.json.decode(call(invocation.home, "status"), type=Status)
    names = {peer.peer: peer.name for peer in status.peers}
    invocation.result(network_text(report, names, invocation.color(sys.stdout)))
    return 0


def _of_machine(invocation: Invocation) -> int:
    """Print what needs no other node. Returns the exit status."""
    from daemon.cli.terminal.doctor_text import doctor_text  # noqa: PLC0415
    from daemon.diagnosis.report import diagnose  # noqa: PLC0415

    diagnosis = diagnose(invocation.home, invocation.config, os.environ)
    if invocation.as_json:
        invocation.result(msgspec.json.encode(diagnosis).decode())
    else:
        width = shutil.get_terminal_size().columns
        invocation.result(doctor_text(diagnosis, invocation.color(sys.stdout), width))
    return BLOCKED_EXIT_CODE if diagnosis.is_blocked else 0
