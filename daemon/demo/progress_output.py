"""The progress of a demo on stderr: a live view on a terminal, plain lines elsewhere."""

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
    """Where a demo reports its progress."""

    def tell(self, line: str) -> None:
        """Print a sentence."""

    def certified(self, certified: RoundSummary, peers: int) -> None:
        """Report a newly certified round."""

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        """Show the statuses of all daemons. Called several times a second."""

    def close(self) -> None:
        """End the output."""


class PlainOutput:
    """One plain line for each sentence and each certified round."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def tell(self, line: str) -> None:
        self._invocation.say(line)

    def certified(self, certified: RoundSummary, peers: int) -> None:
        self._invocation.say(round_line(certified, peers))

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        """Do nothing: a line cannot be updated."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class LiveOutput:
    """The live view at the bottom of a terminal; sentences scroll above it."""

    def __init__(self, color: bool) -> None:
        # rich takes 60 ms, which plain lines do not need.
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415

        from daemon.demo.swarm_view import live_view  # noqa: PLC0415

        self._view = live_view
        self._console = Console(stderr=True, no_color=not color, _environ=_sized(os.environ))
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()

    def tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def certified(self, certified: RoundSummary, peers: int) -> None:
        """Do nothing: the view shows the rounds."""

    def show(self, statuses: Mapping[str, Status | None]) -> None:
        self._live.update(self._view(statuses), refresh=True)

    def close(self) -> None:
        self._live.stop()


def _sized(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without a size of 0, in which rich would draw nothing."""
    return {
        name: value
        for name, value in environ.items()
        if name not in ("COLUMNS", "LINES") or value.strip("0")
    }


@contextmanager
def open_output(invocation: Invocation) -> Iterator[ProgressOutput]:
    """The live view if stderr is a terminal, else plain lines."""
    output: ProgressOutput = (
        LiveOutput(invocation.color(sys.stderr))
        if is_terminal(sys.stderr) and not invocation.quiet
        else PlainOutput(invocation)
    )
    try:
        yield output
    finally:
        output.close()
