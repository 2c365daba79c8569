"""The engine port: what the node needs of whatever does the averaging, and which engines there are."""

from __future__ import annotations

from typing import Protocol

import trio

from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.text.nearest import nearest

ENGINES = ("native", "hivemind")


class Engine(Protocol):
    """Runs a node's part in a run: training, exchanging, keeping what must survive.

    Guarantees: `run` goes on until cancelled or `finish` was called, and leaves everything durable.
    Registers its protocols when it is made, so it is made before the network starts.
    """

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started when the node's state is in place and training begins."""

    def finish(self) -> None:
        """Write a checkpoint of what was learned and return from `run`."""


def check_engine(name: str) -> None:
    """Raises `UserError("ENGINE")` for an engine that this version does not have."""
    if name not in ENGINES:
        raise UserError(
            "ENGINE",
            f"The run wants the engine {name!r}.",
            why=f"this version has: {', '.join(ENGINES)}",
            fix=f"write engine = \"{nearest(name, ENGINES) or ENGINES[0]}\" in the run's file; in a run of somebody else's, ask its owner which "
            "version of hypergpu it needs",
            exit_code=2,
        )
