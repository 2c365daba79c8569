"""`status` and `peers`: the daemon's status record as text, or as the JSON that it sent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
import msgspec

from daemon.cli.invocation import Invocation, global_options, invocation_of, is_terminal
from daemon.cli.terminal.columns import output_width
from daemon.cli.terminal.peers_text import peers_text
from daemon.cli.terminal.status_text import status_text
from daemon.control.client import call
from protocol.status import Status

# The daemon reports training progress at most twice a second.
WATCH_INTERVAL_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


class PeersResult(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a status that `peers --json` prints; each peer as the daemon sent it."""

    as_of: float
    peers: list[msgspec.Raw]


@click.command()
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@global_options(hidden=True)
@click.pass_context
def status(context: click.Context, watch: bool) -> None:
    """Show the verdict, this node, its run and its network."""
    _show(invocation_of(context), watch, status_text, lambda answer: answer)


@click.command()
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@global_options(hidden=True)
@click.pass_context
def peers(context: click.Context, watch: bool) -> None:
    """List the peers: path, round trip, round, last seen."""
    _show(
        invocation_of(context),
        watch,
        peers_text,
        lambda answer: msgspec.json.encode(msgspec.json.decode(answer, type=PeersResult)),
    )


Show = Callable[[Status, bool, int | None], str]
"""Renders a status as text: (status, with colours?, columns)."""


def _show(
    invocation: Invocation,
    watch: bool,
    text: Show,
    as_json: Callable[[bytes], bytes],
    every_s: float = WATCH_INTERVAL_S,
) -> None:
    color = invocation.color(sys.stdout)
    while True:
        answer = call(invocation.home, "status")
        if invocation.as_json:
            invocation.result(as_json(answer).decode())
        else:
            terminal = is_terminal(sys.stdout)
            clear = _HOME_AND_CLEAR if watch and terminal else ""
            width = output_width(terminal=terminal)
            invocation.result(
                clear + text(msgspec.json.decode(answer, type=Status), color, width).rstrip("\n")
            )
        if not watch:
            return
        time.sleep(every_s)
