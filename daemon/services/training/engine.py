"""Defines the port between the training service and its engines, and lists the engines."""

from __future__ import annotations

from typing import Protocol

import trio

from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.text.nearest import nearest

ENGINES = ("native", "hivemind")


class Engine(Protocol):
    """Runs a node's part in a run: it trains, averages with peers and keeps the state durable.

    `run` goes on until it is cancelled or `finish` is called, and leaves everything durable. The
    constructor registers the engine's protocols, so the network starts after it.
    """

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the engine; started when the node's state is in place and training begins."""

    async def hold(self, held: bool) -> None:
        """Pause training, or train again. The engine goes on taking part in rounds.

        Raises `UserError` where the engine cannot pause.
        """

    def finish(self) -> None:
        """Make what was learned durable and return from `run`."""


def check_engine(name: str) -> None:
    """Raise `UserError("ENGINE")` for an engine that this version does not have."""
    if name not in ENGINES:
        raise UserError(
            "ENGINE",
            f"Unknown engine {name!r} in the run's manifest.",
            why=f"this version has: {', '.join(ENGINES)}",
            fix=f'write engine = "{nearest(name, ENGINES) or ENGINES[0]}" in the run\'s file;'
            " in another owner's run, ask the owner which version of hypergpu it needs",
            exit_code=2,
        )
