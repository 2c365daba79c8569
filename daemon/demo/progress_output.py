"""Who watches a demo: a terminal gets the live view, anything else one plain line for each
certified round.

All of it is talk (stderr).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from daemon.cli.invocation import Invocation, is_terminal
from daemon.demo.result import round_line
from protocol.status import RoundSummary, Status


class ProgressOutput(Protocol):
    """What the demo tells while it runs."""

    def tell(self, line: str) -> None:
        """A sentence."""

    def certified(self, certified: RoundSummary, peers: int) -> None:
        """A round that was not told before."""

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        """Everything as it stands, several times a second."""

    def leave(self) -> None:
        """Nothing more will come."""


class PlainOutput:
    """Plain lines."""

    def __init__(self, talk: Invocation) -> None:
        self._talk = talk

    def tell(self, line: str) -> None:
        self._talk.say(line)

    def certified(self, certified: RoundSummary, peers: int) -> None:
        self._talk.say(round_line(certified, peers))

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        """Nothing: lines are for what stays true."""

    def leave(self) -> None:
        """Nothing is open."""


class LiveOutput:
    """The live view at the bottom of the terminal; sentences scroll past above it."""

    def __init__(self, color: bool) -> None:
        from rich.console import Console  # noqa: PLC0415  # 60 ms that plain lines do without
        from rich.live import Live  # noqa: PLC0415

        from daemon.demo.swarm_view import live_view  # noqa: PLC0415

        self._view = live_view
        self._console = Console(stderr=True, no_color=not color, _environ=_sized(os.environ))
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()

    def tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def certified(self, certified: RoundSummary, peers: int) -> None:
        """The view shows the rounds itself."""

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        self._live.update(self._view(statuses), refresh=True)

    def leave(self) -> None:
        self._live.stop()


def _sized(environ: Mapping[str, str]) -> dict[str, str]:
    """Without a size of 0, which rich believes and draws nothing in."""
    return {
        name: value
        for name, value in environ.items()
        if name not in ("COLUMNS", "LINES") or value.strip("0")
    }


@contextmanager
def open_output(talk: Invocation) -> Iterator[ProgressOutput]:
    """The one that fits where stderr goes."""
    seats: ProgressOutput = (
        LiveOutput(talk.color(sys.stderr))
        if is_terminal(sys.stderr) and not talk.quiet
        else PlainOutput(talk)
    )
    try:
        yield seats
    finally:
        seats.leave()
