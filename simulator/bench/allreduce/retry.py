"""Restarts a group of peers that does not form, on new ports.

hivemind's matchmaking fails at times, above all on a busy machine. A benchmark that gave up at once
would lack its reference. One that waited on would measure nothing for minutes.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import Unreachable
from simulator.bench.allreduce.cell import Cell, CellRound

# New tries after the first one. Three failures in a row are a fault, not bad luck.
REGROUPS = 2


def start(cell: Cell, say: Callable[[str], None]) -> None:
    """Start a cell's peers. Raises `Unreachable` when they found each other in no try."""
    for again in range(REGROUPS + 1):
        try:
            cell.start()
            return
        except Unreachable as error:
            if again == REGROUPS:
                raise
            say(f"{cell.engine} {cell.codec} did not start, trying again on new ports: {error}")


def play(cell: Cell, say: Callable[[str], None]) -> CellRound:
    """Play one round, in which the peers may need several tries to find each other.

    Returns:
        The round. It is not `grouped` where no try formed a group.

    Raises:
        Unreachable: When a peer died or fell silent.
    """
    made = cell.round()
    for _ in range(REGROUPS):
        if made.grouped:
            break
        say(f"{cell.engine} {cell.codec}: {made.failure}, trying again on new ports")
        start(cell, say)
        made = cell.round()
    return made
